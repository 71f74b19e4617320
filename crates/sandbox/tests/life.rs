//! A sandbox from its start to its end.

mod host;

use std::time::Duration;

use host::Host;
use pinnace_core::Exit;

#[test]
fn a_function_runs_speaks_and_ends() {
    let mut host = Host::new();
    let (out, err, exit) = host.sh("echo out; echo err >&2; exit 3");
    assert_eq!((out.as_str(), err.as_str(), exit), ("out\n", "err\n", Exit::Code { code: 3 }));
}

#[test]
fn a_function_that_is_asked_to_stop_stops() {
    let mut host = Host::new();
    let root = host.busybox_image("stop", |_| {});
    let spec = host.spec(
        root,
        &["sh", "-c", "trap 'echo bye; exit 7' TERM; echo up; while :; do sleep 1; done"],
    );
    let mut replica = host.start(&spec);
    replica.attach().unwrap();
    replica.hears_line("up");
    replica.stop(Duration::from_secs(10));
    let (out, _) = replica.output();
    assert_eq!((out.as_str(), replica.exit()), ("\nbye\n", Exit::Stopped));
    host.clean_up(replica);
}
