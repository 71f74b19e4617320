//! The `pinnace` command: starts and ends a server on this host, and speaks to any gateway.
//!
//! The whole story: read the command line, run one command, decide the exit code. A command writes its
//! result to standard output; everything else (errors, warnings, progress) goes to standard error.

#![forbid(unsafe_code)]

mod args;
mod build;
mod command;
mod credentials;
mod embed;
mod failure;
mod fetch;
mod gateway;
mod golayout;
mod image;
mod output;
mod pause;
mod stack;
mod state_dir;
mod template;
mod tree;
mod up;

use std::process::ExitCode;

// Workers of the server allocate small and often from several threads; the system's allocator is
// slower at that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The allocator asks for huge pages, which a server at rest leaves mostly empty: with 1,000 functions it had
    // twice the memory. Those that it has got by the time that a server starts stay, so it is told first of all.
    // Calls are as fast without; the spawner allows them again, for functions.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    let cli = args::parse();
    match command::run(cli.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure::report(&error),
    }
}
