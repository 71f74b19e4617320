//! Calls to a function that runs already.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use pinnace_tests::{
    Function, Gateway,
    images::{Image, Layer, Packing},
};
use serde_json::json;

use crate::{
    Plan,
    figures::{median, percentile},
    hello,
    latency::Caller,
    load::load,
    reference::{Nginx, direct, watchdog},
    report::{Promise, Row},
};

/// How many callers there are at once.
const CONNECTIONS: [u32; 3] = [4, 32, 256];

/// Calls before the measuring begins.
const WARM_UP_CALLS: u32 = 200;

/// Requests/s and p99 beside nginx, for a function that listens on TCP and for one behind our watchdog,
/// which listens on a unix socket.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn throughput(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = Gateway::start();
    deploy(&gateway, &hello, "plain", Way::Port)?;
    deploy(&gateway, &hello, "handed", Way::Socket)?;
    deploy(&gateway, &hello, "watched", Way::Watchdog)?;

    let function = direct(&hello)?;
    let watched = watchdog(&unpacked_watchdog(&gateway)?, &hello)?;
    let mut rows = Vec::new();
    for (name, socket, upstream, least) in [
        ("plain", "TCP", function.address, 1.0),
        ("handed", "unix socket", function.address, 1.2),
        ("watched", "watchdog on a unix socket", watched.address, 1.2),
    ] {
        let nginx = Nginx::before(upstream)?;
        let url = format!("{}/function/{name}/", gateway.url());
        for connections in CONNECTIONS {
            let case = format!("{connections} connections, {socket}");
            rows.extend(beside(plan, &case, connections, &url, &nginx.running.url(), least)?);
        }
    }
    Ok(rows)
}

/// Rounds of ours and the reference in turn; medians of the rounds' ratios.
fn beside(
    plan: &Plan,
    case: &str,
    connections: u32,
    ours: &str,
    reference: &str,
    least: f64,
) -> Result<[Row; 2]> {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for round in 0..plan.rounds {
        // Who goes first changes, so that neither always follows the other.
        if round % 2 == 0 {
            a.push(load(ours, connections, plan.seconds)?);
            b.push(load(reference, connections, plan.seconds)?);
        } else {
            b.push(load(reference, connections, plan.seconds)?);
            a.push(load(ours, connections, plan.seconds)?);
        }
        eprintln!("  {case}: round {} of {}", round + 1, plan.rounds);
    }
    let row = |measure, figure: fn(&crate::load::Load) -> f64, promise| {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            (a.iter().map(figure).collect(), b.iter().map(figure).collect());
        let ratios: Vec<_> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        Row {
            case: case.to_owned(),
            measure,
            ours: median(&ours),
            reference_name: "nginx",
            reference: Some(median(&theirs)),
            promise,
            outcome: median(&ratios),
        }
    };
    Ok([
        row("requests/s", |load| load.per_second, Promise::RatioAtLeast(least)),
        row("p99 us", |load| load.p99_us, Promise::RatioAtMost(1.15)),
    ])
}

/// What the platform adds at one connection.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn added(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = Gateway::start();
    deploy(&gateway, &hello, "plain", Way::Port)?;
    let function = direct(&hello)?;
    let mut ours = Caller::connect(&gateway.address().to_string(), "/function/plain/")?;
    let mut reference = Caller::connect(&function.address.to_string(), "/")?;
    for _ in 0..WARM_UP_CALLS {
        ours.call()?;
        reference.call()?;
    }
    let samples = plan.samples.div_ceil(plan.rounds);
    let (mut a, mut b) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        a.push(call_times(&mut ours, samples)?);
        b.push(call_times(&mut reference, samples)?);
    }
    let row = |measure, percent, most| {
        let of = |rounds: &[Vec<f64>]| {
            rounds.iter().map(|calls| percentile(calls, percent)).collect::<Vec<f64>>()
        };
        let (ours, theirs) = (of(&a), of(&b));
        let added: Vec<_> = ours.iter().zip(&theirs).map(|(ours, theirs)| ours - theirs).collect();
        Row {
            case: format!("1 connection, TCP, n = {}", samples * plan.rounds),
            measure,
            ours: median(&ours),
            reference_name: "called directly",
            reference: Some(median(&theirs)),
            promise: Promise::AddedAtMost(most),
            outcome: median(&added),
        }
    };
    Ok(vec![row("p50 us", 50.0, 45.0), row("p99 us", 99.0, 200.0)])
}

fn call_times(caller: &mut Caller, samples: u32) -> Result<Vec<f64>> {
    (0..samples).map(|_| caller.call()).collect()
}

/// How the function is reached.
#[derive(Clone, Copy)]
pub enum Way {
    /// It listens on TCP.
    Port,
    /// It is handed a listening unix socket.
    Socket,
    /// Our watchdog listens on a unix socket, and calls it over TCP.
    Watchdog,
}

/// Deploys the function.
pub fn deploy(gateway: &Gateway, hello: &Path, name: &str, way: Way) -> Result<()> {
    let reference = format!("bench/{name}:1");
    let config = json!({ "Entrypoint": ["/hello"], "ExposedPorts": { "8080/tcp": {} } });
    let layer = Layer::default().file("hello", 0o755, &fs::read(hello)?);
    gateway.load(&reference, &Image::new(&reference, config, Packing::Plain).layer(layer));
    let mut function = Function::new(name, &reference);
    function = match way {
        Way::Port => function,
        Way::Socket => function.with("annotations", json!({ "dev.pinnace.listen": "socket" })),
        Way::Watchdog => function
            .with("envProcess", "/hello".into())
            .env("mode", "http")
            .env("upstream_url", "http://127.0.0.1:8082")
            .env("PORT", "8082"),
    };
    gateway.deploy(&function);
    Ok(())
}

/// The watchdog that the platform unpacked.
fn unpacked_watchdog(gateway: &Gateway) -> Result<std::path::PathBuf> {
    let folder = gateway.state_dir().join("bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let programs = entries.flatten().map(|entry| entry.path().join("pinnace-watchdog"));
    programs.into_iter().find(|path| path.is_file()).context("no watchdog was unpacked")
}
