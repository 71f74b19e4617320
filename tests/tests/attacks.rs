//! Functions that try to get out, at each other and at the platform. Each attempt is made outside of a
//! sandbox too, where it must work: one that fails everywhere would prove nothing.

#![allow(clippy::unwrap_used, reason = "a test says what failed by failing there")]

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, Write},
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    process::Command,
};

use pinnace_tests::{
    Function, Gateway, hello,
    images::{Image, Layer, Packing},
};
use serde_json::{Value, json};

const ATTACKER: &str = include_str!("attacks/attacker.py");
const THIEF: &str = include_str!("attacks/thief.py");

/// A function that runs the Python program it is called with.
fn python(name: &str) -> Function {
    Function::host(name, "/usr/bin/python3 -")
}

/// What a program of [`attacks`](self) said: answer by name.
fn answers(said: &str) -> BTreeMap<String, String> {
    let line =
        |line: &str| line.split_once('\t').map(|(name, answer)| (name.into(), answer.into()));
    said.lines().map(|said| line(said).unwrap_or_else(|| panic!("{said}"))).collect()
}

/// Runs a Python program as root in namespaces that keep what it does from the host.
fn outside(program: &str) -> BTreeMap<String, String> {
    // From a file, which is then a descriptor that no function would have.
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(program.as_bytes()).unwrap();
    file.rewind().unwrap();
    let said = Command::new("unshare")
        .args(["--mount", "--uts", "--ipc", "--cgroup", "--pid", "--fork", "--kill-child"])
        .args(["/usr/bin/python3", "-"])
        .stdin(file)
        .output()
        .unwrap();
    assert!(said.status.success());
    answers(&String::from_utf8(said.stdout).unwrap())
}

/// This host's own addresses, but those of the loopback device.
fn addresses() -> Vec<String> {
    let said = Command::new("hostname").arg("-I").output();
    let said = said.map(|said| said.stdout).unwrap_or_default();
    String::from_utf8_lossy(&said).split_whitespace().map(str::to_owned).collect()
}

/// Whether this process has a capability, by its number.
fn has_capability(number: u32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    u64::from_str_radix(set, 16).unwrap() >> number & 1 == 1
}

/// The platform's programs, as they lie on the host.
fn programs(gateway: &Gateway) -> Vec<(String, Vec<u8>)> {
    let versions = fs::read_dir(gateway.state_dir().join("bin")).unwrap().flatten();
    let files = versions.flat_map(|version| fs::read_dir(version.path()).unwrap().flatten());
    files
        .map(|file| (file.path().to_string_lossy().into_owned(), fs::read(file.path()).unwrap()))
        .collect()
}

#[test]
fn a_function_cannot_get_out() {
    let gateway = Gateway::start();
    gateway.deploy(&python("attacker"));
    gateway.deploy_hello("neighbour");
    let secret = gateway.state_dir().join("secret");
    fs::write(&secret, "secret").unwrap();
    let name = format!("pinnace-test-{}", gateway.address().port());
    let listener =
        UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let target = json!({
        "secret": secret, "state": gateway.state_dir(), "abstract": name, "addresses": addresses(),
        "ports": [gateway.address().port()],
        "programs": ["/.pinnace/fwatchdog", "/proc/1/exe", "/proc/self/exe", "/usr/bin/python3"],
    });
    let program = |target: &Value| format!("TARGET = {target}\n{ATTACKER}");
    let before = programs(&gateway);
    assert!(!before.is_empty());

    let said = answers(&gateway.call("attacker", program(&target).as_bytes()).expect(200).text());
    assert!(said.len() >= 18, "{said:?}");
    let out: Vec<_> = said.iter().filter(|(_, answer)| *answer == "done").collect();
    assert!(out.is_empty(), "{out:?}");
    // Nothing but attempts at what is missing or forbidden: none that broke off for another reason.
    let known = [
        "nothing",
        "EPERM",
        "EACCES",
        "ENOENT",
        "EROFS",
        "ENOTDIR",
        "ECONNREFUSED",
        "ENETUNREACH",
        "EADDRNOTAVAIL",
        "ETXTBSY",
        "ELOOP",
    ];
    let odd: Vec<_> = said.iter().filter(|(_, answer)| !known.contains(&answer.as_str())).collect();
    assert!(odd.is_empty(), "{odd:?}");
    assert!(programs(&gateway) == before, "the host's programs are as they were");
    assert_eq!(gateway.call("neighbour", b"").expect(200).text(), "hello\n");
    gateway.scale("attacker", 2);
    gateway.until("attacker", "another one serves", |status| status["availableReplicas"] == 2);

    let copy = tempfile::NamedTempFile::new().unwrap();
    let mut harmless = target.clone();
    harmless["programs"] = json!([copy.path()]);
    let said_outside = outside(&program(&harmless));
    // Root in a container may lack CAP_SYS_RESOURCE, and then raises no limit either; nor may it look at a pid 1
    // that has more capabilities.
    let sees_pid_1 = fs::read_link("/proc/1/ns/mnt").is_ok();
    let may = |name: &str| match name {
        "raise_a_limit" => has_capability(24),
        "enter_the_inits_namespaces" | "read_the_inits_memory" => sees_pid_1,
        _ => true,
    };
    let tried = said.keys().filter(|name| may(name));
    for name in tried {
        assert_eq!(said_outside[name], "done", "{name} does not work at all: it proves nothing");
    }
    drop(listener);
}

