//! Images: what is sent for a file, a directory and standard input, and what becomes of the answers.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufReader, Read},
    net::TcpStream,
    os::unix::fs::{PermissionsExt, symlink},
};

use serde_json::{Value, json};

use crate::{
    bench::Bench,
    server::{Reply, Server, read_chunk, read_head, send},
};

const LOADED: &str = r#"{"event":"progress","bytes":10,"step":"reading"}
{"event":"progress","bytes":20,"step":"unpacking layer 1 of 1"}
{"event":"loaded","image":{"reference":"hello:1","digest":"sha256:00","sizeBytes":2048,"layers":1,"loadedAt":"2026-01-02T03:04:05Z"}}
"#;

fn loading() -> Server {
    Server::start(|_| Reply::new(200, LOADED).header("Content-Type", "application/x-ndjson"))
}

#[test]
fn an_archive_is_sent_as_it_is() {
    let server = loading();
    let archive: Vec<u8> = (0..300_000u32).flat_map(u32::to_le_bytes).collect();
    let bench = Bench::new(&server.url).file("a.tar", &archive);
    let ran = bench.run(&["image", "load", "a.tar"]).ok();
    assert_eq!(ran.out(), "Loaded hello:1 (1 layer, 2.0 KiB).\n");
    assert_eq!(ran.stderr, "reading\nunpacking layer 1 of 1\n");
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "POST /system/images?kind=archive");
    assert_eq!(seen.header("content-type"), Some("application/x-tar"));
    assert_eq!(seen.header("transfer-encoding"), Some("chunked"));
    assert!(seen.body == archive, "{} bytes came", seen.body.len());
    let ran = bench.run_with(&["image", "load", "-", "--name", "b/c:2", "-j"], &archive).ok();
    assert_eq!(server.lines()[1], "POST /system/images?reference=b%2Fc%3A2&kind=archive");
    assert!(server.seen()[1].body == archive);
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json[0]["reference"], "hello:1");
}

#[test]
fn a_root_directory_is_packed_on_the_way() {
    let server = loading();
    let bench =
        Bench::new(&server.url).file("root/bin/tool", "#!/bin/sh\n").file("root/etc/motd", "hi\n");
    fs::set_permissions(bench.path("root/bin/tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(bench.path("root/bin/tool"), bench.path("root/bin/twin")).unwrap();
    symlink("bin/tool", bench.path("root/init")).unwrap();
    bench.run(&["image", "load", "root"]).failed(2, "--name");
    assert!(server.lines().is_empty());
    bench.run(&["image", "load", "root", "--name", "r:1"]).ok();
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "POST /system/images?reference=r%3A1&kind=rootdir");
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(&seen.body[..]);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut text = String::new();
        entry.read_to_string(&mut text).unwrap();
        let link = entry.link_name().unwrap().map(|link| link.display().to_string());
        let name = entry.path().unwrap().display().to_string();
        let name = name.trim_end_matches('/').to_owned();
        found.insert(name, (entry.header().entry_type(), link.unwrap_or_default(), text));
    }
    let file = |kind, link: &str, text: &str| (kind, link.to_owned(), text.to_owned());
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let expected = [
        (".", file(Directory, "", "")),
        ("bin", file(Directory, "", "")),
        ("bin/tool", file(Regular, "", "#!/bin/sh\n")),
        ("bin/twin", file(Link, "bin/tool", "")),
        ("etc", file(Directory, "", "")),
        ("etc/motd", file(Regular, "", "hi\n")),
        ("init", file(Symlink, "bin/tool", "")),
    ];
    assert_eq!(found, expected.map(|(name, file)| (name.to_owned(), file)).into());
}

#[test]
fn an_oci_layout_is_an_archive() {
    let server = loading();
    let bench =
        Bench::new(&server.url).file("layout/oci-layout", "{}").file("layout/index.json", "{}");
    bench.run(&["image", "load", "layout"]).ok();
    assert_eq!(server.lines(), ["POST /system/images?kind=archive"]);
}

#[test]
fn a_refusal_by_the_head_alone_comes_before_the_body() {
    let server = Server::raw(|stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let head = read_head(&mut reader).unwrap();
        assert_eq!(head.header("expect"), Some("100-continue"));
        send(&stream, &Reply::new(401, "invalid credentials")).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"", "nothing was sent after the refusal");
    });
    let bench = Bench::new(&server.url).file("a.tar", vec![0; 8 << 20]);
    bench.run(&["image", "load", "a.tar"]).failed(1, "not logged in at http://127.0.0.1:");
}

#[test]
fn a_refusal_in_the_middle_of_the_body_is_read() {
    let server = Server::raw(|stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        std::io::Write::write_all(&mut &stream, b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        read_chunk(&mut reader).unwrap();
        // Closing with bytes unread makes the client's next write fail.
        send(&stream, &Reply::new(413, "the archive is over --image-bytes-max\n")).unwrap();
    });
    let bench = Bench::new(&server.url).file("a.tar", vec![0; 64 << 20]);
    let said = "answers 413 Payload Too Large: the archive is over --image-bytes-max";
    bench.run(&["image", "load", "a.tar"]).failed(1, said);
}

