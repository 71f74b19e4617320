//! How many replicas a function's load asks for.
//!
//! A [`Scaling`] per function is told, every few seconds while there are calls, what was counted of it, and
//! says how many replicas there should be. It never says none: idleness does that elsewhere
//! ([`crate::supervision::zero_at`]). A number that somebody else has set holds until the load asks for more,
//! or asks for less than before.

mod rules;

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

pub use self::rules::{
    LABEL_DOWN_WINDOW, LABEL_FACTOR, LABEL_PROPORTION, LABEL_TARGET, LABEL_TYPE, Measure, Rules,
};
use crate::{limits, spec::Scale};

/// Calls per second are counted over this time (contract section 10).
const RPS_WINDOW: Duration = Duration::from_secs(30);

/// Calls under way are looked at over this time.
const CAPACITY_WINDOW: Duration = Duration::from_secs(45);

/// Processor time is counted over this time.
const CPU_WINDOW: Duration = Duration::from_secs(60);

/// A function is busy if over this time ...
const BUSY_WINDOW: Duration = Duration::from_secs(10);

/// ... it was called more than so many times per second with success ...
const BUSY_RPS: f64 = 5.0;

/// ... and that for so long.
const BUSY_FOR: Duration = Duration::from_secs(5);

/// While it stays busy it gets further replicas this often.
const BUSY_AGAIN: Duration = Duration::from_secs(30);

/// The longest of the windows.
const WINDOW_MAX: Duration = CPU_WINDOW;

/// What was counted of a function up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Calls that arrived, ever.
    pub started: u64,
    /// Calls that were answered with 200, ever.
    pub succeeded: u64,
    /// Calls under way, those that wait for a replica too.
    pub in_flight: u32,
    /// Processor time of its replicas, ever, in nanoseconds. Zero where nobody needs it.
    pub cpu_ns: u64,
}

/// Decides how many replicas one function has.
#[derive(Clone, Debug)]
pub struct Scaling {
    samples: VecDeque<(Instant, Sample)>,
    /// What was recommended lately.
    recommended: VecDeque<(Instant, u32)>,
    /// What was advised last.
    advised: u32,
    busy: Option<Busy>,
    /// Replicas that calls asked for which found all others full, and when.
    crowd: Option<(Instant, u32)>,
    last_activity: Instant,
}

/// Of a function that is called often.
#[derive(Clone, Copy, Debug)]
struct Busy {
    since: Instant,
    /// When it gets further replicas.
    next: Instant,
    replicas: u32,
}

impl Scaling {
    /// Of a function that was at rest until now, when this had been counted.
    #[must_use]
    pub fn new(now: Instant, counted: Sample, scale: &Scale) -> Self {
        let at_rest = Sample { in_flight: 0, ..counted };
        Self {
            samples: VecDeque::from([(now, at_rest)]),
            recommended: VecDeque::new(),
            advised: scale.min,
            busy: None,
            crowd: None,
            last_activity: now,
        }
    }

    /// So much was counted up to now.
    pub fn observe(&mut self, now: Instant, sample: Sample) {
        let before = self.samples.back().map(|(_, before)| before.started);
        if sample.in_flight > 0 || before != Some(sample.started) {
            self.last_activity = now;
        }
        self.samples.push_back((now, sample));
        // One is kept from before the window, to count from.
        while self.samples.get(1).is_some_and(|(at, _)| is_past(*at, now, WINDOW_MAX)) {
            self.samples.pop_front();
        }
    }

    /// Calls found all replicas full; there are so many now for it.
    pub fn crowded(&mut self, now: Instant, replicas: u32) {
        self.crowd = Some((now, replicas));
        self.advised = self.advised.max(replicas);
        self.last_activity = now;
    }

    /// How many replicas there should be, if not as many as are `wanted`. `floor` is what an alert asks for,
    /// `concurrency` how many calls one replica takes at once.
    pub fn decide(
        &mut self,
        now: Instant,
        scale: &Scale,
        concurrency: Option<u32>,
        floor: u32,
        wanted: u32,
    ) -> Option<u32> {
        if wanted == 0 || scale.min == scale.max {
            return None;
        }
        let by_load = self.by_load(now, scale, wanted);
        let by_need = concurrency.map_or(0, |concurrency| self.by_need(now, concurrency));
        let settled = self.settled(now, by_load.max(by_need), scale.rules.down_window);
        let advised = settled.max(floor).clamp(scale.min, scale.max);
        let before = std::mem::replace(&mut self.advised, advised);
        (advised > wanted || (advised < wanted && advised < before)).then_some(advised)
    }

