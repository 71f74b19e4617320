//! A machine that loses its power loses nothing that it has promised.
//!
//! Callers and what functions report to are outside of the machine, so both remember what was before the cut. Its disk
//! loses, besides what the machine's kernel had not written yet, a part of what it was not told to flush.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use pinnace_tests::{Answer, eventually, http, images::Image, machine::Machine};
use serde_json::Value;

/// How long what should happen soon may take in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long a call may take. Nobody answers where the power was cut.
const CALL_MAX: Duration = Duration::from_secs(60);

/// The machine's password, as `admin` shows it.
const AUTHORIZATION: (&str, &str) = ("Authorization", "Basic YWRtaW46cGFzc3dvcmQ=");

/// How long a function works at a call: then calls come faster than they are executed, and some wait at each cut.
const WORK: Duration = Duration::from_millis(100);

/// Bytes of a body that is a file of its own beside the queue's database.
const LARGE_BYTES: usize = 100 << 10;

/// What functions say that they do, and how often.
type Executed = Arc<Mutex<HashMap<String, u32>>>;

/// Takes what functions report: a line with the call's id and the length of what follows. A report is answered when it
/// has come whole and is counted, and only then its function ends.
fn recorder() -> (u16, Executed) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let executed = Executed::default();
    let counted = executed.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let counted = counted.clone();
            // A report that the cut ends is none.
            std::thread::spawn(move || stream.and_then(|stream| record(&stream, &counted)));
        }
    });
    (port, executed)
}

fn record(stream: &TcpStream, executed: &Executed) -> std::io::Result<()> {
    stream.set_read_timeout(Some(CALL_MAX))?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (id, length) = line.trim().split_once(' ').ok_or(std::io::ErrorKind::InvalidData)?;
    let mut body = vec![0; length.parse().map_err(std::io::Error::other)?];
    reader.read_exact(&mut body)?;
    let is_whole = body.iter().all(|byte| *byte == b'x');
    assert!(is_whole, "the body of call {id} is not what was sent");
    std::thread::park_timeout(WORK);
    *executed.lock().unwrap().entry(id.to_owned()).or_default() += 1;
    (&*stream).write_all(b"counted\n")
}

fn api(machine: &Machine, method: &str, path: &str, body: &[u8]) -> Answer {
    let url = machine.url() + path;
    http::send_within(PATIENCE, method, &url, &[AUTHORIZATION], body).unwrap()
}

/// Loads an image, makes a secret and deploys a function. When this ends all three were acknowledged.
fn set_up(machine: &Machine) {
    let image = Image::hello("hello:test").oci_layout();
    api(machine, "POST", "/system/images?reference=hello:test&kind=archive", &image).expect(200);
    api(machine, "POST", "/system/secrets", br#"{"name":"kept","value":"a"}"#).expect(202);
    let function = serde_json::json!({
        "service": "hello", "image": "hello:test", "secrets": ["kept"],
        "annotations": {
            "dev.pinnace.concurrency": "4", "com.openfaas.retry.min_wait": "200ms",
        },
    });
    api(machine, "POST", "/system/functions", function.to_string().as_bytes()).expect(202);
}

/// What was set up is there, and answers.
fn is_set_up(machine: &Machine) {
    let names = |path: &str, key: &str| {
        let listed = api(machine, "GET", path, b"").expect(200).json();
        let names = listed.as_array().unwrap().iter().map(|one| one[key].clone());
        names.collect::<Vec<Value>>()
    };
    assert_eq!(names("/system/functions", "name"), ["hello"], "{}", machine.console());
    assert_eq!(names("/system/secrets", "name"), ["kept"], "{}", machine.console());
    eventually("the function answers", PATIENCE, || {
        let url = machine.url() + "/function/hello/read/var/openfaas/secrets/kept";
        let answer = http::send_within(CALL_MAX, "GET", &url, &[], b"").ok()?;
        (answer.status == 200 && answer.body == b"a").then_some(())
    });
}

/// Coins and waits, all from one seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() >> 63 == 1
    }
}

