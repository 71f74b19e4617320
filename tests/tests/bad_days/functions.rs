//! Functions that hang, answer garbage or close in the middle.

use pinnace_tests::{Answer, Function, Gateway, http};

/// A platform with a function that answers as no server should, and one that is well.
fn badly_served() -> Gateway {
    let gateway = Gateway::start_with(&["--timeout", "2s"]);
    gateway.deploy_hello("good");
    gateway.deploy(&Function::new("bad", "hello:test").env("HELLO_AT_START", "raw"));
    gateway.call("bad", b"").expect(200);
    gateway
}

fn is_the_platforms(answer: &Answer) {
    assert!(answer.header("x-openfaas-internal").is_some(), "{answer:?}");
    assert!(!answer.body.is_empty());
}

#[test]
fn what_is_no_answer_is_a_bad_gateway_in_words() {
    let gateway = badly_served();
    for path in ["bad/garbage", "bad/half-head", "bad/wide-head"] {
        let answer = gateway.call(path, b"").expect(502);
        is_the_platforms(&answer);
        gateway.call("good", b"").expect(200);
        gateway.call("bad", b"").expect(200);
    }
    let wide = gateway.call("bad/wide-head", b"").expect(502).text();
    assert!(wide.contains("1048576"), "the limit is named: {wide}");
}

#[test]
fn half_a_body_is_never_taken_for_a_whole_one() {
    let gateway = badly_served();
    let url = format!("{}/function/bad/half-body", gateway.url());
    let broken = http::send("POST", &url, &[], b"");
    assert!(broken.is_err(), "the caller learns that it broke off: {broken:?}");
    gateway.call("good", b"").expect(200);
}

#[test]
fn a_function_that_hangs_costs_its_own_calls_their_time_and_no_more() {
    let gateway = badly_served();
    std::thread::scope(|scope| {
        let hanging = scope.spawn(|| gateway.call("bad/hang", b""));
        while !hanging.is_finished() {
            gateway.call("good", b"").expect(200);
        }
        let answer = hanging.join().unwrap().expect(504);
        is_the_platforms(&answer);
        assert!(answer.text().contains("--timeout"), "the setting is named: {}", answer.text());
    });
    gateway.call("bad", b"").expect(200);
}
