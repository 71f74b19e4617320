//! Archives that lie and layers that reach outside.

use pinnace_sandbox::images::{ArchiveKind, Cause, EntryFault, LoadError, LoadOptions};
use tar::EntryType;

use crate::archive::*;

/// Loads a layer that must be refused with an error that names `path` and says `says`.
fn refused(tar: impl AsRef<[u8]>, path: &str, says: &str) {
    let place = Place::new();
    let before = place.contents();
    let error = place.layer(&tar).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&format!("`{path}`")), "{text}");
    assert!(text.contains(says), "{text}");
    assert_eq!(error.cause(), Cause::Archive, "{text}");
    assert_eq!(place.contents(), before);
    place.check();
    // The tar of a root directory is held to the same.
    let options = LoadOptions {
        kind: ArchiveKind::RootDir,
        reference: Some("a".into()),
        ..LoadOptions::default()
    };
    assert_eq!(place.load_with(tar.as_ref(), &options).unwrap_err().cause(), Cause::Archive);
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn paths_that_go_upwards() {
    for path in
        ["../sentinel/etc/x", "a/../../x", "..", "a/..", "/../x", "./../.wh.x", "a/../.wh.x"]
    {
        refused(Tar::new().dir("a/").file(path, "x").build(), path, "`..`");
    }
    refused(Tar::new().dir("../sentinel/").build(), "../sentinel/", "`..`");
    refused(Tar::new().symlink("../s", "x").build(), "../s", "`..`");
    refused(
        Tar::new().pax(&[("path", b"../long")]).file("harmless", "x").build(),
        "../long",
        "`..`",
    );
}

#[test]
fn absolute_paths_lie_within_the_layer() {
    let place = Place::new();
    let sentinel = format!("{}/etc/passwd", place.sentinel().display());
    let tree =
        place.tree(Tar::new().file("/etc/app", "mine").long_file(&sentinel[1..], "x").build());
    assert_eq!(std::fs::read_to_string(tree.join("etc/app")).unwrap(), "mine");
    place.check();
}

#[test]
fn links_are_not_a_way_out() {
    for target in ["../sentinel", "../../sentinel", "..", "a/../.."] {
        let tar = Tar::new().symlink("out", target).file("out/etc/passwd", "x").build();
        refused(tar, "out/etc/passwd", "leads out of the layer");
        let tar = Tar::new().symlink("out", target).dir("out/new/").build();
        refused(tar, "out/new/", "leads out of the layer");
        let tar = Tar::new().symlink("out", target).file("out/.wh.etc", "").build();
        refused(tar, "out/.wh.etc", "leads out of the layer");
    }
    let tar = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "").build();
    refused(tar, "a/x", "too many symbolic links");
    // A link to an absolute path means the layer's own root.
    let place = Place::new();
    let target = place.sentinel().display().to_string();
    let tree = place.tree(Tar::new().symlink("s", &target).file("s/etc/passwd", "x").build());
    assert!(tree.join(&target[1..]).join("etc/passwd").exists());
    place.check();
}

#[test]
fn a_file_at_a_links_place_replaces_the_link() {
    let place = Place::new();
    let target = format!("{}/etc/passwd", place.sentinel().display());
    let tar =
        Tar::new().symlink("f", &target).file("f", "mine").symlink("d", "/etc").dir("d/").build();
    let tree = place.tree(tar);
    assert_eq!(std::fs::read_to_string(tree.join("f")).unwrap(), "mine");
    assert!(std::fs::symlink_metadata(tree.join("d")).unwrap().is_dir());
    place.check();
}

