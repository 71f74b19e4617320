//! What replicas use, from their control groups.
//!
//! The kernel's files are read without holding anything that a start needs.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use pinnace_core::{FunctionRef, wire::Usage};

use super::Ground;
use crate::{clock::now, provider::Used};

/// Processor time is told as a mean over at least so long: over less it is chance.
const MEAN_OVER_MIN: Duration = Duration::from_secs(1);

/// Processor time of a function's replicas, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Of those that have ended.
    ended_ns: u64,
    /// The most that was told of all. While a replica ends there is a moment in which nobody counts it.
    told_ns: u64,
}

/// Processor time of one replica, between two looks.
#[derive(Clone, Copy, Debug)]
pub struct CpuSeen {
    cpu_ns: u64,
    at: Instant,
    millicores: f64,
}

impl CpuSeen {
    /// Of a replica that has used nothing yet.
    #[must_use]
    pub fn new(at: Instant) -> Self {
        Self { cpu_ns: 0, at, millicores: 0.0 }
    }

    /// The mean since the last look, in thousandths of a processor; the last mean if that was just now.
    fn look(&mut self, cpu_ns: u64, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.at);
        if passed >= MEAN_OVER_MIN {
            let used = cpu_ns.saturating_sub(self.cpu_ns) as f64;
            let millicores = used / passed.as_nanos() as f64 * 1000.0;
            *self = Self { cpu_ns, at: now, millicores };
        }
        self.millicores
    }
}

impl Ground {
    /// What these functions, or all that have replicas, have used and use.
    pub(super) fn used(&self, wanted: Option<&HashSet<FunctionRef>>) -> HashMap<FunctionRef, Used> {
        let is_wanted = |function: &FunctionRef| wanted.is_none_or(|w| w.contains(function));
        let mut used: HashMap<FunctionRef, Used> = HashMap::new();
        for (function, _, slot) in self.groups(is_wanted) {
            let Some(now) = self.cgroups.usage(&slot) else { continue };
            let sum = used.entry(function).or_default();
            sum.cpu_ns = sum.cpu_ns.saturating_add(now.cpu_ns);
            sum.memory_bytes = sum.memory_bytes.saturating_add(now.memory_bytes);
        }
        for (function, spent) in self.spent().iter_mut().filter(|(known, _)| is_wanted(known)) {
            let lives = used.get(function).map_or(0, |used| used.cpu_ns);
            spent.told_ns = spent.told_ns.max(spent.ended_ns.saturating_add(lives));
            if spent.told_ns > 0 {
                used.entry(function.clone()).or_default().cpu_ns = spent.told_ns;
            }
        }
        used
    }

    /// What a function's replicas use now: processor time as the mean since it was last asked for, or since
    /// they were started.
    pub(super) fn usage(&self, function: &FunctionRef) -> Usage {
        let mut sum = Usage::default();
        for (_, replica, slot) in self.groups(|known| known == function) {
            let Some(used) = self.cgroups.usage(&slot) else { continue };
            sum.total_memory_bytes += used.memory_bytes as f64;
            if let Some(life) = self.lives().get_mut(&replica) {
                sum.cpu += life.cpu_seen.look(used.cpu_ns, now());
            }
        }
        sum
    }

    /// Function, id and control group of each replica.
    fn groups(
        &self,
        is_wanted: impl Fn(&FunctionRef) -> bool,
    ) -> Vec<(FunctionRef, String, String)> {
        let lives = self.lives();
        let wanted = lives.iter().filter(|(_, life)| is_wanted(&life.function));
        wanted.map(|(id, life)| (life.function.clone(), id.clone(), life.slot.clone())).collect()
    }

    /// A replica is taken over: what it has used until now was before anybody asks.
    pub(super) fn note_adoption(&self, id: &str) {
        let slot = self.lives().get(id).map(|life| life.slot.clone());
        let used = slot.and_then(|slot| self.cgroups.usage(&slot));
        if let Some((used, life)) = used.zip(self.lives().get_mut(id)) {
            life.cpu_seen.cpu_ns = used.cpu_ns;
        }
    }

    /// A replica has ended: what it has used is kept while its function is deployed.
    pub(super) fn note_end(&self, id: &str) {
        let life = self.lives().get(id).map(|life| (life.function.clone(), life.slot.clone()));
        let Some((function, slot)) = life else { return };
        let Some(used) = self.cgroups.usage(&slot) else { return };
        if let Some(spent) = self.spent().get_mut(&function) {
            spent.ended_ns = spent.ended_ns.saturating_add(used.cpu_ns);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_a_mean_over_a_second_at_least() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut seen = CpuSeen::new(start);
        assert!((seen.look(500_000_000, after(1000)) - 500.0).abs() < 1e-6, "since its start");
        assert!((seen.look(900_000_000, after(1001)) - 500.0).abs() < 1e-6, "too soon");
        assert!((seen.look(4_500_000_000, after(3000)) - 2000.0).abs() < 1e-6);
        assert!(seen.look(4_500_000_000, after(9000)).abs() < 1e-6);
    }
}
