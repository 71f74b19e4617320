//! Looking after the registry: `pinnace registry`, and what a collection of garbage spares.

use std::process::Output;

use pinnace_tests::{Gateway, images::Image, pushing::Pusher};
use serde_json::Value;

use super::versioned;

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    text.into_owned()
}

fn json(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = gateway.cli(&[&["registry"], arguments, &["--output", "json"]].concat());
    assert!(output.status.success(), "{}", said(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn what_was_pushed_is_listed_removed_and_its_room_given_back() {
    let gateway = Gateway::start();
    gateway.login();
    let pusher = Pusher::new(&gateway);
    pusher.push(&versioned("1"), "team/app", "1");
    pusher.push(&versioned("2"), "team/app", "2");
    pusher.push(&Image::hello("made:1"), "other", "latest");
    let stray = pusher.push_blob("other", b"whose manifest has not come yet");

    let listed = json(&gateway, &["ls"]);
    let names: Vec<_> = listed["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|image| format!("{}:{}", image["repository"], image["tag"]).replace('"', ""))
        .collect();
    assert_eq!(names, ["other:latest", "team/app:1", "team/app:2"]);
    assert!(listed["images"][0]["sizeBytes"].as_u64() > Some(100_000), "{listed:#}");
    let text = said(&gateway.cli(&["registry", "ls"]));
    assert!(text.contains("team/app") && text.contains("MiB"), "{text}");

    let garbage = json(&gateway, &["gc"]);
    assert_eq!((&garbage["blobs"], &garbage["youngBlobs"]), (&0.into(), &1.into()));
    let host = pusher.host();
    let removed = gateway.cli(&["registry", "rm", &format!("{host}/team/app:1"), "other"]);
    assert!(removed.status.success(), "{}", said(&removed));
    let again = gateway.cli(&["registry", "rm", "other"]);
    let told = said(&again);
    assert!(again.status.code() == Some(1) && told.contains("no such image"), "{told}");

    // A layer that both versions have stays; of the rest it is said before what is done then.
    let now = ["gc", "--grace", "0s"];
    let dry = json(&gateway, &[&now[..], &["--dry-run"]].concat());
    pusher.send("HEAD", &format!("/v2/other/blobs/{stray}"), &[], b"").expect(200);
    let mut done = json(&gateway, &now);
    assert_eq!((&dry["isDry"], &done["isDry"]), (&true.into(), &false.into()));
    done["isDry"] = true.into();
    assert_eq!(dry, done);
    assert_eq!(done["blobs"], 5, "two configurations, two layers and the stray: {done:#}");
    pusher.send("HEAD", &format!("/v2/other/blobs/{stray}"), &[], b"").expect(404);
    for layer in versioned("2").parts().layers() {
        pusher.send("HEAD", &format!("/v2/team/app/blobs/{layer}"), &[], b"").expect(200);
    }
}

#[test]
fn pushes_lose_nothing_while_garbage_is_collected() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    std::thread::scope(|scope| {
        let pushing = scope.spawn(|| {
            for number in 0..20 {
                pusher.push(&versioned(&number.to_string()), "app", "latest");
            }
        });
        while !pushing.is_finished() {
            gateway.api("POST", "/system/registry/gc?untagged=true", b"").expect(200);
        }
        pushing.join().unwrap();
    });
    let untagged = gateway.api("POST", "/system/registry/gc?untagged=true&grace=0s", b"");
    let garbage = untagged.expect(200).json();
    assert_eq!((&garbage["manifests"], &garbage["blobs"]), (&19.into(), &38.into()));
    let manifest = pusher.send("GET", "/v2/app/manifests/latest", &[], b"").expect(200);
    assert_eq!(manifest.body, versioned("19").parts().manifest);
}
