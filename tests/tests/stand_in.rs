//! Images that bring a watchdog: ours stands in for it, and nobody can tell.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use pinnace_tests::{
    Answer, Function, Gateway,
    images::{Image, Layer, Packing},
    program,
};
use serde_json::json;

/// Loads an image with this program as its watchdog, and these variables.
fn load(gateway: &Gateway, reference: &str, watchdog: &[u8], env: &[&str]) {
    let layer = Layer::default().file("usr/bin/fwatchdog", 0o755, watchdog).file(
        "bin/applets",
        0o755,
        &program("applets"),
    );
    let config = json!({ "Cmd": ["fwatchdog"], "Env": env });
    gateway.load(reference, &Image::new(reference, config, Packing::Gzip).layer(layer));
}

/// A function of the image, with the watchdog that the image brings.
fn kept(name: &str, reference: &str) -> Function {
    Function::new(name, reference).annotation("dev.pinnace.watchdog", "image")
}

#[test]
fn ours_runs_in_the_place_of_one_that_is_known() {
    let gateway = Gateway::start();
    for (kind, module) in [("of", "of-watchdog"), ("classic", "classic-watchdog")] {
        // No program at all, so that only ours can have answered.
        let watchdog = format!("\0path\tgithub.com/openfaas/{module}\n");
        let (reference, name) = (format!("made/{kind}:1"), format!("known-{kind}"));
        load(&gateway, &reference, watchdog.as_bytes(), &["fprocess=/bin/applets cat"]);
        gateway.deploy(&Function::new(&name, &reference));
        assert_eq!(gateway.call(&name, b"words").expect(200).text(), "words");
        let fails = Function::new(&format!("fails-{kind}"), &reference)
            .with("envProcess", "/bin/applets false".into());
        gateway.deploy(&fails);
        // The one hides what failed, the other tells it.
        let status = gateway.call(&format!("fails-{kind}"), b"").status;
        assert_eq!(status, if kind == "of" { 200 } else { 500 });
        let answer = gateway.try_deploy(&kept(&format!("kept-{kind}"), &reference));
        assert_eq!(answer.status, 202, "{}", answer.text());
        let name = format!("kept-{kind}");
        gateway.until(&name, "it cannot start", |status| status["rollout"]["phase"] == "failed");
    }
}

#[test]
fn nobody_can_tell_ours_from_the_original() {
    for (variable, further) in [
        ("PINNACE_TEST_OF_WATCHDOG", "mode=serializing"),
        ("PINNACE_TEST_OF_WATCHDOG", "mode=streaming"),
        ("PINNACE_TEST_CLASSIC_WATCHDOG", "write_debug=false"),
    ] {
        let Ok(original) = std::env::var(variable) else {
            println!("left out: {variable} names no watchdog");
            continue;
        };
        let gateway = Gateway::start();
        let env = ["fprocess=/bin/applets cat", "content_type=text/plain", further];
        load(&gateway, "brings:1", &std::fs::read(original).unwrap(), &env);
        gateway.deploy(&Function::new("ours", "brings:1"));
        gateway.deploy(&kept("theirs", "brings:1"));
        // In this mode the original loses what a command has not read when its first output goes out.
        let large = vec![b'x'; if further == "mode=streaming" { 3_000 } else { 300_000 }];
        for (method, path, headers, body) in [
            ("POST", "/a/b?x=1", &[][..], &b"words"[..]),
            ("GET", "", &[("Accept", "text/html")], b""),
            ("PUT", "/%2Fa", &[("X-Call-Id", "mine")], b"\x00\xff"),
            ("POST", "", &[("Content-Type", "application/json")], &large),
            ("DELETE", "/x", &[], b""),
        ] {
            let ask = |name: &str| {
                seen(&gateway.request(method, &format!("{name}{path}"), headers, body))
            };
            assert_eq!(ask("ours"), ask("theirs"), "{further}: {method} {path}");
        }
    }
}

/// What callers see of an answer, but for what differs from call to call.
fn seen(answer: &Answer) -> (u16, String, Vec<Option<String>>) {
    let names = ["content-type", "x-call-id", "x-openfaas-internal", "location"];
    let headers = names.map(|name| answer.header(name).map(str::to_owned));
    let mut headers = headers.to_vec();
    headers[1] = headers[1].take().map(|_| "an id".to_owned());
    headers.push(answer.header("x-duration-seconds").map(|_| "a time".to_owned()));
    (answer.status, answer.text(), headers)
}
