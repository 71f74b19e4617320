//! Answers that go on.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{
    Plan,
    figures::percentile,
    hello, platform,
    reference::direct,
    report::{Promise, Row},
    warm::{Way, deploy},
};

/// Longest time that an event may take.
const EVENT_TIME_MAX: Duration = Duration::from_secs(30);

/// Time to the first event of an event stream, each over a new connection, beside the function called directly.
///
/// # Errors
/// Something cannot be started, or no event came.
pub fn first_byte(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&[]);
    deploy(&gateway, &hello, "plain", Way::Port)?;
    let function = direct(&hello)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.samples {
        ours.push(first_event(gateway.address(), "/function/plain/events")?);
        theirs.push(first_event(function.address, "/events")?);
    }
    let row = |measure, percent, promise: fn(f64) -> Promise| {
        let (ours, theirs) = (percentile(&ours, percent), percentile(&theirs, percent));
        Row {
            case: format!("new connections, TCP, n = {}", plan.samples),
            measure,
            ours,
            reference_name: "called directly",
            reference: Some(theirs),
            promise: promise(500.0),
            outcome: ours - theirs,
        }
    };
    Ok(vec![row("p50 us", 50.0, Promise::AddedAtMost), row("p99 us", 99.0, |_| Promise::Nothing)])
}

/// How long the first event takes from before the connection is made, in microseconds.
fn first_event(address: SocketAddr, path: &str) -> Result<f64> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(EVENT_TIME_MAX))?;
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAccept: text/event-stream\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = stream.read(&mut buffer).context("no event came")?;
        answer.extend_from_slice(&buffer[..read]);
        if answer.windows(5).any(|bytes| bytes == b"data:") {
            return Ok(begin.elapsed().as_secs_f64() * 1e6);
        }
        if read == 0 {
            bail!("the answer was {}", String::from_utf8_lossy(&answer));
        }
    }
}
