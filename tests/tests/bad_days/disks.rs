//! Disks that are full or take nothing more.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use pinnace_tests::{
    Answer, Function, Gateway,
    builds::Source,
    eventually,
    images::{Image, digest},
    pushing::Pusher,
};

use super::with_own_mounts;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
}

/// A platform that is not started yet, whose state directory is a file system of its own.
fn gateway_on(mount: impl Fn(&Path)) -> (Gateway, PathBuf) {
    let gateway = Gateway::prepared(&["--slots", "4"]);
    let state = gateway.state_dir();
    fs::create_dir(&state).unwrap();
    mount(&state);
    (gateway, state)
}

/// Writes until nothing fits any more, and answers the file.
fn fill(state: &Path) -> PathBuf {
    let path = state.join("in-the-way");
    fill_by(File::create(&path).unwrap());
    path
}

fn fill_by(mut file: File) {
    for size in [1 << 20, 4096, 1] {
        let piece = vec![1; size];
        while file.write_all(&piece).is_ok() {}
    }
}

/// Deploys what takes room in the database, until that is refused.
fn deploy_until_refused(gateway: &Gateway) -> (String, Answer) {
    for number in 0..100 {
        let name = format!("late-{number}");
        let late = Function::new(&name, "hello:test").env("WIDE", &"x".repeat(60_000));
        let answer = gateway.try_deploy(&late);
        if answer.status != 202 {
            return (name, answer);
        }
    }
    panic!("100 deployments fit onto a full disk");
}

#[test]
fn a_full_disk_refuses_deploys_and_drops_logs_and_nothing_else() {
    with_own_mounts("disks::a_full_disk_refuses_deploys_and_drops_logs_and_nothing_else", || {
        let (mut gateway, state) = gateway_on(|state| {
            run("mount", &["-t", "tmpfs", "-o", "size=192m", "none", state.to_str().unwrap()]);
        });
        gateway.up();
        gateway.deploy_hello("a");
        gateway.call("a/say/before", b"").expect(200);
        eventually("it is logged", Duration::from_secs(10), || {
            gateway.logs("a").contains("before").then_some(())
        });

        let in_the_way = fill(&state);
        let (name, refused) = deploy_until_refused(&gateway);
        let said = refused.text();
        assert!(matches!(refused.status, 500..=599), "{}: {said}", refused.status);
        assert!(said.contains("full"), "{said}");
        assert!(gateway.status(&name).is_none(), "what was refused is not there");
        let load = gateway.try_load("late:1", "archive", &Image::hello("late:1").oci_layout());
        assert_eq!(load["event"], "refused", "{load}");
        assert!(load["error"].as_str().unwrap().contains("No space left"), "{load}");
        gateway.kill();
        File::options().append(true).open(&in_the_way).map(fill_by).unwrap();
        gateway.up();
        gateway.call("a", b"").expect(200);
        for number in 0..2000 {
            gateway.call(&format!("a/say/lost-{number}-{}", "x".repeat(200)), b"").expect(200);
        }

        fs::remove_file(in_the_way).unwrap();
        eventually("what was lost is counted", Duration::from_secs(20), || {
            gateway.call("a/say/after", b"").expect(200);
            let log = gateway.logs("a");
            (log.contains("lines lost: the disk took none") && log.contains("\nafter\n"))
                .then_some(())
        });
        gateway.load("late:1", &Image::hello("late:1"));
        gateway.deploy(&Function::new(&name, "late:1"));
        gateway.call(&name, b"").expect(200);
        gateway.kill();
        gateway.up();
        gateway.until(&name, "it serves after a crash", |status| status["availableReplicas"] == 1);
        gateway.stop();
    });
}

