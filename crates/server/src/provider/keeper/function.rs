//! One function's replicas, and the step from what is there to what is wanted.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use pinnace_core::{
    Exit,
    supervision::{Census, Step, Supervisor, zero_at},
    wire::RolloutPhase,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{Adopted, Event, Runtime};
use crate::{
    catalog::{Deployed, Entry, Standing},
    replica::Replica,
};

/// Failures in a row after which calls are refused even though the function has served before.
const REFUSE_AFTER_FAILURES: u32 = 3;

/// What is known of one function.
pub(super) struct Function {
    pub(super) deployed: Arc<Deployed>,
    entry: Arc<Entry>,
    supervisor: Supervisor,
    copies: BTreeMap<String, Copy>,
    workers: usize,
    has_served: bool,
    last_failure: Option<String>,
    /// What is done so that a replica can start.
    preparing: Option<String>,
    wanted_since: Instant,
    due: Option<Instant>,
    removed: bool,
}

struct Copy {
    revision: u64,
    phase: Phase,
}

enum Phase {
    Starting,
    Ready(Arc<Replica>),
    /// It has served, and may again.
    Unready(Arc<Replica>),
    Stopping,
}

/// What is to be done elsewhere.
#[derive(Default)]
pub(super) struct Orders {
    pub(super) start: Vec<String>,
    pub(super) stop: Vec<Stopping>,
}

/// A replica on its way out.
pub(super) struct Stopping {
    replica: String,
    serving: Option<Arc<Replica>>,
    pub(super) grace: Duration,
}

impl Stopping {
    /// Lets calls under way finish, but not for ever, then stops the replica.
    pub(super) async fn drain_and_stop(self, runtime: Arc<dyn Runtime>, drain: Duration) {
        if let Some(serving) = self.serving
            && tokio::time::timeout(drain, serving.drain()).await.is_err()
        {
            let (replica, calls) = (&self.replica, serving.in_flight());
            tracing::warn!(%replica, calls, ?drain, "stopped although calls were under way");
        }
        runtime.stop(&self.replica, self.grace);
    }
}

impl Function {
    pub(super) fn new(
        entry: Arc<Entry>,
        deployed: Arc<Deployed>,
        wanted: u32,
        workers: usize,
        now: Instant,
    ) -> Self {
        Self {
            deployed,
            entry,
            supervisor: Supervisor::new(wanted),
            copies: BTreeMap::new(),
            workers,
            has_served: false,
            last_failure: None,
            preparing: None,
            wanted_since: now,
            due: None,
            removed: false,
        }
    }

    /// A new deploy: replicas of older ones serve until the new ones do.
    pub(super) fn deploy(
        &mut self,
        entry: &Arc<Entry>,
        deployed: Arc<Deployed>,
        wanted: u32,
        now: Instant,
    ) {
        self.entry = entry.clone();
        self.deployed = deployed;
        self.supervisor = Supervisor::new(wanted);
        self.has_served = false;
        self.last_failure = None;
        self.preparing = None;
        self.wanted_since = now;
        self.removed = false;
    }

    /// Replicas that run already; they report when they serve.
    pub(super) fn adopt(&mut self, adopted: Vec<Adopted>) {
        for Adopted { replica, revision } in adopted {
            self.copies.insert(replica, Copy { revision, phase: Phase::Starting });
        }
    }

    pub(super) fn want(&mut self, replicas: u32, now: Instant) {
        self.supervisor.want(replicas);
        self.wanted_since = now;
        self.entry.heard_call();
    }

    /// A call found no replica, or all of them full.
    pub(super) fn called(&mut self, now: Instant) {
        if self.removed {
            return;
        }
        let (scale, wanted) = (&self.deployed.spec.scale, self.supervisor.wanted());
        let needed = self.needed().clamp(scale.min, scale.max);
        if wanted == 0 {
            self.supervisor.want(needed);
            self.wanted_since = now;
        } else if needed > wanted
            && self.census().starting == 0
            && self.supervisor.failing().is_none()
        {
            tracing::info!(function = %self.entry.id, replicas = needed, "all replicas are full");
            self.supervisor.want(needed);
            self.entry.marks.crowded(needed);
        } else if needed <= wanted && wanted < scale.max {
            // There was room again; the next call that finds none is to be heard.
            self.entry.heard_call();
        }
    }

    /// Replicas that the calls under way would fill, those that wait among them.
    fn needed(&self) -> u32 {
        let concurrency = self.deployed.spec.concurrency;
        concurrency.map_or(1, |concurrency| self.entry.in_flight().div_ceil(concurrency))
    }

    pub(super) fn remove(&mut self) {
        self.supervisor.want(0);
        self.removed = true;
    }

    /// Whether it was removed and its last replica has gone.
    pub(super) fn is_over(&self) -> bool {
        self.removed && self.copies.is_empty()
    }

