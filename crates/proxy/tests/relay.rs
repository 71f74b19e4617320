//! Bodies on their way through, with the clock in the test's hand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request};
use http_body::Body;
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use pinnace_proxy::{BodyEnd, Ended, Relay, RelayError};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    time::{Instant, sleep},
};

const IDLE_MAX: Duration = Duration::from_secs(10);

/// Every end that was told.
#[derive(Clone, Debug, Default)]
struct Told(Arc<Mutex<Vec<BodyEnd>>>);

impl Ended for Told {
    fn ended(self, end: BodyEnd) {
        self.0.lock().unwrap().push(end);
    }
}

impl Told {
    /// The one end that was told.
    #[track_caller]
    fn once(&self) -> (bool, u64) {
        let told = self.0.lock().unwrap();
        assert_eq!(told.len(), 1, "{told:?}");
        (told[0].complete, told[0].bytes)
    }

    fn is_open(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }
}

/// An answer's body that begins with `text`, behind a head; and the end that sends the rest.
async fn incoming(method: Method, text: &str) -> (Incoming, DuplexStream) {
    let (ours, mut theirs) = duplex(1 << 16);
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri("/").body(Empty::<Bytes>::new()).unwrap();
    let answered = async {
        // The request, which nobody wants to see.
        assert!(theirs.read(&mut [0; 1024]).await.unwrap() > 0);
        theirs.write_all(text.as_bytes()).await.unwrap();
    };
    let (response, ()) = tokio::join!(sender.send_request(request), answered);
    let response = response.unwrap();
    // The connection lives as long as somebody could send on it.
    tokio::spawn(async move {
        sender.ready().await.ok();
        std::future::pending::<()>().await;
    });
    (response.into_body(), theirs)
}

const SIZED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";

async fn relay(text: &str, bytes_max: u64) -> (Relay<Told>, DuplexStream, Told) {
    let (body, theirs) = incoming(Method::GET, text).await;
    let told = Told::default();
    (Relay::new(body, IDLE_MAX, bytes_max, told.clone()), theirs, told)
}