#[test]
fn a_push_that_the_disk_cannot_take_is_refused_and_leaves_room_for_the_rest() {
    let name = "disks::a_push_that_the_disk_cannot_take_is_refused_and_leaves_room_for_the_rest";
    with_own_mounts(name, || {
        let (mut gateway, state) = gateway_on(|state| {
            run("mount", &["-t", "tmpfs", "-o", "size=256m", "none", state.to_str().unwrap()]);
        });
        gateway.up();
        let pusher = Pusher::new(&gateway);
        let size = 24 << 20;
        let content = |number: u8| vec![number; size];
        // Until nothing fits any more; of what does not fit nothing stays, whether its length was told ahead or not.
        let mut fit = Vec::new();
        let refused = loop {
            let (number, upload) = (fit.len() as u8, pusher.begin("a"));
            let content = content(number);
            let put = format!("{upload}?digest={}", digest(&content));
            let headers = [("Transfer-Encoding", "chunked")];
            let headers = if number % 2 == 0 { &headers[..] } else { &[] };
            let answer = pusher.send("PUT", &put, headers, &content);
            if answer.status != 201 {
                pusher.send("GET", &upload, &[], b"").expect(404);
                break answer;
            }
            fit.push(digest(&content));
            assert!(fit.len() < 20, "it all fits");
        };
        let said = refused.expect(507).text();
        assert!(said.contains("disk is full") && said.contains("registry gc"), "{said}");
        let begun = pusher.begin("a");
        let long = [("Content-Length", "1073741824"), ("Connection", "close")];
        let head = pusher.head("PATCH", &begun, &long);
        let early = pinnace_tests::http::send_raw(&pusher.host(), head.as_bytes()).unwrap();
        assert!(early.starts_with("HTTP/1.1 507 "), "before a byte of it has come: {early}");
        let uploads = fs::read_dir(state.join("registry/uploads")).unwrap().count();
        assert_eq!(uploads, 0, "nothing half is kept");

        // The rest of the platform has room all the same.
        gateway.deploy_hello("a");
        gateway.call("a", b"").expect(200);
        for digest in &fit {
            pusher.send("HEAD", &format!("/v2/a/blobs/{digest}"), &[], b"").expect(200);
        }
        let collected = gateway.api("POST", "/system/registry/gc?grace=0s", b"").expect(200).json();
        assert_eq!(collected["blobs"], fit.len());
        pusher.push_blob("a", &content(99));
        gateway.stop();
    });
}

#[test]
fn a_server_does_not_start_where_it_may_not_write() {
    with_own_mounts("disks::a_server_does_not_start_where_it_may_not_write", || {
        let (gateway, state) = gateway_on(|state| {
            run("mount", &["-t", "tmpfs", "-o", "ro", "none", state.to_str().unwrap()]);
        });
        let output = gateway.up_command_with(&[]).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(state.to_str().unwrap()) && said.contains("Read-only"), "{said}");
    });
}

#[test]
fn a_disk_that_turns_read_only_takes_nothing_from_those_that_run() {
    with_own_mounts("disks::a_disk_that_turns_read_only_takes_nothing_from_those_that_run", || {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk").display().to_string();
        File::create(&image).unwrap().set_len(256 << 20).unwrap();
        run("mkfs.ext4", &["-q", &image]);
        let (mut gateway, state) = gateway_on(|state| {
            let options = "loop,errors=remount-ro";
            run("mount", &["-o", options, &image, state.to_str().unwrap()]);
        });
        gateway.up();
        gateway.deploy_hello("a");

        let device = Command::new("findmnt").args(["-no", "SOURCE"]).arg(&state).output().unwrap();
        let device = String::from_utf8(device.stdout).unwrap();
        let device = device.trim().trim_start_matches("/dev/");
        // As the kernel does when the disk fails.
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test").unwrap();
        assert!(File::create(state.join("x")).is_err(), "it takes nothing");

        for _ in 0..100 {
            gateway.call("a/say/unheard", b"").expect(200);
        }
        let refused = gateway.try_deploy(&Function::new("b", "hello:test"));
        let said = refused.text();
        assert!(matches!(refused.status, 500..=599), "{}: {said}", refused.status);
        assert!(said.contains("database"), "{said}");
        assert!(gateway.status("b").is_none());
        let load = gateway.try_load("late:1", "archive", &Image::hello("late:1").oci_layout());
        assert!(load["error"].as_str().unwrap().contains("Read-only"), "{load}");
        gateway.stop();
        let (said, path) = (gateway.doctor(), state.display().to_string());
        let left = said.lines().find(|line| line.contains(&path) && line.contains("nftables"));
        assert_eq!(left, None, "what is no file goes all the same");
    });
}

#[test]
fn a_build_that_fills_the_disk_is_ended() {
    with_own_mounts("disks::a_build_that_fills_the_disk_is_ended", || {
        let (mut gateway, state) = gateway_on(|state| {
            run("mount", &["-t", "tmpfs", "-o", "size=600m", "none", state.to_str().unwrap()]);
        });
        gateway.up();
        let template = "pinnace:\n  base: host\n  compile:\n    run: [sh, -c, 'while head -c 4M /dev/zero >> made; do sleep 0.02; done']\n    \
                        keep: [/home/app/made]\n  command: [cat]\n";
        let answer =
            gateway.try_build(&Source::new("full:1", template).tar(), &[]).expect(200).json();
        assert_eq!(answer["status"], "failed", "{answer:#}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains("BUILD_DISK_FREE_MIN"), "{error}");
        eventually("what it has written is removed", Duration::from_secs(30), || {
            let work = fs::read_dir(state.join("builds/work")).unwrap().count();
            (work == 0).then_some(())
        });
        gateway.deploy_hello("a");
        gateway.call("a", b"").expect(200);
    });
}
