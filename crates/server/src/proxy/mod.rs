//! The data plane: the way of an invocation, top to bottom.
//!
//! [`worker`] accepts; [`connection`] takes one request after the other, [`multiplex`] many at a time; [`route`] tells calls of functions
//! from the rest; [`call`] takes one from its arrival to its end; [`admission`] finds it a seat on a replica; [`stamp`] adds the
//! platform's headers; [`submission`] takes asynchronous calls, and [`door`] is where the queue calls functions;
//! [`gateway`] accepts what functions call themselves; [`sweeping`] says when idle connections
//! are looked through; [`failure`] says what went wrong when the function has no say. Nothing here waits for store, scaler,
//! metrics or logs, but that an asynchronous call is answered once it is on disk.

pub mod admission;
pub mod call;
pub mod connection;
pub mod door;
pub mod ending;
pub mod failure;
pub mod gateway;
pub mod multiplex;
pub mod route;
pub mod stamp;
pub mod submission;
pub mod sweeping;
pub mod worker;
