//! The store of an ordinary user. These tests run twice: as whoever runs all tests, and by
//! `ordinary_user` as somebody without any privilege.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use pinnace_sandbox::images::{ImageStore, Ownership};
use tar::EntryType;

use crate::archive::*;

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 64];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..length].to_vec())
}

#[test]
fn all_files_are_his() {
    let place = Place::with(Ownership::Squashed);
    let tar = Tar::new()
        .entry(EntryType::Regular, "bin/su", "", b"su", |header| {
            header.set_uid(70_000);
            header.set_gid(7);
            header.set_mode(0o4755);
        })
        .entry(EntryType::Symlink, "link", "gone", b"", |header| header.set_uid(5))
        .entry(EntryType::Fifo, "pipe", "", b"", |header| header.set_uid(5))
        .entry(EntryType::Char, "dev/null", "", b"", |_| ())
        .pax(&[("SCHILY.xattr.security.capability", b"x"), ("SCHILY.xattr.user.note", b"kept")])
        .file("noted", "x")
        .build();
    let tree = place.tree(tar);
    let me = rustix::process::geteuid().as_raw();
    for path in ["", "bin", "bin/su", "link", "pipe", "noted"] {
        assert_eq!(std::fs::symlink_metadata(tree.join(path)).unwrap().uid(), me, "{path}");
    }
    assert_eq!(std::fs::metadata(tree.join("bin/su")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(xattr(&tree.join("noted"), "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(xattr(&tree.join("noted"), "security.capability"), None);
    place.check();
}

#[test]
fn whiteouts_need_no_privilege() {
    let place = Place::with(Ownership::Squashed);
    let tree = place.tree(
        Tar::new().file("a/.wh.gone", "").file("b/.wh..wh..opq", "").file("b/new", "x").build(),
    );
    let gone = std::fs::symlink_metadata(tree.join("a/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(xattr(&tree.join("b"), "user.overlay.opaque").as_deref(), Some(&b"y"[..]));
    assert_eq!(xattr(&tree.join("b"), "trusted.overlay.opaque"), None);
}

#[test]
fn locked_directories_are_filled_locked_and_removed() {
    let place = Place::with(Ownership::Squashed);
    let locked = |tar: Tar, path: &str, mode: u32| {
        tar.entry(EntryType::Directory, path, "", b"", move |header| header.set_mode(mode))
    };
    let tar = locked(Tar::new(), "./", 0o555);
    let tar = locked(tar, "none/", 0o000).file("none/inside", "x");
    let tar = locked(tar, "none/deeper/", 0o555).file("none/deeper/f", "x");
    let tar = locked(tar, "twice/", 0o000);
    let tar = locked(tar, "twice/", 0o755);
    let tar = locked(tar, "replaced/", 0o000).file("replaced/x", "").file("replaced", "file");
    let tree = place.tree(tar.build());
    let mode = |path: &str| std::fs::metadata(tree.join(path)).unwrap().mode() & 0o777;
    assert_eq!((mode(""), mode("none"), mode("twice")), (0o555, 0o000, 0o755));
    assert_eq!(std::fs::read_to_string(tree.join("replaced")).unwrap(), "file");
    assert_eq!(
        std::fs::metadata(tree.join("none")).unwrap().mtime(),
        i64::try_from(MTIME).unwrap()
    );
    place.store.remove("a:1").unwrap();
    let collected = place.store.collect_garbage(&Default::default()).unwrap();
    assert_eq!((collected.layers, collected.images), (1, 1));
    assert!(!tree.exists());
    place.check();
}

#[test]
fn a_load_that_fails_among_locked_directories_leaves_nothing() {
    let place = Place::with(Ownership::Squashed);
    let before = place.contents();
    let tar = Tar::new()
        .entry(EntryType::Directory, "none/", "", b"", |header| header.set_mode(0o000))
        .file("none/inside", "x")
        .file("../out", "x");
    assert!(place.layer(tar.build()).is_err());
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn what_a_crash_left_is_swept() {
    let place = Place::with(Ownership::Squashed);
    let before = place.contents();
    let left = place.dir().join("tmp/9/layer-0/fs/a");
    std::fs::create_dir_all(left.join("b")).unwrap();
    std::fs::write(left.join("b/f"), "x").unwrap();
    std::os::unix::fs::symlink(place.sentinel(), left.join("link")).unwrap();
    std::os::unix::fs::symlink(place.sentinel(), place.dir().join("tmp/link")).unwrap();
    for dir in [left.join("b"), left] {
        std::fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
    }
    ImageStore::open(&place.dir(), Ownership::Squashed).unwrap();
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn every_form_loads() {
    let place = Place::with(Ownership::Squashed);
    let spec = Spec::new("a:1", vec![Tar::new().file("bin/app", "x").build()]);
    for archive in [
        spec.docker_modern(),
        Spec::docker_legacy(std::slice::from_ref(&spec)),
        spec.oci(zstd, ZSTD_LAYER),
    ] {
        place.load(&archive).unwrap();
        assert!(place.image("a:1").layers[0].join("bin/app").exists());
    }
    place.check();
}
