//! The small server that runs beside each function.
//!
//! It listens where the platform says, starts the function's program (once, or for each call), and
//! carries calls to it by one of four modes, or as the classic watchdog does. Its environment is its only configuration (`settings`).
//! The way of a call: `serve` takes the connection, `front` judges the request, then `http_mode`, `fork`
//! or `files` answers it.
//!
//! One thread serves all calls, but for the modes that start a process for each (`crew`). A call is two copies
//! between sockets and no work of its own, so a second thread would add wake-ups and memory but no speed, and
//! the cores are the function's.
//!
//! It is a library with a program of one line, so that fuzz targets reach what reads bytes of callers.

#![forbid(unsafe_code)]

mod access;
mod answer;
mod auth;
pub mod cgi;
mod crew;
mod dial;
mod files;
mod fork;
mod framing;
mod front;
mod gate;
mod http_mode;
mod journal;
mod lines;
mod listen;
mod lock;
mod metrics;
mod process;
mod serve;
mod settings;
pub mod sniff;
mod spelling;
mod status;
pub mod target;
mod unread;
mod worded;

use std::{collections::HashMap, ffi::OsString, path::Path, process::ExitCode};

pub use auth::{keys, token};
pub use files::ranges;
pub use fork::classic::marshal;

use journal::Journal;
use listen::Handed;
use pinnace_sandbox::command;
use settings::{Fault, Settings};

/// The program.
pub fn main() -> ExitCode {
    let handed = Handed::take();
    command::expect_children();
    let journal = match Journal::start() {
        Ok(journal) => journal,
        Err(error) => {
            eprintln!("The threads that write the log cannot be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = run(handed, &journal);
    journal.finish();
    ExitCode::from(code)
}

fn run(handed: std::io::Result<Handed>, journal: &Journal) -> u8 {
    let environment: Vec<(OsString, OsString)> = std::env::vars_os().collect();
    match std::env::args().nth(1).as_deref().map(|flag| flag.trim_start_matches('-')) {
        None => {}
        Some("version") => {
            tell_version(journal);
            return 0;
        }
        Some("run-healthcheck") => return check_health(&environment),
        Some(flag) => {
            eprintln!("flag provided but not defined: -{flag}");
            return 2;
        }
    }
    tell_version(journal);
    let settings = match Settings::parse(&as_text(&environment)) {
        Ok(settings) => settings,
        Err(faults) => {
            for fault in &faults {
                journal.say(format_args!("{fault}"));
            }
            return faults.iter().map(Fault::exit_code).max().unwrap_or(1);
        }
    };
    let handed = match handed {
        Ok(handed) => handed,
        Err(error) => {
            journal.say(format_args!("The socket that was handed over cannot be used: {error}"));
            return 1;
        }
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(serve::run(settings, environment, handed, journal)),
        Err(error) => {
            journal.say(format_args!("The runtime cannot be started: {error}"));
            1
        }
    }
}

fn tell_version(journal: &Journal) {
    let revision = option_env!("PINNACE_REVISION").unwrap_or("unknown");
    journal.say(format_args!("Version: {}\tSHA: {revision}", env!("CARGO_PKG_VERSION")));
}

/// Settings are words; what is not text in the environment is none of them.
fn as_text(environment: &[(OsString, OsString)]) -> HashMap<String, String> {
    let text = |(name, value): &(OsString, OsString)| {
        Some((name.to_str()?.to_owned(), value.to_string_lossy().into_owned()))
    };
    environment.iter().filter_map(text).collect()
}

fn check_health(environment: &[(OsString, OsString)]) -> u8 {
    let dir = environment.iter().find(|(name, _)| name == "TMPDIR").map(|(_, value)| value);
    let dir = dir.filter(|dir| !dir.is_empty()).map_or(Path::new("/tmp"), Path::new);
    if dir.join(".lock").exists() {
        return 0;
    }
    eprintln!("unable to find lock file.");
    1
}
