//! All tests and benchmarks, in the right order.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::{
    fuzz, needs,
    run::{cargo, output, run},
    vm,
};

/// Runs every test: first those that need nothing but the code, then those that drive the real binary.
///
/// # Errors
/// The machine lacks something, or a test failed; it was shown.
pub fn test(provision: bool) -> Result<()> {
    needs::meet(needs::TESTS, provision)?;
    needs::meet(needs::VM, provision)?;
    let host_folder = target_folder()?;
    let folder = host_folder.parent().context("it is below cargo's target folder")?.join("venv");
    needs::meet_python(&folder, provision)?;
    run(&mut cargo(&["test", "--workspace", "--exclude", "pinnace-tests"]))?;
    run(&mut cargo(&["build", "--package", "pinnace", "--package", "pinnace-watchdog"]))?;
    let binaries = host_folder.join("debug");
    let machine = vm::power_cut_machine(&binaries.join("pinnace"))?;
    run(cargo(&["test", "--package", "pinnace-tests"])
        .envs(machine)
        .env("PINNACE_BIN", binaries.join("pinnace"))
        .env("PINNACE_WATCHDOG", binaries.join("pinnace-watchdog")))?;
    vm::test(&[])?;
    fuzz::fuzz(FUZZ_SECONDS)
}

/// How long each fuzz target runs among the tests.
pub const FUZZ_SECONDS: u32 = 60;

/// Runs the sandbox's tests in a virtual machine.
///
/// # Errors
/// This machine lacks something, or a test failed; it was shown.
pub fn vm(filters: &[String]) -> Result<()> {
    needs::meet(needs::VM, false)?;
    vm::test(filters)
}

/// Cuts the power of a virtual machine under a debug build of the server.
///
/// # Errors
/// This machine lacks something, or a call was lost; it was shown.
pub fn power_cut(cuts: u32) -> Result<()> {
    needs::meet(needs::VM, false)?;
    run(&mut cargo(&["build", "--package", "pinnace"]))?;
    let machine = vm::power_cut_machine(&target_folder()?.join("debug/pinnace"))?;
    let arguments = ["test", "--package", "pinnace-tests", "--test", "power_cut"];
    run(cargo(&arguments)
        .args(["--", "--nocapture"])
        .envs(machine)
        .env("PINNACE_SOAK_POWER_CUTS", cuts.to_string()))
}

/// How often soak has each operation of the API tried by a client made from its description.
const SOAK_EXAMPLES: &str = "200";

/// Runs the tests that can last, with release binaries.
///
/// # Errors
/// A test failed; it was shown.
pub fn soak(
    kills: u32,
    spawner_kills: u32,
    queue_kills: u32,
    power_cuts: u32,
    calls: u64,
    image_mib: u64,
) -> Result<()> {
    needs::meet(needs::VM, false)?;
    run(&mut cargo(&["build", "--release", "--package", "pinnace"]))?;
    let binary = target_folder()?.join("release/pinnace");
    let machine = vm::power_cut_machine(&binary)?;
    for (test, name) in [
        ("crash", "a_killed_server_comes_back_and_its_functions_never_left"),
        ("crash", "a_killed_spawner_is_replaced_and_no_call_fails"),
        ("queue", "a_killed_server_loses_no_call"),
        ("power_cut", "a_machine_that_loses_its_power_loses_no_call"),
        ("openapi", "a_client_made_from_the_description_finds_nothing_amiss"),
        ("churn", "no_call_fails_while_its_function_is_redeployed_and_scaled"),
        ("bad_days", "an_image_of_many_gibibytes_is_loaded_run_and_removed_in_little_memory"),
        ("bad_days", "an_image_of_many_gibibytes_is_pushed_pulled_and_deployed_in_little_memory"),
    ] {
        let arguments = ["test", "--release", "--package", "pinnace-tests", "--test", test, name];
        run(cargo(&arguments)
            .env("PINNACE_BIN", &binary)
            .env("PINNACE_SOAK_KILLS", kills.to_string())
            .env("PINNACE_SOAK_SPAWNER_KILLS", spawner_kills.to_string())
            .env("PINNACE_SOAK_QUEUE_KILLS", queue_kills.to_string())
            .env("PINNACE_SOAK_POWER_CUTS", power_cuts.to_string())
            .envs(machine.clone())
            .env("PINNACE_SOAK_CALLS", calls.to_string())
            .env("PINNACE_SOAK_EXAMPLES", SOAK_EXAMPLES)
            .env("PINNACE_SOAK_IMAGE_MIB", image_mib.to_string()))?;
    }
    Ok(())
}

/// Builds release binaries and measures them.
///
/// # Errors
/// The machine lacks something, or a benchmark could not be run.
pub fn bench(provision: bool, arguments: &[String]) -> Result<()> {
    needs::meet(needs::BENCHMARKS, provision)?;
    let packages = ["--package", "pinnace", "--package", "pinnace-watchdog"];
    run(cargo(&["build", "--release"]).args(packages))?;
    // A benchmark that panics must end what it has started, so it unwinds.
    let unwinds = ["--config", "profile.release.panic=\"unwind\""];
    run(cargo(&["build", "--release", "--package", "pinnace-tests", "--bins"]).args(unwinds))?;
    let folder = target_folder()?.join("release");
    let mut bench = std::process::Command::new(folder.join("bench"));
    bench.args(arguments).env("PINNACE_BIN", folder.join("pinnace"));
    run(bench.env("PINNACE_WATCHDOG", folder.join("pinnace-watchdog")))
}

/// Where cargo puts what it builds for this host.
fn target_folder() -> Result<PathBuf> {
    let metadata = output(&mut cargo(&["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let folder = metadata["target_directory"].as_str().context("cargo names its target folder")?;
    let version = output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(PathBuf::from(folder).join(host.context("rustc names its host")?))
}