#[test]
fn hard_links_stay_in_the_layer() {
    let link = |target: &str| Tar::new().dir("a/").hard_link("h", target).build();
    refused(link("../../sentinel/etc/passwd"), "h", "goes upwards");
    refused(link("/etc/passwd"), "h", "does not have");
    refused(link("a"), "h", "is a directory");
    refused(link("/"), "h", "is a directory");
    refused(link(".wh.a"), "h", "does not have");
    let tar = Tar::new().symlink("s", "../../../etc").hard_link("h", "s/passwd").build();
    refused(tar, "h", "goes through a symbolic link or a file");
    let tar = Tar::new().file(".wh.gone", "").hard_link("h", "gone").build();
    refused(tar, "h", "is no file");
    // A link to a link is the link's second name and is not followed.
    let place = Place::new();
    let target = format!("{}/etc/passwd", place.sentinel().display());
    let tree = place.tree(Tar::new().symlink("s", &target).hard_link("h", "s").build());
    assert!(std::fs::symlink_metadata(tree.join("h")).unwrap().is_symlink());
    // Writing to what a hard link shares must not reach the first name.
    let tree = place.tree(Tar::new().file("x", "1").hard_link("y", "x").file("y", "2").build());
    assert_eq!(std::fs::read_to_string(tree.join("x")).unwrap(), "1");
    place.check();
}

#[test]
fn whiteouts_of_nothing() {
    for path in [".wh.", ".wh..", ".wh...", "a/.wh...", "a/.wh."] {
        refused(Tar::new().dir("a/").file(path, "").build(), path, "whiteout");
    }
    refused(Tar::new().file(".wh.a/b", "").build(), ".wh.a/b", "under a whiteout");
}

#[test]
fn devices_are_left_out_below_dev_and_refused_elsewhere() {
    let device = |path: &str, kind| {
        Tar::new()
            .entry(kind, path, "", b"", |header| {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            })
            .file("kept", "x")
            .build()
    };
    for kind in [EntryType::Char, EntryType::Block] {
        refused(device("tmp/null", kind), "tmp/null", "device");
        refused(device("dev", kind), "dev", "device");
        let place = Place::new();
        let tree = place.tree(device("dev/null", kind));
        assert!(!tree.join("dev/null").exists());
        assert!(tree.join("kept").exists());
    }
}

#[test]
fn the_root_stays_a_directory() {
    refused(Tar::new().file("./", "x").build(), "./", "root");
    refused(Tar::new().symlink(".", "/").build(), ".", "root");
    refused(Tar::new().file("f", "").hard_link("/", "f").build(), "/", "root");
    refused(Tar::new().entry(EntryType::Regular, ".", "", b"x", |_| ()).build(), ".", "root");
}

#[test]
fn files_have_no_children() {
    refused(Tar::new().file("a", "x").file("a/b", "y").build(), "a/b", "no directory");
    refused(Tar::new().file("a", "x").dir("a/b/c/").build(), "a/b/c/", "no directory");
}

#[test]
fn unheard_of_entries() {
    let odd = Tar::new().entry(EntryType::new(b'Z'), "odd", "", b"", |_| ()).build();
    refused(odd, "odd", "unknown kind");
    refused(Tar::new().entry(EntryType::Symlink, "l", "", b"", |_| ()).build(), "l", "empty");
    let sparse = Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("sparse", "x").build();
    refused(sparse, "sparse", "--sparse");
}

#[test]
fn paths_and_depths_are_bounded() {
    let deep = "d/".repeat(300);
    let error = Place::new().layer(Tar::new().long_file(&(deep + "f"), "").build()).unwrap_err();
    assert!(error.to_string().contains("LAYER_DEPTH_MAX"), "{error}");
    let long = "x".repeat(256);
    let error = Place::new().layer(Tar::new().long_file(&long, "").build()).unwrap_err();
    assert!(matches!(error, LoadError::Entry { fault: EntryFault::Length, .. }), "{error}");
    // Links must not add up to a depth that no path may have.
    let steps = "d/".repeat(200);
    let tar = Tar::new().long_file(&format!("{steps}f"), "");
    let tar = tar.pax(&[("linkpath", steps.as_bytes())]).symlink("l", "");
    let error = Place::new().layer(tar.long_file(&format!("l/{steps}f"), "").build()).unwrap_err();
    assert!(error.to_string().contains("LAYER_DEPTH_MAX"), "{error}");
}