/// Ends the callers, also where the test fails: it waits for them.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Submits calls one after the other until `ends`, and notes each that was taken.
fn submit(
    caller: usize,
    url: &str,
    port: u16,
    taken: &Mutex<HashSet<String>>,
    (is_up, ends): (&AtomicBool, &AtomicBool),
) {
    let url = format!("{url}/async-function/hello/dial/10.0.2.2:{port}");
    for call in 0.. {
        if ends.load(Ordering::SeqCst) {
            return;
        }
        if !is_up.load(Ordering::SeqCst) {
            std::thread::park_timeout(Duration::from_millis(5));
            continue;
        }
        let id = format!("{caller}-{call}");
        let length = if call % 16 == 0 { LARGE_BYTES } else { 1 };
        let mut body = format!("{id} {length}\n").into_bytes();
        body.resize(body.len() + length, b'x');
        let sent = http::send_within(CALL_MAX, "POST", &url, &[("X-Call-Id", &id)], &body);
        if sent.is_ok_and(|answer| answer.status == 202) {
            taken.lock().unwrap().insert(id);
        }
    }
}

/// `PINNACE_SOAK_POWER_CUTS` says how often (`cargo xtask soak` sets it), and then 400 calls are taken between two cuts.
/// `PINNACE_POWER_CUT_SEED` repeats the coins of an earlier run.
#[test]
fn a_machine_that_loses_its_power_loses_no_call() {
    let (cuts, calls) = std::env::var("PINNACE_SOAK_POWER_CUTS")
        .map_or((2, 150), |cuts| (cuts.parse().unwrap(), 400));
    let seed = std::env::var("PINNACE_POWER_CUT_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |seed| seed.parse().unwrap());
    println!("PINNACE_POWER_CUT_SEED={seed}");
    let mut random = Random(seed);
    let (port, executed) = recorder();
    let mut machine = Machine::new();
    machine.boot();
    set_up(&machine);
    let cut = machine.cut(|| random.coin());
    println!("cut after the deploy: {cut:?}");
    machine.boot();
    is_set_up(&machine);

    let taken = Mutex::new(HashSet::new());
    let (is_up, ends) = (AtomicBool::new(true), AtomicBool::new(false));
    let url = machine.url();
    std::thread::scope(|scope| {
        for caller in 0..8 {
            let (taken, flags, url) = (&taken, (&is_up, &ends), &url);
            scope.spawn(move || submit(caller, url, port, taken, flags));
        }
        let callers_end = Ends(&ends);
        let mut open_in_all = 0;
        for _ in 0..cuts {
            let before = taken.lock().unwrap().len();
            eventually("calls are taken", PATIENCE, || {
                (taken.lock().unwrap().len() >= before + calls).then_some(())
            });
            std::thread::park_timeout(Duration::from_millis(random.next() % 300));
            let cut = machine.cut(|| random.coin());
            is_up.store(false, Ordering::SeqCst);
            let (promised, open) = promised_and_open(&taken, &executed);
            println!("{promised} calls taken, {open} of them not executed, then {cut:?}");
            open_in_all += open;
            machine.boot();
            is_set_up(&machine);
            is_up.store(true, Ordering::SeqCst);
        }
        drop(callers_end);
        assert!(open_in_all > 0, "no call was open at any cut, so that none could be lost");
    });
    settled(&machine, &taken.into_inner().unwrap(), &executed);
}

/// How many calls were taken, and how many of these wait or are under way.
fn promised_and_open(taken: &Mutex<HashSet<String>>, executed: &Executed) -> (usize, usize) {
    let (taken, executed) = (taken.lock().unwrap(), executed.lock().unwrap());
    let open = taken.iter().filter(|id| !executed.contains_key(*id)).count();
    (taken.len(), open)
}

/// Every call that was taken has been executed, or is among those that failed, and none is left.
fn settled(machine: &Machine, taken: &HashSet<String>, executed: &Executed) {
    eventually("the queue is empty", 2 * PATIENCE, || {
        let queue = api(machine, "GET", "/system/queue", b"").json();
        (queue["waiting"] == 0 && queue["inFlight"] == 0).then_some(())
    });
    let failed = api(machine, "GET", "/system/queue?failed=true", b"").expect(200).json();
    let failed: HashSet<_> = failed["calls"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|call| call["callId"].as_str())
        .collect();
    let executed = executed.lock().unwrap();
    let has_end = |id: &&String| executed.contains_key(*id) || failed.contains(id.as_str());
    let lost: Vec<_> = taken.iter().filter(|id| !has_end(id)).collect();
    let again = executed.values().filter(|times| **times > 1).count();
    println!(
        "{} calls taken, {} failed, {again} executed more than once",
        taken.len(),
        failed.len()
    );
    assert!(lost.is_empty(), "of {} calls {} were lost: {lost:?}", taken.len(), lost.len());
}
