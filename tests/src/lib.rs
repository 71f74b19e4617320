//! Black-box tests of the real binaries: what they need to start one and to look at what it leaves.
//!
//! Every test starts a [`Gateway`] of its own, in a state directory of its own and on ports of its own,
//! and speaks HTTP or runs `pinnace` as a user does. Nothing of the platform's code is linked here.

#![forbid(unsafe_code)]

pub mod builds;
pub mod callbacks;
pub mod census;
pub mod clients;
pub mod faulty;
pub mod gateway;
pub mod http;
pub mod images;
pub mod machine;
pub mod pushing;
pub mod registry;
pub mod stand_ins;
pub mod volatile_disk;
pub mod wait;

pub use callbacks::Callbacks;
pub use census::Census;
pub use faulty::FaultyRegistry;
pub use gateway::{Function, Gateway, watchdog};
pub use http::Answer;
pub use registry::Registry;
pub use wait::eventually;

/// The static program that serves HTTP and does what its path says; see `src/bin/hello.rs`.
///
/// # Panics
/// It is not built.
#[must_use]
pub fn hello() -> Vec<u8> {
    program("hello")
}

/// A static program of `src/bin`.
///
/// # Panics
/// It is not built.
#[must_use]
pub fn program(name: &str) -> Vec<u8> {
    let path = std::env::current_exe().ok().and_then(|test| {
        let folder = test.parent()?.parent()?;
        Some(folder.join(name))
    });
    let path = path.expect("a test runs from target/TARGET/PROFILE/deps");
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
