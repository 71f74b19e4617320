//! Callers that send much, slowly, or nothing at all.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use pinnace_tests::{Function, Gateway, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::{resident_bytes, setting};

/// Longest time until somebody who has nothing to do with it is answered, on a machine under load.
const STILL_QUICK: Duration = Duration::from_secs(5);

/// How much more memory the server may use while it passes on more than that.
const GROWTH_BYTES_MAX: u64 = 48 << 20;

#[test]
fn heads_up_to_the_limit_pass_and_larger_ones_are_refused_with_its_name() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    // Most servers take no more than a hundred headers.
    let value = "x".repeat(11_000);
    let names: Vec<String> = (0..90).map(|number| format!("x-wide-{number}")).collect();
    let headers = |count: usize| names[..count].iter().map(|name| (name.as_str(), value.as_str()));
    let most: Vec<_> = headers(90).collect();
    let seen = gateway.request("GET", "a/request", &most, b"").expect(200).text();
    assert_eq!(seen.matches(&value).count(), 90, "all arrive");
    let too_many: Vec<_> = headers(90).chain(headers(10)).collect();
    let refused = gateway.request("GET", "a/request", &too_many, b"").expect(431).text();
    assert!(refused.contains("1048576"), "the limit is named: {refused}");
    gateway.call("a", b"").expect(200);
}

#[test]
fn bodies_of_a_gibibyte_pass_both_ways_through_constant_memory() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.call("a/echo", &[1; 1 << 20]).expect(200);
    let before = resident_bytes(gateway.pid());
    let mebibytes = setting("PINNACE_SOAK_BODY_MIB", 1024);
    let bytes = mebibytes << 20;
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let mut sending = stream.try_clone().unwrap();
    let most = std::thread::scope(|scope| {
        scope.spawn(move || {
            let head = format!(
                "POST /function/a/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n"
            );
            sending.write_all(head.as_bytes()).unwrap();
            let piece = vec![7; 1 << 20];
            (0..mebibytes).for_each(|_| sending.write_all(&piece).unwrap());
        });
        let (mut seen, mut most) = (0, 0);
        let mut piece = vec![0; 1 << 20];
        loop {
            let read = stream.read(&mut piece);
            let read =
                read.unwrap_or_else(|error| panic!("after {seen} of {bytes} bytes: {error}"));
            if read == 0 {
                break;
            }
            seen += read as u64;
            most = most.max(resident_bytes(gateway.pid()));
        }
        assert!(seen > bytes, "the whole body came back: {seen} of {bytes}");
        most
    });
    let grown = most.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the server grew by {} MiB", grown >> 20);
}

/// What decides whether bodies that go both ways stand still: see ARCHITECTURE, Decisions.
#[test]
fn connections_to_functions_have_windows_without_a_scale() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    gateway.call("a", b"").expect(200);
    // The first connection is the init's, the second from its stock.
    std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..4).map(|_| scope.spawn(|| gateway.call("a/wait/500", b""))).collect();
        let scales = eventually("several connections are there", STILL_QUICK, || {
            Some(scales(&gateway)).filter(|scales| scales.len() >= 4)
        });
        assert!(scales.iter().all(|scale| scale == "0"), "{scales:?}");
        calls.into_iter().for_each(|call| drop(call.join().unwrap().expect(200)));
    });
}

/// By how many bits the windows that we tell to functions are scaled, one for each connection.
fn scales(gateway: &Gateway) -> Vec<String> {
    let slots = std::fs::read_dir(gateway.state_dir().join("run/slots")).unwrap().flatten();
    let records = slots.filter_map(|slot| std::fs::read_to_string(slot.path().join("pid")).ok());
    let inits = records.filter_map(|record| Some(record.split_whitespace().next()?.to_owned()));
    let sockets = inits.map(|init| {
        let ss = ["-n", "ss", "-tinOH", "state", "established", "dport", "=", ":8080"];
        let output = Command::new("nsenter").arg("-t").arg(init).args(ss).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    });
    let scale =
        |line: &str| Some(line.split_once("wscale:")?.1.split([',', ' ']).nth(1)?.to_owned());
    sockets.flat_map(|text| text.lines().filter_map(scale).collect::<Vec<_>>()).collect()
}

/// Sends a request's head byte by byte until told to stop.
fn drip(gateway: &Gateway, stop: &AtomicBool) {
    let mut stream = TcpStream::connect(gateway.address()).unwrap();
    let head = "POST /function/a/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
    for byte in head.bytes().chain(std::iter::repeat(b'x')) {
        if stop.load(Ordering::Relaxed) || stream.write_all(&[byte]).is_err() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(100));
    }
}

#[test]
fn callers_that_send_a_byte_now_and_then_hold_nobody_up() {
    let gateway = Gateway::start();
    gateway.deploy_hello("a");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let slow: Vec<_> = (0..64).map(|_| scope.spawn(|| drip(&gateway, &stop))).collect();
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        // Long enough for heads to end and bodies to begin.
        while begin.elapsed() < Duration::from_secs(10) {
            let call = Instant::now();
            gateway.call("a", b"").expect(200);
            slowest = slowest.max(call.elapsed());
        }
        assert!(slow.iter().all(|slow| !slow.is_finished()), "they were not ended meanwhile");
        stop.store(true, Ordering::Relaxed);
        assert!(slowest < STILL_QUICK, "a call took {slowest:?}");
    });
}

/// Asks on a connection that stays open, and tells the answer's first line.
fn ask(stream: &TcpStream) -> Option<String> {
    stream.set_read_timeout(Some(STILL_QUICK)).ok()?;
    (&*stream).write_all(b"GET /function/a HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).ok()?;
    Some(line)
}

#[test]
fn ten_thousand_idle_callers_beside_two_hundred_replicas_leave_room_for_one_more() {
    const CALLERS: usize = 10_000;
    const REPLICAS: u64 = 200;
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    let gateway = Gateway::start_by(&["prlimit", "--nofile=20000"], &[]);
    gateway.load("hello:test", &pinnace_tests::images::Image::hello("hello:test"));
    gateway.deploy(&Function::new("a", "hello:test").label("com.openfaas.scale.max", "200"));
    gateway.scale("a", REPLICAS);
    gateway.until_within(Duration::from_secs(120), "a", "all replicas serve", |status| {
        status["availableReplicas"] == REPLICAS
    });
    let mut callers = Vec::new();
    for number in 0..CALLERS {
        callers.push(TcpStream::connect(gateway.address()).unwrap());
        // Now and then somebody comes to stay who calls.
        if number % 500 == 0 {
            let call = Instant::now();
            gateway.call("a", b"").expect(200);
            assert!(call.elapsed() < STILL_QUICK, "caller {number} waited {:?}", call.elapsed());
        }
    }
    let newest = callers.last().unwrap();
    assert_eq!(ask(newest).as_deref().map(str::trim), Some("HTTP/1.1 200 OK"));
    for _ in 0..100 {
        gateway.call("a", b"").expect(200);
    }
    assert!(gateway.log().contains("limit of open files"), "the limit is told:\n{}", gateway.log());
    drop(callers);
    eventually("its connections are closed", Duration::from_secs(20), || {
        let open = std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count();
        (open < CALLERS).then_some(())
    });
    gateway.call("a", b"").expect(200);
}
