//! `pinnace up`: a server on this host.
//!
//! Flags → checked settings → log → programs unpacked → the server, which runs until a signal. Nothing
//! here changes the environment: the server has many threads.

mod builds;
mod examples;
mod settings;

use std::{
    fs,
    io::{self, IsTerminal},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use pinnace_server::state_dir::StateDir;
use tracing_subscriber::{EnvFilter, fmt::format::FmtSpan, util::SubscriberInitExt};

use settings::LogFormat;
pub use settings::UpArgs;

use crate::{embed, failure::usage, output, state_dir};

/// Runs a server until it is asked to end.
pub fn run(args: &UpArgs) -> anyhow::Result<()> {
    let mut settings = settings::resolve(args, state_dir::default().as_deref())
        .map_err(|faults| usage(faults.join("\n       ")))?;
    if let Some(file) = settings.registry.docker_config.as_ref().filter(|file| !file.exists()) {
        output::warn(&format!(
            "there is no {} (--docker-config); until there is, registries are asked without a login",
            file.display()
        ));
    }
    if settings.registry.docker_config.is_none() {
        let home = std::env::home_dir();
        settings.registry.docker_config = home.map(|home| home.join(".docker/config.json"));
    }
    start_log(args.log_format)?;
    make_private_dir(&settings.state_dir)?;
    settings.programs = embed::unpack(&settings.state_dir)?.dir;
    if args.examples {
        examples::deploy_when_ready(&settings);
    }
    pinnace_server::run(&settings)
}

/// The server's own log goes to standard error; `PINNACE_LOG` or `RUST_LOG` choose what is in it.
fn start_log(format: LogFormat) -> anyhow::Result<()> {
    let named = ["PINNACE_LOG", "RUST_LOG"].iter().find_map(|name| {
        let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
        Some((*name, value))
    });
    let filter = match named {
        Some((name, value)) => EnvFilter::try_new(&value)
            .map_err(|error| usage(format!("{name}={value:?} is no log filter: {error}")))?,
        None => EnvFilter::new("info"),
    };
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_span_events(FmtSpan::NONE);
    match format {
        LogFormat::Json => log.json().finish().try_init(),
        LogFormat::Text => {
            let color = output::has_color(&io::stderr());
            // Beside a terminal's log the time of day is enough of a target.
            log.with_ansi(color).with_target(!io::stderr().is_terminal()).finish().try_init()
        }
    }
    .map_err(|error| anyhow::anyhow!("the log cannot be started: {error}"))
}

/// The directory holds a password and everybody's functions: nobody else reads it.
fn make_private_dir(dir: &Path) -> anyhow::Result<()> {
    StateDir::refuse_others(dir)
        .map_err(|why| usage(format!("{why}; name an empty or new one with --state-dir")))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| {
        let dir = dir.display();
        anyhow::anyhow!(
            "cannot make the state directory {dir}: {error}; --state-dir can name another"
        )
    })
}
