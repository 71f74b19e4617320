//! The real `pinnace` binary against a small HTTP server that says what a test tells it to.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod around;
mod bench;
mod building;
mod deploy;
mod image;
mod invoke;
mod recordings;
mod secrets;
mod server;
mod session;
mod words;
