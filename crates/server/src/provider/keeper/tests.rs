//! The keeper with a runtime that starts nothing: every start and stop is seen, every report is made by
//! the test, and time stands still unless it is turned.

use std::sync::Mutex;

use pinnace_core::{FunctionSpec, wire::RolloutPhase};

use super::*;
use crate::catalog::Entry;

#[derive(Default)]
struct FakeRuntime {
    done: Mutex<Done>,
}

#[derive(Default)]
struct Done {
    started: Vec<(String, u64, Reports)>,
    stopped: Vec<String>,
}

impl Runtime for FakeRuntime {
    fn start(self: Arc<Self>, replica: &str, deployed: &Arc<Deployed>, reports: Reports) {
        let started = (replica.to_owned(), deployed.revision, reports);
        self.done.lock().unwrap().started.push(started);
    }

    fn stop(&self, replica: &str, _: Duration) {
        self.done.lock().unwrap().stopped.push(replica.to_owned());
    }
}

struct Bench {
    runtime: Arc<FakeRuntime>,
    keeper: Keeper,
    entry: Arc<Entry>,
}

fn deployed(revision: u64, labels: &str) -> Arc<Deployed> {
    let json = format!(r#"{{"service":"a","image":"host","envProcess":"cat","labels":{labels}}}"#);
    let spec = FunctionSpec::check(serde_json::from_str(&json).unwrap()).unwrap();
    Arc::new(Deployed { spec, revision, created_at: String::new() })
}

impl Bench {
    fn new(labels: &str, wanted: u32) -> Self {
        let runtime = Arc::new(FakeRuntime::default());
        let call_deadline = Duration::from_secs(60);
        let settings = KeeperSettings { workers: 1, zero_by_default: false, call_deadline };
        let keeper = Keeper::start(runtime.clone(), settings);
        let first = deployed(1, labels);
        let entry = Arc::new(Entry::new(first.clone(), wanted, String::new(), 1));
        keeper.apply(&entry, first, wanted, Vec::new());
        Self { runtime, keeper, entry }
    }

    /// Waits until something holds. Under stopped time the clock jumps only when all tasks wait.
    async fn until(&self, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..10_000 {
            if holds(self) {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("never came: {what}; {:?}", self.entry.standing());
    }

    fn started(&self) -> usize {
        self.runtime.done.lock().unwrap().started.len()
    }

    fn stopped(&self) -> Vec<String> {
        self.runtime.done.lock().unwrap().stopped.clone()
    }

    async fn report(&self, nth: usize, event: Event) {
        let reports = self.runtime.done.lock().unwrap().started[nth].2.clone();
        reports.send(event).await;
    }

    async fn start_and_serve(&self, nth: usize) {
        self.until("a start", |b| b.started() > nth).await;
        self.report(nth, ready()).await;
    }

    fn serving(&self) -> usize {
        self.entry.ready().len()
    }

    fn phase(&self) -> RolloutPhase {
        self.entry.standing().phase
    }
}

fn ready() -> Event {
    Event::Ready(Endpoint::Tcp("127.0.0.1:1".parse().unwrap()))
}

fn crash() -> Event {
    Event::Gone(Exit::Code { code: 1 })
}

#[tokio::test(start_paused = true)]
async fn replicas_are_started_and_shown_when_they_serve() {
    let bench = Bench::new("{}", 2);
    bench.start_and_serve(0).await;
    bench.start_and_serve(1).await;
    bench.until("two serve", |b| b.serving() == 2).await;
    bench.until("ready", |b| b.phase() == RolloutPhase::Ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_starts_a_function_at_zero() {
    let bench = Bench::new("{}", 0);
    bench.until("ready at zero", |b| b.phase() == RolloutPhase::Ready).await;
    assert_eq!(bench.started(), 0);
    assert!(bench.entry.call_for_replica());
    assert!(!bench.entry.call_for_replica(), "one start per need");
    bench.keeper.activate(&bench.entry);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_first_failure_is_told_and_tried_again_later() {
    let bench = Bench::new("{}", 1);
    bench.until("a start", |b| b.started() == 1).await;
    let reason = "its command was not found".to_owned();
    bench.report(0, Event::Gone(Exit::CannotStart { reason })).await;
    bench.until("failed", |b| b.phase() == RolloutPhase::Failed).await;
    let standing = bench.entry.standing();
    assert!(standing.message.contains("its command was not found"), "{}", standing.message);
    assert!(standing.failing.is_some(), "calls are refused rather than held");
    assert_eq!(bench.started(), 1, "not at once");
    tokio::time::advance(limits::RESTART_BACKOFF_MIN * 2).await;
    bench.start_and_serve(1).await;
    bench.until("repaired", |b| b.phase() == RolloutPhase::Ready).await;
    let standing = bench.entry.standing();
    assert!(standing.failing.is_none());
    assert!(standing.conditions[0].starts_with("last failure:"), "{:?}", standing.conditions);
}

#[tokio::test(start_paused = true)]
async fn a_crash_after_serving_holds_calls_for_the_replacement() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    bench.report(0, crash()).await;
    bench.until("none serves", |b| b.serving() == 0).await;
    assert!(bench.entry.standing().failing.is_none());
    tokio::time::advance(limits::RESTART_BACKOFF_MIN * 2).await;
    bench.start_and_serve(1).await;
    bench.until("replaced", |b| b.serving() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn an_update_readies_the_new_before_the_old_drains() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    let second = deployed(2, "{}");
    bench.entry.set_deployed(second.clone());
    bench.keeper.apply(&bench.entry, second, 1, Vec::new());
    bench.until("the new starts", |b| b.started() == 2).await;
    assert_eq!(bench.stopped(), Vec::<String>::new());
    assert_eq!(bench.serving(), 1, "the old serves");
    bench.report(1, ready()).await;
    bench.until("the old stops", |b| b.stopped().len() == 1).await;
    bench.until("ready", |b| b.phase() == RolloutPhase::Ready).await;
    assert_eq!(bench.entry.ready()[0].revision, 2);
}

#[tokio::test(start_paused = true)]
async fn a_failed_update_leaves_the_old() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    let second = deployed(2, "{}");
    bench.entry.set_deployed(second.clone());
    bench.keeper.apply(&bench.entry, second, 1, Vec::new());
    bench.until("the new starts", |b| b.started() == 2).await;
    bench.report(1, crash()).await;
    bench.until("failed", |b| b.phase() == RolloutPhase::Failed).await;
    assert_eq!(bench.serving(), 1);
    assert!(bench.entry.standing().message.contains("the previous revision still serves"));
}

#[tokio::test(start_paused = true)]
async fn draining_waits_for_calls_under_way() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    let replica = bench.entry.ready()[0].clone();
    assert!(replica.reserve());
    bench.keeper.want(&bench.entry.id, 0);
    bench.until("none is offered", |b| b.serving() == 0).await;
    bench.until("it drains", |_| !replica.reserve()).await;
    assert_eq!(bench.stopped(), Vec::<String>::new());
    replica.release();
    bench.until("it stops", |b| b.stopped().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn idleness_ends_a_function_with_the_label() {
    let labels = r#"{"com.openfaas.scale.zero":"true","com.openfaas.scale.zero-duration":"30s"}"#;
    let bench = Bench::new(labels, 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    tokio::time::advance(Duration::from_secs(20)).await;
    assert!(bench.entry.enter());
    bench.entry.leave();
    tokio::time::advance(Duration::from_secs(20)).await;
    tokio::task::yield_now().await;
    assert_eq!(bench.stopped(), Vec::<String>::new(), "a call 20 s ago");
    tokio::time::advance(Duration::from_secs(15)).await;
    bench.until("it stops", |b| b.stopped().len() == 1).await;
    assert_eq!(bench.entry.standing().wanted, 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_all_waits_for_every_replica() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    let keeper = bench.keeper.clone();
    let end = tokio::spawn(async move { keeper.end_all().await });
    bench.until("it stops", |b| b.stopped().len() == 1).await;
    assert!(!end.is_finished());
    bench.report(0, Event::Gone(Exit::Stopped)).await;
    bench.until("all is over", |_| end.is_finished()).await;
}

#[tokio::test(start_paused = true)]
async fn adopted_replicas_count_and_are_not_started_again() {
    let runtime = Arc::new(FakeRuntime::default());
    let call_deadline = Duration::from_secs(60);
    let settings = KeeperSettings { workers: 1, zero_by_default: false, call_deadline };
    let keeper = Keeper::start(runtime.clone(), settings);
    let first = deployed(4, "{}");
    let entry = Arc::new(Entry::new(first.clone(), 1, String::new(), 1));
    let adopted = vec![Adopted { replica: "a-1".into(), revision: 4 }];
    keeper.apply(&entry, first, 1, adopted);
    let reports = keeper.reports(&entry.id, "a-1");
    let bench = Bench { runtime, keeper, entry };
    reports.send(ready()).await;
    bench.until("it serves", |b| b.serving() == 1).await;
    assert_eq!(bench.started(), 0);
}

fn one_at_a_time(labels: &str) -> Arc<Deployed> {
    let json = format!(
        r#"{{"service":"a","image":"host","envProcess":"cat","labels":{labels},
            "annotations":{{"dev.pinnace.concurrency":"1"}}}}"#
    );
    let spec = FunctionSpec::check(serde_json::from_str(&json).unwrap()).unwrap();
    Arc::new(Deployed { spec, revision: 2, created_at: String::new() })
}

impl Bench {
    /// Calls as a caller does: counted in, and asking for a replica if there is no place.
    fn call(&self) {
        assert!(self.entry.enter());
        if self.entry.call_for_replica() {
            self.keeper.activate(&self.entry);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_find_all_replicas_full_start_more_up_to_the_most() {
    let bench = Bench::new("{}", 0);
    let deployed = one_at_a_time(r#"{"com.openfaas.scale.max":"3"}"#);
    bench.entry.set_deployed(deployed.clone());
    bench.keeper.apply(&bench.entry, deployed, 1, Vec::new());
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    bench.call();
    bench.call();
    bench.start_and_serve(1).await;
    bench.until("two serve", |b| b.serving() == 2).await;
    for _ in 0..5 {
        bench.call();
    }
    bench.start_and_serve(2).await;
    bench.until("three serve", |b| b.serving() == 3).await;
    assert_eq!((bench.started(), bench.entry.standing().wanted), (3, 3));
    assert_eq!(bench.entry.marks.take_crowd(), 3, "the scaler is told");
}

#[tokio::test(start_paused = true)]
async fn calls_that_found_room_after_all_do_not_silence_those_that_do_not() {
    let bench = Bench::new("{}", 0);
    let deployed = one_at_a_time("{}");
    bench.entry.set_deployed(deployed.clone());
    bench.keeper.apply(&bench.entry, deployed, 1, Vec::new());
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    bench.call();
    bench.until("it was heard, and needs no other", |b| b.entry.call_for_replica()).await;
    bench.entry.heard_call();
    assert_eq!(bench.started(), 1);
    bench.call();
    bench.until("a second starts", |b| b.started() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn many_calls_of_a_function_at_zero_start_as_many_as_they_need() {
    let bench = Bench::new("{}", 0);
    let deployed = one_at_a_time("{}");
    bench.entry.set_deployed(deployed.clone());
    bench.keeper.apply(&bench.entry, deployed, 0, Vec::new());
    bench.until("at zero", |b| b.phase() == RolloutPhase::Ready).await;
    for _ in 0..3 {
        assert!(bench.entry.enter());
    }
    bench.call();
    bench.until("four start", |b| b.started() == 4).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_replica_keeps_its_function_from_zero() {
    let labels = r#"{"com.openfaas.scale.zero":"true","com.openfaas.scale.zero-duration":"30s"}"#;
    let bench = Bench::new(labels, 1);
    bench.until("a start", |b| b.started() == 1).await;
    assert!(bench.entry.enter());
    for _ in 0..50 {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(bench.entry.standing().wanted, 1);
    bench.entry.leave();
    for _ in 0..35 {
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    bench.until("zero", |b| b.entry.standing().wanted == 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_not_ready_for_a_while_is_not_called_and_not_replaced() {
    let bench = Bench::new("{}", 1);
    bench.start_and_serve(0).await;
    bench.until("one serves", |b| b.serving() == 1).await;
    let replica = bench.entry.ready()[0].clone();
    bench.report(0, Event::Unready("GET / was answered 503".to_owned())).await;
    bench.until("none serves", |b| b.serving() == 0).await;
    let message = bench.entry.standing().message.clone();
    assert!(message.contains("is not ready: GET / was answered 503"), "{message}");
    bench.report(0, ready()).await;
    bench.until("it serves again", |b| b.serving() == 1).await;
    assert!(Arc::ptr_eq(&replica, &bench.entry.ready()[0]), "its calls are still counted");
    assert_eq!((bench.started(), bench.stopped().len()), (1, 0));
}
