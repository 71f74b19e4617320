//! Native builds: real programs with real dependencies become images without Docker, and what a stranger sends as a
//! source harms nobody.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

mod hostile;
mod languages;
mod limits;

use pinnace_tests::{Function, Gateway, builds::Source};
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
    let (said, seconds) = (pinnace_tests::builds::log(&again), again["duration"].as_f64().unwrap());
    assert!(said.contains("nothing has changed"), "{said}");
    assert!(seconds < 2.0, "an unchanged source took {seconds} s: {said}");
    let other = elsewhere.build(&source.clone().of_another_day());
    assert_eq!(digest(&first), digest(&again));
    assert_eq!(digest(&first), digest(&other), "{first:#}\n{other:#}");
    let name = image.split(':').next().unwrap();
    here.deploy(&Function::new(name, image));
    assert_eq!(here.call(name, call.0.as_bytes()).expect(200).text().trim(), call.1);
}
