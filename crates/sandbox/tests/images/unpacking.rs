//! What an unpacked layer looks like.

use std::{
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
};

use pinnace_sandbox::images::{EntryFault, LoadError, Ownership};
use tar::EntryType;

use crate::archive::*;

fn meta(path: &Path) -> std::fs::Metadata {
    std::fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_whiteout(path: &Path) -> bool {
    let meta = meta(path);
    meta.file_type().is_char_device() && meta.rdev() == 0
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = [0u8; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value).ok()?;
    Some(value[..length].to_vec())
}

fn is_opaque(path: &Path) -> bool {
    xattr(path, "trusted.overlay.opaque").as_deref() == Some(b"y")
}

#[test]
fn modes_times_and_owners_are_kept() {
    let place = Place::with(Ownership::Real);
    let with = |mode: u32, uid: u64, gid: u64| {
        move |header: &mut tar::Header| {
            header.set_mode(mode);
            header.set_uid(uid);
            header.set_gid(gid);
        }
    };
    let tar = Tar::new()
        .entry(EntryType::Directory, "./", "", b"", with(0o751, 3, 4))
        .entry(EntryType::Directory, "tmp/", "", b"", with(0o1777, 0, 0))
        .entry(EntryType::Directory, "locked/", "", b"", with(0o000, 0, 0))
        .file("locked/inside", "x")
        .entry(EntryType::Regular, "bin/su", "", b"su", with(0o4755, 0, 0))
        .entry(EntryType::Regular, "tmp/mine", "", b"x", with(0o2640, 1000, 65_535))
        .entry(EntryType::Symlink, "tmp/link", "gone", b"", with(0o777, 1000, 7))
        .entry(EntryType::Fifo, "tmp/pipe", "", b"", with(0o622, 5, 6))
        .build();
    let tree = place.tree(tar);
    for (path, mode, uid, gid) in [
        ("", 0o751, 3, 4),
        ("tmp", 0o1777, 0, 0),
        ("locked", 0o000, 0, 0),
        ("bin/su", 0o4755, 0, 0),
        ("bin", 0o755, 0, 0),
        ("tmp/mine", 0o2640, 1000, 65_535),
        ("tmp/pipe", 0o622, 5, 6),
    ] {
        let meta = meta(&tree.join(path));
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (mode, uid, gid), "{path}");
    }
    let link = meta(&tree.join("tmp/link"));
    assert_eq!((link.uid(), link.gid()), (1000, 7));
    assert!(meta(&tree.join("tmp/pipe")).file_type().is_fifo());
    // Directories keep their time though files were made in them later.
    for path in ["", "tmp", "tmp/mine", "tmp/link", "tmp/pipe", "locked"] {
        assert_eq!(meta(&tree.join(path)).mtime(), i64::try_from(MTIME).unwrap(), "{path}");
    }
    // Nobody else gets at setuid programs through the store.
    assert_eq!(meta(&place.dir()).mode() & 0o777, 0o700);
}

#[test]
fn ids_come_from_pax_and_none_is_out_of_range() {
    let place = Place::with(Ownership::Real);
    let tree = place.tree(
        Tar::new()
            .pax(&[("uid", b"40000"), ("gid", b"50000"), ("mtime", b"12.75")])
            .file("f", "x")
            .build(),
    );
    let found = meta(&tree.join("f"));
    assert_eq!(
        (found.uid(), found.gid(), found.mtime(), found.mtime_nsec()),
        (40_000, 50_000, 12, 750_000_000)
    );
    for records in [&[("uid", &b"65536"[..])], &[("gid", &b"4294967295"[..])]] {
        let error = place.layer(Tar::new().pax(records).file("etc/who", "x").build()).unwrap_err();
        assert!(matches!(error, LoadError::Entry { fault: EntryFault::Id(_), .. }), "{error}");
        assert!(error.to_string().contains("`etc/who`"), "{error}");
    }
    let base_256 =
        Tar::new().entry(EntryType::Directory, "d/", "", b"", |header| header.set_uid(1 << 40));
    assert!(place.layer(base_256.build()).unwrap_err().to_string().contains("1099511627776"));
    place.check();
}

