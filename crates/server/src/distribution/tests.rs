use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use pinnace_core::distribution::chunk;
use serde_json::{Value, json};

use super::*;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const ALL: Page = Page { entries_max: 100, last: None };
const NOW: Collection = Collection { grace: Duration::ZERO, untagged: false, is_dry: false };

struct Place {
    dir: tempfile::TempDir,
    store: Arc<Distribution>,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Distribution::open(&dir.path().join("registry"), 1 << 30).unwrap());
    Place { dir, store }
}

impl Place {
    /// As a crash and a new server leave it.
    fn reopened(self) -> Self {
        let Self { dir, store } = self;
        drop(store);
        let store = Distribution::open(&dir.path().join("registry"), 1 << 30).unwrap();
        Self { dir, store: Arc::new(store) }
    }

    fn files(&self, part: &str) -> usize {
        fs::read_dir(self.dir.path().join("registry").join(part)).unwrap().count()
    }
}

fn name(text: &str) -> Repository {
    Repository::parse(text).unwrap()
}

fn tag(text: &str) -> Wanted {
    Wanted::Tag(Tag::parse(text).unwrap())
}

fn sha256(content: &[u8]) -> Digest {
    digest_of(Algorithm::Sha256, content)
}

/// A body of these pieces, which then breaks off or ends.
fn body(
    pieces: &[&[u8]],
    breaks_off: bool,
) -> impl futures_util::Stream<Item = io::Result<Bytes>> + Unpin + use<> {
    let mut items: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    if breaks_off {
        items.push(Err(io::Error::other("cut")));
    }
    stream::iter(items)
}

async fn append(
    store: &Arc<Distribution>,
    upload: &Arc<Upload>,
    pieces: &[&[u8]],
    breaks_off: bool,
) -> Result<Writing, DistributionError> {
    let mut writing = upload.clone().write(store.clone()).await?;
    let chunk = chunk(writing.offset(), None, None, store.blob_bytes_max()).unwrap();
    writing.append(body(pieces, breaks_off), chunk).await.map(|()| writing)
}

async fn push_blob(store: &Arc<Distribution>, repository: &str, content: &[u8]) -> Digest {
    let upload = store.begin(&name(repository)).unwrap();
    let writing = append(store, &upload, &[content], false).await.unwrap();
    writing.finish(name(repository), sha256(content)).await.unwrap();
    sha256(content)
}

fn descriptor(digest: &Digest) -> Value {
    json!({ "mediaType": "x/y", "digest": digest.as_str(), "size": 1 })
}

fn manifest_of(config: &Digest, note: &str) -> Vec<u8> {
    let annotations = json!({ "note": note });
    json!({ "schemaVersion": 2, "config": descriptor(config), "layers": [], "annotations": annotations })
        .to_string()
        .into_bytes()
}

fn push(
    store: &Distribution,
    repository: &str,
    content: &[u8],
    tags: &[&str],
) -> Result<Digest, DistributionError> {
    let tags: Vec<_> = tags.iter().map(|tag| Tag::parse(tag).unwrap()).collect();
    let digest = sha256(content);
    store.put_manifest(&name(repository), &digest, content, None, &tags).map(|_| digest)
}

#[tokio::test]
async fn an_upload_that_breaks_off_goes_on_also_after_a_crash() {
    let mut place = place();
    let content = b"all of a blob".as_slice();
    for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
        let upload = place.store.begin(&name("a")).unwrap();
        let id = upload.id().to_string();
        let broken = append(&place.store, &upload, &[b"al", b"l of "], true).await.unwrap_err();
        assert_eq!((broken.kind(), upload.offset()), (Fault::UploadInvalid, 7), "{broken}");
        drop(upload);
        place = place.reopened();
        assert!(place.store.upload(&name("b"), &id).is_err(), "it is another repository's");
        let upload = place.store.upload(&name("a"), &id).unwrap();
        assert_eq!(upload.offset(), 7);
        let writing = append(&place.store, &upload, &[b"a blob"], false).await.unwrap();
        let digest = digest_of(algorithm, content);
        writing.finish(name("a"), digest.clone()).await.unwrap();
        assert_eq!(place.store.blob(&name("a"), &digest).unwrap().content().unwrap(), content);
        assert!(place.store.blob(&name("b"), &digest).is_err());
        let gone = place.store.upload(&name("a"), &id).unwrap_err();
        assert_eq!((gone.kind(), place.files("uploads")), (Fault::UploadUnknown, 0));
    }
}

