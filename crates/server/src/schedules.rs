//! The clock of functions: has those called whose schedules are due, as asynchronous calls.
//!
//! A call and how far its schedule has come are written in one go, so that each due time is called for once, also if
//! the server is killed between two of them. What is deployed is looked through when it changes; else the loop sleeps
//! until something is due.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use pinnace_core::{
    FunctionRef,
    schedule::{self, Agenda, Due, Entry, Schedule, ScheduleDocument},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::sync::watch;

use crate::{
    catalog::{self, Catalog},
    queue::{AsyncQueue, Call, LedgerError, Mark, Refused},
};

/// How long changes of what is deployed are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(100);

/// Longest sleep while there is any schedule: the clock of the host may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// Wait before the queue is asked again that has refused a call.
const AGAIN: Duration = Duration::from_secs(1);

/// The schedules of all functions.
pub struct Schedules {
    catalog: Arc<Catalog>,
    queue: Arc<AsyncQueue>,
    agenda: Mutex<Agenda>,
}

/// Why a call that is due is not in the queue yet.
#[derive(Debug, thiserror::Error)]
enum Late {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

impl Schedules {
    /// Schedules of these functions, to be called through this queue.
    #[must_use]
    pub fn new(catalog: Arc<Catalog>, queue: Arc<AsyncQueue>) -> Arc<Self> {
        Arc::new(Self { catalog, queue, agenda: Mutex::default() })
    }

    /// Calls what is due, until the server is asked to end. `changes` tells when something else is deployed.
    pub async fn run(
        self: Arc<Self>,
        mut changes: watch::Receiver<()>,
        ending: watch::Receiver<bool>,
    ) {
        let mut is_ending = ending.clone();
        tokio::select! {
            () = self.keep_time(&mut changes) => {}
            _ = is_ending.wait_for(|ending| *ending) => {}
        }
    }

    async fn keep_time(&self, changes: &mut watch::Receiver<()>) {
        changes.mark_changed();
        // A row for each schedule at most.
        let mut rows = FuturesUnordered::new();
        loop {
            let wait = self.agenda().next_s().map(until);
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    tokio::time::sleep(GATHER).await;
                    changes.mark_unchanged();
                    self.look_through().await;
                }
                () = sleep(wait) => {}
                Some(()) = rows.next() => continue,
            }
            let due = self.agenda().due(now_s());
            rows.extend(
                due.chunk_by(|one, next| one.key == next.key).map(|row| self.make(row.to_vec())),
            );
        }
    }

    /// Makes calls of one schedule, one after the other: a later one that is taken ends the earlier.
    async fn make(&self, row: Vec<Due>) {
        for due in &row {
            self.call(due).await;
        }
        if let Some(last) = row.last() {
            self.agenda().made(&last.key);
        }
    }

    /// Takes over the schedules of what is deployed now.
    async fn look_through(&self) {
        let marks = loop {
            let queue = self.queue.clone();
            match tokio::task::spawn_blocking(move || queue.marks()).await {
                Ok(Ok(marks)) => break marks,
                Ok(Err(error)) => tracing::error!(%error, "schedules cannot be looked through"),
                Err(error) => tracing::error!(%error, "schedules cannot be looked through"),
            }
            tokio::time::sleep(AGAIN).await;
        };
        let now_s = now_s();
        let marks = self.without_ahead(marks, now_s).await;
        let entries = self.entries(&marks, now_s);
        let mark = |(name, entry): (&String, &Entry)| Mark { name: name.clone(), at: entry.done_s };
        let new = entries.iter().filter(|(name, _)| !marks.contains_key(*name)).map(mark).collect();
        let gone: Vec<_> = marks.into_keys().filter(|name| !entries.contains_key(name)).collect();
        if let Err(error) = self.queue.mark(new, gone).await {
            // Until it is called for the first time, a restart of the server begins it anew.
            tracing::error!(%error, "new schedules are not noted");
        }
        self.agenda().set(entries, now_s);
    }

    /// Marks but those that lie ahead, which a clock has left that was: nothing would be called until they are reached.
    async fn without_ahead(
        &self,
        marks: BTreeMap<String, i64>,
        now_s: i64,
    ) -> BTreeMap<String, i64> {
        let (ahead, marks): (BTreeMap<_, _>, BTreeMap<_, _>) =
            marks.into_iter().partition(|(_, at)| schedule::is_ahead(*at, now_s));
        if !ahead.is_empty() {
            tracing::warn!(
                schedules = ahead.len(),
                "the clock was ahead when these schedules were last due; they begin anew"
            );
            if let Err(error) = self.queue.mark(Vec::new(), ahead.into_keys().collect()).await {
                tracing::error!(%error, "schedules that the clock was ahead of are not called yet");
            }
        }
        marks
    }

    fn entries(&self, marks: &BTreeMap<String, i64>, now_s: i64) -> BTreeMap<String, Entry> {
        let mut entries = BTreeMap::new();
        for function in self.catalog.all() {
            for schedule in of(&function).into_iter().flatten() {
                let name = format!("{} {} {schedule}", function.id, function.created_at);
                let done_s = marks.get(&name).copied().unwrap_or(now_s);
                let since_s = OffsetDateTime::parse(&function.created_at, &Rfc3339)
                    .map_or(now_s, OffsetDateTime::unix_timestamp);
                let function = function.id.clone();
                entries.insert(name, Entry { function, schedule, since_s, done_s });
            }
        }
        entries
    }

    /// Puts a call into the queue; tries again until it is there, or its schedule is gone.
    async fn call(&self, due: &Due) {
        if due.after_a_gap {
            let at = shown(due.due_s);
            tracing::warn!(function = %due.function, %at, "scheduled calls before this one were missed, and are not made up for");
        }
        while let Err(error) = self.submit(due).await {
            tracing::error!(function = %due.function, %error, "a scheduled call is late");
            tokio::time::sleep(AGAIN).await;
            if !self.agenda().has(&due.key) {
                return;
            }
        }
    }

    async fn submit(&self, due: &Due) -> Result<(), Late> {
        let id = uuid::Uuid::new_v4().to_string();
        let (topic, at) = (schedule::TOPIC, shown(due.due_s));
        // As a connector would send it; a request without a host is none (RFC 9112 section 3.2).
        let headers = format!(
            "Host: gateway:8080\r\nX-Call-Id: {id}\r\nX-Topic: {topic}\r\nX-Connector: pinnace\r\n\
             X-Scheduled-At: {at}\r\n"
        );
        let call = Call {
            function: due.function.clone(),
            id,
            method: "POST".to_owned(),
            target: "/".to_owned(),
            headers: headers.into_bytes(),
            callback: None,
            body: Vec::new(),
        };
        let bytes = call.headers.len() + call.target.len();
        let room = self.queue.reserve(&due.function, bytes)?;
        let mark = Mark { name: due.key.clone(), at: due.due_s };
        self.queue.submit(call, Some(mark), room).await?;
        Ok(())
    }

    /// All schedules, with when each is due next; of one namespace, if it is named.
    #[must_use]
    pub fn list(&self, namespace: Option<&str>) -> Vec<ScheduleDocument> {
        let is_meant = |id: &FunctionRef| namespace.is_none_or(|named| id.namespace() == named);
        let mut listed: Vec<_> = self
            .agenda()
            .entries()
            .filter(|(entry, _)| is_meant(&entry.function))
            .map(|(entry, next_s)| ScheduleDocument {
                next: next_s.map(shown),
                done: Some(shown(entry.done_s)),
                ..document(&entry.function, entry.schedule.text())
            })
            .collect();
        for function in self.catalog.all().iter().filter(|function| is_meant(&function.id)) {
            for fault in of(function).into_iter().filter_map(Result::err) {
                let error = Some(fault.to_string());
                listed.push(ScheduleDocument { error, ..document(&function.id, &fault.text) });
            }
        }
        listed.sort_by(|a, b| {
            (&a.namespace, &a.function, &a.schedule).cmp(&(&b.namespace, &b.function, &b.schedule))
        });
        listed
    }

    fn agenda(&self) -> MutexGuard<'_, Agenda> {
        self.agenda.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(function: &catalog::Entry) -> Vec<Result<Schedule, schedule::ScheduleFault>> {
    schedule::of(function.deployed().spec.deployment.annotations.as_ref())
}

