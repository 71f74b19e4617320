//! Keeping as many replicas as are wanted, without hammering a function that fails.
//!
//! A [`Supervisor`] per function is told what its replicas do and is asked what to do next. Failures in
//! a row double the wait before the next start; a replica that served long enough clears them. A change
//! of the function, or of the number wanted, clears them too: the user has done something about it.

use std::time::{Duration, Instant};

use crate::{Exit, limits, spec::Scale};

/// Decides when replicas of one function are started and ended.
#[derive(Clone, Debug, Default)]
pub struct Supervisor {
    wanted: u32,
    failures_in_a_row: u32,
    start_not_before: Option<Instant>,
    last_failure: Option<Exit>,
}

/// Replicas that are there now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// Started, but without an accepted connection yet.
    pub starting: u32,
    /// Serving.
    pub ready: u32,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Start so many replicas now.
    Start(u32),
    /// Drain and end so many replicas.
    Stop(u32),
    /// Nothing before this time; ask again then.
    WaitUntil(Instant),
    /// Nothing until something happens.
    Settled,
}

impl Supervisor {
    /// A supervisor that wants so many replicas.
    #[must_use]
    pub fn new(wanted: u32) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Replicas wanted.
    #[must_use]
    pub fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Sets how many are wanted, and forgives failures if that is a change.
    pub fn want(&mut self, wanted: u32) {
        if self.wanted != wanted {
            self.wanted = wanted;
            self.forgive();
        }
    }

    /// Forgets failures: the function was changed.
    pub fn forgive(&mut self) {
        self.failures_in_a_row = 0;
        self.start_not_before = None;
        self.last_failure = None;
    }

    /// Failures since a replica last served long enough.
    #[must_use]
    pub fn failures_in_a_row(&self) -> u32 {
        self.failures_in_a_row
    }

    /// The failure that the present wait is for, and when it ends.
    #[must_use]
    pub fn failing(&self) -> Option<(&Exit, Instant)> {
        self.last_failure.as_ref().zip(self.start_not_before)
    }

    /// A replica serves: what failed before is repaired as far as anyone can see, though the next
    /// failure soon after still counts in the row.
    pub fn on_ready(&mut self) {
        self.start_not_before = None;
        self.last_failure = None;
    }

    /// A replica is gone. `served` is how long it was ready, if it ever was.
    pub fn on_gone(&mut self, now: Instant, exit: Exit, served: Option<Duration>) {
        if !exit.is_failure() {
            return;
        }
        if served.is_some_and(|served| served >= limits::RESTART_BACKOFF_FORGET) {
            self.failures_in_a_row = 0;
        }
        self.start_not_before = Some(now + backoff(self.failures_in_a_row));
        self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
        self.last_failure = Some(exit);
    }

    /// What to do now, given the replicas that are there.
    #[must_use]
    pub fn step(&self, now: Instant, census: Census) -> Step {
        let live = census.starting + census.ready;
        if live > self.wanted {
            return Step::Stop(live - self.wanted);
        }
        let room = limits::STARTS_PER_FUNCTION_MAX.saturating_sub(census.starting);
        let missing = (self.wanted - live).min(room);
        match self.start_not_before {
            _ if missing == 0 => Step::Settled,
            Some(time) if now < time => Step::WaitUntil(time),
            // After a failure one replica tries first; the others follow when it serves.
            Some(_) if census.starting > 0 => Step::Settled,
            Some(_) => Step::Start(1),
            None => Step::Start(missing),
        }
    }
}

/// When an idle function ends: never, or at a time.
///
/// `idle_since` is when its last call ended, or when it was deployed; calls under way make it not idle.
#[must_use]
pub fn zero_at(
    scale: &Scale,
    zero_by_default: bool,
    in_flight: u32,
    idle_since: Instant,
) -> Option<Instant> {
    let applies = scale.to_zero.unwrap_or(zero_by_default) && in_flight == 0;
    applies.then(|| idle_since + scale.zero_after)
}

