//! The developer's commands, in Rust: `cargo xtask NAME`.

#![forbid(unsafe_code)]

mod check;
mod fuzz;
mod needs;
mod run;
mod test;
mod tidy;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "The developer's commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Format, lints and the repository's own rules
    Check,
    /// All tests; names what they lack on this machine
    Test {
        /// Install what is missing, by apt
        #[arg(long)]
        provision: bool,
    },
    /// The repository's own rules alone
    Tidy,
    /// Measure the promised numbers, each beside its reference
    Bench {
        /// Install what is missing, by apt
        #[arg(long)]
        provision: bool,
        /// Further arguments: --only NAME, --rounds N, --json, --list
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// The sandbox's tests in a virtual machine with control groups of version 2
    Vm {
        /// Only tests whose names contain one of these
        filters: Vec<String>,
    },
    /// The test of the queue in a virtual machine that loses its power, with a debug build
    PowerCut {
        /// How often, after 400 calls each time
        #[arg(long, default_value_t = 2)]
        cuts: u32,
    },
    /// The tests that can last: as long as you wish
    Soak {
        /// How often the server is killed under load
        #[arg(long, default_value_t = 1000)]
        kills: u32,
        /// How often the spawner is
        #[arg(long, default_value_t = 200)]
        spawner_kills: u32,
        /// How often the server is while asynchronous calls are submitted
        #[arg(long, default_value_t = 100)]
        queue_kills: u32,
        /// How often a machine's power is cut while asynchronous calls are submitted
        #[arg(long, default_value_t = 5)]
        power_cuts: u32,
        /// Calls while their function is redeployed and scaled
        #[arg(long, default_value_t = 1_000_000)]
        calls: u64,
        /// Mebibytes of an image
        #[arg(long, default_value_t = 10_240)]
        image_mib: u64,
        /// Seconds of each fuzz target
        #[arg(long, default_value_t = 600)]
        fuzz_s: u32,
    },
    /// The fuzz targets alone
    Fuzz {
        /// Seconds of each
        #[arg(long, default_value_t = test::FUZZ_SECONDS)]
        seconds: u32,
    },
    /// What continuous integration runs: check, then test on a machine that may lack everything
    Ci,
}

/// What a command line got wrong, or the machine lacks: exit code 2. Everything else that fails is 1.
#[derive(Debug)]
pub struct Unready(pub String);

impl std::fmt::Display for Unready {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unready {}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Check => check::check(),
        Command::Test { provision } => test::test(provision),
        Command::Tidy => tidy::tidy(),
        Command::Bench { provision, arguments } => test::bench(provision, &arguments),
        Command::Soak {
            kills,
            spawner_kills,
            queue_kills,
            power_cuts,
            calls,
            image_mib,
            fuzz_s,
        } => fuzz::fuzz(fuzz_s).and_then(|()| {
            test::soak(kills, spawner_kills, queue_kills, power_cuts, calls, image_mib)
        }),
        Command::PowerCut { cuts } => test::power_cut(cuts),
        Command::Fuzz { seconds } => fuzz::fuzz(seconds),
        Command::Vm { filters } => test::vm(&filters),
        Command::Ci => check::check().and_then(|()| test::test(true)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<Unready>() { 2 } else { 1 })
        }
    }
}
