//! The process that makes sandboxes; started by the server.

use std::process::ExitCode;

fn main() -> ExitCode {
    match pinnace_sandbox::spawner::main(std::env::args_os().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pinnace-spawner: {error}");
            ExitCode::FAILURE
        }
    }
}
