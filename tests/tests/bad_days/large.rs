//! Images of many gibibytes.

use std::{
    io::{self, Read},
    time::Duration,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use pinnace_tests::{Function, Gateway, hello, http, images::digest, pushing::Pusher};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{resident_bytes, setting};

/// How much more memory the server may use while it takes an image of any size.
const GROWTH_BYTES_MAX: u64 = 128 << 20;

/// Longest time until an image is taken.
const LOAD_TIME_MAX: Duration = Duration::from_secs(1200);

/// A tar header of a regular file.
fn header(path: &str, size: u64, mode: u32) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(path).unwrap();
    header.set_size(size);
    header.set_mode(mode);
    header.set_cksum();
    header.as_bytes().to_vec()
}

/// A root directory as a tar file: `hello`, and a file of so many zeros, made as it is read.
fn root_directory(zeros: u64) -> impl Read {
    let mut program = hello();
    let head = header("hello", program.len() as u64, 0o755);
    program.resize(program.len().next_multiple_of(512), 0);
    // Two blocks of zeros end a tar file.
    let end = zeros.next_multiple_of(512) - zeros + 1024;
    io::Cursor::new([head, program, header("zeros", zeros, 0o644)].concat())
        .chain(io::repeat(0).take(zeros + end))
}

#[test]
fn an_image_of_many_gibibytes_is_loaded_run_and_removed_in_little_memory() {
    let zeros = setting("PINNACE_SOAK_IMAGE_MIB", 2048) << 20;
    let gateway = Gateway::start();
    gateway.deploy_hello("small");
    let before = resident_bytes(gateway.pid());
    let credentials = BASE64_STANDARD.encode(format!("admin:{}", gateway.password()));
    let authorization = format!("Basic {credentials}");
    let url = format!("{}/system/images?reference=large:1&kind=rootdir", gateway.url());
    let most = std::thread::scope(|scope| {
        let loading = scope.spawn(|| {
            let headers = [("Authorization", authorization.as_str())];
            http::upload(&url, &headers, root_directory(zeros), LOAD_TIME_MAX).unwrap()
        });
        let mut most = 0;
        while !loading.is_finished() {
            most = most.max(resident_bytes(gateway.pid()));
            gateway.call("small", b"").expect(200);
        }
        let answer = loading.join().unwrap();
        let images: Result<Vec<Value>, _> = serde_json::from_str(&answer.text());
        assert!(images.is_ok(), "{}", answer.text());
        most
    });
    let grown = most.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "the server grew by {} MiB", grown >> 20);

    gateway.deploy(
        &Function::new("large", "large:1")
            .with("envProcess", "/hello".into())
            .env("mode", "http")
            .env("upstream_url", "http://127.0.0.1:8080"),
    );
    let seen = gateway.call("large/size/zeros", b"").expect(200).text();
    assert_eq!(seen.trim(), zeros.to_string());
    gateway.remove("large");
    let removed = gateway.api("DELETE", "/system/images?reference=large:1", b"");
    assert!(matches!(removed.status, 200 | 202 | 204), "{}", removed.text());
}

fn digest_and_bytes(mut content: impl Read) -> (String, u64) {
    let (mut hasher, mut bytes) = (Sha256::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        match content.read(&mut piece).unwrap() {
            0 => break,
            read => {
                hasher.update(&piece[..read]);
                bytes += read as u64;
            }
        }
    }
    let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    (format!("sha256:{hex}"), bytes)
}

/// Runs something while memory is watched; the server may grow by no more than that.
fn watched<T: Send>(gateway: &Gateway, what: &str, work: impl FnOnce() -> T + Send) -> T {
    let before = resident_bytes(gateway.pid());
    std::thread::scope(|scope| {
        let working = scope.spawn(work);
        let mut most = 0;
        while !working.is_finished() {
            most = most.max(resident_bytes(gateway.pid()));
            gateway.call("small", b"").expect(200);
        }
        let grown = most.saturating_sub(before);
        println!("{what} made the server grow by {} MiB", grown >> 20);
        assert!(grown < GROWTH_BYTES_MAX, "{what} made the server grow by {} MiB", grown >> 20);
        working.join().unwrap()
    })
}

#[test]
fn an_image_of_many_gibibytes_is_pushed_pulled_and_deployed_in_little_memory() {
    let zeros = setting("PINNACE_SOAK_IMAGE_MIB", 2048) << 20;
    let gateway = Gateway::start();
    gateway.deploy_hello("small");
    let pusher = Pusher::new(&gateway);
    let (layer, bytes) = digest_and_bytes(root_directory(zeros));
    let authorization = [("Authorization", pusher.authorization.as_str())];

    let post = format!("{}/v2/large/blobs/uploads/?digest={layer}", gateway.url());
    let answer = watched(&gateway, "a push", || {
        http::upload(&post, &authorization, root_directory(zeros), LOAD_TIME_MAX).unwrap()
    });
    answer.expect(201);

    let get = format!("{}/v2/large/blobs/{layer}", gateway.url());
    let read = watched(&gateway, "a pull", || {
        http::download(&get, &authorization, LOAD_TIME_MAX, &mut io::sink()).unwrap()
    });
    assert_eq!(read, bytes);

    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Entrypoint": ["/hello"] },
        "rootfs": { "type": "layers", "diff_ids": [layer] },
    });
    let config = config.to_string();
    let descriptor = |kind: &str, digest: &str, size: u64| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({ "mediaType": media_type, "digest": digest, "size": size })
    };
    let manifest = json!({
        "schemaVersion": 2,
        "config": descriptor("config.v1+json", &digest(config.as_bytes()), config.len() as u64),
        "layers": [descriptor("layer.v1.tar", &layer, bytes)],
    });
    pusher.push_blob("large", config.as_bytes());
    let put = pusher.send("PUT", "/v2/large/manifests/1", &[], manifest.to_string().as_bytes());
    put.expect(201);
    let reference = format!("{}/large:1", pusher.host());
    let function = Function::new("large", &reference);
    watched(&gateway, "a deploy", || {
        gateway.try_deploy(&function).expect(202);
        let is_ready = |status: &Value| status["availableReplicas"].as_u64() > Some(0);
        gateway.until_within(LOAD_TIME_MAX, "large", "it serves", is_ready);
    });
    let seen = gateway.call("large/size/zeros", b"").expect(200).text();
    assert_eq!(seen.trim(), zeros.to_string());
}