#[tokio::test]
async fn of_a_lie_nothing_is_kept() {
    let place = place();
    let upload = place.store.begin(&name("a")).unwrap();
    let writing = append(&place.store, &upload, &[b"this"], false).await.unwrap();
    let lie = writing.finish(name("a"), sha256(b"that")).await.unwrap_err();
    assert_eq!(lie.kind(), Fault::DigestInvalid);
    let said = lie.to_string();
    assert!(said.contains(sha256(b"this").as_str()) && said.contains(sha256(b"that").as_str()));
    assert_eq!((place.files("uploads"), place.files("blobs/sha256")), (0, 0));
    assert!(append(&place.store, &upload, &[b"that"], false).await.is_err());
    let content = manifest_of(&sha256(b""), "");
    let said = place.store.put_manifest(&name("a"), &sha256(b"x"), &content, None, &[]);
    assert_eq!(said.unwrap_err().kind(), Fault::DigestInvalid);
}

#[tokio::test]
async fn who_comes_last_writes() {
    let place = place();
    let upload = place.store.begin(&name("a")).unwrap();
    let mut first = upload.clone().write(place.store.clone()).await.unwrap();
    let open = chunk(0, None, None, 100).unwrap();
    let stuck = tokio::spawn(async move {
        // It sends something, and then neither more nor an end.
        let pieces = stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"ab"))]);
        let result = first.append(pieces.chain(stream::pending()), open).await;
        drop(first);
        result
    });
    tokio::task::yield_now().await;
    let writing = append(&place.store, &upload, &[b"c"], false).await.unwrap();
    let lost = stuck.await.unwrap().unwrap_err();
    assert!(lost.to_string().contains("another request"), "{lost}");
    let (offset, content) = (writing.offset(), [&b"abc"[..], b"c"]);
    // The first may have been asked for its place before it had read anything.
    let content = content.into_iter().find(|content| content.len() as u64 == offset).unwrap();
    writing.finish(name("a"), sha256(content)).await.unwrap();
}

#[tokio::test]
async fn no_more_comes_than_may() {
    let place = place();
    let upload = place.store.begin(&name("a")).unwrap();
    let mut writing = upload.clone().write(place.store.clone()).await.unwrap();
    let sized = chunk(0, Some("0-3"), None, 100).unwrap();
    let more = writing.append(body(&[b"abcd", b"e"], false), sized).await.unwrap_err();
    assert_eq!((more.kind(), writing.offset()), (Fault::SizeInvalid, 4));
    let sized = chunk(4, Some("4-9"), None, 100).unwrap();
    let less = writing.append(body(&[b"ef"], false), sized).await.unwrap_err();
    assert_eq!((less.kind(), writing.offset()), (Fault::SizeInvalid, 6));
    let open = chunk(6, None, None, 8).unwrap();
    let large = writing.append(body(&[b"gh", b"i"], false), open).await.unwrap_err();
    assert_eq!(large.kind(), Fault::TooLarge);
    assert!(large.to_string().contains("--image-bytes-max"), "{large}");
    writing.finish(name("a"), sha256(b"abcdefgh")).await.unwrap();
}

