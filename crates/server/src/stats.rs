//! Counters of a function's calls, one set per worker so that counting is never contended.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Upper bounds of the duration histogram, in seconds: the default set of Prometheus clients
/// (contract section 11).
pub const BUCKETS_SECONDS: [f64; 11] =
    [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Counters of one function.
#[derive(Debug)]
pub struct Stats {
    workers: Box<[Mutex<Counted>]>,
}

/// What one worker counted, or the sum over workers.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Calls that arrived.
    pub started: u64,
    /// Calls that were answered, by status.
    pub answered: Vec<(u16, Durations)>,
}

/// How long calls of one status took.
#[derive(Clone, Debug, Default)]
pub struct Durations {
    /// Calls.
    pub count: u64,
    /// Their durations together, in seconds.
    pub sum_seconds: f64,
    /// Calls per bucket of [`BUCKETS_SECONDS`], each counted in its own bucket only.
    pub buckets: [u64; BUCKETS_SECONDS.len()],
}

impl Stats {
    /// Counters for so many workers. They take memory once a call is counted.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { workers: (0..workers.max(1)).map(|_| Mutex::default()).collect() }
    }

    /// Counts an arrival.
    pub fn started(&self, worker: usize) {
        self.worker(worker).started += 1;
    }

    /// Counts an answer.
    pub fn answered(&self, worker: usize, status: u16, took: Duration) {
        let mut counted = self.worker(worker);
        let found = counted.answered.iter().position(|(s, _)| *s == status);
        let at = found.unwrap_or_else(|| {
            counted.answered.push((status, Durations::default()));
            counted.answered.len() - 1
        });
        counted.answered[at].1.add(took.as_secs_f64());
    }

    /// The sum over workers.
    #[must_use]
    pub fn total(&self) -> Counted {
        let mut total = Counted::default();
        for worker in 0..self.workers.len() {
            total.merge(&self.worker(worker));
        }
        total.answered.sort_by_key(|(status, _)| *status);
        total
    }

    fn worker(&self, worker: usize) -> MutexGuard<'_, Counted> {
        self.workers[worker % self.workers.len()].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Calls answered, whatever the status.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answered.iter().map(|(_, durations)| durations.count).sum()
    }

    fn merge(&mut self, other: &Self) {
        self.started += other.started;
        for (status, durations) in &other.answered {
            match self.answered.iter_mut().find(|(s, _)| s == status) {
                Some((_, mine)) => mine.merge(durations),
                None => self.answered.push((*status, durations.clone())),
            }
        }
    }
}

impl Durations {
    /// Counts one more.
    pub fn add(&mut self, seconds: f64) {
        self.count += 1;
        self.sum_seconds += seconds;
        if let Some(bucket) = BUCKETS_SECONDS.iter().position(|upper| seconds <= *upper) {
            self.buckets[bucket] += 1;
        }
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_seconds += other.sum_seconds;
        for (mine, others) in self.buckets.iter_mut().zip(other.buckets) {
            *mine += others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_add_up() {
        let stats = Stats::new(2);
        stats.started(0);
        stats.started(1);
        stats.answered(0, 200, Duration::from_millis(7));
        stats.answered(1, 200, Duration::from_secs(20));
        stats.answered(1, 500, Duration::ZERO);
        let total = stats.total();
        assert_eq!((total.started, total.answers()), (2, 3));
        let (status, durations) = &total.answered[0];
        assert_eq!((*status, durations.count), (200, 2));
        assert_eq!(durations.buckets[1], 1, "7 ms is in the bucket up to 10 ms");
        assert_eq!(durations.buckets.iter().sum::<u64>(), 1, "20 s is beyond the last bucket");
    }
}
