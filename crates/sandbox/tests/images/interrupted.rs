//! Loads that break off, and loads at the same time.

use std::{
    io::{self, Read},
    sync::Barrier,
};

use pinnace_sandbox::images::{ArchiveKind, Cause, LoadOptions};

use crate::archive::*;

fn layers() -> Vec<Vec<u8>> {
    let text = "some text that goes on ".repeat(700);
    vec![
        Tar::new().file("a", &text).dir("d/").file("d/.wh.x", "").build(),
        Tar::new().file("b", &text).symlink("c", "b").build(),
    ]
}

/// Loads each sixteenth of an archive; none may leave a trace beside what was there.
fn cut_everywhere(place: &Place, archive: &[u8], options: &LoadOptions) {
    let before = place.contents();
    for sixteenth in 0..16 {
        let cut = &archive[..archive.len() * sixteenth / 16];
        let error = place.load_with(cut, options).unwrap_err();
        assert_eq!(error.cause(), Cause::Stream, "{sixteenth}/16: {error}");
        assert_eq!(place.contents(), before, "{sixteenth}/16");
        place.check();
    }
    place.load_with(archive, options).unwrap();
}

#[test]
fn a_cut_archive_changes_nothing() {
    let mut spec = Spec::new("new:1", layers());
    spec.layers.push(Tar::new().file("old", "shared").build());
    for archive in [
        Spec::docker_legacy(std::slice::from_ref(&spec)),
        spec.docker_modern(),
        spec.oci(gzip, GZIP_LAYER),
        spec.oci(zstd, ZSTD_LAYER),
        gzip(&spec.docker_modern()),
        zstd(&spec.docker_modern()),
    ] {
        let place = Place::new();
        // One that is there already, and shares a layer.
        place.load(&Spec::new("old:1", vec![spec.layers[2].clone()]).docker_modern()).unwrap();
        cut_everywhere(&place, &archive, &LoadOptions::default());
        assert_eq!(place.store.list().unwrap().len(), 2);
    }
}

#[test]
fn a_cut_root_directory_changes_nothing() {
    let options = LoadOptions {
        kind: ArchiveKind::RootDir,
        reference: Some("mine:1".into()),
        ..LoadOptions::default()
    };
    let tar = layers().remove(0);
    for archive in [gzip(&tar), zstd(&tar), tar] {
        cut_everywhere(&Place::new(), &archive, &options);
    }
}

#[test]
fn a_tar_cut_between_two_entries_is_noticed() {
    let place = Place::new();
    let before = place.contents();
    let options = LoadOptions {
        kind: ArchiveKind::RootDir,
        reference: Some("mine:1".into()),
        ..LoadOptions::default()
    };
    let tar = Tar::new().file("a", "1").file("b", "2").build();
    let error = place.load_with(&tar[..1024], &options).unwrap_err();
    assert_eq!(error.cause(), Cause::Stream, "{error}");
    assert_eq!(place.contents(), before);
}

#[test]
fn a_layer_without_its_last_padding_is_whole() {
    // Its digest proves it, and umoci writes such layers.
    let place = Place::new();
    let layer = Tar::new().file("a", "1").file("b", "text").build();
    for cut in [1024 + 512 + 4, 1024 + 512 + 100, 2048] {
        let tree = place.tree(&layer[..cut]);
        assert_eq!(std::fs::read_to_string(tree.join("b")).unwrap(), "text");
    }
    for cut in [1024 + 512 + 3, 1024 + 512, 1024 + 100] {
        assert!(place.layer(&layer[..cut]).unwrap_err().cause() == Cause::Stream);
    }
    // A root directory has no digest, so there an end is asked for.
    let options = LoadOptions {
        kind: ArchiveKind::RootDir,
        reference: Some("mine:1".into()),
        ..LoadOptions::default()
    };
    let error = place.load_with(&layer[..1024 + 512 + 4], &options).unwrap_err();
    assert_eq!(error.cause(), Cause::Stream, "{error}");
}

#[test]
fn an_error_of_the_stream_is_told() {
    struct Broken<'a>(&'a [u8]);
    impl Read for Broken<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client went away")),
                read => Ok(read),
            }
        }
    }
    let place = Place::new();
    let before = place.contents();
    let archive = gzip(&Spec::new("a:1", layers()).docker_modern());
    let stream = Broken(&archive[..archive.len() / 2]);
    let error = place.store.load(stream, &LoadOptions::default(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("the client went away"), "{error}");
    assert_eq!(error.cause(), Cause::Stream);
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn a_stream_in_small_pieces_is_the_same() {
    struct Slow<'a>(&'a [u8], usize);
    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(3) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let length = buffer.len().min(1 + self.1 % 7);
            self.0.read(&mut buffer[..length])
        }
    }
    let place = Place::new();
    let spec = Spec::new("a:1", vec![Tar::new().file("a", "1").build()]);
    for archive in
        [spec.docker_modern(), gzip(&spec.docker_modern()), zstd(&spec.oci(gzip, GZIP_LAYER))]
    {
        place.store.load(Slow(&archive, 0), &LoadOptions::default(), &mut |_| ()).unwrap();
    }
    assert_eq!(place.store.list().unwrap().len(), 1);
}

#[test]
fn the_same_layers_may_be_loaded_at_once() {
    const LOADS: usize = 8;
    for _ in 0..4 {
        let place = Place::new();
        let start = Barrier::new(LOADS);
        std::thread::scope(|scope| {
            for number in 0..LOADS {
                let (place, start) = (&place, &start);
                scope.spawn(move || {
                    let spec = Spec::new(&format!("image{}:1", number / 2), layers());
                    let archive = spec.oci(gzip, GZIP_LAYER);
                    start.wait();
                    place.load(&archive).unwrap();
                    assert!(place.image(&spec.names[0]).layers[1].join("b").exists());
                });
            }
        });
        assert_eq!(place.store.list().unwrap().len(), LOADS / 2);
        assert_eq!(std::fs::read_dir(place.dir().join("layers/sha256")).unwrap().count(), 2);
        place.check();
    }
}

#[test]
fn loads_and_collections_do_not_hurt_each_other() {
    const ROUNDS: usize = 12;
    let place = Place::new();
    let start = Barrier::new(3);
    std::thread::scope(|scope| {
        for number in 0..2 {
            let (place, start) = (&place, &start);
            scope.spawn(move || {
                let name = format!("image{number}:1");
                let archive = Spec::new(&name, layers()).oci(gzip, GZIP_LAYER);
                start.wait();
                for _ in 0..ROUNDS {
                    place.load(&archive).unwrap();
                    let image = place.image(&name);
                    place.store.remove(&name).unwrap();
                    place.store.collect_garbage(&Default::default()).unwrap();
                    // The image that is held keeps its layers, removed or not.
                    assert!(image.layers[0].join("a").exists());
                }
            });
        }
        let (place, start) = (&place, &start);
        scope.spawn(move || {
            start.wait();
            for _ in 0..ROUNDS * 4 {
                place.store.collect_garbage(&Default::default()).unwrap();
                place.store.list().unwrap();
            }
        });
    });
    place.store.collect_garbage(&Default::default()).unwrap();
    assert_eq!(std::fs::read_dir(place.dir().join("layers/sha256")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(place.dir().join("images/sha256")).unwrap().count(), 0);
    place.check();
}