fn backoff(failures_before: u32) -> Duration {
    let doubled = limits::RESTART_BACKOFF_MIN.saturating_mul(1 << failures_before.min(16));
    doubled.min(limits::RESTART_BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scaling::Rules;

    const CRASH: Exit = Exit::Code { code: 1 };

    fn census(starting: u32, ready: u32) -> Census {
        Census { starting, ready }
    }

    #[test]
    fn starts_what_is_missing_and_stops_what_is_too_much() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(3);
        assert_eq!(supervisor.step(now, census(0, 0)), Step::Start(3));
        assert_eq!(supervisor.step(now, census(2, 1)), Step::Settled);
        supervisor.want(1);
        assert_eq!(supervisor.step(now, census(1, 2)), Step::Stop(2));
        supervisor.want(limits::STARTS_PER_FUNCTION_MAX + 5);
        assert_eq!(
            supervisor.step(now, census(0, 0)),
            Step::Start(limits::STARTS_PER_FUNCTION_MAX)
        );
    }

    #[test]
    fn failures_double_the_wait_up_to_a_limit() {
        let mut now = Instant::now();
        let mut supervisor = Supervisor::new(1);
        let mut waits = Vec::new();
        for _ in 0..12 {
            supervisor.on_gone(now, CRASH, None);
            let Step::WaitUntil(time) = supervisor.step(now, census(0, 0)) else { panic!() };
            waits.push(time - now);
            now = time;
            assert_eq!(supervisor.step(now, census(0, 0)), Step::Start(1));
        }
        assert_eq!(waits[0], limits::RESTART_BACKOFF_MIN);
        assert_eq!(waits[1], limits::RESTART_BACKOFF_MIN * 2);
        assert_eq!(waits[11], limits::RESTART_BACKOFF_MAX);
    }

    #[test]
    fn a_replica_that_served_long_clears_the_row() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(1);
        for _ in 0..5 {
            supervisor.on_gone(now, CRASH, None);
        }
        supervisor.on_ready();
        supervisor.on_gone(now, CRASH, Some(limits::RESTART_BACKOFF_FORGET));
        let wait = Step::WaitUntil(now + limits::RESTART_BACKOFF_MIN);
        assert_eq!(supervisor.step(now, census(0, 0)), wait);
    }

    #[test]
    fn a_crash_soon_after_ready_still_counts() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(1);
        supervisor.on_gone(now, CRASH, None);
        supervisor.on_ready();
        supervisor.on_gone(now, CRASH, Some(Duration::from_millis(5)));
        let wait = Step::WaitUntil(now + limits::RESTART_BACKOFF_MIN * 2);
        assert_eq!(supervisor.step(now, census(0, 0)), wait);
    }

    #[test]
    fn stopping_is_no_failure_and_a_change_forgives() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(2);
        supervisor.on_gone(now, Exit::Stopped, None);
        assert_eq!(supervisor.step(now, census(0, 0)), Step::Start(2));
        supervisor.on_gone(now, CRASH, None);
        assert!(supervisor.failing().is_some());
        supervisor.forgive();
        assert_eq!(supervisor.step(now, census(0, 0)), Step::Start(2));
    }

    #[test]
    fn after_a_failure_one_replica_tries_first() {
        let now = Instant::now();
        let mut supervisor = Supervisor::new(3);
        supervisor.on_gone(now, CRASH, None);
        let later = now + limits::RESTART_BACKOFF_MIN;
        assert_eq!(supervisor.step(later, census(0, 0)), Step::Start(1));
        assert_eq!(supervisor.step(later, census(1, 0)), Step::Settled);
        supervisor.on_ready();
        assert_eq!(supervisor.step(later, census(0, 1)), Step::Start(2));
    }

    #[test]
    fn idleness_ends_only_who_asked_for_it() {
        let now = Instant::now();
        let zero_after = Duration::from_secs(60);
        let scale =
            |to_zero| Scale { min: 1, max: 2, to_zero, zero_after, rules: Rules::default() };
        assert_eq!(zero_at(&scale(None), false, 0, now), None);
        assert_eq!(zero_at(&scale(None), true, 0, now), Some(now + zero_after));
        assert_eq!(zero_at(&scale(Some(true)), false, 0, now), Some(now + zero_after));
        assert_eq!(zero_at(&scale(Some(false)), true, 0, now), None);
        assert_eq!(zero_at(&scale(Some(true)), false, 1, now), None, "a call is under way");
    }
}