/// Reads to the end as a server would: no further than the body says.
async fn drain(relay: &mut Relay<Told>) -> Result<Vec<u8>, RelayError> {
    let mut all = Vec::new();
    while !relay.is_end_stream() {
        match relay.frame().await {
            Some(frame) => all.extend_from_slice(&frame?.into_data().unwrap_or_default()),
            None => break,
        }
    }
    Ok(all)
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_body_after_its_limit_and_not_before() {
    let (mut relay, mut theirs, told) = relay(&format!("{CHUNKED}2\r\nab\r\n"), 100).await;
    assert_eq!(relay.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    let began = Instant::now();
    let next = tokio::spawn(async move {
        let frame = relay.frame().await.unwrap();
        (frame.map(|frame| frame.into_data().unwrap()), relay)
    });
    sleep(IDLE_MAX - Duration::from_secs(1)).await;
    theirs.write_all(b"2\r\ncd\r\n").await.unwrap();
    let (frame, mut relay) = next.await.unwrap();
    assert_eq!(frame.unwrap(), "cd");
    // The whole limit runs anew.
    let failure = relay.frame().await.unwrap().unwrap_err();
    assert!(matches!(failure, RelayError::Silent(IDLE_MAX)), "{failure}");
    assert_eq!(began.elapsed().as_secs(), 2 * IDLE_MAX.as_secs() - 1);
    drop(relay);
    assert_eq!(told.once(), (false, 4));
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_is_not_taken_for_a_silent_sender() {
    let (mut relay, mut theirs, told) = relay(CHUNKED, 100).await;
    // Waits for the sender once, so that the clock of silence has been started.
    let waited = tokio::time::timeout(IDLE_MAX / 2, relay.frame()).await;
    assert!(waited.is_err());
    theirs.write_all(b"2\r\nab\r\n").await.unwrap();
    assert_eq!(relay.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    sleep(3 * IDLE_MAX).await;
    let waited = tokio::time::timeout(IDLE_MAX / 2, relay.frame()).await;
    assert!(waited.is_err(), "{waited:?}");
    theirs.write_all(b"2\r\ncd\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(drain(&mut relay).await.unwrap(), b"cd");
    assert_eq!(told.once(), (true, 4));
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_silence_may_be_as_long_as_time() {
    let (body, mut theirs) = incoming(Method::GET, SIZED).await;
    let told = Told::default();
    let mut relay = Relay::new(body, Duration::MAX, 100, told.clone());
    for text in ["ab", "cd"] {
        assert!(tokio::time::timeout(IDLE_MAX, relay.frame()).await.is_err());
        theirs.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(relay.frame().await.unwrap().unwrap().into_data().unwrap(), text);
    }
    assert_eq!(told.once(), (true, 4));
}

#[tokio::test]
async fn a_body_over_its_limit_breaks_off() {
    let (mut relay, _theirs, told) = relay(&format!("{SIZED}abcd"), 3).await;
    let failure = drain(&mut relay).await.unwrap_err();
    assert!(matches!(failure, RelayError::TooLarge(3)), "{failure}");
    drop(relay);
    assert!(!told.once().0);
}

#[tokio::test]
async fn a_body_of_just_the_limit_passes() {
    for text in [format!("{SIZED}abcd"), format!("{CHUNKED}4\r\nabcd\r\n0\r\n\r\n")] {
        let (mut relay, _theirs, told) = relay(&text, 4).await;
        assert_eq!(drain(&mut relay).await.unwrap(), b"abcd");
        assert_eq!(relay.bytes(), 4);
        assert_eq!(told.once(), (true, 4));
        drop(relay);
        assert_eq!(told.once(), (true, 4));
    }
}

#[tokio::test]
async fn the_end_is_told_with_the_last_byte_of_a_known_length() {
    let (mut relay, _theirs, told) = relay(&format!("{SIZED}abcd"), 100).await;
    assert!(told.is_open());
    assert!(relay.frame().await.unwrap().is_ok());
    assert_eq!(told.once(), (true, 4));
    assert!(relay.frame().await.is_none());
    assert_eq!(told.once(), (true, 4));
}

#[tokio::test]
async fn a_sender_that_breaks_off_is_told_once() {
    for text in [format!("{SIZED}ab"), format!("{CHUNKED}2\r\nab\r\n")] {
        let (mut relay, theirs, told) = relay(&text, 100).await;
        drop(theirs);
        let failure = drain(&mut relay).await.unwrap_err();
        assert!(matches!(failure, RelayError::Broken(_)), "{failure}");
        drop(relay);
        assert_eq!(told.once(), (false, 2));
    }
}

#[tokio::test]
async fn a_receiver_that_leaves_is_told_once() {
    let (mut relay, _theirs, told) = relay(&format!("{CHUNKED}2\r\nab\r\n"), 100).await;
    assert!(relay.frame().await.unwrap().is_ok());
    drop(relay);
    assert_eq!(told.once(), (false, 2));
    let (relay, _theirs, told) = self::relay(&format!("{SIZED}abcd"), 100).await;
    drop(relay);
    assert_eq!(told.once(), (false, 0));
}

#[tokio::test]
async fn an_empty_body_ends_complete_though_nobody_reads_it() {
    for (method, text) in [
        (Method::GET, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        (Method::GET, "HTTP/1.1 204 No Content\r\n\r\n"),
        (Method::HEAD, SIZED),
    ] {
        let (body, _theirs) = incoming(method, text).await;
        let told = Told::default();
        let relay = Relay::new(body, IDLE_MAX, 0, told.clone());
        assert!(relay.is_end_stream());
        drop(relay);
        assert_eq!(told.once(), (true, 0));
    }
}

#[tokio::test]
async fn trailers_pass_and_are_no_bytes() {
    let text = "HTTP/1.1 200 OK\r\ntrailer: x-t\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-t: end\r\n\r\n";
    let (mut relay, _theirs, told) = relay(text, 2).await;
    assert!(relay.frame().await.unwrap().unwrap().is_data());
    let trailers = relay.frame().await.unwrap().unwrap().into_trailers().unwrap();
    assert_eq!(trailers["x-t"], "end");
    assert!(relay.frame().await.is_none());
    assert_eq!(told.once(), (true, 2));
}

#[tokio::test]
async fn the_default_is_empty_and_ends_at_once() {
    let mut relay = Relay::<Told>::default();
    assert!(relay.is_end_stream());
    assert_eq!(relay.size_hint().exact(), Some(0));
    assert!(relay.frame().await.is_none());
}