#[test]
fn names_of_every_length_come_through() {
    let place = Place::new();
    let long = "directory/".repeat(40) + "file";
    let tree = place.tree(
        Tar::new()
            .long_file(&long, "gnu")
            .pax(&[("path", "ü/ñ".as_bytes())])
            .file("x", "pax")
            .build(),
    );
    assert_eq!(std::fs::read_to_string(tree.join(long)).unwrap(), "gnu");
    assert_eq!(std::fs::read_to_string(tree.join("ü/ñ")).unwrap(), "pax");
    assert!(!tree.join("x").exists());
}

#[test]
fn sizes_may_come_from_pax_or_base_256() {
    let place = Place::new();
    let content = "x".repeat(1000);
    let tar = Tar::new()
        .entry(EntryType::Regular, "base256", "", content.as_bytes(), |header| {
            let mut field = [0u8; 12];
            field[0] = 0x80;
            field[10..].copy_from_slice(&1000u16.to_be_bytes());
            header.as_old_mut().size = field;
        })
        .file("after", "y")
        .build();
    let tree = place.tree(tar);
    assert_eq!(meta(&tree.join("base256")).len(), 1000);
    assert_eq!(std::fs::read_to_string(tree.join("after")).unwrap(), "y");
}

#[test]
fn whiteouts_take_overlays_form() {
    let place = Place::with(Ownership::Real);
    let tar = Tar::new()
        .dir("a/")
        .file("a/.wh.gone", "")
        .dir("b/")
        .file("b/.wh..wh..opq", "")
        .file("b/new", "x")
        .file(".wh..wh.aufs", "")
        .file(".wh..wh.plnk/1.2", "")
        .build();
    let tree = place.tree(tar);
    assert!(is_whiteout(&tree.join("a/gone")));
    assert!(is_opaque(&tree.join("b")) && !is_opaque(&tree.join("a")));
    assert!(tree.join("b/new").exists());
    let names: Vec<_> = std::fs::read_dir(&tree).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(meta(&tree.join("a")).mtime(), i64::try_from(MTIME).unwrap());
}

#[test]
fn whiteouts_of_what_the_layer_has_hide_only_below() {
    let place = Place::with(Ownership::Real);
    let tar = Tar::new()
        .file("file", "new")
        .file(".wh.file", "")
        .file(".wh.later", "")
        .file("later", "new")
        .dir("dir/")
        .file("dir/x", "new")
        .file(".wh.dir", "")
        .file(".wh.dir2", "")
        .dir("dir2/")
        .file(".wh.dir3", "")
        .file("dir3/x", "new")
        .build();
    let tree = place.tree(tar);
    assert_eq!(std::fs::read_to_string(tree.join("file")).unwrap(), "new");
    assert_eq!(std::fs::read_to_string(tree.join("later")).unwrap(), "new");
    for dir in ["dir", "dir2", "dir3"] {
        assert!(meta(&tree.join(dir)).is_dir() && is_opaque(&tree.join(dir)), "{dir}");
    }
    assert!(tree.join("dir/x").exists() && tree.join("dir3/x").exists());
}