#[tokio::test]
async fn uploads_are_bounded_in_number_and_given_up() {
    let place = place();
    let uploads: Vec<_> =
        (0..limits::REGISTRY_UPLOADS_MAX).map(|_| place.store.begin(&name("a")).unwrap()).collect();
    let many = place.store.begin(&name("a")).unwrap_err();
    assert!(many.to_string().contains("REGISTRY_UPLOADS_MAX"), "{many}");
    assert_eq!(many.kind(), Fault::TooMany);
    for upload in &uploads {
        upload.clone().write(place.store.clone()).await.unwrap().cancel();
    }
    assert_eq!(place.files("uploads"), 0);
    let empty = place.store.begin(&name("a")).unwrap();
    let begun = place.store.begin(&name("a")).unwrap();
    drop(append(&place.store, &begun, &[b"some"], false).await.unwrap());
    let ended_after = |age: Duration| {
        for upload in [&empty, &begun] {
            let path = fs::read_dir(place.dir.path().join("registry/uploads")).unwrap().flatten();
            let id = upload.id().to_string();
            let Some(file) = path
                .map(|entry| entry.path())
                .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&id))
            else {
                continue;
            };
            let touched = fs::metadata(&file).unwrap().modified().unwrap() - age;
            File::options().write(true).open(file).unwrap().set_modified(touched).unwrap();
        }
        place.store.collect(NOW).unwrap().uploads
    };
    assert_eq!(ended_after(Duration::ZERO), 0, "both are young");
    assert_eq!(ended_after(limits::REGISTRY_EMPTY_UPLOAD_AGE_MAX), 1, "nothing has come of one");
    assert_eq!(ended_after(limits::REGISTRY_UPLOAD_AGE_MAX), 1);
    assert_eq!(place.files("uploads"), 0);
    assert!(begun.write(place.store.clone()).await.is_err());
}

#[tokio::test]
async fn a_manifest_needs_its_parts_and_they_need_it() {
    let place = place();
    let store = &place.store;
    let config = sha256(b"{}");
    let content = manifest_of(&config, "");
    let lacking = push(store, "a", &content, &["1"]).unwrap_err();
    assert_eq!(lacking.kind(), Fault::ManifestBlobUnknown);
    assert!(lacking.to_string().contains(config.as_str()), "{lacking}");
    assert!(store.manifest(&name("a"), &tag("1")).is_err(), "nothing half is kept");
    push_blob(store, "b", b"{}").await;
    let lacking = push(store, "a", &content, &["1"]).unwrap_err();
    assert_eq!(lacking.kind(), Fault::ManifestBlobUnknown, "another repository's does not count");
    assert!(!store.mount(&name("a"), &config, Some(&name("c"))).unwrap());
    assert!(store.mount(&name("a"), &config, Some(&name("b"))).unwrap());
    let digest = push(store, "a", &content, &["1", "2"]).unwrap();
    let stored = store.manifest(&name("a"), &tag("2")).unwrap();
    assert_eq!((stored.digest, stored.media_type.as_str()), (digest.clone(), OCI_MANIFEST));
    assert_eq!(stored.content, content);

    let used = store.remove_blob(&name("a"), &config).unwrap_err();
    assert!(used.kind() == Fault::InUse && used.to_string().contains(digest.as_str()), "{used}");
    store.remove_manifest(&name("a"), &tag("2")).unwrap();
    store.manifest(&name("a"), &tag("1")).unwrap();
    store.remove_manifest(&name("a"), &Wanted::Digest(digest)).unwrap();
    assert!(store.manifest(&name("a"), &tag("1")).is_err(), "its tags go with it");
    store.remove_blob(&name("a"), &config).unwrap();
    assert!(store.blob(&name("a"), &config).is_err() && store.blob(&name("b"), &config).is_ok());
    store.remove_blob(&name("b"), &config).unwrap();
    assert_eq!((place.files("blobs/sha256"), place.files("trash")), (0, 0));
}

#[tokio::test]
async fn garbage_is_what_no_manifest_refers_to_and_is_not_young() {
    let place = place();
    let store = &place.store;
    let config = push_blob(store, "a", b"{}").await;
    let stray = push_blob(store, "a", b"stray").await;
    store.mount(&name("b"), &config, None).unwrap();
    push(store, "a", &manifest_of(&config, ""), &["1"]).unwrap();

    let young = store.collect(Collection::default()).unwrap();
    assert_eq!((young.blobs, young.young_blobs), (0, 2), "one is used in one place alone");
    let dry = store.collect(Collection { is_dry: true, ..NOW }).unwrap();
    assert_eq!((dry.blobs, dry.bytes), (1, 5));
    store.blob(&name("a"), &stray).unwrap();
    store.blob(&name("b"), &config).unwrap();
    assert_eq!(store.collect(NOW).unwrap(), dry, "what was said before is what is done");
    assert!(store.blob(&name("a"), &stray).is_err() && store.blob(&name("b"), &config).is_err());
    store.blob(&name("a"), &config).unwrap();
    assert_eq!(place.files("blobs/sha256"), 1);
    assert_eq!(store.collect(NOW).unwrap(), Collected::default());
}

