use std::sync::Mutex;

use pinnace_core::{FunctionSpec, queue::RetryPolicy, wire::FunctionDeployment};

use super::*;
use crate::{
    catalog::{Catalog, Deployed, Entry},
    proxy::door::{Door, tests::answering},
    queue::{Call, Callbacks},
};

/// Lets threads work for a moment, in which time stands still for all others.
async fn moment() {
    let work = || std::thread::park_timeout(Duration::from_millis(1));
    tokio::task::spawn_blocking(work).await.unwrap();
}

/// A queue that is pumped, and what ends it.
struct Pumped {
    queue: Arc<AsyncQueue>,
    ending: watch::Sender<bool>,
    drained: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<()>,
}

impl Pumped {
    fn start(state: &std::path::Path, door: Door) -> Self {
        let catalog = Catalog::new(1);
        let deployment = FunctionDeployment {
            service: "f".to_owned(),
            image: "host".to_owned(),
            env_process: "cat".to_owned(),
            annotations: Some([("com.openfaas.retry.attempts".to_owned(), "3".to_owned())].into()),
            ..FunctionDeployment::default()
        };
        let spec = FunctionSpec::check(deployment).unwrap();
        let deployed = Deployed { spec, revision: 1, created_at: String::new() };
        catalog.insert_all([Arc::new(Entry::new(Arc::new(deployed), 1, String::new(), 1))]);
        let queue = AsyncQueue::open(state, 1000).unwrap();
        let (ending, is_ending) = watch::channel(false);
        let (drained, is_drained) = oneshot::channel();
        let delivery = Delivery {
            queue: queue.clone(),
            catalog: Arc::new(catalog),
            door,
            callbacks: Callbacks::new(Vec::new(), &[]),
            policy: RetryPolicy::default(),
            ending: is_ending.clone(),
        };
        let pump = Pump {
            queue: queue.clone(),
            delivery: Arc::new(delivery),
            ending: is_ending,
            drained: is_drained,
        };
        Self { queue, ending, drained, task: tokio::spawn(pump.run()) }
    }

    async fn submit(&self, function: &str, id: &str) {
        let call = Call {
            function: FunctionRef::new(function, "").unwrap(),
            id: id.to_owned(),
            method: "POST".to_owned(),
            target: "/a%2F?b".to_owned(),
            headers: b"Host: h\r\n".to_vec(),
            callback: None,
            body: b"body.".to_vec(),
        };
        let room = self.queue.reserve(&call.function, 100).unwrap();
        assert!(self.queue.submit(call, None, room).await.unwrap());
    }

    /// Waits until a delivery is under way.
    async fn begun(&self) {
        while self.queue.shared.state().queue.in_flight() == 0 {
            moment().await;
        }
    }

    /// Has time pass until no call waits or is under way.
    async fn settled(&self) {
        loop {
            let (is_empty, is_busy, due) = {
                let queue = &self.queue.shared.state().queue;
                (queue.is_empty(), queue.in_flight() > 0, queue.next_due())
            };
            match due {
                _ if is_empty => return,
                Some(due) if !is_busy && due > now() => tokio::time::advance(due - now()).await,
                _ => moment().await,
            }
        }
    }

    /// Calls that have failed.
    async fn failed(&self) -> usize {
        self.queue.list(None, true).await.unwrap().calls.len()
    }

