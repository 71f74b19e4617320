//! Nothing is left, whatever ended; and what is to stay is found again.

use std::{fs, os::fd::AsFd as _};

use pinnace_sandbox::{
    adoption::Adopted,
    network::{Policy, Router, Uplink},
};

use crate::world::{HOST, NAME, PUBLIC, WEB, World, eventually, ip, run, slot};

const OTHER: &str = "ba9876543210";

fn forwarding() -> String {
    fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap().trim().to_owned()
}

/// Everything on the host that a Pinnace could leave.
fn host() -> [String; 5] {
    [
        run("ip", "-br link"),
        run("ip", "route"),
        run("nft", "list ruleset"),
        run("lsns", "-t net -n -o NS"),
        forwarding(),
    ]
}

fn is_as_before(before: &[String; 5]) {
    eventually("the host is as before", || (host() == *before).then_some(()));
}

pub fn nothing_is_left() {
    let world = World::new();
    let before = host();
    let (router, uplink, _slots) = world.two_slots(&Policy::default());
    assert_eq!(forwarding(), "1");
    assert_eq!(uplink.device(), "pn-0123456789ab");
    assert_eq!(Uplink::remains(NAME).unwrap(), ["pn-0123456789ab", "pinnace-0123456789ab"]);
    drop((router, uplink));
    Uplink::remove(NAME).unwrap();
    Router::end(world.dir.path()).unwrap();
    assert!(Uplink::remains(NAME).unwrap().is_empty());
    assert!(!world.dir.path().join("pid").exists());
    ip("netns del one");
    ip("netns del two");
    is_as_before(&before);
    Uplink::remove(NAME).unwrap();
    Router::end(world.dir.path()).unwrap();
}

pub fn a_router_is_found_again() {
    let world = World::new();
    let (router, _, [one, two]) = world.two_slots(&Policy::default());
    let listener = router.listener().unwrap();
    drop(router);
    let mut router = Router::adopt(world.dir.path(), &Policy::default()).unwrap().unwrap();
    assert!(Uplink::adopt(&mut router, NAME).unwrap().is_some());
    assert_eq!(router.places().unwrap(), [one.at.place, two.at.place]);
    assert_eq!(one.dial(PUBLIC, WEB).unwrap(), HOST);
    router.let_leave(one.at.place, false).unwrap();
    assert!(one.is_refused(PUBLIC, WEB));
    let three = slot(&mut router, "three");
    assert!(three.at.place > two.at.place);
    assert!(three.is_refused(PUBLIC, WEB));
    // The listener that was handed on holds the address.
    assert!(router.listener().is_err());
    drop(listener);
    router.listener().unwrap();
    router.detach(two.at.place).unwrap();
    router.detach(two.at.place).unwrap();
    assert_eq!(router.places().unwrap(), [one.at.place, three.at.place]);
}

pub fn what_a_crash_leaves_is_removed() {
    let world = World::new();
    let before = host();
    let (router, _, slots) = world.two_slots(&Policy::default());
    let holder = Adopted::find(world.dir.path()).unwrap().unwrap();
    assert!(router.is_alive());
    holder.kill().unwrap();
    eventually("its process ends", || (!router.is_alive()).then_some(()));
    assert!(Router::adopt(world.dir.path(), &Policy::default()).unwrap().is_none());
    drop(router);
    // The rules outlive all processes; the next one replaces them.
    assert!(run("nft", "list ruleset").contains("pinnace-"));
    let mut router = world.router(&Policy::default());
    assert!(Uplink::adopt(&mut router, NAME).unwrap().is_none());
    Uplink::make(&mut router, NAME).unwrap();
    let three = slot(&mut router, "three");
    router.let_leave(three.at.place, true).unwrap();
    assert_eq!(three.dial(PUBLIC, WEB).unwrap(), HOST);
    drop((router, slots));
    Uplink::remove(NAME).unwrap();
    Router::end(world.dir.path()).unwrap();
    for name in ["one", "two", "three"] {
        ip(&format!("netns del {name}"));
    }
    is_as_before(&before);
}

pub fn the_last_one_turns_forwarding_off() {
    let world = World::new();
    assert_eq!(forwarding(), "0");
    let mut router = world.router(&Policy::default());
    Uplink::make(&mut router, NAME).unwrap();
    let other_dir = tempfile::tempdir().unwrap();
    let mut other =
        Router::make(other_dir.path(), world.program.as_fd(), &Policy::default()).unwrap();
    Uplink::make(&mut other, OTHER).unwrap();
    let one = slot(&mut other, "one");
    other.let_leave(one.at.place, true).unwrap();
    Uplink::remove(NAME).unwrap();
    assert_eq!(forwarding(), "1");
    assert_eq!(one.dial(PUBLIC, WEB).unwrap(), HOST);
    Uplink::remove(OTHER).unwrap();
    assert_eq!(forwarding(), "0");
}

pub fn forwarding_that_was_on_stays_on() {
    let world = World::new();
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    let mut router = world.router(&Policy::default());
    Uplink::make(&mut router, NAME).unwrap();
    Uplink::remove(NAME).unwrap();
    assert_eq!(forwarding(), "1");
}

pub fn a_place_is_given_again_without_its_rights() {
    let world = World::new();
    let (mut router, _, [one, two]) = world.two_slots(&Policy::default());
    // As when a sandbox ends: its devices go with its namespace, and nobody tells the router.
    let place = one.at.place;
    drop(one);
    ip("netns del one");
    eventually("its device is gone", || (router.places().unwrap() == [two.at.place]).then_some(()));
    drop(router);
    // Places are given in turn, so the first comes again only after the last; or to an adopter that sees
    // no later one.
    drop(two);
    ip("netns del two");
    eventually("all devices are gone", || {
        let mut router = Router::adopt(world.dir.path(), &Policy::default()).unwrap().unwrap();
        router.places().unwrap().is_empty().then_some(())
    });
    let mut router = Router::adopt(world.dir.path(), &Policy::default()).unwrap().unwrap();
    let again = slot(&mut router, "again");
    assert_eq!(again.at.place, place);
    assert!(again.is_refused(PUBLIC, WEB));
}
