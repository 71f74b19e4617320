//! Random layers and random damage: nothing outside is touched, nothing half-made stays, nothing panics.

use pinnace_sandbox::images::Ownership;
use proptest::prelude::*;
use tar::EntryType;

use crate::archive::*;

/// Stands for the absolute path of what may not be touched.
const SENTINEL: &str = "SENTINEL";

/// Names that collide, climb, hide and lead on.
fn name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "a",
        "b",
        "c",
        "..",
        ".",
        "",
        "link",
        "dev",
        ".wh.a",
        ".wh.b",
        ".wh.link",
        ".wh..wh..opq",
        ".wh..",
        ".wh.",
        "sentinel",
        "etc",
        "passwd",
        "store",
        SENTINEL,
    ]);
    prop::collection::vec(part, 1..5).prop_map(|parts| parts.join("/"))
}

/// Names without a climb, so that whole layers get through too.
fn tame_name() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec!["a", "b", "c", "link", ".wh.a", "d", "e"]);
    prop::collection::vec(part, 1..4).prop_map(|parts| parts.join("/"))
}

#[derive(Clone, Debug)]
struct Step {
    kind: u8,
    path: String,
    link: String,
    mode: u32,
}

fn steps(name: fn() -> BoxedStrategy<String>) -> impl Strategy<Value = Vec<Step>> {
    let kind = prop::sample::select(b"0000112225553647SZ".to_vec());
    let step = (kind, name(), name(), 0u32..0o10000).prop_map(|(kind, path, link, mode)| Step {
        kind,
        path,
        link,
        mode,
    });
    prop::collection::vec(step, 1..12)
}

fn build(steps: &[Step], sentinel: &str) -> Vec<u8> {
    let place = |name: &str| {
        let mut name = name.replace(SENTINEL, sentinel);
        name.truncate(100);
        name
    };
    steps
        .iter()
        .fold(Tar::new(), |tar, step| {
            let content: &[u8] = if matches!(step.kind, b'0' | b'7') { b"content" } else { b"" };
            let (path, link) = (place(&step.path), place(&step.link));
            tar.entry(EntryType::new(step.kind), &path, &link, content, |header| {
                header.set_mode(step.mode);
            })
        })
        .build()
}

fn load_and_check(steps: &[Step]) {
    let real = rustix::process::geteuid().is_root().then_some(Ownership::Real);
    for ownership in [Ownership::Squashed].into_iter().chain(real) {
        load_and_check_in(&Place::in_memory(ownership), steps);
    }
}

fn load_and_check_in(place: &Place, steps: &[Step]) {
    let before = place.contents();
    if place.layer(build(steps, place.sentinel().to_str().unwrap())).is_ok() {
        assert!(!place.store.list().unwrap().is_empty());
        place.store.remove("a:1").unwrap();
        place.store.collect_garbage(&Default::default()).unwrap();
    }
    assert_eq!(place.contents(), before);
    place.check();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn wild_layers_stay_inside(steps in steps(|| name().boxed())) {
        load_and_check(&steps);
    }

    #[test]
    fn tame_layers_stay_inside(steps in steps(|| tame_name().boxed())) {
        load_and_check(&steps);
    }

    #[test]
    fn damaged_archives_change_nothing_or_load(
        form in 0usize..4,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let layer = Tar::new().dir("d/").file("d/f", "text").symlink("l", "d").hard_link("h", "d/f").build();
        let spec = Spec::new("a:1", vec![layer]);
        let mut bytes = match form {
            0 => Spec::docker_legacy(std::slice::from_ref(&spec)),
            1 => spec.docker_modern(),
            2 => spec.oci(gzip, GZIP_LAYER),
            _ => zstd(&spec.oci(zstd, ZSTD_LAYER)),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let place = Place::in_memory(Ownership::Squashed);
        let before = place.contents();
        match place.load(&bytes) {
            // Bytes that nothing depends on were hit: padding, times of the outer tar.
            Ok(images) => for image in images {
                place.store.resolve(&image.reference).unwrap();
            },
            Err(_) => prop_assert_eq!(place.contents(), before),
        }
        place.check();
    }
}