    /// When it wants to be looked at again though nothing happens.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether any replica of it is to run.
    pub(super) fn is_wanted(&self) -> bool {
        self.supervisor.wanted() > 0
    }

    pub(super) fn is_idle(&self, now: Instant, by_default: bool) -> bool {
        if !self.is_wanted() {
            return false;
        }
        let since = self.entry.idle_since().max(self.wanted_since);
        zero_at(&self.deployed.spec.scale, by_default, self.entry.in_flight(), since)
            .is_some_and(|end| end <= now)
    }

    pub(super) fn report(&mut self, replica: &str, event: Event, now: Instant) {
        let Some(copy) = self.copies.get_mut(replica) else { return };
        let is_current = copy.revision == self.deployed.revision;
        match event {
            Event::Preparing(told) => {
                if is_current && matches!(copy.phase, Phase::Starting) {
                    self.preparing = Some(told);
                }
            }
            Event::Unready(told) => {
                let Phase::Ready(ready) = &copy.phase else { return };
                tracing::warn!(function = %self.entry.id, %replica, "not ready: {told}");
                copy.phase = Phase::Unready(ready.clone());
                if is_current {
                    self.preparing = Some(format!("replica {replica} is not ready: {told}"));
                }
            }
            Event::Ready(endpoint) => {
                if let Phase::Unready(replica) = &copy.phase {
                    copy.phase = Phase::Ready(replica.clone());
                    if is_current {
                        self.preparing = None;
                    }
                } else if matches!(copy.phase, Phase::Starting) {
                    let spec = &self.deployed.spec;
                    let (id, revision) = (replica.to_owned(), copy.revision);
                    let ready = Replica::new(id, revision, endpoint, spec, self.workers);
                    copy.phase = Phase::Ready(Arc::new(ready));
                    if is_current {
                        self.preparing = None;
                        self.supervisor.on_ready();
                        self.has_served = true;
                    }
                }
            }
            Event::Gone(exit) => {
                let Some(copy) = self.copies.remove(replica) else { return };
                if is_current {
                    self.preparing = None;
                }
                self.note_end(replica, &copy, exit, is_current, now);
            }
        }
    }

    fn note_end(&mut self, replica: &str, copy: &Copy, exit: Exit, is_current: bool, now: Instant) {
        if matches!(copy.phase, Phase::Stopping) {
            return;
        }
        let served = match &copy.phase {
            Phase::Ready(ready) | Phase::Unready(ready) => {
                Some(now.saturating_duration_since(ready.ready_at))
            }
            _ => None,
        };
        if !exit.is_failure() {
            return;
        }
        let function = self.entry.id.to_string();
        tracing::warn!(%function, %replica, "replica {exit}");
        let when = OffsetDateTime::now_utc().truncate_to_second();
        let when = when.format(&Rfc3339).unwrap_or_default();
        self.last_failure = Some(format!("replica {replica} {exit} (at {when})"));
        if is_current {
            self.supervisor.on_gone(now, exit, served);
        }
    }

    /// Decides what to do now, and says how the function stands.
    pub(super) fn step(&mut self, now: Instant) -> Orders {
        let mut orders = Orders::default();
        self.due = None;
        match self.supervisor.step(now, self.census()) {
            Step::Start(count) => {
                for _ in 0..count {
                    orders.start.push(self.begin());
                }
            }
            Step::Stop(count) => self.stop_current(count, &mut orders),
            Step::WaitUntil(time) => self.due = Some(time),
            Step::Settled => {}
        }
        self.stop_older(&mut orders);
        self.publish(now);
        orders
    }

    fn census(&self) -> Census {
        let mut census = Census::default();
        for copy in self.copies.values().filter(|c| c.revision == self.deployed.revision) {
            match copy.phase {
                Phase::Starting | Phase::Unready(_) => census.starting += 1,
                Phase::Ready(_) => census.ready += 1,
                Phase::Stopping => {}
            }
        }
        census
    }

    fn begin(&mut self) -> String {
        let replica = replica_name(self.entry.id.name());
        let copy = Copy { revision: self.deployed.revision, phase: Phase::Starting };
        self.copies.insert(replica.clone(), copy);
        replica
    }

    /// Stops replicas of the present revision: those that do not serve yet first, then the least busy.
    fn stop_current(&mut self, count: u32, orders: &mut Orders) {
        let busy = |copy: &Copy| match &copy.phase {
            Phase::Ready(replica) => 1 + u64::from(replica.in_flight()),
            _ => 0,
        };
        let mut candidates: Vec<(u64, String)> = self
            .copies
            .iter()
            .filter(|(_, copy)| copy.revision == self.deployed.revision)
            .filter(|(_, copy)| !matches!(copy.phase, Phase::Stopping))
            .map(|(id, copy)| (busy(copy), id.clone()))
            .collect();
        candidates.sort();
        for (_, id) in candidates.into_iter().take(count as usize) {
            self.stop(&id, orders);
        }
    }

