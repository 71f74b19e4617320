//! What functions reach, and what of the network is left: the whole platform in namespaces of a test's own.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{fs, path::Path, time::Duration};

use pinnace_tests::{
    Answer, Function, Gateway, eventually,
    images::Image,
    stand_ins::{HOST, METADATA, PRIVATE, PUBLIC, WEB, alone, internet, run, serve_on_host},
};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);

fn hello(name: &str, network: &str) -> Function {
    let function = Function::new(name, "hello:test");
    let annotations = serde_json::json!({ "dev.pinnace.network": network });
    if network.is_empty() { function } else { function.with("annotations", annotations) }
}

/// One that takes a socket, as those on the host's network must.
fn hello_on_host(name: &str) -> Function {
    let annotations = serde_json::json!({
        "dev.pinnace.network": "host", "dev.pinnace.listen": "socket"
    });
    Function::new(name, "hello:test").with("annotations", annotations)
}

fn platform(flags: &[&str]) -> Gateway {
    let gateway = Gateway::start_with(flags);
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway
}

fn dial(gateway: &Gateway, function: &str, place: &str) -> Answer {
    gateway.call(&format!("{function}/dial/{place}"), b"")
}

/// Whether the function is told at once that it may not go there.
fn is_refused(gateway: &Gateway, function: &str, place: &str) -> bool {
    let answer = dial(gateway, function, place);
    answer.status == 502 && answer.text().contains("No route to host")
}

/// What a function gets that asks the gateway, under one of its names.
fn ask(gateway: &Gateway, function: &str, name: &str, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
    gateway.call(&format!("{function}/dial/{name}:8080"), request.as_bytes()).expect(200).text()
}

/// The addresses of all replicas, as the gateway knows them.
fn addresses(gateway: &Gateway) -> Vec<String> {
    let slots = fs::read_dir(gateway.state_dir().join("run/slots")).unwrap().flatten();
    let has_replica =
        |slot: &Path| fs::metadata(slot.join("replica.json")).is_ok_and(|file| file.len() > 0);
    let replicas = slots.map(|slot| slot.path()).filter(|slot| has_replica(slot));
    replicas.filter_map(|slot| fs::read_to_string(slot.join("address")).ok()).collect()
}

/// Everything on the host's network that could be left.
fn host() -> [String; 4] {
    let forwarding = fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    [run("ip -br link"), run("ip route"), run("nft list ruleset"), forwarding]
}

#[test]
fn functions_call_each_other_by_the_gateway() {
    if !alone("functions_call_each_other_by_the_gateway") {
        return;
    }
    internet();
    let gateway = platform(&[]);
    gateway.deploy(&hello("leaves", ""));
    gateway.deploy(&hello("stays", "none"));
    for (caller, called) in [("leaves", "stays"), ("stays", "leaves")] {
        for name in ["gateway", "gateway.openfaas", "gateway.openfaas.svc.cluster.local"] {
            let answer = ask(&gateway, caller, name, &format!("/function/{called}/request?a=b"));
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
            assert!(answer.contains("GET /request?a=b\n"), "{answer}");
        }
        for path in ["/system/functions", "/healthz", "/", "/ui/", "/system/info"] {
            let answer = ask(&gateway, caller, "gateway", path);
            assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
        }
    }
    let answer = ask(&gateway, "stays", "gateway", "/function/nobody");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
    // The function that is called sees where the call comes from.
    let seen = ask(&gateway, "stays", "gateway", "/function/leaves/request");
    assert!(addresses(&gateway).iter().any(|address| seen.contains(address.as_str())), "{seen}");
}

