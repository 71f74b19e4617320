//! The network of sandboxes, against stand-ins for the internet: needs root and Debian's iproute2 and
//! nftables. No packet leaves the namespaces that a test has made.
//!
//! Each test is a process of its own with one thread, as the spawner is, in network, mount and pid
//! namespaces of its own; so this program is its own harness and starts itself by unshare(1).

#![allow(clippy::unwrap_used)]

mod costs;
mod reach;
mod remains;
mod rules;
mod world;

use std::process::{Command, ExitCode, Stdio};

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    ("reach::the_gateway_knows_who_calls", reach::the_gateway_knows_who_calls),
    ("reach::only_who_may_leave_leaves", reach::only_who_may_leave_leaves),
    ("reach::what_is_closed_stays_closed", reach::what_is_closed_stays_closed),
    ("reach::exactly_what_is_opened_is_open", reach::exactly_what_is_opened_is_open),
    ("reach::names_are_asked_for_at_the_nameserver", reach::names_are_asked_for_at_the_nameserver),
    ("reach::nobody_speaks_for_another", reach::nobody_speaks_for_another),
    ("reach::a_published_port_is_no_way_in", reach::a_published_port_is_no_way_in),
    ("reach::nobody_outside_reaches_a_function", reach::nobody_outside_reaches_a_function),
    ("reach::connections_are_bounded", reach::connections_are_bounded),
    ("remains::nothing_is_left", remains::nothing_is_left),
    ("remains::a_router_is_found_again", remains::a_router_is_found_again),
    ("remains::what_a_crash_leaves_is_removed", remains::what_a_crash_leaves_is_removed),
    ("remains::the_last_one_turns_forwarding_off", remains::the_last_one_turns_forwarding_off),
    ("remains::forwarding_that_was_on_stays_on", remains::forwarding_that_was_on_stays_on),
    (
        "remains::a_place_is_given_again_without_its_rights",
        remains::a_place_is_given_again_without_its_rights,
    ),
    ("rules::nft_lists_what_was_meant", rules::nft_lists_what_was_meant),
    ("rules::a_chain_that_drops_is_said", rules::a_chain_that_drops_is_said),
    ("costs::an_attachment_costs_little", costs::an_attachment_costs_little),
];

/// Says that this process is a test in namespaces of its own.
const ALONE: &str = "--alone";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let Some(serve) = args.strip_prefix(&[world::SERVE.to_owned()]) {
        world::serve(serve);
        return ExitCode::SUCCESS;
    }
    if let Some([name]) = args.strip_prefix(&[ALONE.to_owned()]) {
        let (_, test) = TESTS.iter().find(|(test, _)| test == name).unwrap();
        test();
        return ExitCode::SUCCESS;
    }
    let is_named = |test: &str| {
        let mut wanted = args.iter().filter(|arg| !arg.starts_with("--")).peekable();
        wanted.peek().is_none() || wanted.any(|part| test.contains(part.as_str()))
    };
    let chosen: Vec<&str> =
        TESTS.iter().map(|(name, _)| *name).filter(|name| is_named(name)).collect();
    if args.iter().any(|arg| arg == "--list") {
        chosen.iter().for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let failed = chosen.iter().filter(|name| !passes(name)).count();
    let (verdict, passed) = (if failed == 0 { "ok" } else { "FAILED" }, chosen.len() - failed);
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out\n"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn passes(name: &str) -> bool {
    let this = std::env::current_exe().unwrap();
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child"])
        .arg(this)
        .args([ALONE, name])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let passed = ran.status.success();
    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
    let said = [ran.stdout, ran.stderr].concat();
    print!("{}", String::from_utf8_lossy(&said));
    passed
}