#[tokio::test]
async fn a_blob_that_is_looked_for_is_young_again() {
    let place = place();
    let store = &place.store;
    let digest = push_blob(store, "a", b"blob").await;
    let path = store.blob_path(&digest);
    let hour = Duration::from_secs(3600);
    let long_ago = std::time::SystemTime::UNIX_EPOCH + hour;
    let is_old = || store.collect(Collection { grace: hour, is_dry: true, ..NOW }).unwrap().blobs;
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    assert_eq!(is_old(), 1);
    store.blob(&name("a"), &digest).unwrap();
    assert_eq!(is_old(), 0);
    File::options().write(true).open(&path).unwrap().set_modified(long_ago).unwrap();
    store.mount(&name("b"), &digest, None).unwrap();
    assert_eq!(is_old(), 0);
}

#[tokio::test]
async fn manifests_that_nothing_leads_to_go_if_that_is_wished() {
    let place = place();
    let store = &place.store;
    let config = push_blob(store, "a", b"{}").await;
    let child = push(store, "a", &manifest_of(&config, "child"), &[]).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(&child)] }).to_string();
    let index = push(store, "a", index.as_bytes(), &["1"]).unwrap();
    let signature = json!({ "schemaVersion": 2, "layers": [], "subject": descriptor(&index) });
    push(store, "a", signature.to_string().as_bytes(), &[]).unwrap();
    push(store, "a", &manifest_of(&config, "lost"), &[]).unwrap();
    let (held, more) = store.held().unwrap();
    let names: Vec<_> = held.iter().map(|one| one.tag.clone()).collect();
    assert_eq!((names, more), (vec![Some("1".to_owned()), None], false));
    assert!(held[0].bytes > held[1].bytes, "an index counts with what it leads to");

    let how = Collection { untagged: true, ..NOW };
    let collected = store.collect(how).unwrap();
    assert_eq!((collected.manifests, collected.blobs), (1, 0));
    store.manifest(&name("a"), &Wanted::Digest(child.clone())).unwrap();
    store.remove_manifest(&name("a"), &tag("1")).unwrap();
    let kept = store.collect(Collection { grace: Duration::from_secs(60), ..how }).unwrap();
    assert_eq!(kept.manifests, 0, "they are young");
    let collected = store.collect(how).unwrap();
    assert_eq!((collected.manifests, collected.blobs), (3, 1));
    assert!(store.manifest(&name("a"), &Wanted::Digest(child)).is_err());
}

#[tokio::test]
async fn a_reference_goes_with_what_only_it_leads_to() {
    let place = place();
    let store = &place.store;
    let config = push_blob(store, "a", b"{}").await;
    let content = manifest_of(&config, "");
    let digest = push(store, "a", &content, &["1", "2"]).unwrap();
    let whole = Wanted::Digest(digest.clone());
    store.remove_reference(&name("a"), &tag("1")).unwrap();
    store.manifest(&name("a"), &whole).unwrap();
    store.remove_reference(&name("a"), &tag("2")).unwrap();
    assert!(store.manifest(&name("a"), &whole).is_err());
    let gone = store.remove_reference(&name("a"), &tag("2")).unwrap_err();
    assert_eq!(gone.kind(), Fault::ManifestUnknown);
    push(store, "a", &content, &["3"]).unwrap();
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor(&digest)] }).to_string();
    push(store, "a", index.as_bytes(), &["4"]).unwrap();
    store.remove_reference(&name("a"), &tag("3")).unwrap();
    store.manifest(&name("a"), &whole).unwrap();
}

