//! How many sandboxes are made ahead, and when.
//!
//! A [`SlotStock`] is told of every start and of what became of every slot, and says what to do next. Making
//! a slot disturbs starts that are under way (the kernel's locks of cgroups and network devices are the
//! host's), so that it waits for a moment of quiet. How many are kept follows what was needed: as many as
//! were started in one go lately, between a least and a most.

use std::time::{Duration, Instant};

/// Slots that are kept however few are needed.
const KEPT_MIN: usize = 4;

/// How long after a start the making of another slot waits.
const QUIET: Duration = Duration::from_millis(10);

/// How long it waits at most if starts never pause.
const QUIET_WAIT_MAX: Duration = Duration::from_millis(100);

/// Starts further apart are not of one burst.
const BURST_PAUSE: Duration = Duration::from_millis(250);

/// How long the stock stays as large as a burst has made it; then it is halved, again and again.
const BURST_REMEMBERED: Duration = Duration::from_secs(10 * 60);

/// Wait after the first failure to make a slot; doubled at each further one.
const RETRY_MIN: Duration = Duration::from_millis(500);

/// Longest such wait.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Decides how many slots there are to be.
#[derive(Clone, Debug)]
pub struct SlotStock {
    most: usize,
    target: usize,
    ready: usize,
    making: bool,
    /// Starts one soon after the other, since the stock was last full.
    burst: usize,
    /// When the stock was last as low as its size allows for.
    target_needed: Instant,
    last_start: Option<Instant>,
    short_since: Option<Instant>,
    failures_in_a_row: u32,
    not_before: Option<Instant>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlotStep {
    /// Begin to make a slot.
    Make,
    /// Give a ready slot up.
    Retire,
    /// Nothing before this time; ask again then.
    WaitUntil(Instant),
    /// Nothing until something happens.
    Settled,
}

impl SlotStock {
    /// An empty stock of at most so many slots; none are made if that is 0.
    #[must_use]
    pub fn new(most: usize, now: Instant) -> Self {
        Self {
            most,
            target: KEPT_MIN.min(most),
            ready: 0,
            making: false,
            burst: 0,
            target_needed: now,
            last_start: None,
            short_since: None,
            failures_in_a_row: 0,
            not_before: None,
        }
    }

    /// A sandbox is started, in a ready slot if there is one.
    pub fn started(&mut self, now: Instant) {
        let last = self.last_start.replace(now);
        if last.is_some_and(|last| now.saturating_duration_since(last) > BURST_PAUSE) {
            self.burst = 0;
        }
        self.ready = self.ready.saturating_sub(1);
        self.burst += 1;
        if self.burst >= self.target {
            self.target = self.burst.clamp(KEPT_MIN.min(self.most), self.most);
            self.target_needed = now;
        }
    }

    /// The slot that was begun is ready.
    pub fn made(&mut self) {
        self.making = false;
        self.ready += 1;
        self.failures_in_a_row = 0;
        self.not_before = None;
        if self.ready >= self.target {
            self.burst = 0;
        }
    }

    /// The slot that was begun could not be made.
    pub fn failed(&mut self, now: Instant) {
        self.making = false;
        let doubled = RETRY_MIN.saturating_mul(2u32.saturating_pow(self.failures_in_a_row));
        self.not_before = Some(now + doubled.min(RETRY_MAX));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
    }

    /// A ready slot is no more, without having been taken.
    pub fn lost(&mut self) {
        self.ready = self.ready.saturating_sub(1);
    }

    /// What to do now. A [`SlotStep::Make`] counts as begun, a [`SlotStep::Retire`] as done.
    pub fn step(&mut self, now: Instant) -> SlotStep {
        self.shrink(now);
        if self.ready > self.target {
            self.ready -= 1;
            return SlotStep::Retire;
        }
        if self.making || self.ready == self.target {
            self.short_since = None;
            let least = KEPT_MIN.min(self.most);
            return match self.making || self.target <= least {
                true => SlotStep::Settled,
                false => SlotStep::WaitUntil(self.target_needed + BURST_REMEMBERED),
            };
        }
        let since = *self.short_since.get_or_insert(now);
        let quiet = self.last_start.map(|start| (start + QUIET).min(since + QUIET_WAIT_MAX));
        match quiet.max(self.not_before) {
            Some(time) if now < time => SlotStep::WaitUntil(time),
            _ => {
                self.making = true;
                SlotStep::Make
            }
        }
    }

