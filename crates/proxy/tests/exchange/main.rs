//! A small relay between real sockets: what each side says, byte by byte, and what the other one hears.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod faults;
mod passing;
mod relay;
