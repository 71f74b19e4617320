//! Data plane, API, scaler, providers, logs: the server behind `pinnace up`.

#![forbid(unsafe_code)]

pub mod settings;

pub use settings::Settings;

/// Runs the server until SIGINT or SIGTERM, then drains, stops what it started, and returns.
///
/// # Errors
/// It cannot start: the state directory is in use, the address is taken, the host lacks what it needs.
pub fn run(settings: Settings) -> anyhow::Result<()> {
    let _ = settings;
    Ok(())
}