    async fn end(self) {
        self.ending.send(true).unwrap();
        self.drained.send(()).unwrap();
        self.task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn calls_are_delivered_as_they_were_submitted() {
    let dir = tempfile::tempdir().unwrap();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = heard.clone();
    let door = answering(move |request| {
        hearing.lock().unwrap().push(request);
        async { Some("HTTP/1.1 204 No Content\r\n\r\n".to_owned()) }
    });
    let pumped = Pumped::start(dir.path(), door);
    pumped.submit("f", "one").await;
    pumped.settled().await;
    let expected = "POST /function/f.openfaas-fn/a%2F?b HTTP/1.1\r\nHost: h\r\ncontent-length: 5\r\n\
                    connection: close\r\n\r\nbody.";
    assert_eq!(*heard.lock().unwrap(), [expected]);
    // The disk does not know that time stands still.
    tokio::time::resume();
    pumped.end().await;
    assert!(AsyncQueue::open(dir.path(), 1000).unwrap().shared.state().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn attempts_wait_longer_and_longer_and_the_last_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let noting = times.clone();
    let door = answering(move |_| {
        noting.lock().unwrap().push(Instant::now());
        async { Some("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno".to_owned()) }
    });
    let pumped = Pumped::start(dir.path(), door);
    pumped.submit("f", "one").await;
    pumped.settled().await;
    assert_eq!(pumped.failed().await, 1);
    let times = times.lock().unwrap().clone();
    let waits: Vec<_> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs()).collect();
    assert_eq!(waits, [10, 20]);
    let call = pumped.queue.show("one").await.unwrap().remove(0);
    assert_eq!((call.attempts, call.history.len()), (3, 3));
    assert_eq!(call.history[2].error, "the answer was 500: no");
    assert!(pumped.queue.retry("one").await.unwrap());
    assert_eq!(pumped.failed().await, 0);
    pumped.settled().await;
    assert_eq!(pumped.failed().await, 1);
    assert!(pumped.queue.discard("one").await.unwrap());
    assert!(!pumped.queue.discard("one").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_breaks_off_is_tried_again_and_what_is_not_deployed_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let broke = std::sync::atomic::AtomicBool::new(false);
    let door = answering(move |_| {
        let first = !broke.swap(true, std::sync::atomic::Ordering::SeqCst);
        async move { (!first).then(|| "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned()) }
    });
    let pumped = Pumped::start(dir.path(), door);
    pumped.submit("f", "breaks").await;
    pumped.submit("unknown", "unknown").await;
    pumped.settled().await;
    let call = pumped.queue.show("unknown").await.unwrap().remove(0);
    assert!(call.history[0].error.contains("not deployed"), "{call:?}");
    assert_eq!(pumped.queue.show("breaks").await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_under_way_is_ended_when_its_call_is_cancelled() {
    let dir = tempfile::tempdir().unwrap();
    let door = answering(|_| std::future::pending());
    let pumped = Pumped::start(dir.path(), door);
    pumped.submit("f", "one").await;
    pumped.begun().await;
    assert!(pumped.queue.cancel("one").await.unwrap());
    pumped.settled().await;
    assert!(!pumped.queue.cancel("one").await.unwrap());
    // The disk does not know that time stands still.
    tokio::time::resume();
    pumped.end().await;
    assert!(AsyncQueue::open(dir.path(), 1000).unwrap().shared.state().queue.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_has_no_end_is_delivered_by_the_next_server() {
    let dir = tempfile::tempdir().unwrap();
    let pumped = Pumped::start(dir.path(), answering(|_| std::future::pending()));
    pumped.submit("f", "one").await;
    pumped.begun().await;
    // The disk does not know that time stands still.
    tokio::time::resume();
    pumped.end().await;
    let door = answering(|_| async { Some("HTTP/1.1 204 No Content\r\n\r\n".to_owned()) });
    let pumped = Pumped::start(dir.path(), door);
    pumped.settled().await;
    pumped.end().await;
    assert!(AsyncQueue::open(dir.path(), 1000).unwrap().shared.state().queue.is_empty());
}

#[tokio::test]
async fn what_is_received_at_once_is_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let queue = AsyncQueue::open(dir.path(), 1000).unwrap();
    let half = pinnace_core::limits::ASYNC_RECEIVED_BYTES_MAX / 2;
    let function = FunctionRef::new("f", "").unwrap();
    let room = queue.reserve(&function, half).unwrap();
    assert_eq!(queue.reserve(&function, half).err(), Some(crate::queue::Refused::Received));
    drop(room);
    assert!(queue.reserve(&function, half).is_ok());
    assert_eq!(queue.shared.state().queue.bytes(), 0, "room is given back");
}
