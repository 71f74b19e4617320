//! Every form of archive.

use pinnace_sandbox::images::{ArchiveKind, Cause, LoadError, LoadOptions, Progress};

use crate::archive::*;

fn two_layers() -> Vec<Vec<u8>> {
    vec![
        Tar::new()
            .dir("bin/")
            .file("bin/app", "program")
            .file("etc/passwd", "app:x:7:8:::\n")
            .build(),
        Tar::new().file("bin/more", "more").build(),
    ]
}

/// Loads an archive of `spec` and checks that the image is the same as from every other form.
fn check(spec: &Spec, archive: &[u8]) {
    let place = Place::new();
    let loaded = place.load(archive).unwrap();
    assert_eq!(loaded.len(), 1);
    assert_eq!(loaded[0].reference, spec.names[0]);
    assert_eq!(loaded[0].digest, spec.digest());
    assert_eq!(loaded[0].layers, spec.layers.len());
    assert_eq!(place.store.list().unwrap(), loaded);
    let image = place.image(&spec.names[0]);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(std::fs::read_to_string(image.layers[0].join("bin/app")).unwrap(), "program");
    assert_eq!(std::fs::read_to_string(image.layers[1].join("bin/more")).unwrap(), "more");
    assert_eq!(image.config.cmd, ["/bin/app"]);
    assert_eq!(loaded[0].size_bytes, 7 + 13 + 4);
    place.check();
}

#[test]
fn docker_archives_of_both_ages() {
    let spec = Spec::new("team/app:1", two_layers());
    check(&spec, &Spec::docker_legacy(std::slice::from_ref(&spec)));
    check(&spec, &spec.docker_modern());
}

#[test]
fn oci_layouts_with_layers_packed_in_every_way() {
    let spec = Spec::new("team/app:1", two_layers());
    check(&spec, &spec.oci(<[u8]>::to_vec, LAYER));
    check(&spec, &spec.oci(gzip, GZIP_LAYER));
    check(&spec, &spec.oci(zstd, ZSTD_LAYER));
    // What the content is decides, whatever the media type says of its compression.
    check(&spec, &spec.oci(zstd, LAYER));
}

#[test]
fn archives_may_be_compressed_as_a_whole() {
    let spec = Spec::new("team/app:1", two_layers());
    check(&spec, &gzip(&spec.oci(gzip, GZIP_LAYER)));
    check(&spec, &zstd(&Spec::docker_legacy(std::slice::from_ref(&spec))));
}

#[test]
fn legacy_layers_may_be_links_to_those_of_other_images() {
    let layers = two_layers();
    let one = Spec::new("one:1", layers.clone());
    let mut two = Spec::new("two:1", layers);
    two.names.push("docker.io/library/two:latest".into());
    two.config["Cmd"] = serde_json::json!(["/bin/more"]);
    let place = Place::new();
    let loaded = place.load(&Spec::docker_legacy(&[one, two])).unwrap();
    let names: Vec<_> = loaded.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(names, ["one:1", "two:1", "two:latest"]);
    assert_eq!(place.image("one:1").layers, place.image("two").layers);
    assert_eq!(place.image("docker.io/library/two").config.cmd, ["/bin/more"]);
    place.check();
}

#[test]
fn an_index_offers_platforms_and_this_machine_gets_its_own() {
    let mut layout = Layout::new();
    let ours = Spec::new("x", two_layers());
    let mut foreign = ours.clone();
    foreign.architecture = "s390x".into();
    let mut manifests = Vec::new();
    for (spec, architecture, os) in [
        (&foreign, "s390x", "linux"),
        (&ours, machine(), "linux"),
        (&foreign, "unknown", "unknown"),
    ] {
        let mut manifest = layout.add(spec, gzip, GZIP_LAYER);
        manifest["platform"] = serde_json::json!({ "architecture": architecture, "os": os });
        manifests.push(manifest);
    }
    let inner = layout.add_index(&manifests);
    let mut outer = layout.add_index(&[inner]);
    outer["annotations"] = serde_json::json!({
        "io.containerd.image.name": "docker.io/team/app:2",
        "org.opencontainers.image.ref.name": "2",
    });
    let place = Place::new();
    let loaded = place.load(&layout.build(&[outer])).unwrap();
    assert_eq!(
        (loaded[0].reference.as_str(), loaded[0].digest.clone()),
        ("team/app:2", ours.digest())
    );
}

#[test]
fn platforms_that_do_not_fit_are_told() {
    let mut spec = Spec::new("team/app:1", two_layers());
    spec.architecture = "s390x".into();
    let place = Place::new();
    for archive in [
        spec.oci(gzip, GZIP_LAYER),
        Spec::docker_legacy(std::slice::from_ref(&spec)),
        spec.docker_modern(),
    ] {
        let error = place.load(&archive).unwrap_err();
        assert!(
            matches!(&error, LoadError::Platform { found, .. } if found == "linux/s390x"),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("linux/{}", machine())), "{error}");
    }
    place.check();
}

#[test]
fn indexes_that_name_themselves_end() {
    // No index can hold its own digest, but many levels and many entries are possible.
    let mut layout = Layout::new();
    let mut top = layout.add(&Spec::new("x", two_layers()), gzip, GZIP_LAYER);
    for _ in 0..8 {
        top = layout.add_index(&[top.clone(), top]);
    }
    let error = Place::new().load(&layout.build(&[top])).unwrap_err().to_string();
    assert!(error.contains("IMAGE_INDEX_DEPTH_MAX"), "{error}");
}

