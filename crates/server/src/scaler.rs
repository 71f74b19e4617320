//! Following load: how many replicas functions have that are called.
//!
//! One task looks at functions every few seconds while they are called; [`pinnace_core::scaling`] decides. A
//! function that is not called is left alone, and rings when that changes ([`Marks`]): without calls nothing
//! is looked at and nobody is woken. The way of a call meets no more of it than one flag.
//!
//! What is decided here is nobody's wish. A deploy and a scale by hand are, and are kept for the next server
//! (`Deployments`); what the load makes of them is told to the provider alone. A new server therefore begins
//! with what was wished, and its calls do the rest.
//!
//! Replicas are added in one more way: calls that find all replicas full have the provider start more at
//! once, up to the most ([`crate::proxy::admission`]). That is told here by a mark, so that they are kept
//! while they are needed and given back afterwards.

mod marks;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pinnace_core::{
    FunctionRef,
    scaling::{Measure, Sample, Scaling},
};
use tokio::sync::mpsc;

pub use self::marks::{Bell, Marks};
use crate::{catalog::Entry, clock::now, deployments::Deployments, provider::Used};

/// Between two looks at the functions that are called (contract section 10 samples as often).
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Looks at functions that are called.
pub struct Scaler {
    deployments: Arc<Deployments>,
    rung: mpsc::UnboundedReceiver<FunctionRef>,
    watched: HashMap<FunctionRef, Watched>,
}

struct Watched {
    entry: Arc<Entry>,
    scaling: Scaling,
}

impl Scaler {
    /// A scaler of these functions, if there is none yet.
    #[must_use]
    pub fn new(deployments: Arc<Deployments>) -> Option<Self> {
        let rung = deployments.catalog.take_rung()?;
        Some(Self { deployments, rung, watched: HashMap::new() })
    }

    /// Scales until the catalog is no more.
    pub async fn run(mut self) {
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                id = self.rung.recv() => match id {
                    Some(id) => {
                        if self.watched.is_empty() {
                            tick.reset();
                        }
                        self.watch(id).await;
                    }
                    None => return,
                },
                _ = tick.tick(), if !self.watched.is_empty() => self.look().await,
            }
        }
    }

    /// Begins to look at a function, if load can change anything about it. Another deploy rings again.
    async fn watch(&mut self, id: FunctionRef) {
        let entry = self.deployments.catalog.get(&id).filter(|entry| follows_load(entry));
        let Some(entry) = entry else {
            self.watched.remove(&id);
            return;
        };
        let known = self.watched.get(&id);
        if known.is_some_and(|known| Arc::ptr_eq(&known.entry, &entry)) {
            return;
        }
        let used = self.used(vec![entry.clone()]).await;
        let sample = sample(&entry, &used);
        let scaling = Scaling::new(now(), sample, &entry.deployed().spec.scale);
        self.watched.insert(id, Watched { entry, scaling });
    }

    async fn look(&mut self) {
        let used = self.used(self.watched.values().map(|w| w.entry.clone()).collect()).await;
        let now = now();
        let mut decided = Vec::new();
        self.watched.retain(|id, watched| {
            if watched.entry.is_removed() {
                return false;
            }
            let sample = sample(&watched.entry, &used);
            decided.extend(watched.decide(now, sample).map(|replicas| (id.clone(), replicas)));
            !watched.goes_to_rest(now)
        });
        for (id, replicas) in decided {
            self.deployments.follow_load(&id, replicas).await;
        }
    }

    /// Processor time, of functions that are scaled by it.
    async fn used(&self, mut entries: Vec<Arc<Entry>>) -> HashMap<FunctionRef, Used> {
        entries.retain(|entry| entry.deployed().spec.scale.rules.measure == Measure::Cpu);
        if entries.is_empty() {
            return HashMap::new();
        }
        let provider = self.deployments.provider.clone();
        let wanted = entries.iter().map(|entry| entry.id.clone()).collect();
        // Files of the kernel are read, some for each replica.
        tokio::task::spawn_blocking(move || provider.used(Some(&wanted))).await.unwrap_or_default()
    }
}

impl Watched {
    fn decide(&mut self, now: Instant, sample: Sample) -> Option<u32> {
        let deployed = self.entry.deployed();
        let (scale, marks) = (&deployed.spec.scale, &self.entry.marks);
        let crowd = marks.take_crowd();
        if crowd > 0 {
            self.scaling.crowded(now, crowd);
        }
        self.scaling.observe(now, sample);
        let wanted = self.entry.standing().wanted;
        self.scaling.decide(now, scale, deployed.spec.concurrency, marks.floor(), wanted)
    }

    /// Whether it is left alone from now on. A call that comes meanwhile rings.
    fn goes_to_rest(&self, now: Instant) -> bool {
        let scale = &self.entry.deployed().spec.scale;
        // At zero there is nothing to decide.
        if self.entry.standing().wanted > 0 && !self.scaling.is_at_rest(now, scale) {
            return false;
        }
        self.entry.marks.rest();
        if self.entry.in_flight() > 0 {
            self.entry.marks.called(&self.entry.id);
        }
        true
    }
}

fn follows_load(entry: &Entry) -> bool {
    let spec = &entry.deployed().spec;
    let scale = &spec.scale;
    scale.min < scale.max && (scale.rules.measure != Measure::Nothing || spec.concurrency.is_some())
}

fn sample(entry: &Entry, used: &HashMap<FunctionRef, Used>) -> Sample {
    let counted = entry.stats.total();
    let succeeded = counted.answered.iter().find(|(status, _)| *status == 200);
    Sample {
        started: counted.started,
        succeeded: succeeded.map_or(0, |(_, durations)| durations.count),
        in_flight: entry.in_flight(),
        cpu_ns: used.get(&entry.id).map_or(0, |used| used.cpu_ns),
    }
}

#[cfg(test)]
pub mod fake;
#[cfg(test)]
mod tests;
