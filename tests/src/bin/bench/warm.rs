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
    figures::median,
    hello,
    load::{Load, load},
    platform,
    reference::{Nginx, direct, watchdog},
    report::{Promise, Row},
};

/// How many callers there are at once.
const CONNECTIONS: [u32; 3] = [4, 32, 256];

/// Requests/s and p99 beside nginx, for a function that listens on TCP and for one behind our watchdog,
/// which listens on a unix socket.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn throughput(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&[]);
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
    let rounds = alternate(plan, case, connections, ours, reference)?;
    let row = |measure, figure: fn(&Load) -> f64, promise| {
        let (ours, theirs): (Vec<_>, Vec<_>) =
            rounds.iter().map(|(ours, theirs)| (figure(ours), figure(theirs))).unzip();
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

/// What the platform adds at one connection. The caller waits in a poller, as clients and servers do; one
/// that is stopped in read(2) between its calls would share a processor with the function, and be answered
/// without any wake-up across processors, only where nothing stands between the two.
///
/// # Errors
/// Something cannot be started, or a call failed.
pub fn added(plan: &Plan) -> Result<Vec<Row>> {
    let hello = hello()?;
    let gateway = platform(&[]);
    deploy(&gateway, &hello, "plain", Way::Port)?;
    let function = direct(&hello)?;
    let url = format!("{}/function/plain/", gateway.url());
    let rounds = alternate(plan, "1 connection, TCP", 1, &url, &function.url())?;
    let calls: u64 = rounds.iter().map(|(ours, _)| ours.requests).sum();
    let row = |measure, figure: fn(&Load) -> f64, most| {
        let added: Vec<_> =
            rounds.iter().map(|(ours, theirs)| figure(ours) - figure(theirs)).collect();
        Row {
            case: format!("1 connection, TCP, n = {calls}"),
            measure,
            ours: median(&rounds.iter().map(|(ours, _)| figure(ours)).collect::<Vec<_>>()),
            reference_name: "called directly",
            reference: Some(median(
                &rounds.iter().map(|(_, theirs)| figure(theirs)).collect::<Vec<_>>(),
            )),
            promise: Promise::AddedAtMost(most),
            outcome: median(&added),
        }
    };
    Ok(vec![row("p50 us", |load| load.p50_us, 45.0), row("p99 us", |load| load.p99_us, 200.0)])
}

/// Rounds of ours and the reference in turn.
fn alternate(
    plan: &Plan,
    case: &str,
    connections: u32,
    ours: &str,
    reference: &str,
) -> Result<Vec<(Load, Load)>> {
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        // Who goes first changes, so that neither always follows the other.
        let (a, b);
        if round % 2 == 0 {
            a = load(ours, connections, plan.seconds)?;
            b = load(reference, connections, plan.seconds)?;
        } else {
            b = load(reference, connections, plan.seconds)?;
            a = load(ours, connections, plan.seconds)?;
        }
        rounds.push((a, b));
        eprintln!("  {case}: round {} of {}", round + 1, plan.rounds);
    }
    Ok(rounds)
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
    gateway.load(&reference, &image(&reference, hello)?);
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

/// An image that holds the function alone.
///
/// # Errors
/// It cannot be read.
pub fn image(reference: &str, hello: &Path) -> Result<Image> {
    let config = json!({ "Entrypoint": ["/hello"], "ExposedPorts": { "8080/tcp": {} } });
    let layer = Layer::default().file("hello", 0o755, &fs::read(hello)?);
    Ok(Image::new(reference, config, Packing::Plain).layer(layer))
}

/// The watchdog that the platform unpacked.
///
/// # Errors
/// It cannot be found.
pub fn unpacked_watchdog(gateway: &Gateway) -> Result<std::path::PathBuf> {
    let folder = gateway.state_dir().join("bin");
    let entries = fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?;
    let programs = entries.flatten().map(|entry| entry.path().join("pinnace-watchdog"));
    programs.into_iter().find(|path| path.is_file()).context("no watchdog was unpacked")
}