#[test]
fn the_kernel_reads_whiteouts_as_meant() {
    let place = Place::with(Ownership::Real);
    let mut spec = Spec::new("a:1", Vec::new());
    spec.layers.push(Tar::new().file("kept", "1").file("gone", "1").file("d/old", "1").build());
    spec.layers.push(
        Tar::new()
            .file(".wh.gone", "")
            .dir("d/")
            .file("d/.wh..wh..opq", "")
            .file("d/new", "2")
            .build(),
    );
    place.load(&spec.docker_modern()).unwrap();
    let image = place.image("a:1");
    let merged = tempfile::tempdir().unwrap();
    let lower: Vec<_> =
        image.layers.iter().rev().map(|layer| layer.display().to_string()).collect();
    // In a mount namespace of its own, so that nothing of it stays.
    let output = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-ec"])
        .arg(format!(
            "mount -t overlay overlay -o lowerdir={} {dir}; cd {dir}; find . -type f | sort",
            lower.join(":"),
            dir = merged.path().display()
        ))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(text, "./d/new\n./kept\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn hard_links_share_a_file() {
    let place = Place::new();
    let tar = Tar::new()
        .file("bin/busybox", "program")
        .hard_link("bin/sh", "bin/busybox")
        .hard_link("sbin/init", "./bin/busybox")
        .hard_link("bin/sh", "bin/sh")
        .build();
    let tree = place.tree(tar);
    let first = meta(&tree.join("bin/busybox"));
    for path in ["bin/sh", "sbin/init"] {
        assert_eq!(meta(&tree.join(path)).ino(), first.ino(), "{path}");
    }
    assert_eq!(first.nlink(), 3);
    assert_eq!(place.store.list().unwrap()[0].size_bytes, 7);
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let tar = Tar::new()
        .file("f", "1")
        .file("f", "2")
        .dir("d/")
        .file("d/a/b", "1")
        .file("d", "file")
        .file("e", "file")
        .dir("e/")
        .file("e/x", "1")
        .dir("e/")
        .symlink("s", "a")
        .symlink("s", "b")
        .build();
    let tree = place.tree(tar);
    let text = |path: &str| std::fs::read_to_string(tree.join(path)).unwrap();
    assert_eq!((text("f"), text("d"), text("e/x")), ("2".into(), "file".into(), "1".into()));
    assert_eq!(std::fs::read_link(tree.join("s")).unwrap(), Path::new("b"));
}

#[test]
fn links_inside_the_layer_are_followed() {
    let place = Place::new();
    let tar = Tar::new()
        .symlink("lib", "usr/lib")
        .file("lib/a", "1")
        .dir("usr/lib/")
        .file("lib/b/c", "2")
        .symlink("usr/run", "../run")
        .file("usr/run/x", "3")
        .build();
    let tree = place.tree(tar);
    for path in ["usr/lib/a", "usr/lib/b/c", "run/x"] {
        assert!(meta(&tree.join(path)).is_file(), "{path}");
    }
    assert!(meta(&tree.join("lib")).is_symlink());
}

#[test]
fn attributes_are_kept_but_not_overlays() {
    let place = Place::with(Ownership::Real);
    // cap_net_bind_service=ep, version 2.
    let capability: &[u8] = &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .pax(&[
            ("SCHILY.xattr.security.capability", capability),
            ("SCHILY.xattr.user.note", b"kept"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.x", b"y"),
        ])
        .entry(EntryType::Regular, "f", "", b"x", |header| {
            header.set_uid(7);
            header.set_mode(0o755);
        })
        .pax(&[("SCHILY.xattr.user.note", b"dir"), ("SCHILY.xattr.trusted.overlay.opaque", b"y")])
        .dir("d/")
        .build();
    let tree = place.tree(tar);
    let file = tree.join("f");
    assert_eq!(xattr(&file, "security.capability").as_deref(), Some(capability));
    assert_eq!(xattr(&file, "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(xattr(&tree.join("d"), "user.note").as_deref(), Some(&b"dir"[..]));
    for name in ["trusted.overlay.redirect", "user.overlay.opaque", "trusted.x"] {
        assert_eq!(xattr(&file, name), None, "{name}");
    }
    assert!(!is_opaque(&tree.join("d")));
}

#[test]
fn sparse_files_come_back_whole() {
    let place = Place::new();
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("holes");
    let mut file = std::fs::File::create(&path).unwrap();
    // More pieces than one header holds.
    for piece in 0..40u64 {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(piece << 16)).unwrap();
        std::io::Write::write_all(&mut file, &[u8::try_from(piece + 1).unwrap(); 4096]).unwrap();
    }
    file.set_len(50 << 16).unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_path_with_name(&path, "holes").unwrap();
    builder.append_path_with_name(&path, "again").unwrap();
    let tar = builder.into_inner().unwrap();
    assert!(tar.len() < 1 << 20, "the tar is sparse");
    let tree = place.tree(tar);
    let expected = std::fs::read(&path).unwrap();
    assert!(std::fs::read(tree.join("holes")).unwrap() == expected);
    assert!(std::fs::read(tree.join("again")).unwrap() == expected);
}

#[test]
fn the_process_umask_does_not_matter() {
    let place = Place::new();
    let tree = place.tree(
        Tar::new()
            .entry(EntryType::Regular, "f", "", b"", |header| header.set_mode(0o666))
            .file("d/g", "")
            .build(),
    );
    assert_eq!(meta(&tree.join("f")).permissions().mode() & 0o777, 0o666);
    assert_eq!(meta(&tree.join("d")).permissions().mode() & 0o777, 0o755);
}
