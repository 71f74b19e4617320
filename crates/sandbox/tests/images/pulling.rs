//! Images whose blobs arrive one by one: what is missing is found, what is there is used, and a deploy's image
//! stays.

use std::{collections::HashSet, time::Duration};

use pinnace_sandbox::images::{
    ImageStore, LoadError, Ownership, PullPlan, RemoteDocument, RemoteManifest,
};
use serde_json::json;

use crate::archive::*;

fn layer(text: &str) -> Vec<u8> {
    Tar::new().file("f", text).build()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// An image as a registry describes it.
fn manifest(image: &Spec, blobs: &[Vec<u8>]) -> RemoteManifest {
    let descriptor = |kind: &str, bytes: &[u8]| {
        json!({ "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(bytes), "size": bytes.len() })
    };
    let layers: Vec<_> = blobs.iter().map(|blob| descriptor("layer.v1.tar+gzip", blob)).collect();
    let document = json!({
        "schemaVersion": 2,
        "config": descriptor("config.v1+json", &image.config_bytes()),
        "layers": layers,
    });
    match RemoteDocument::read(document.to_string().as_bytes(), "x:1").unwrap() {
        RemoteDocument::Image(manifest) => manifest,
        RemoteDocument::Index(_) => panic!("it is no index"),
    }
}

fn blobs(image: &Spec) -> Vec<Vec<u8>> {
    image.layers.iter().map(|layer| gzip(layer)).collect()
}

fn plan(place: &Place, image: &Spec) -> Result<PullPlan, LoadError> {
    let manifest = manifest(image, &blobs(image));
    place.store.plan_pull(&image.names[0], &manifest, &image.config_bytes())
}

/// Puts the blobs that a pull lacks where it looks for them; answers how many there were.
fn arrive(place: &Place, plan: &PullPlan, blobs: &[Vec<u8>]) -> usize {
    for missing in plan.missing() {
        let blob = blobs.iter().find(|blob| digest(blob) == missing.digest).unwrap();
        std::fs::write(place.store.partial_path(&missing.digest), blob).unwrap();
    }
    plan.missing().len()
}

fn partials(place: &Place) -> usize {
    std::fs::read_dir(place.dir().join("partial")).unwrap().count()
}

#[test]
fn only_what_is_missing_is_wanted() {
    let place = Place::new();
    let one = Spec::new("one:1", vec![layer("shared"), layer("one")]);
    let two = Spec::new("two:1", vec![layer("shared"), layer("two"), layer("two")]);
    for (image, wanted) in [(&one, 2), (&two, 1), (&two, 0)] {
        let plan = plan(&place, image).unwrap();
        assert_eq!(arrive(&place, &plan, &blobs(image)), wanted);
        let pulled = place.store.finish_pull(plan, &mut |_| ()).unwrap();
        assert_eq!((pulled.reference.as_str(), pulled.digest), (&*image.names[0], image.digest()));
    }
    assert_eq!(place.image("two:1").layers.len(), 2);
    assert_eq!(partials(&place), 0);
    let again = place.store.name_image("docker.io/library/three", &two.digest()).unwrap();
    assert_eq!(again.unwrap().reference, "three:latest");
    let unknown = digest(b"unknown");
    assert!(place.store.name_image("four:1", &unknown).unwrap().is_none());
    assert!(place.store.name_image("host", &two.digest()).is_err());
    place.check();
}

#[test]
fn blobs_are_not_believed() {
    let place = Place::new();
    let before = place.contents();
    let image = Spec::new("a:1", vec![layer("a")]);
    let remote = manifest(&image, &blobs(&image));
    let other = Spec::new("a:1", vec![layer("b")]).config_bytes();
    let error = place.store.plan_pull("a:1", &remote, &other).unwrap_err();
    assert!(matches!(error, LoadError::Digest { .. }), "{error}");
    let mut foreign = image.clone();
    foreign.architecture = "s390x".to_owned();
    assert!(matches!(plan(&place, &foreign), Err(LoadError::Platform { .. })));

    // The right name on a layer that is another once it is unpacked.
    let plan = plan(&place, &image).unwrap();
    std::fs::write(place.store.partial_path(&plan.missing()[0].digest), gzip(&layer("c"))).unwrap();
    let error = place.store.finish_pull(plan, &mut |_| ()).unwrap_err();
    assert!(matches!(error, LoadError::Digest { .. }), "{error}");
    assert_eq!(place.contents(), before);
    place.check();
}

#[test]
fn blobs_under_way_are_kept_for_who_needs_them_and_not_for_ever() {
    let place = Place::new();
    let one = Spec::new("one:1", vec![layer("shared"), layer("one")]);
    let two = Spec::new("two:1", vec![layer("shared"), layer("two")]);
    let (first, second) = (plan(&place, &one).unwrap(), plan(&place, &two).unwrap());
    arrive(&place, &first, &blobs(&one));
    arrive(&place, &second, &blobs(&two));
    assert_eq!(partials(&place), 3);
    assert_eq!(place.store.remove_partials(Duration::ZERO).unwrap(), 0, "both are under way");
    place.store.finish_pull(first, &mut |_| ()).unwrap();
    assert_eq!(partials(&place), 2, "the other pull needs the layer that they share");
    drop(second);
    place.store.collect_garbage(&HashSet::new()).unwrap();
    assert_eq!(partials(&place), 2, "the next pull may go on with them");
    // They outlive the server.
    let kind =
        if rustix::process::geteuid().is_root() { Ownership::Real } else { Ownership::Squashed };
    let reopened = ImageStore::open(&place.dir(), kind).unwrap();
    assert_eq!(partials(&place), 2);
    assert!(reopened.remove_partials(Duration::ZERO).unwrap() > 0);
    assert_eq!(partials(&place), 0);
}

#[test]
fn a_pinned_image_stays_until_its_owner_lets_go() {
    let place = Place::new();
    let old = Spec::new("app:1", vec![layer("old")]);
    place.load(&old.docker_modern()).unwrap();
    let none = HashSet::new();
    let held = place.image("app:1");
    place.store.pin("a.fn", "first 1", &held.digest).unwrap();
    drop(held);
    place.load(&Spec::new("app:1", vec![layer("new")]).docker_modern()).unwrap();
    assert_eq!(place.store.collect_garbage(&none).unwrap().images, 0);
    assert_eq!(place.store.pinned("a.fn", "first 1").unwrap(), Some(old.digest()));
    assert_eq!(place.store.pinned("a.fn", "first 2").unwrap(), None, "of another deploy");
    assert_eq!(place.store.pinned("b.fn", "first 1").unwrap(), None);
    place.store.unpin_others(&HashSet::from(["a.fn".to_owned()])).unwrap();
    assert_eq!(place.store.collect_garbage(&none).unwrap().images, 0);

    // The next deploy runs the new one.
    place.store.pin("a.fn", "first 2", &place.image("app:1").digest).unwrap();
    assert_eq!(place.store.collect_garbage(&none).unwrap().images, 1);
    place.store.remove("app:1").unwrap();
    assert_eq!(place.store.collect_garbage(&none).unwrap().images, 0);
    place.store.unpin("a.fn").unwrap();
    place.store.unpin("a.fn").unwrap();
    assert_eq!(place.store.collect_garbage(&none).unwrap().images, 1);
    place.check();
}