#[test]
fn bombs_are_stopped_by_the_limit() {
    let place = Place::new();
    let zeros = "\0".repeat(4 << 20);
    let limited = |bytes| LoadOptions { unpacked_bytes_max: bytes, ..LoadOptions::default() };
    let spec = Spec::new("a:1", vec![Tar::new().file("zeros", &zeros).build()]);
    let archive = spec.oci(gzip, GZIP_LAYER);
    assert!(archive.len() < 100_000);
    let error = place.load_with(&archive, &limited(1 << 20)).unwrap_err();
    assert_eq!(error.cause(), Cause::TooLarge);
    assert!(error.to_string().contains("1048576 bytes"), "{error}");
    place.check();
    place.load_with(&archive, &limited(5 << 20)).unwrap();
    // The outer compression.
    let error = place.load_with(&gzip(&spec.docker_modern()), &limited(1 << 20)).unwrap_err();
    assert_eq!(error.cause(), Cause::TooLarge);
    // Zeros behind the end of a layer's tar.
    let mut padded = Tar::new().file("x", "x").build();
    padded.extend(zeros.as_bytes());
    let archive = Spec::new("b:1", vec![padded]).oci(gzip, GZIP_LAYER);
    let error = place.load_with(&archive, &limited(1 << 20)).unwrap_err();
    assert_eq!(error.cause(), Cause::TooLarge);
    // A header that announces more than there may be, before any of it is read.
    let huge =
        Tar::new().entry(EntryType::Regular, "huge", "", b"", |header| header.set_size(1 << 60));
    let error = place
        .load_with(&Spec::new("c:1", vec![huge.build()]).oci(gzip, GZIP_LAYER), &limited(1 << 20));
    assert_eq!(error.unwrap_err().cause(), Cause::TooLarge);
    // The archive itself.
    let options = LoadOptions { bytes_max: 1000, ..LoadOptions::default() };
    let error = place.load_with(&spec.docker_modern(), &options).unwrap_err();
    assert!(error.to_string().contains("--image-bytes-max"), "{error}");
    place.check();
}

#[test]
fn a_sparse_file_counts_in_full() {
    let holes = Tar::new().entry(EntryType::GNUSparse, "holes", "", b"", |header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(1 << 50);
    });
    let error = Place::new().layer(holes.build()).unwrap_err();
    assert_eq!(error.cause(), Cause::TooLarge, "{error}");
}

#[test]
fn too_many_layers() {
    let layer = |n: usize| Tar::new().file("f", &n.to_string()).build();
    let spec = Spec::new("a:1", (0..257).map(layer).collect());
    let error = Place::new().load(&spec.docker_modern()).unwrap_err();
    assert!(error.to_string().contains("LAYERS_MAX"), "{error}");
}

#[test]
fn json_is_bounded_before_it_is_parsed() {
    let place = Place::new();
    let big = format!("[{}]", " ".repeat(5 << 20));
    let error = place.load(&Tar::new().file("manifest.json", &big).build()).unwrap_err();
    assert!(error.to_string().contains("IMAGE_JSON_BYTES_MAX"), "{error}");
    let deep = "[".repeat(100_000);
    let error = place.load(&Tar::new().file("manifest.json", &deep).build()).unwrap_err();
    assert!(matches!(error, LoadError::Json { .. }), "{error}");
    place.check();
}

