//! Calls that became two streams of bytes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{io, time::Duration};

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper::{client::conn::http1, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;
use pinnace_proxy::upgrade::splice;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::{Instant, sleep},
};

const IDLE_MAX: Duration = Duration::from_secs(10);

/// One end of a tunnel: what `splice` gets, and the stream behind it.
async fn end() -> (OnUpgrade, DuplexStream) {
    let (ours, mut theirs) = duplex(1 << 10);
    let (mut sender, connection) = http1::handshake(TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder()
        .header("connection", "upgrade")
        .header("upgrade", "echo")
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answered = async {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(theirs.read_u8().await.unwrap());
        }
        let head =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
        theirs.write_all(head.as_bytes()).await.unwrap();
    };
    let (response, ()) = tokio::join!(sender.send_request(request), answered);
    let response = response.unwrap();
    assert_eq!(response.status(), 101);
    (hyper::upgrade::on(response), theirs)
}

async fn tunnel() -> (DuplexStream, DuplexStream, JoinHandle<io::Result<()>>) {
    let ((client, near), (upstream, far)) = (end().await, end().await);
    (near, far, tokio::spawn(splice(client, upstream, IDLE_MAX)))
}

async fn expect(stream: &mut DuplexStream, text: &str) {
    let mut read = vec![0; text.len()];
    stream.read_exact(&mut read).await.unwrap();
    assert_eq!(read, text.as_bytes());
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let (mut near, mut far, _splice) = tunnel().await;
    near.write_all(b"ping").await.unwrap();
    expect(&mut far, "ping").await;
    far.write_all(b"pong").await.unwrap();
    expect(&mut near, "pong").await;
    // More than any buffer on the way holds.
    let large = "0123456789".repeat(100_000);
    let (sent, received) = (large.clone(), large.len());
    let sender = tokio::spawn(async move {
        near.write_all(sent.as_bytes()).await.unwrap();
        near
    });
    let mut read = vec![0; received];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(read, large.as_bytes());
    sender.await.unwrap();
}

#[tokio::test]
async fn the_end_of_one_side_leaves_the_other_sending() {
    let (mut near, mut far, splice) = tunnel().await;
    near.write_all(b"last words").await.unwrap();
    near.shutdown().await.unwrap();
    expect(&mut far, "last words").await;
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    assert!(!splice.is_finished());
    far.write_all(b"answer").await.unwrap();
    expect(&mut near, "answer").await;
    far.shutdown().await.unwrap();
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    splice.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn silence_of_both_ends_it_and_a_word_of_one_does_not() {
    let (mut near, mut far, splice) = tunnel().await;
    let began = Instant::now();
    for _ in 0..3 {
        sleep(IDLE_MAX - Duration::from_secs(1)).await;
        far.write_all(b"x").await.unwrap();
        expect(&mut near, "x").await;
    }
    let failure = splice.await.unwrap().unwrap_err();
    assert_eq!(failure.kind(), io::ErrorKind::TimedOut);
    assert_eq!(began.elapsed().as_secs(), 4 * IDLE_MAX.as_secs() - 3);
    assert_eq!(near.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_side_that_is_gone_ends_it() {
    let (near, mut far, splice) = tunnel().await;
    drop(near);
    assert_eq!(far.read(&mut [0]).await.unwrap(), 0);
    let wrote = far.write_all(b"to nobody").await;
    let ended = splice.await.unwrap();
    assert!(wrote.is_err() || ended.is_err());
}
