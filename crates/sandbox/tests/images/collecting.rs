//! References, and what goes when they go.

use std::collections::HashSet;

use pinnace_sandbox::images::{Collected, ImageStore, Ownership, StoreError};

use crate::archive::*;

fn layer(text: &str) -> Vec<u8> {
    Tar::new().file("f", text).build()
}

fn two_images() -> Place {
    let place = Place::new();
    place.load(&Spec::new("one:1", vec![layer("shared"), layer("one")]).docker_modern()).unwrap();
    place.load(&Spec::new("two:1", vec![layer("shared"), layer("two!")]).docker_modern()).unwrap();
    place
}

#[test]
fn only_what_nothing_leads_to_is_collected() {
    let place = two_images();
    let none = HashSet::new();
    assert_eq!(place.store.collect_garbage(&none).unwrap(), Collected::default());
    place.store.remove("docker.io/library/one:1").unwrap();
    assert!(matches!(place.store.resolve("one:1"), Err(StoreError::NoImage(_))));
    assert!(matches!(place.store.remove("one:1"), Err(StoreError::NoImage(_))));
    let collected = place.store.collect_garbage(&none).unwrap();
    assert_eq!(collected, Collected { images: 1, layers: 1, bytes: 3 });
    assert_eq!(place.image("two:1").layers.len(), 2);
    place.store.remove("two:1").unwrap();
    let collected = place.store.collect_garbage(&none).unwrap();
    assert_eq!(collected, Collected { images: 1, layers: 2, bytes: 10 });
    assert!(place.store.list().unwrap().is_empty());
    place.check();
}

#[test]
fn what_is_in_use_stays() {
    let place = two_images();
    let image = place.image("one:1");
    let digest = image.digest.clone();
    let top = image.layers[1].clone();
    let none = HashSet::new();
    place.store.remove("one:1").unwrap();
    // Held.
    assert_eq!(place.store.collect_garbage(&none).unwrap().layers, 0);
    drop(image);
    // Named by the image.
    assert_eq!(place.store.collect_garbage(&HashSet::from([digest.clone()])).unwrap().layers, 0);
    assert_eq!(place.image(&digest).layers[1], top);
    // Named by the layer: the image goes, the layer stays.
    let layer = HashSet::from([format!("sha256:{}", sha256(&layer("one")))]);
    let collected = place.store.collect_garbage(&layer).unwrap();
    assert_eq!((collected.images, collected.layers), (1, 0));
    assert!(top.exists());
    assert!(matches!(place.store.resolve(&digest), Err(StoreError::NoImage(_))));
    assert_eq!(place.store.collect_garbage(&none).unwrap().layers, 1);
    assert!(!top.exists());
}

#[test]
fn a_moved_reference_leaves_the_old_image_to_its_users() {
    let place = Place::new();
    place.load(&Spec::new("app:1", vec![layer("old")]).docker_modern()).unwrap();
    let old = place.image("app:1").digest;
    place.load(&Spec::new("app:1", vec![layer("new")]).docker_modern()).unwrap();
    assert_ne!(place.image("app:1").digest, old);
    assert_eq!(place.store.list().unwrap().len(), 1);
    let in_use = HashSet::from([old.clone()]);
    assert_eq!(place.store.collect_garbage(&in_use).unwrap(), Collected::default());
    let text = std::fs::read_to_string(place.image(&old).layers[0].join("f")).unwrap();
    assert_eq!(text, "old");
    assert_eq!(place.store.collect_garbage(&HashSet::new()).unwrap().images, 1);
}

#[test]
fn a_store_is_the_same_when_it_is_opened_again() {
    let place = two_images();
    let before = place.store.list().unwrap();
    let ownership =
        if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Squashed };
    let again = ImageStore::open(&place.dir(), ownership).unwrap();
    assert_eq!(again.list().unwrap(), before);
    assert_eq!(again.resolve("two:1").unwrap().layers, place.image("two:1").layers);
}

#[test]
fn known_layers_are_not_unpacked_again() {
    use std::os::unix::fs::MetadataExt;
    let place = two_images();
    let inode =
        |place: &Place| std::fs::metadata(place.image("one:1").layers[0].join("f")).unwrap().ino();
    let before = inode(&place);
    place
        .load(&Spec::new("one:1", vec![layer("shared"), layer("one")]).oci(gzip, GZIP_LAYER))
        .unwrap();
    assert_eq!(inode(&place), before);
}

#[test]
fn a_layer_that_comes_twice_is_mounted_once() {
    let place = Place::new();
    place
        .load(&Spec::new("a:1", vec![layer("x"), layer("y"), layer("x")]).docker_modern())
        .unwrap();
    let layers = place.image("a:1").layers;
    assert_eq!(layers.len(), 2);
    assert_eq!(std::fs::read_to_string(layers[1].join("f")).unwrap(), "x");
}

#[test]
fn damage_is_named() {
    let place = two_images();
    let layer = place.image("one:1").layers[1].parent().unwrap().to_owned();
    std::fs::remove_dir_all(&layer).unwrap();
    let error = place.store.resolve("one:1").unwrap_err().to_string();
    assert!(error.contains(layer.file_name().unwrap().to_str().unwrap()), "{error}");
    // Loading it again mends it.
    place
        .load(&Spec::new("one:1", vec![self::layer("shared"), self::layer("one")]).docker_modern())
        .unwrap();
    assert!(place.image("one:1").layers[1].join("f").exists());
    let record =
        std::fs::read_dir(place.dir().join("images/sha256")).unwrap().next().unwrap().unwrap();
    std::fs::write(record.path(), "{").unwrap();
    let error = place.store.list().unwrap_err();
    assert!(matches!(error, StoreError::BadRecord { .. }), "{error}");
}

#[test]
fn references_of_every_length_and_kind_have_a_place() {
    let place = Place::new();
    let long = format!("registry.example:5000/{}/app:1", "x".repeat(400));
    for name in ["a:1", "A:1", "a/b-c_d:1.0", &long] {
        place.load(&Spec::new(name, vec![layer(name)]).docker_modern()).unwrap();
        assert_eq!(place.image(name).reference, name);
    }
    assert_eq!(place.store.list().unwrap().len(), 4);
    for bad in ["", "../a", "a b"] {
        assert!(matches!(place.store.resolve(bad), Err(StoreError::BadReference(_))), "{bad}");
    }
}
