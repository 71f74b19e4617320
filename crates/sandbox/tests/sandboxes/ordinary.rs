//! The same as an ordinary user, who has fewer fences but must not have fewer functions.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use pinnace_core::{Exit, image::User};
use pinnace_sandbox::host::Host as Abilities;

use crate::host::{Host, is_root};

/// `nobody`, on every distribution.
pub const NOBODY: u32 = 65_534;

/// Runs the other tests of this file's binary as another user, if this is root; an ordinary user has
/// run them already.
#[test]
fn an_ordinary_user_can_do_it_too() {
    if is_root() {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args([
                "bounds::",
                "calls::",
                "fences::",
                "life::",
                "masks::",
                "ordinary::",
                "survival::",
            ])
            .uid(NOBODY)
            .gid(NOBODY)
            .current_dir("/")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&ran.stdout);
        assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
        assert!(said.contains("ordinary::what_the_host_lacks_is_said ... ok"), "{said}");
    } else {
        let host = Host::new();
        assert!(host.cgroups.version() != Some(1), "version 1 belongs to root");
    }
}

/// The user whose ids these tests give to an ordinary user, as if the host's administrator had.
const SUBORDINATE: &str = "nobody:1879048192:65536\n";

/// Tells the inner run of the next test that there are ids.
const HAS_IDS: &str = "PINNACE_TEST_SUBORDINATE_IDS";

/// Runs this file's binary again as an ordinary user with ids of his own, in a mount namespace where the
/// host's files say so.
#[test]
fn an_ordinary_user_may_have_ids_of_his_own() {
    if std::env::var_os(HAS_IDS).is_some() {
        let mut host = Host::new();
        let root = host.busybox_image("ids", |_| {});
        let script = "id -u; id -g; id -G; touch /tmp/x && ls -n /tmp/x | head -c 60; touch /x";
        let mut spec = host.spec(root, &["sh", "-c", script]);
        spec.user = User { uid: 1000, gid: 1001, groups: vec![1001, 50] };
        let (out, err, _) = host.run(&spec);
        assert!(out.starts_with("1000\n1001\n1001 50\n"), "{out}{err}");
        assert!(out.contains("1000     1001"), "{out}{err}");
        assert!(err.contains("/x"), "the root is the image's: {out}{err}");
        let mut spec = host.spec(spec.root, &["true"]);
        spec.user.uid = 70_000;
        let (_, _, exit) = host.run(&spec);
        assert!(
            matches!(&exit, Exit::CannotStart { reason } if reason.contains("0 to 65535")),
            "{exit:?}"
        );
        return;
    }
    if !is_root() {
        return;
    }
    let ids = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(ids.path(), SUBORDINATE).unwrap();
    let ids = ids.path().display();
    let binary = std::env::current_exe().unwrap();
    let script = format!(
        "chmod 644 {ids} && mount --bind {ids} /etc/subuid && mount --bind {ids} /etc/subgid && \
         cd / && exec /usr/bin/setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {} --exact \
         ordinary::an_ordinary_user_may_have_ids_of_his_own",
        binary.display()
    );
    let mut run = Command::new("unshare");
    let ran = run.args(["--mount", "sh", "-c", &script]).env(HAS_IDS, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

#[test]
fn what_the_host_lacks_is_said() {
    let host = Host::new();
    let program = Path::new(env!("CARGO_BIN_EXE_pinnace-spawner"));
    let abilities = Abilities::probe(program, host.dir.path(), &host.cgroups).unwrap();
    assert_eq!(abilities.root, is_root());
    assert_eq!((&abilities.overlay, &abilities.user_namespaces), (&Ok(()), &Ok(())));
    let missing = abilities.missing();
    if is_root() {
        assert_eq!(missing.is_empty(), host.has_ranges, "{missing:?}");
    } else {
        assert!(missing.iter().any(|said| said.contains("whatever USER")), "{missing:?}");
    }
}
