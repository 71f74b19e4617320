//! An image that holds a single static program, as an OCI layout in a tar file.
//!
//! The same program gives the same bytes: names are sorted, times are zero, nothing is compressed.

use std::io;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::hex;

/// Where the program stands inside, and how it is run.
pub struct Content<'a> {
    /// The image's reference.
    pub reference: &'a str,
    /// The program's file name; it stands at the root.
    pub name: &'a str,
    /// The program.
    pub program: &'a [u8],
    /// The TCP port that it serves HTTP on.
    pub port: u16,
    /// The architecture it is built for, in Rust's words, such as `x86_64`.
    pub architecture: &'a str,
}

/// Writes the archive.
///
/// # Errors
/// None that memory does not give.
pub fn oci_layout(content: &Content<'_>) -> io::Result<Vec<u8>> {
    let layer = tar_of([(content.name.to_owned(), 0o755, content.program)])?;
    let config = json(&json!({
        "architecture": in_words_of_images(content.architecture),
        "os": "linux",
        "config": {
            "Entrypoint": [format!("/{}", content.name)],
            "ExposedPorts": { format!("{}/tcp", content.port): {} },
        },
        "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
    }));
    let manifest = json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }));
    let mut described = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    described["annotations"] = json!({ "org.opencontainers.image.ref.name": content.reference });
    let index = json(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [described],
    }));
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", hex(&Sha256::digest(bytes)));
    tar_of([
        ("oci-layout".to_owned(), 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#.as_slice()),
        ("index.json".to_owned(), 0o644, &index),
        (blob(&manifest), 0o644, &manifest),
        (blob(&config), 0o644, &config),
        (blob(&layer), 0o644, &layer),
    ])
}

/// A tar file of regular files.
fn tar_of<'a>(files: impl IntoIterator<Item = (String, u32, &'a [u8])>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, mode, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        tar.append_data(&mut header, name, bytes)?;
    }
    tar.into_inner()
}

fn json(value: &Value) -> Vec<u8> {
    value.to_string().into_bytes()
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// An architecture in the words of images, which are Go's.
fn in_words_of_images(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    const CONTENT: Content<'static> = Content {
        reference: "a/b:1",
        name: "b",
        program: b"program",
        port: 8080,
        architecture: "x86_64",
    };

    fn files_of(tar: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(tar);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_str().unwrap().to_owned();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            (name, bytes)
        });
        files.collect()
    }

    #[test]
    fn the_archive_leads_from_the_index_to_the_program() {
        let files = files_of(&oci_layout(&CONTENT).unwrap());
        let blob = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap();
            let bytes = &files[&digest.replace("sha256:", "blobs/sha256/")];
            assert_eq!(descriptor["size"], bytes.len());
            assert_eq!(self::digest(bytes), digest);
            bytes
        };
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        let index = parse(&files["index.json"]);
        let described = &index["manifests"][0];
        assert_eq!(described["annotations"]["org.opencontainers.image.ref.name"], "a/b:1");
        let manifest = parse(blob(described));
        let config = parse(blob(&manifest["config"]));
        assert_eq!(config["config"]["Entrypoint"], json!(["/b"]));
        assert_eq!(config["config"]["ExposedPorts"], json!({"8080/tcp": {}}));
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(config["rootfs"]["diff_ids"], json!([digest(layer)]));
        assert_eq!(files_of(layer), BTreeMap::from([("b".to_owned(), b"program".to_vec())]));
    }

    #[test]
    fn the_same_program_gives_the_same_bytes() {
        assert_eq!(oci_layout(&CONTENT).unwrap(), oci_layout(&CONTENT).unwrap());
        // Known from one run, so that a change of a library's defaults is noticed.
        assert_eq!(digest(&oci_layout(&CONTENT).unwrap()), KNOWN);
    }

    const KNOWN: &str = "sha256:00860819a44d2dd1e588e22060211972ec8ccfbbab76b3da4f834210668167c7";
}