#[test]
fn root_directories_become_images_of_one_layer() {
    let tar = Tar::new().dir("./").dir("./bin/").file("./bin/app", "program").build();
    for archive in [tar.clone(), gzip(&tar), zstd(&tar)] {
        let place = Place::new();
        let options = LoadOptions {
            kind: ArchiveKind::RootDir,
            reference: Some("mine".into()),
            ..LoadOptions::default()
        };
        let loaded = place.load_with(&archive, &options).unwrap();
        assert_eq!(loaded[0].reference, "mine:latest");
        let image = place.image("mine");
        assert!(image.config.cmd.is_empty() && image.config.entrypoint.is_empty());
        assert_eq!(std::fs::read_to_string(image.layers[0].join("bin/app")).unwrap(), "program");
        assert!(image.layers[0].to_str().unwrap().contains(&sha256(&tar)));
        let nameless = LoadOptions { kind: ArchiveKind::RootDir, ..LoadOptions::default() };
        let error = place.load_with(&archive, &nameless).unwrap_err().to_string();
        assert!(error.contains("give it a reference"), "{error}");
        place.check();
    }
}

#[test]
fn a_reference_that_is_given_replaces_the_archives() {
    let place = Place::new();
    let spec = Spec::new("team/app:1", two_layers());
    let named = |name: &str| LoadOptions { reference: Some(name.into()), ..LoadOptions::default() };
    place.load_with(&spec.docker_modern(), &named("other:3")).unwrap();
    let names: Vec<_> =
        place.store.list().unwrap().into_iter().map(|image| image.reference).collect();
    assert_eq!(names, ["other:3"]);
    let two = Spec::docker_legacy(&[spec.clone(), Spec::new("b:1", two_layers())]);
    let error = place.load_with(&two, &named("c:1")).unwrap_err().to_string();
    assert!(error.contains("2 images (team/app:1, b:1)"), "{error}");
    for bad in ["a b", "../x", "host"] {
        let error = place.load_with(&spec.docker_modern(), &named(bad)).unwrap_err();
        assert_eq!(error.cause(), Cause::Archive, "{error}");
    }
}

#[test]
fn archives_without_a_name_ask_for_one() {
    let mut spec = Spec::new("x", two_layers());
    spec.names.clear();
    let place = Place::new();
    let error =
        place.load(&Spec::docker_legacy(std::slice::from_ref(&spec))).unwrap_err().to_string();
    assert!(error.contains("give it a reference"), "{error}");
    spec.names.push("latest".into());
    let error = place.load(&spec.oci(gzip, GZIP_LAYER)).unwrap_err().to_string();
    assert!(error.contains("`latest`"), "{error}");
    place.check();
}

#[test]
fn other_archives_are_no_images() {
    let place = Place::new();
    let tar = Tar::new().file("etc/passwd", "x").build();
    let error = place.load(&tar).unwrap_err();
    assert!(matches!(error, LoadError::NotAnImage), "{error}");
    let error = place.load(b"hello, this is no tar at all").unwrap_err();
    assert!(matches!(error, LoadError::Truncated(_)), "{error}");
    let error = place.load(&[b'x'; 2048]).unwrap_err();
    assert!(matches!(error, LoadError::Tar { .. }), "{error}");
    let error = place.load(b"").unwrap_err();
    assert!(matches!(error, LoadError::Truncated(_)), "{error}");
    place.check();
}

#[test]
fn the_configuration_is_resolved_in_the_image() {
    let mut spec = Spec::new("a:1", two_layers());
    spec.layers.push(Tar::new().file("etc/group", "g:x:9:app\n").build());
    spec.config = serde_json::json!({
        "User": "app", "Entrypoint": ["/usr/bin/fwatchdog"], "StopSignal": "SIGQUIT",
        "ExposedPorts": { "8080/tcp": {} }, "WorkingDir": "/home/app", "Env": ["A=1"],
    });
    let place = Place::new();
    place.load(&spec.docker_modern()).unwrap();
    let image = place.image("a:1");
    assert_eq!(image.watchdog.as_deref(), Some("fwatchdog"));
    assert_eq!((image.config.user.uid, image.config.user.gid), (7, 8));
    assert_eq!(image.config.user.groups, [9]);
    assert_eq!((image.config.stop_signal, image.config.exposed_port), (Some(3), Some(8080)));
    // A whiteout in a higher layer takes the user away.
    spec.layers.push(Tar::new().file("etc/.wh.passwd", "").build());
    let error = place.load(&spec.docker_modern()).unwrap_err().to_string();
    assert!(error.contains("`app`") && error.contains("/etc/passwd"), "{error}");
    place.check();
}

#[test]
fn progress_counts_up_and_names_steps() {
    let place = Place::new();
    let mut layers = two_layers();
    layers[0] = Tar::new().file("big", &"x".repeat(3 << 20)).build();
    let archive = Spec::new("a:1", layers).docker_modern();
    let mut seen: Vec<Progress> = Vec::new();
    place.store.load(&archive[..], &LoadOptions::default(), &mut |now| seen.push(now)).unwrap();
    assert!(seen.iter().zip(&seen[1..]).all(|(a, b)| a.bytes <= b.bytes), "{seen:?}");
    assert_eq!(seen.last().unwrap().bytes, archive.len() as u64);
    let steps: Vec<&str> = seen.iter().map(|now| now.step.as_ref()).collect();
    for step in ["reading", "unpacking layer 1 of 2", "unpacking layer 2 of 2", "saving"] {
        assert!(steps.contains(&step), "{steps:?}");
    }
    assert!(steps.iter().filter(|&&step| step == "reading").count() >= 3, "{steps:?}");
}
