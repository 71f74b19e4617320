//! Measures the promised numbers of SPEC.md, each beside its reference in the same run. Run it as
//! `cargo xtask bench`, which builds release binaries first.

#![forbid(unsafe_code)]

mod burst;
mod cold;
mod crowd;
mod enqueue;
mod figures;
mod fork;
mod latency;
mod load;
mod reference;
mod report;
mod stream;
mod warm;
mod watchdog;

use std::{path::Path, process::ExitCode};

use anyhow::{Result, bail};
use clap::Parser;
use pinnace_tests::Gateway;
use report::{Report, Row};

/// A promised number and how it is measured.
struct Benchmark {
    name: &'static str,
    about: &'static str,
    measure: fn(&Plan) -> Result<Vec<Row>>,
}

const BENCHMARKS: &[Benchmark] = &[
    Benchmark {
        name: "warm-throughput",
        about: "requests/s and p99 at 4, 32 and 256 connections, beside nginx before the same function",
        measure: warm::throughput,
    },
    Benchmark {
        name: "warm-added",
        about: "what the platform adds to a call at 1 connection, beside the function called directly",
        measure: warm::added,
    },
    Benchmark {
        name: "stream-first-byte",
        about: "time to the first event of an event stream, beside the function called directly",
        measure: stream::first_byte,
    },
    Benchmark {
        name: "cold-static",
        about: "a call that starts a static binary from zero, beside runc run and docker run",
        measure: cold::from_zero,
    },
    Benchmark {
        name: "cold-no-slot",
        about: "the same with no sandbox made ahead, beside a bare clone with one migration",
        measure: cold::without_slots,
    },
    Benchmark {
        name: "burst",
        about: "100 functions at zero called at once, beside 100 runc run side by side",
        measure: burst::from_zero,
    },
    Benchmark {
        name: "fork",
        about: "a process per request, beside of-watchdog (its path: PINNACE_OF_WATCHDOG) and a bare spawn loop",
        measure: fork::per_request,
    },
    Benchmark {
        name: "watchdog-http",
        about: "our watchdog in http mode, beside of-watchdog (its path: PINNACE_OF_WATCHDOG) before the same function",
        measure: watchdog::http,
    },
    Benchmark {
        name: "watchdog-memory",
        about: "what our watchdog holds after thousands of calls, in serializing and in http mode",
        measure: watchdog::memory,
    },
    Benchmark {
        name: "idle",
        about: "what a server with 1,000 functions at zero uses",
        measure: crowd::idle,
    },
    Benchmark {
        name: "catalog",
        about: "10,000 functions at zero: memory, start, list, and calls beside one function alone",
        measure: crowd::catalog,
    },
    Benchmark {
        name: "async",
        about: "durable enqueues from 64 callers, beside a bare fdatasync loop of 64 records a batch",
        measure: enqueue::durable,
    },
];

/// How much is measured.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask bench", about = "Measures the promised numbers")]
#[command(
    after_help = "PINNACE_OF_WATCHDOG names the program of of-watchdog that fork and watchdog-http compare with."
)]
struct Plan {
    /// Only this benchmark; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Rounds; each measures ours and the reference in turn, and medians are taken over them
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds of load in each half of a round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Samples of a percentile of cold starts
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    samples: u32,
    /// Write JSON to standard output
    #[arg(long)]
    json: bool,
    /// List the benchmarks
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some((group, program)) = reference::asked(&arguments) {
        eprintln!("bench: {:#}", reference::migrate(group, program));
        return ExitCode::FAILURE;
    }
    let plan = Plan::parse();
    match run(&plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what is planned; answers whether every promise was kept.
fn run(plan: &Plan) -> Result<bool> {
    if plan.list {
        for benchmark in BENCHMARKS {
            println!("{:<16} {}", benchmark.name, benchmark.about);
        }
        return Ok(true);
    }
    let mut report = Report::begin()?;
    for benchmark in chosen(plan)? {
        eprintln!("{}: {}", benchmark.name, benchmark.about);
        report.add(benchmark.name, (benchmark.measure)(plan)?);
    }
    if plan.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report.table());
    }
    Ok(report.is_kept())
}

fn chosen(plan: &Plan) -> Result<Vec<&'static Benchmark>> {
    if let Some(unknown) =
        plan.only.iter().find(|name| BENCHMARKS.iter().all(|benchmark| benchmark.name != **name))
    {
        let known: Vec<_> = BENCHMARKS.iter().map(|benchmark| benchmark.name).collect();
        bail!("no benchmark is named {unknown}; there are {}", known.join(", "));
    }
    let wanted = |benchmark: &&Benchmark| {
        plan.only.is_empty() || plan.only.iter().any(|name| name == benchmark.name)
    };
    Ok(BENCHMARKS.iter().filter(wanted).collect())
}

/// The release build of `hello`, beside this program.
fn hello() -> Result<std::path::PathBuf> {
    let this = std::env::current_exe()?;
    let hello = this.parent().unwrap_or(Path::new("")).join("hello");
    if !hello.is_file() {
        bail!("{} is missing; run: cargo xtask bench", hello.display());
    }
    Ok(hello)
}

/// A platform whose records of what runs lie in memory, as root's do wherever `/run` is; where it is not, as in
/// most containers, they are given the place that is in memory there too.
fn platform(flags: &[&str]) -> Gateway {
    let in_memory = |place: &str| {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        mounts.lines().any(|line| line.split(' ').skip(1).take(2).eq([place, "tmpfs"]))
    };
    let place = ["--run-dir", "/dev/shm/pinnace-bench"];
    let wanted = !in_memory("/run") && in_memory("/dev/shm");
    Gateway::start_with(&[flags, if wanted { &place } else { &[] }].concat())
}