#[test]
fn functions_reach_what_is_open_and_nothing_else() {
    if !alone("functions_reach_what_is_open_and_nothing_else") {
        return;
    }
    internet();
    const PORT: u16 = 9999;
    serve_on_host(PORT);
    let gateway = platform(&["--allow-net", "10.78.0.0/24"]);
    gateway.deploy(&hello("leaves", ""));
    gateway.deploy(&hello("stays", "none"));
    assert_eq!(dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}")).expect(200).text(), HOST);
    assert_eq!(dial(&gateway, "leaves", &format!("10.78.0.1:{WEB}")).expect(200).text(), HOST);
    assert_eq!(dial(&gateway, "leaves", &format!("any.example:{WEB}")).expect(200).text(), HOST);
    let closed = PRIVATE.iter().filter(|address| **address != "10.78.0.1").chain([&METADATA]);
    for address in closed {
        assert!(is_refused(&gateway, "leaves", &format!("{address}:{WEB}")), "{address}");
    }
    for port in [PORT, gateway.address().port()] {
        assert!(is_refused(&gateway, "leaves", &format!("{HOST}:{port}")));
        assert_ne!(dial(&gateway, "leaves", &format!("127.0.0.1:{port}")).status, 200);
    }
    for address in addresses(&gateway) {
        // Each listens on port 8080 of all its addresses; the other's is closed, its own is not.
        let own = dial(&gateway, "leaves", &format!("{address}:8081")).text();
        let is_own = own.contains("Connection refused");
        assert!(is_own || is_refused(&gateway, "leaves", &format!("{address}:8080")), "{address}");
    }
    assert!(is_refused(&gateway, "stays", &format!("{PUBLIC}:{WEB}")));
    assert!(is_refused(&gateway, "stays", &format!("10.78.0.1:{WEB}")));
    assert_ne!(dial(&gateway, "stays", &format!("any.example:{WEB}")).status, 200);
}

#[test]
fn the_network_outlives_server_and_spawner() {
    if !alone("the_network_outlives_server_and_spawner") {
        return;
    }
    internet();
    let mut gateway = platform(&[]);
    gateway.deploy(&hello("leaves", ""));
    gateway.deploy(&hello("stays", "none"));
    let before = addresses(&gateway);
    gateway.kill();
    kill_named("pinnace-spawner");
    gateway.up();
    assert_eq!(addresses(&gateway), before, "the replicas are the same");
    assert_eq!(dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}")).expect(200).text(), HOST);
    assert!(is_refused(&gateway, "stays", &format!("{PUBLIC}:{WEB}")));
    let answer = ask(&gateway, "leaves", "gateway", "/function/stays/");
    assert!(answer.ends_with("hello\n"), "{answer}");
    // With the spawner alone.
    kill_named("pinnace-spawner");
    gateway.scale("leaves", 2);
    gateway.until("leaves", "both serve", |status| status["availableReplicas"].as_u64() == Some(2));
    let answer = ask(&gateway, "stays", "gateway", "/function/leaves/");
    assert!(answer.ends_with("hello\n"), "{answer}");
}

#[test]
fn without_their_router_replicas_are_replaced() {
    if !alone("without_their_router_replicas_are_replaced") {
        return;
    }
    internet();
    let gateway = platform(&[]);
    gateway.deploy(&hello("leaves", ""));
    kill_named("pinnace-router");
    eventually("a replica with a network serves", PATIENCE, || {
        let answer = dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}"));
        (answer.status == 200 && answer.text() == HOST).then_some(())
    });
    let answer = ask(&gateway, "leaves", "gateway", "/function/leaves/");
    assert!(answer.ends_with("hello\n"), "{answer}");
}

#[test]
fn a_router_that_cannot_be_replaced_at_once_is_replaced_later() {
    if !alone("a_router_that_cannot_be_replaced_at_once_is_replaced_later") {
        return;
    }
    internet();
    let gateway = platform(&[]);
    gateway.deploy(&hello("leaves", ""));
    let place = gateway.state_dir().join("run/router");
    std::fs::rename(&place, place.with_extension("away")).unwrap();
    std::fs::write(&place, "").unwrap();
    kill_named("pinnace-router");
    let missing = || gateway.api("GET", "/system/info", b"").expect(200).text();
    eventually("it is said that there is none", PATIENCE, || {
        missing().contains("gateway:8080").then_some(())
    });
    std::fs::remove_file(&place).unwrap();
    eventually("there is one again", PATIENCE, || {
        (!missing().contains("gateway:8080")).then_some(())
    });
    eventually("a replica with a network serves", PATIENCE, || {
        let answer = dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}"));
        (answer.status == 200 && answer.text() == HOST).then_some(())
    });
}

#[test]
fn nothing_of_the_network_is_left() {
    if !alone("nothing_of_the_network_is_left") {
        return;
    }
    internet();
    let before = host();
    let mut gateway = platform(&[]);
    gateway.deploy(&hello("leaves", ""));
    assert_ne!(host(), before);
    gateway.stop();
    eventually("the host is as before", PATIENCE, || (host() == before).then_some(()));

    // Everything is killed, and then there is `up` and `down`.
    gateway.up();
    gateway.until("leaves", "it serves", |status| status["availableReplicas"].as_u64() == Some(1));
    gateway.kill();
    for name in ["pinnace-spawner", "pinnace-router", "pinnace-init"] {
        kill_named(name);
    }
    assert_ne!(host(), before, "the rules outlive a crash");
    gateway.up();
    gateway.until("leaves", "it serves", |status| status["availableReplicas"].as_u64() == Some(1));
    assert_eq!(dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}")).expect(200).text(), HOST);
    gateway.kill();
    assert!(gateway.down().status.success());
    eventually("the host is as before", PATIENCE, || (host() == before).then_some(()));
    eventually("no process is left", PATIENCE, || {
        let is_ours = |name: &String| name.starts_with("pinnace-");
        processes().into_iter().all(|(_, name)| !is_ours(&name)).then_some(())
    });
    assert!(!gateway.state_dir().join("run").exists());
}