    fn shrink(&mut self, now: Instant) {
        let least = KEPT_MIN.min(self.most);
        while self.target > least && now >= self.target_needed + BURST_REMEMBERED {
            self.target = (self.target / 2).max(least);
            self.target_needed += BURST_REMEMBERED;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes all that the stock asks for, at once; answers when it next wants to be asked.
    fn fill(stock: &mut SlotStock, mut now: Instant) -> (usize, Instant) {
        let mut made = 0;
        loop {
            match stock.step(now) {
                SlotStep::Make => {
                    stock.made();
                    made += 1;
                }
                SlotStep::WaitUntil(time) if time <= now + QUIET_WAIT_MAX => now = time,
                SlotStep::Retire => panic!("there are not too many"),
                SlotStep::WaitUntil(_) | SlotStep::Settled => return (made, now),
            }
        }
    }

    #[test]
    fn a_few_are_made_one_after_the_other() {
        let now = Instant::now();
        let mut stock = SlotStock::new(32, now);
        assert_eq!(stock.step(now), SlotStep::Make);
        assert_eq!(stock.step(now), SlotStep::Settled, "one at a time");
        stock.made();
        assert_eq!(fill(&mut stock, now).0, KEPT_MIN - 1);
        assert_eq!(fill(&mut SlotStock::new(2, now), now).0, 2);
        assert_eq!(SlotStock::new(0, now).step(now), SlotStep::Settled);
    }

    #[test]
    fn starts_are_left_alone_but_not_for_ever() {
        let begin = Instant::now();
        let mut stock = SlotStock::new(32, begin);
        fill(&mut stock, begin);
        stock.started(begin);
        assert_eq!(stock.step(begin), SlotStep::WaitUntil(begin + QUIET));
        assert_eq!(stock.step(begin + QUIET), SlotStep::Make);
        stock.made();
        let mut now = begin + QUIET;
        let made = loop {
            now += QUIET / 2;
            stock.started(now);
            if stock.step(now) == SlotStep::Make {
                break now;
            }
        };
        assert!(made - begin <= QUIET_WAIT_MAX + 2 * QUIET, "{:?}", made - begin);
    }

    #[test]
    fn a_burst_is_remembered_for_a_while() {
        let begin = Instant::now();
        let mut stock = SlotStock::new(32, begin);
        fill(&mut stock, begin);
        for _ in 0..100 {
            stock.started(begin);
        }
        let (made, now) = fill(&mut stock, begin);
        assert_eq!(made, 32, "as many as there may be");
        assert_eq!(stock.step(now), SlotStep::WaitUntil(begin + BURST_REMEMBERED));
        let later = begin + BURST_REMEMBERED;
        let retired = std::iter::from_fn(|| Some(stock.step(later)))
            .take_while(|step| *step == SlotStep::Retire)
            .count();
        assert_eq!(retired, 16);
        assert_eq!(stock.step(later), SlotStep::WaitUntil(later + BURST_REMEMBERED));
        // Single starts do not make it grow, also if nothing can be made meanwhile.
        let mut now = later + 10 * BURST_REMEMBERED;
        while stock.step(now) == SlotStep::Retire {}
        for _ in 0..100 {
            stock.started(now);
            now = fill(&mut stock, now).1;
        }
        for _ in 0..100 {
            now += 2 * BURST_PAUSE;
            stock.started(now);
        }
        assert_eq!((stock.ready, stock.target), (0, KEPT_MIN));
    }

    #[test]
    fn failures_are_waited_out_longer_and_longer() {
        let mut now = Instant::now();
        let mut stock = SlotStock::new(32, now);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(stock.step(now), SlotStep::Make);
            stock.failed(now);
            let SlotStep::WaitUntil(time) = stock.step(now) else { panic!("no wait") };
            waits.push(time - now);
            now = time;
        }
        assert_eq!((waits[0], waits[1], waits[8]), (RETRY_MIN, RETRY_MIN * 2, RETRY_MAX));
        assert_eq!(stock.step(now), SlotStep::Make);
        stock.made();
        assert_eq!(stock.step(now), SlotStep::Make, "a success clears them");
        stock.made();
        stock.lost();
        assert_eq!(fill(&mut stock, now).0, KEPT_MIN - 1);
    }
}