fn document(function: &FunctionRef, schedule: &str) -> ScheduleDocument {
    ScheduleDocument {
        function: function.name().to_owned(),
        namespace: function.namespace().to_owned(),
        schedule: schedule.to_owned(),
        ..ScheduleDocument::default()
    }
}

/// Schedules go by the host's clock, not by one that only grows.
fn now_s() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

fn until(next_s: i64) -> Duration {
    let left =
        i128::from(next_s) * 1_000_000_000 - OffsetDateTime::now_utc().unix_timestamp_nanos();
    Duration::from_nanos(u64::try_from(left).unwrap_or(0)).min(SLEEP_MAX)
}

async fn sleep(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// A Unix time in RFC 3339.
fn shown(time_s: i64) -> String {
    let time = OffsetDateTime::from_unix_timestamp(time_s).ok();
    time.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pinnace_core::{FunctionSpec, wire::FunctionDeployment};

    use super::*;
    use crate::catalog::Deployed;

    fn catalog() -> Arc<Catalog> {
        let catalog = Catalog::new(1);
        let annotations = [("topic", "cron-function"), ("schedule", "@every 1s")];
        let annotations = annotations.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let deployment = FunctionDeployment {
            service: "f".to_owned(),
            image: "host".to_owned(),
            env_process: "cat".to_owned(),
            annotations: Some(annotations.into()),
            ..FunctionDeployment::default()
        };
        let spec = FunctionSpec::check(deployment).unwrap();
        let deployed = Deployed { spec, revision: 1, created_at: String::new() };
        catalog.insert_all([Arc::new(catalog::Entry::new(
            Arc::new(deployed),
            1,
            String::new(),
            1,
        ))]);
        Arc::new(catalog)
    }

    #[tokio::test]
    async fn a_clock_that_was_ahead_silences_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let queue = AsyncQueue::open(dir.path(), 1000).unwrap();
        let schedules = Schedules::new(catalog(), queue.clone());
        schedules.look_through().await;
        let (name, at) = queue.marks().unwrap().pop_first().unwrap();
        queue.mark(Vec::new(), vec![name.clone()]).await.unwrap();
        queue.mark(vec![Mark { name: name.clone(), at: at + 7200 }], Vec::new()).await.unwrap();
        Schedules::new(catalog(), queue.clone()).look_through().await;
        let again = queue.marks().unwrap()[&name];
        assert!((at..at + 3600).contains(&again), "{again} after {at}");
    }
}
