//! Native builds: real programs with real dependencies become images without Docker, and what a stranger sends as a
//! source harms nobody.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod hostile;
mod languages;
mod limits;

use pinnace_tests::{
    Function, Gateway,
    builds::{Source, log},
};
use serde_json::Value;

/// A shell as a function, compiled by a command.
fn compiled(image: &str, command: &str) -> Source {
    let template = format!(
        "language: sh\npinnace:\n  base: host\n  compile:\n    run: [sh, -c, {command:?}]\n    keep: [/home/app/made]\n  \
         command: [cat, /home/app/made]\n"
    );
    Source::new(image, &template)
}

/// The digest of what was built.
fn digest(answer: &Value) -> String {
    answer["digest"].as_str().unwrap_or_else(|| panic!("{answer:#}")).to_owned()
}

/// Builds a source twice on one platform and once on another, as on another day, checks that it is one image, and
/// calls it.
fn build_and_call(gateways: &[Gateway; 2], source: &Source, image: &str, call: (&str, &str)) {
    let [here, elsewhere] = gateways;
    let first = here.build(source);
    let again = here.build(&source.clone().of_another_day());
    let (said, seconds) = (log(&again), again["duration"].as_f64().unwrap());
    assert!(said.contains("nothing has changed"), "{said}");
    assert!(seconds < 2.0, "an unchanged source took {seconds} s: {said}");
    let other = elsewhere.build(&source.clone().of_another_day());
    assert_eq!(digest(&first), digest(&again));
    assert_eq!(digest(&first), digest(&other), "{first:#}\n{other:#}");
    let name = image.split(':').next().unwrap();
    here.deploy(&Function::new(name, image));
    assert_eq!(here.call(name, call.0.as_bytes()).expect(200).text().trim(), call.1);
}

#[test]
fn what_is_installed_for_the_compiler_alone_outlives_collections_and_servers() {
    let template = "\
pinnace:
  base: scratch
  install:
    base: host
    files: [list]
    run: [sh, -c, 'echo installed > installed']
    keep: [/home/app/installed]
  compile:
    base: host
    run: [sh, -c, 'cat installed code > handler']
    keep: [/home/app/handler]
  command: [/home/app/handler]
";
    let mut gateway = Gateway::start();
    let source = |code: &str| Source::new("made:1", template).file("list", "x").file("code", code);
    let reuses = |gateway: &Gateway, code: &str| {
        log(&gateway.build(&source(code))).contains("install: nothing has changed")
    };
    assert!(!reuses(&gateway, "one"));
    let collect = |gateway: &Gateway| gateway.api("POST", "/system/images/prune", b"").expect(200);
    collect(&gateway);
    assert!(reuses(&gateway, "two"), "a collection has taken it");
    gateway.kill();
    gateway.up();
    assert!(reuses(&gateway, "three"), "the next server has taken it");
    // It goes with its image.
    gateway.api("DELETE", "/system/images?reference=made:1", b"").expect(202);
    assert!(!reuses(&gateway, "four"));
}