#[test]
fn an_ordinary_user_has_the_gateway_and_no_way_out() {
    if !alone("an_ordinary_user_has_the_gateway_and_no_way_out") {
        return;
    }
    internet();
    let before = host();
    let mut gateway = Gateway::start_as(65_534, &[]);
    gateway.load("hello:test", &Image::hello("hello:test"));
    gateway.deploy(&hello("leaves", ""));
    gateway.deploy(&hello("stays", "none"));
    let calls = |gateway: &Gateway| {
        let answer = ask(gateway, "leaves", "gateway", "/function/stays/");
        assert!(answer.ends_with("hello\n"), "{answer}");
    };
    calls(&gateway);
    assert_ne!(dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}")).status, 200);
    let refused = gateway.try_deploy(&hello("never", "nat"));
    assert_eq!(refused.status, 400, "{}", refused.text());
    assert!(refused.text().contains("run Pinnace as root"), "{}", refused.text());
    gateway.kill();
    kill_named("pinnace-spawner");
    gateway.up();
    calls(&gateway);
    gateway.scale("leaves", 2);
    gateway.until("leaves", "both serve", |status| status["availableReplicas"].as_u64() == Some(2));
    assert_eq!(host(), before);
}

#[test]
fn a_function_may_have_the_hosts_network() {
    if !alone("a_function_may_have_the_hosts_network") {
        return;
    }
    internet();
    const PORT: u16 = 9999;
    serve_on_host(PORT);
    let mut gateway = platform(&[]);
    gateway.deploy(&hello_on_host("shares"));
    gateway.deploy(&hello("stays", "none"));
    gateway.deploy(&hello("leaves", ""));
    for (function, network) in [("shares", "host"), ("stays", "none"), ("leaves", "nat")] {
        assert_eq!(gateway.status(function).unwrap()["network"], network);
    }
    // What the host reaches it reaches, as the host.
    assert_eq!(dial(&gateway, "shares", &format!("127.0.0.1:{PORT}")).text(), "127.0.0.1");
    for address in [PUBLIC, PRIVATE[0]] {
        assert_eq!(dial(&gateway, "shares", &format!("{address}:{WEB}")).text(), HOST);
    }
    // The API is in reach, and asks for the password.
    let request = b"GET /system/functions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let api = gateway.call(&format!("shares/dial/{}", gateway.address()), request).text();
    assert!(api.starts_with("HTTP/1.1 401 "), "{api}");
    let calls = |gateway: &Gateway| {
        for name in ["gateway", "gateway.openfaas", "gateway.openfaas.svc.cluster.local"] {
            let answer = ask(gateway, "shares", name, "/function/stays/request");
            assert!(answer.contains("GET /request\n"), "{answer}");
        }
        let answer = ask(gateway, "stays", "gateway", "/function/shares/");
        assert!(answer.ends_with("hello\n"), "{answer}");
    };
    calls(&gateway);
    for path in ["/system/functions", "/healthz", "/", "/ui/", "/system/info"] {
        let answer = ask(&gateway, "shares", "gateway", path);
        assert!(answer.starts_with("HTTP/1.1 404 Not Found"), "{answer}");
    }
    let hosts = |gateway: &Gateway| gateway.call("shares/read/etc/hosts", b"").expect(200).text();
    let before = hosts(&gateway);
    // It outlives server and spawner, and its router is none of its business.
    gateway.kill();
    kill_named("pinnace-spawner");
    gateway.up();
    calls(&gateway);
    let replica = |gateway: &Gateway| gateway.call("shares/read/etc/hostname", b"").text();
    let same = replica(&gateway);
    kill_named("pinnace-router");
    eventually("a replica with a network serves", PATIENCE, || {
        (dial(&gateway, "leaves", &format!("{PUBLIC}:{WEB}")).status == 200).then_some(())
    });
    assert_eq!((hosts(&gateway), replica(&gateway)), (before.clone(), same.clone()));
    // Another one has another address.
    let stop = gateway.call("shares/exit/1", b"");
    assert_ne!(stop.status, 200);
    eventually("another replica serves", PATIENCE, || {
        let answer = gateway.call("shares/read/etc/hostname", b"");
        (answer.status == 200 && answer.text() != same).then_some(())
    });
    assert_ne!(hosts(&gateway), before);
    calls(&gateway);
}

