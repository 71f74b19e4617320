//! The same as an ordinary user, who has fewer fences but must not have fewer functions.

use std::{os::unix::process::CommandExt as _, path::Path, process::Command};

use pinnace_sandbox::host::Host as Abilities;

use crate::host::{Host, is_root};

/// `nobody`, on every distribution.
const NOBODY: u32 = 65_534;

/// Runs the other tests of this file's binary as another user, if this is root; an ordinary user has
/// run them already.
#[test]
fn an_ordinary_user_can_do_it_too() {
    if is_root() {
        let ran = Command::new(std::env::current_exe().unwrap())
            .args(["life::", "fences::", "survival::", "ordinary::", "bounds::"])
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