#[test]
fn a_load_that_fails_on_the_way() {
    let answer = "{\"event\":\"progress\",\"bytes\":1,\"step\":\"reading\"}\n\
                  {\"event\":\"failed\",\"error\":\"layer 1 is no tar\"}\n";
    let server = Server::start(move |_| Reply::new(200, answer));
    let bench = Bench::new(&server.url).file("a.tar", "x");
    bench.run(&["image", "load", "a.tar"]).failed(1, "loading a.tar: layer 1 is no tar");
    let server = Server::start(|_| Reply::new(200, ""));
    let ran = Bench::new(&server.url).file("a.tar", "x").run(&["image", "load", "a.tar"]);
    ran.failed(1, "ended before an image was there");
}

#[test]
fn a_pull_is_asked_for_and_followed() {
    let events = r#"{"event":"progress","bytes":0,"total":0,"step":"asking the registry"}
{"event":"progress","bytes":10,"total":40,"step":"1 of 2 layers"}
{"event":"progress","bytes":20,"total":40,"step":"1 of 2 layers"}
{"event":"loaded","image":{"reference":"a.example/b:1","digest":"sha256:00","sizeBytes":2048,"layers":2,"loadedAt":"2026-01-02T03:04:05Z"}}
"#;
    let server = Server::start(move |_| {
        Reply::new(200, events).header("Content-Type", "application/x-ndjson")
    });
    let bench = Bench::new(&server.url);
    let ran = bench.run(&["image", "pull", "a.example/b:1"]).ok();
    assert_eq!(ran.out(), "Pulled a.example/b:1 (2 layers, 2.0 KiB).\n");
    assert_eq!(ran.stderr, "asking the registry\n1 of 2 layers\n");
    let seen = &server.seen()[0];
    assert_eq!(seen.line(), "POST /system/images/pull");
    assert!(seen.header("accept").unwrap().contains("application/x-ndjson"));
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    assert_eq!(body, json!({ "reference": "a.example/b:1" }));
    bench.run(&["image", "pull", "a b"]).failed(2, "no image reference");
    let failing = r#"{"event":"failed","error":"cannot pull a:1: a.example answered 403"}"#;
    let server = Server::start(move |_| Reply::new(200, failing));
    let ran = Bench::new(&server.url).run(&["image", "pull", "a:1"]);
    ran.failed(1, "pulling a:1: cannot pull a:1: a.example answered 403");
}

#[test]
fn pruning_is_not_done_by_accident() {
    let answer = r#"{"references":["a:1","b:1"],"images":2,"layers":3,"bytes":5242880}"#;
    let server = Server::start(move |_| Reply::new(200, answer));
    let bench = Bench::new(&server.url);
    bench.run(&["image", "prune"]).failed(2, "--yes");
    assert!(server.lines().is_empty());
    let ran = bench.run(&["image", "prune", "--yes"]).ok();
    assert_eq!(ran.out(), "Removed a:1.\nRemoved b:1.\n5.0 MiB are free again.\n");
    assert_eq!(server.lines(), ["POST /system/images/prune"]);
    let ran = bench.run(&["image", "prune", "-y", "--json"]).ok();
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(json["layers"], 3);
}

#[test]
fn a_directory_that_cannot_be_read_is_no_half_made_image() {
    let server = Server::raw(|stream: TcpStream| {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        read_head(&mut reader).unwrap();
        std::io::Write::write_all(&mut &stream, b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
        let mut body = Vec::new();
        // The end of the chunks never comes: the connection breaks.
        let _ = reader.read_to_end(&mut body);
        assert!(!body.ends_with(b"0\r\n\r\n"));
    });
    let bench = Bench::new(&server.url).file("a.tar", "x");
    bench.run(&["image", "load", "none.tar"]).failed(1, "reading none.tar");
}

#[test]
fn other_gateways_keep_no_images() {
    let server = Server::start(|_| Reply::new(404, "404 page not found\n"));
    let bench = Bench::new(&server.url).file("a.tar", "x");
    bench.run(&["image", "load", "a.tar"]).failed(1, "keeps no images; it is no Pinnace server");
    bench.run(&["image", "ls"]).failed(1, "keeps no images");
}

#[test]
fn lists_and_removals() {
    let server = Server::start(|seen| {
        match seen.line().as_str() {
        "GET /system/images" => Reply::new(
            200,
            json!([{ "reference": "hello:1", "digest": "sha256:0123456789abcdef", "sizeBytes": 2048,
                     "layers": 3, "loadedAt": "2026-01-02T03:04:05Z", "functions": ["a.dev"] }])
            .to_string(),
        ),
        "DELETE /system/images?reference=used%3A1" => Reply::new(409, "image used:1 is used by a.dev\n"),
        "DELETE /system/images?reference=none" => Reply::new(404, ""),
        _ => Reply::new(202, ""),
    }
    });
    let bench = Bench::new(&server.url);
    let ran = bench.run(&["image", "ls"]).ok();
    let words: Vec<Vec<String>> = ran
        .out()
        .lines()
        .map(|line| line.split_whitespace().map(str::to_owned).collect())
        .collect();
    assert_eq!(words[0], ["Image", "Digest", "Layers", "Size", "Loaded", "Functions"]);
    assert_eq!(words[1][..3], ["hello:1", "0123456789ab", "3"]);
    let ran = bench.run(&["image", "rm", "gone:1", "used:1", "none"]);
    let ran = ran.failed(1, "409 Conflict: image used:1 is used by a.dev");
    assert_eq!(ran.out(), "Removed gone:1.\n");
    assert!(ran.stderr.contains("removing image none"), "{}", ran.stderr);
}
