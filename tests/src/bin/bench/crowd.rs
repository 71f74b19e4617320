//! Many functions that are deployed and at zero: what they cost the server, and what they cost others.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use pinnace_tests::{Function, Gateway};
use rusqlite::Connection;

use crate::{
    Plan,
    figures::{median, percentile},
    hello,
    latency::Caller,
    platform,
    report::{Promise, Row},
    warm::{Way, deploy, image},
};

/// Functions of a host that is used a lot, and of one that is used for everything.
const MANY: u32 = 1_000;
const VERY_MANY: u32 = 10_000;

/// How long the server is left alone before and while its processor time is counted.
const QUIET: Duration = Duration::from_secs(10);

/// Calls of one half of a round.
const CALLS: usize = 2_000;

/// 1,000 functions that were deployed through the API and scaled to zero.
///
/// # Errors
/// Something cannot be started, or is refused.
pub fn idle(_: &Plan) -> Result<Vec<Row>> {
    let gateway = platform(&[]);
    gateway.load("crowd:1", &image("crowd:1", &hello()?)?);
    for number in 0..MANY {
        let name = format!("crowd-{number}");
        let answer = gateway.try_deploy(&Function::new(&name, "crowd:1"));
        ensure!(answer.status == 202, "{name}: {}", answer.text());
        gateway.scale(&name, 0);
        if (number + 1) % 200 == 0 {
            eprintln!("  {} of {MANY}", number + 1);
        }
    }
    for number in 0..MANY {
        gateway.until(&format!("crowd-{number}"), "it is at zero", |status| {
            status["availableReplicas"].as_u64().unwrap_or(0) == 0
        });
    }
    pause(QUIET);
    let (before, begin) = (processor_ns(gateway.pid())?, Instant::now());
    pause(QUIET);
    let after = processor_ns(gateway.pid())?;
    let used = after.iter().map(|(thread, ns)| ns - before.get(thread).unwrap_or(&0));
    let cpu = used.sum::<u64>() as f64 / 1e3 / begin.elapsed().as_secs_f64();
    let resident = resident_bytes(gateway.pid())? as f64 / 1e6;
    let case = format!("{MANY} functions at zero");
    Ok(vec![
        alone(&case, "resident MB", resident, 30.0),
        alone(&case, "processor us/s", cpu, 1_000.0),
    ])
}

/// 10,000 functions at zero: memory, start of the server, list, and calls of another function, beside a server
/// with that function alone.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn catalog(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let (mut one, _) = crowded(&hello, 0)?;
    let base = resident_bytes(one.pid())?;
    let (_, started_many) = crowded(&hello, MANY)?;
    let (crowd, started_very_many) = crowded(&hello, VERY_MANY)?;
    let each = (resident_bytes(crowd.pid())?.saturating_sub(base)) as f64 / f64::from(VERY_MANY);
    let mut lists = Vec::new();
    for _ in 0..20 {
        let begin = Instant::now();
        let answer = crowd.api("GET", "/system/functions", b"").expect(200);
        lists.push(begin.elapsed().as_secs_f64() * 1e3);
        ensure!(answer.body.len() > VERY_MANY as usize * 50, "the list is short");
    }
    // What a start and lists leave to be done is done, and what they needed is given back.
    pause(QUIET);
    let after = (resident_bytes(crowd.pid())?.saturating_sub(base)) as f64 / f64::from(VERY_MANY);
    let case = format!("{VERY_MANY} functions at zero");
    let mut rows = vec![
        alone(&case, "bytes each", each, 4096.0),
        alone(&case, "bytes each, later", after, 4096.0),
        alone(&case, "list ms, p50", median(&lists), 50.0),
        alone(&format!("{MANY} functions at zero"), "start s", started_many, 1.0),
        alone(&case, "start s", started_very_many, 2.0),
    ];
    rows.push(beside(plan, &case, &crowd, &one)?);
    one.stop();
    Ok(rows)
}

/// A figure with a promise and nothing to compare it with.
fn alone(case: &str, measure: &'static str, ours: f64, most: f64) -> Row {
    Row {
        case: case.to_owned(),
        measure,
        ours,
        reference_name: "-",
        reference: None,
        promise: Promise::AtMost(most),
        outcome: ours,
    }
}

/// Calls of a function of one server and of another, in turn.
fn beside(plan: &Plan, case: &str, crowd: &Gateway, one: &Gateway) -> Result<Row> {
    let caller =
        |gateway: &Gateway| Caller::connect(&gateway.address().to_string(), "/function/called/");
    let p50 = |gateway: &Gateway| -> Result<f64> {
        let mut caller = caller(gateway)?;
        let times: Result<Vec<f64>> = (0..CALLS).map(|_| caller.call()).collect();
        Ok(percentile(&times?, 50.0))
    };
    let rounds: Result<Vec<(f64, f64)>> =
        (0..plan.rounds).map(|_| Ok((p50(crowd)?, p50(one)?))).collect();
    let rounds = rounds?;
    let middle = |of: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(of).collect::<Vec<_>>());
    Ok(Row {
        case: case.to_owned(),
        measure: "call p50 us",
        ours: middle(|round| round.0),
        reference_name: "one function",
        reference: Some(middle(|round| round.1)),
        promise: Promise::RatioAtMost(1.1),
        outcome: middle(|round| round.0 / round.1),
    })
}

/// A server with one function that runs and so many at zero, and how many seconds it took to start with them.
/// They are copies of one that was deployed, made in the database: deploying them would take minutes.
fn crowded(hello: &std::path::Path, count: u32) -> Result<(Gateway, f64)> {
    let mut gateway = platform(&[]);
    deploy(&gateway, hello, "called", Way::Port)?;
    gateway.load("crowd:1", &image("crowd:1", hello)?);
    gateway.deploy(&Function::new("crowd-0", "crowd:1"));
    gateway.scale("crowd-0", 0);
    gateway.stop();
    copy(&gateway, count).context("the database takes no copies")?;
    let begin = Instant::now();
    gateway.up();
    let took = begin.elapsed().as_secs_f64();
    gateway.until("called", "it serves", |status| status["availableReplicas"] == 1);
    pause(QUIET / 5);
    Ok((gateway, took))
}

fn copy(gateway: &Gateway, count: u32) -> Result<()> {
    let database = Connection::open(gateway.state_dir().join("functions.db"))?;
    database.execute(
        "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
         INSERT INTO functions (name, namespace, deployment, revision, replicas, created_at)
         SELECT 'crowd-' || n, namespace, replace(deployment, 'crowd-0', 'crowd-' || n), revision, 0,
                created_at
         FROM functions, number WHERE name = 'crowd-0' AND n <= ?1",
        [count],
    )?;
    Ok(())
}

/// Lets the server be.
fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

/// Memory that a process uses.
/// The memory that a process has.
///
/// # Errors
/// It is gone.
pub fn resident_bytes(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.context("the kernel tells no VmRSS")?.trim().trim_end_matches(" kB");
    Ok(kibibytes.parse::<u64>()? * 1024)
}

/// Processor time that the threads of a process have used, by thread. Those that end take theirs with them:
/// they wait for work that does not come.
fn processor_ns(pid: u32) -> Result<BTreeMap<OsString, u64>> {
    let mut used = BTreeMap::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?;
        let stat = fs::read_to_string(thread.path().join("schedstat"))?;
        let ns = stat.split(' ').next().unwrap_or_default().parse()?;
        used.insert(thread.file_name(), ns);
    }
    Ok(used)
}