#[test]
fn the_hosts_network_is_refused_where_it_must_not_be() {
    if !alone("the_hosts_network_is_refused_where_it_must_not_be") {
        return;
    }
    internet();
    let mut gateway = platform(&[]);
    let refused = |gateway: &Gateway, function: &Function, why: &str| {
        let answer = gateway.try_deploy(function);
        let (status, text) = (answer.status, answer.text());
        assert_eq!(status, 400, "{text}");
        assert!(text.contains("cannot have network host") && text.contains(why), "{text}");
    };
    refused(&gateway, &hello("at-port", "host"), "port 8080");
    let two = hello_on_host("two").label("com.openfaas.scale.max", "2");
    refused(&gateway, &two, "com.openfaas.scale.max");
    gateway.deploy(&hello_on_host("shares"));
    let body = br#"{"serviceName":"shares","replicas":2}"#;
    let answer = gateway.api("POST", "/system/scale-function/shares", body);
    assert_eq!(answer.status, 400, "{}", answer.text());

    // One that was deployed before gets it neither, and has it again where a password is asked for.
    gateway.kill();
    gateway.set_flags(&["--no-auth"]);
    gateway.up();
    refused(&gateway, &hello_on_host("other"), "--no-auth");
    let status = gateway.until("shares", "it says why", |status| {
        status["rollout"]["message"].as_str().is_some_and(|said| said.contains("--no-auth"))
    });
    assert_eq!(status["availableReplicas"].as_u64().unwrap_or(0), 0, "{status}");
    assert_eq!(listening_at_gateways(), 0);
    gateway.stop();
    gateway.set_flags(&[]);
    gateway.up();
    gateway.until("shares", "it serves", |status| status["availableReplicas"].as_u64() == Some(1));
}

#[test]
fn nothing_of_the_hosts_network_is_left() {
    if !alone("nothing_of_the_hosts_network_is_left") {
        return;
    }
    internet();
    let before = host();
    let mut gateway = platform(&[]);
    gateway.deploy(&hello_on_host("shares"));
    assert_eq!(listening_at_gateways(), 1);
    gateway.remove("shares");
    eventually("its listener is closed", PATIENCE, || (listening_at_gateways() == 0).then_some(()));
    gateway.deploy(&hello_on_host("shares"));
    gateway.kill();
    for name in ["pinnace-spawner", "pinnace-router", "pinnace-init"] {
        kill_named(name);
    }
    gateway.up();
    gateway.until("shares", "it serves", |status| status["availableReplicas"].as_u64() == Some(1));
    gateway.kill();
    assert_eq!(listening_at_gateways(), 1, "its init keeps it");
    assert!(gateway.down().status.success());
    eventually("the host is as before", PATIENCE, || (host() == before).then_some(()));
    eventually("nothing listens and no process is left", PATIENCE, || {
        let is_ours = |(_, name): &(i32, String)| name.starts_with("pinnace-");
        (listening_at_gateways() == 0 && !processes().iter().any(is_ours)).then_some(())
    });
}

/// Listeners of this network namespace at port 8080, which is the gateway's.
fn listening_at_gateways() -> usize {
    run("ss --numeric --no-header --listening --tcp").matches(":8080 ").count()
}

/// The processes of this pid namespace, which is the test's own: number and name.
fn processes() -> Vec<(i32, String)> {
    let found = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let number = process.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(process.path().join("status")).ok()?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        // One that has ended stays listed where its parent, here this test, does not wait for it.
        let lives = !field("State:")?.trim().starts_with('Z');
        lives.then_some((number, field("Name:")?.trim().to_owned()))
    });
    found.collect()
}

/// Ends all processes of this name.
fn kill_named(name: &str) {
    /// Characters of a name that the kernel keeps.
    const KEPT: usize = 15;
    let named = |(_, known): &(i32, String)| known == &name[..name.len().min(KEPT)];
    let found: Vec<_> = processes().into_iter().filter(named).collect();
    assert!(!found.is_empty(), "no process is named {name}");
    for (number, _) in found {
        // It may have ended by itself.
        let _ = kill_process(Pid::from_raw(number).unwrap(), Signal::KILL);
    }
}