    /// Stops replicas of older revisions as far as new ones have taken over.
    fn stop_older(&mut self, orders: &mut Orders) {
        let kept = self.supervisor.wanted().saturating_sub(self.census().ready) as usize;
        let older = |copy: &Copy| copy.revision != self.deployed.revision;
        let serving: Vec<String> = self
            .copies
            .iter()
            .filter(|(_, copy)| older(copy) && matches!(copy.phase, Phase::Ready(_)))
            .map(|(id, _)| id.clone())
            .collect();
        let starting: Vec<String> = self
            .copies
            .iter()
            .filter(|(_, copy)| older(copy) && matches!(copy.phase, Phase::Starting))
            .map(|(id, _)| id.clone())
            .collect();
        for id in starting.iter().chain(serving.iter().skip(kept)) {
            self.stop(id, orders);
        }
    }

    fn stop(&mut self, id: &str, orders: &mut Orders) {
        let Some(copy) = self.copies.get_mut(id) else { return };
        let serving = match std::mem::replace(&mut copy.phase, Phase::Stopping) {
            Phase::Ready(replica) | Phase::Unready(replica) => Some(replica),
            _ => None,
        };
        let grace = self.deployed.spec.grace;
        orders.stop.push(Stopping { replica: id.to_owned(), serving, grace });
    }

    fn publish(&self, now: Instant) {
        let ready: Vec<Arc<Replica>> = self
            .copies
            .values()
            .filter_map(|copy| match &copy.phase {
                Phase::Ready(replica) => Some(replica.clone()),
                _ => None,
            })
            .collect();
        let same = {
            let shown = self.entry.ready();
            shown.len() == ready.len() && shown.iter().zip(&ready).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        if !same {
            self.entry.set_ready(ready);
        }
        let standing = self.standing(now);
        if *self.entry.standing() != standing {
            self.entry.set_standing(standing);
        }
    }

    fn standing(&self, now: Instant) -> Standing {
        let wanted = self.supervisor.wanted();
        let census = self.census();
        let older = self.copies.values().any(|copy| {
            copy.revision != self.deployed.revision && matches!(copy.phase, Phase::Ready(_))
        });
        let failing = self.supervisor.failing().zip(self.last_failure.as_ref());
        let failing = failing.map(|((_, next), why)| (why.clone(), next));
        let previous = if older { "; the previous revision still serves" } else { "" };
        let (phase, message) = match &failing {
            _ if wanted == 0 => {
                (RolloutPhase::Ready, "scaled to zero; the next call starts it".to_owned())
            }
            Some((why, _)) if !self.has_served => {
                let now = self.preparing.as_ref().map(|told| format!("; now {told}"));
                (RolloutPhase::Failed, format!("{why}{}{previous}", now.unwrap_or_default()))
            }
            _ if census.ready >= wanted && !older => {
                (RolloutPhase::Ready, format!("{} of {wanted} replicas serve", census.ready))
            }
            _ => {
                let serving = || format!("{} of {wanted} replicas serve", census.ready);
                let preparing = self.preparing.as_ref().map(|told| format!("{told}{previous}"));
                (RolloutPhase::Progressing, preparing.unwrap_or_else(serving))
            }
        };
        let refuses =
            !self.has_served || self.supervisor.failures_in_a_row() >= REFUSE_AFTER_FAILURES;
        Standing {
            wanted,
            phase,
            message,
            conditions: self.conditions(failing.as_ref(), now),
            failing: failing.filter(|_| refuses),
        }
    }

    fn conditions(&self, failing: Option<&(String, Instant)>, now: Instant) -> Vec<String> {
        let ineffective = self.deployed.spec.scale.rules.ineffective();
        let failed = self.last_failure.as_ref().map(|last| match failing {
            Some((why, next)) => {
                let wait = next.saturating_duration_since(now).as_secs_f32();
                let row = self.supervisor.failures_in_a_row();
                format!("{why}; failures in a row: {row}, next try after {wait:.1} s")
            }
            None => format!("last failure: {last}"),
        });
        failed.into_iter().chain(ineffective).collect()
    }
}

/// A name for a new replica: the function's, and something no other replica has. A DNS label, since it
/// becomes the sandbox's host name.
fn replica_name(function: &str) -> String {
    let unique = uuid::Uuid::new_v4().simple().to_string();
    let unique = &unique[..10];
    let room = pinnace_core::name::NAME_BYTES_MAX - unique.len() - 1;
    format!("{}-{unique}", function[..function.len().min(room)].trim_end_matches('-'))
}