#[tokio::test]
async fn lists_come_in_pages() {
    let place = place();
    let store = &place.store;
    for repository in ["b", "a/x", "c"] {
        let config = push_blob(store, repository, b"{}").await;
        push(store, repository, &manifest_of(&config, ""), &["2", "B", "a", "10", "_"]).unwrap();
    }
    let page = |entries_max, last: Option<&str>| Page { entries_max, last: last.map(Into::into) };
    let listed = |entries: &[&str], next: Option<&str>| Listed {
        entries: entries.iter().map(|entry| (*entry).to_owned()).collect(),
        next: next.map(Into::into),
    };
    let tags = |page: Page| store.tags(&name("b"), &page).unwrap();
    assert_eq!(tags(ALL), listed(&["10", "2", "B", "_", "a"], None));
    assert_eq!(tags(page(2, None)), listed(&["10", "2"], Some("2")));
    assert_eq!(tags(page(2, Some("_"))), listed(&["a"], None));
    assert_eq!(tags(page(1, Some("zzz"))), listed(&[], None));
    assert_eq!(tags(page(0, None)), listed(&[], None));
    let repositories = |page: Page| store.repositories(&page).unwrap();
    assert_eq!(repositories(ALL), listed(&["a/x", "b", "c"], None));
    assert_eq!(repositories(page(2, None)), listed(&["a/x", "b"], Some("b")));
    assert_eq!(repositories(page(2, Some("b"))), listed(&["c"], None));
    assert_eq!(store.tags(&name("d"), &ALL).unwrap_err().kind(), Fault::NameUnknown);
}

#[tokio::test]
async fn referrers_come_by_type_and_by_bytes() {
    let place = place();
    let store = &place.store;
    let subject = sha256(b"it need not be there");
    for number in 0..4 {
        let content = json!({
            "schemaVersion": 2, "layers": [], "subject": descriptor(&subject),
            "artifactType": if number % 2 == 0 { "x/even" } else { "x/odd" },
            "annotations": { "number": number.to_string() },
        });
        push(store, "a", content.to_string().as_bytes(), &[]).unwrap();
    }
    let all = store.referrers(&name("a"), &subject, None, &ALL).unwrap();
    assert_eq!((all.entries.len(), all.next), (4, None));
    let even = store.referrers(&name("a"), &subject, Some("x/even"), &ALL).unwrap();
    assert!(even.entries.len() == 2 && even.entries.iter().all(|one| one.contains("x/even")));
    let index = store.index();
    let mut seen = Vec::new();
    let mut page = Page { entries_max: 10, last: None };
    loop {
        let found = index.referrers(&name("a"), &subject, None, &page, 1).unwrap();
        assert_eq!(found.entries.len(), 1, "a page has one at least");
        seen.extend(found.entries);
        page.last = found.next;
        if page.last.is_none() {
            break;
        }
    }
    assert_eq!(seen, all.entries);
}

#[tokio::test]
async fn what_a_crash_left_is_swept() {
    let mut place = place();
    let digest = push_blob(&place.store, "a", b"blob").await;
    let dir = place.dir.path().join("registry");
    // Put into place, and not yet told to the database; taken from there, and not yet removed.
    fs::write(dir.join(format!("blobs/sha256/{}", "0".repeat(64))), "x").unwrap();
    fs::write(dir.join("trash/7"), "x").unwrap();
    place = place.reopened();
    assert_eq!((place.files("blobs/sha256"), place.files("trash")), (1, 0));
    place.store.blob(&name("a"), &digest).unwrap();
    // A file that is not what it was is said to be broken, until it is pushed again.
    fs::write(place.store.blob_path(&digest), "blo").unwrap();
    let broken = place.store.blob(&name("a"), &digest).unwrap_err();
    assert!(broken.kind() == Fault::Broken && broken.to_string().contains("push it again"));
    push_blob(&place.store, "a", b"blob").await;
    assert_eq!(place.store.blob(&name("a"), &digest).unwrap().content().unwrap(), b"blob");
}

#[tokio::test]
async fn a_blob_is_linked_over_what_lies_there() {
    let place = place();
    let digest = push_blob(&place.store, "a", b"blob").await;
    let path = place.dir.path().join("partial");
    fs::write(&path, "half of ano").unwrap();
    let blob = place.store.blob(&name("a"), &digest).unwrap();
    blob.link_to(&path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"blob");
    fs::remove_file(&path).unwrap();
    let mut buffer = [0; 8];
    assert_eq!(blob.read_at(&mut buffer, 2).unwrap(), 2);
    assert_eq!(&buffer[..2], b"ob");
}
