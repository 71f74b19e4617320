//! What the network costs a slot, as `cargo test --test network costs` prints it.

use std::{
    os::fd::AsFd as _,
    time::{Duration, Instant},
};

use pinnace_sandbox::network::{Policy, Uplink};

use crate::world::{NAME, World, ip, namespace};

const SLOTS: usize = 200;

/// Far above what is measured, but far below what a path through programs would take.
const ATTACH_MAX: Duration = Duration::from_millis(100);
const LEAVE_MAX: Duration = Duration::from_millis(20);

pub fn an_attachment_costs_little() {
    let world = World::new();
    let mut router = world.router(&Policy::default());
    Uplink::make(&mut router, NAME).unwrap();
    let names: Vec<String> = (0..SLOTS).map(|number| format!("n{number}")).collect();
    for name in &names {
        ip(&format!("netns add {name}"));
    }
    let (mut attached, mut allowed) = (Vec::new(), Vec::new());
    for name in &names {
        let namespace = namespace(name);
        let start = Instant::now();
        let at = router.attach(namespace.as_fd()).unwrap();
        attached.push(start.elapsed());
        let start = Instant::now();
        router.let_leave(at.place, true).unwrap();
        allowed.push(start.elapsed());
    }
    for (what, times, most) in
        [("attach", &mut attached, ATTACH_MAX), ("let leave", &mut allowed, LEAVE_MAX)]
    {
        times.sort_unstable();
        let (p50, p99) = (times[SLOTS / 2], times[SLOTS * 99 / 100]);
        println!("{what}: p50 {p50:?}, p99 {p99:?}");
        assert!(p50 < most, "{what}: {p50:?}");
    }
}
