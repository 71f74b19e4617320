//! The data plane: the way of an invocation, top to bottom.
//!
//! [`worker`] accepts; [`connection`] takes one request after the other, [`multiplex`] many at a time; [`route`] tells calls of functions
//! from the rest; [`call`] takes one from its arrival to its end; [`admission`] finds it a seat on a replica; [`stamp`] adds the
//! platform's headers; [`gateway`] accepts what functions call themselves; [`sweeping`] says when idle connections
//! are looked through; [`failure`] says what went wrong when the function has no say. Nothing here waits for store, scaler,
//! metrics or logs.

pub mod admission;
pub mod call;
pub mod connection;
pub mod ending;
pub mod failure;
pub mod gateway;
pub mod multiplex;
pub mod route;
pub mod stamp;
pub mod sweeping;
pub mod worker;
