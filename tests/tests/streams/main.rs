//! What passes through the gateway beside plain calls of HTTP/1.1.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod headers;
mod listening;
mod live;
mod protocols;

use pinnace_tests::{Function, Gateway, images::Image};

/// The ways of curl to speak HTTP without TLS.
const SPOKEN: [&str; 2] = ["--http1.1", "--http2-prior-knowledge"];

/// A platform with two functions: `one` speaks HTTP/1.1, `two` HTTP/2.
fn platform() -> Gateway {
    let gateway = Gateway::start();
    deploy(&gateway);
    gateway
}

fn deploy(gateway: &Gateway) {
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway.deploy(&Function::new("one", "hello:test"));
    gateway.deploy(&speaks_h2c("two"));
}

fn speaks_h2c(name: &str) -> Function {
    let function = Function::new(name, "hello:test").env("HELLO_PROTOCOL", "h2c");
    function.annotation("dev.pinnace.protocol", "h2c")
}