#[test]
fn digests_and_sizes_are_checked() {
    let place = Place::new();
    let before = place.contents();
    let spec = Spec::new("a:1", vec![Tar::new().file("f", "content").build()]);
    // A blob that is not what its name says.
    let mut layout = Layout::new();
    let manifest = layout.add(&spec, gzip, GZIP_LAYER);
    let wrong = Tar::new().file("f", "other").build();
    let name = format!("blobs/sha256/{}", sha256(&gzip(&spec.layers[0])));
    layout.0.insert(name.clone(), gzip(&wrong));
    let error = place.load(&layout.build(std::slice::from_ref(&manifest))).unwrap_err().to_string();
    assert!(error.contains(&sha256(&gzip(&spec.layers[0]))), "{error}");
    assert!(error.contains(&sha256(&gzip(&wrong))), "{error}");
    // A blob of another size than described.
    let mut layout = Layout::new();
    let mut manifest = layout.add(&spec, gzip, GZIP_LAYER);
    manifest["size"] = 7.into();
    let error = place.load(&layout.build(&[manifest])).unwrap_err();
    assert!(matches!(error, LoadError::Size { expected: 7, .. }), "{error}");
    // A blob that is not there.
    let mut layout = Layout::new();
    let manifest = layout.add(&spec, gzip, GZIP_LAYER);
    layout.0.remove(&name);
    let error = place.load(&layout.build(&[manifest])).unwrap_err();
    assert!(matches!(&error, LoadError::Missing { name: gone, .. } if *gone == name), "{error}");
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn layers_must_be_what_the_configuration_says() {
    let place = Place::new();
    let before = place.contents();
    let good = Tar::new().file("f", "content").build();
    let bad = Tar::new().file("f", "different").build();
    let spec = Spec::new("a:1", vec![Tar::new().file("g", "x").build(), good.clone()]);
    let mut other = spec.clone();
    other.layers[1] = bad.clone();
    // The configuration of one image with the layers of the other.
    let config = spec.config_bytes();
    let config_name = format!("{}.json", sha256(&config));
    let item = serde_json::json!([{
        "Config": config_name, "RepoTags": ["a:1"], "Layers": ["0/layer.tar", "1/layer.tar"],
    }]);
    let tar = Tar::new()
        .entry(EntryType::Regular, "0/layer.tar", "", &other.layers[0], |_| ())
        .entry(EntryType::Regular, "1/layer.tar", "", &bad, |_| ())
        .entry(EntryType::Regular, &config_name, "", &config, |_| ())
        .file("manifest.json", &item.to_string());
    let error = place.load(&tar.build()).unwrap_err();
    let LoadError::Digest { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!(*expected, format!("sha256:{}", sha256(&good)));
    assert_eq!(*found, format!("sha256:{}", sha256(&bad)));
    // The first layer was good and is gone all the same.
    assert_eq!(place.contents(), before);
    // A configuration that is not what its name says.
    let tar = Tar::new()
        .entry(EntryType::Regular, &config_name, "", &other.config_bytes(), |_| ())
        .file("manifest.json", &item.to_string());
    assert!(matches!(place.load(&tar.build()).unwrap_err(), LoadError::Digest { .. }));
    place.check();
}

#[test]
fn digests_are_no_paths() {
    let spec = Spec::new("a:1", vec![Tar::new().file("f", "content").build()]);
    let config = String::from_utf8(spec.config_bytes()).unwrap();
    let hex = sha256(&spec.layers[0]);
    let config = config.replace(&hex, "../../../../sentinel/etc");
    let item = r#"[{"Config":"c.json","RepoTags":["a:1"],"Layers":["l.tar"]}]"#;
    let tar = Tar::new()
        .file("c.json", &config)
        .entry(EntryType::Regular, "l.tar", "", &spec.layers[0], |_| ())
        .file("manifest.json", item);
    let place = Place::new();
    let error = place.load(&tar.build()).unwrap_err().to_string();
    assert!(error.contains("no sha256 digest"), "{error}");
    place.check();
}

#[test]
fn damaged_compression_is_told_as_such() {
    let spec = Spec::new("a:1", vec![Tar::new().file("f", &"content ".repeat(500)).build()]);
    for (pack, media_type) in [(gzip as fn(&[u8]) -> Vec<u8>, GZIP_LAYER), (zstd, ZSTD_LAYER)] {
        let place = Place::new();
        let cut = |bytes: &[u8]| pack(bytes)[..40].to_vec();
        let error = place.load(&spec.oci(cut, media_type)).unwrap_err();
        assert!(matches!(error, LoadError::Truncated(_)), "{error}");
        assert!(error.to_string().contains("layer 1 of 1"), "{error}");
        let garbled = |bytes: &[u8]| {
            let mut packed = pack(bytes);
            let middle = packed.len() / 2;
            packed[middle..middle + 8].fill(0xa5);
            packed
        };
        let error = place.load(&spec.oci(garbled, media_type)).unwrap_err();
        assert!(!matches!(error, LoadError::Read(_)), "{error}");
        place.check();
    }
}

#[test]
fn encrypted_layers_are_refused() {
    let spec = Spec::new("a:1", vec![Tar::new().file("f", "content").build()]);
    let error = Place::new().load(&spec.oci(gzip, &format!("{GZIP_LAYER}+encrypted"))).unwrap_err();
    assert!(error.to_string().contains("+encrypted"), "{error}");
}