#[test]
fn a_function_does_not_find_what_another_has() {
    let gateway = Gateway::start();
    gateway.deploy(&python("victim"));
    gateway.deploy(&python("thief"));
    let run = |function: &str, plant: &str| {
        let program = format!("PLANT = {plant}\n{THIEF}");
        answers(&gateway.call(function, program.as_bytes()).expect(200).text())
    };
    for (plant, function, answer) in
        [("True", "victim", true), ("False", "victim", true), ("False", "thief", false)]
    {
        let said = run(function, plant);
        assert_eq!(said.len(), 7);
        for (name, found) in said {
            assert_eq!(found == "found", answer, "{function} {plant} {name}: {found}");
        }
    }
}

#[test]
fn an_image_cannot_lead_out_nor_give_privileges() {
    let gateway = Gateway::start();
    let outside = tempfile::tempdir_in("/var/tmp").unwrap();
    fs::write(outside.path().join("file"), "untouched").unwrap();
    let path = outside.path().to_str().unwrap().to_owned();
    let climbing = format!("../../../../../../../..{path}");
    let busybox = fs::read("/bin/busybox").unwrap();
    let layer = Layer::default()
        .file("hello", 0o755, &hello())
        .file("bin/busybox", 0o6755, &busybox)
        .directory(&path[1..], 0o777)
        .directory("etc", 0o755)
        .symlink("etc/hosts", &format!("{path}/file"))
        .symlink("etc/hostname", &format!("{climbing}/file"))
        .symlink("etc/resolv.conf", "/proc/1/root/etc/resolv.conf")
        .symlink("tmp", &path)
        .symlink("dev", &climbing)
        .symlink("work", &climbing);
    let config =
        json!({ "Entrypoint": ["/hello"], "User": "1000:1000", "WorkingDir": "/work/dir" });
    gateway.load("hostile:1", &Image::new("hostile:1", config, Packing::Plain).layer(layer));
    gateway.deploy(&Function::new("hostile", "hostile:1"));
    gateway.call("hostile/write/tmp/written", b"x").expect(200);
    let status = gateway.call("hostile/read/proc/self/status", b"").expect(200).text();
    assert!(status.contains("Uid:\t1000\t1000\t1000\t1000\n"), "{status}");
    let left: Vec<_> = fs::read_dir(outside.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    assert_eq!(fs::read_to_string(outside.path().join("file")).unwrap(), "untouched");

    gateway
        .deploy(&Function::new("suid", "hostile:1").with("envProcess", "/bin/busybox id".into()));
    let ids = gateway.call("suid", b"").expect(200).text();
    assert_eq!(ids.trim(), "uid=1000 gid=1000", "the bits in the layer do nothing");
}