    /// Whether there were no calls for so long that they change nothing any more.
    #[must_use]
    pub fn is_at_rest(&self, now: Instant, scale: &Scale) -> bool {
        is_past(self.last_activity, now, WINDOW_MAX + scale.rules.down_window)
    }

    fn by_load(&mut self, now: Instant, scale: &Scale, wanted: u32) -> u32 {
        let rules = &scale.rules;
        let load = match rules.measure {
            Measure::Nothing => return 0,
            Measure::Busy => return self.by_busyness(now, scale, wanted),
            Measure::Rps => self.rate(now, RPS_WINDOW, |sample| sample.started),
            Measure::Capacity => f64::from(self.peak(now)),
            Measure::Cpu => self.rate(now, CPU_WINDOW, |sample| sample.cpu_ns) / 1e6,
        };
        replicas_for(load / (rules.target * rules.proportion))
    }

    fn by_busyness(&mut self, now: Instant, scale: &Scale, wanted: u32) -> u32 {
        if self.rate(now, BUSY_WINDOW, |sample| sample.succeeded) <= BUSY_RPS {
            self.busy = None;
            return scale.min;
        }
        let first = Busy { since: now, next: now, replicas: scale.min };
        let busy = self.busy.get_or_insert(first);
        if is_past(busy.since, now, BUSY_FOR) && busy.next <= now {
            busy.replicas = on_alert(scale, wanted, true);
            busy.next = now + BUSY_AGAIN;
        }
        busy.replicas
    }

    /// Replicas that the calls of late would have filled.
    fn by_need(&self, now: Instant, concurrency: u32) -> u32 {
        let crowd = self.crowd.filter(|(at, _)| !is_past(*at, now, CAPACITY_WINDOW));
        let crowd = crowd.map_or(0, |(_, replicas)| replicas);
        self.peak(now).div_ceil(concurrency.max(1)).max(crowd)
    }

    /// The highest recommendation within the window.
    fn settled(&mut self, now: Instant, recommended: u32, window: Duration) -> u32 {
        self.recommended.push_back((now, recommended));
        while self.recommended.front().is_some_and(|(at, _)| is_past(*at, now, window))
            && self.recommended.len() > 1
        {
            self.recommended.pop_front();
        }
        self.recommended.iter().map(|(_, replicas)| *replicas).max().unwrap_or(recommended)
    }

    /// How much a counter grows per second. Before the first sample it stood still.
    fn rate(&self, now: Instant, window: Duration, counter: impl Fn(&Sample) -> u64) -> f64 {
        let newest = self.samples.back().map_or(0, |(_, sample)| counter(sample));
        let before = self.samples.iter().rev().find(|(at, _)| is_past(*at, now, window));
        let before = before.or(self.samples.front()).map_or(0, |(_, sample)| counter(sample));
        newest.saturating_sub(before) as f64 / window.as_secs_f64()
    }

    fn peak(&self, now: Instant) -> u32 {
        let late = self.samples.iter().filter(|(at, _)| !is_past(*at, now, CAPACITY_WINDOW));
        late.map(|(_, sample)| sample.in_flight).max().unwrap_or(0)
    }
}

/// How many replicas there are after an alert of a function that has `wanted` (contract section 4.11). One
/// that fires adds a step, in percent of the most; one that is resolved, or a step of none, asks for the least.
#[must_use]
pub fn on_alert(scale: &Scale, wanted: u32, is_firing: bool) -> u32 {
    let step = (u64::from(scale.max) * u64::from(scale.rules.factor_percent)).div_ceil(100);
    let step = u32::try_from(step).unwrap_or(u32::MAX);
    if !is_firing || step == 0 {
        return scale.min;
    }
    wanted.saturating_add(step).clamp(scale.min, scale.max)
}

fn replicas_for(replicas: f64) -> u32 {
    // Of a load that is a whole multiple of the target, rounding must not make one replica more.
    let replicas = (replicas - 1e-9).ceil().max(0.0);
    // Saturates.
    replicas.min(f64::from(limits::REPLICAS_PER_FUNCTION_MAX)) as u32
}

fn is_past(at: Instant, now: Instant, window: Duration) -> bool {
    now.saturating_duration_since(at) >= window
}

#[cfg(test)]
mod tests;
