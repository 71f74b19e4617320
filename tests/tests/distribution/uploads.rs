//! Uploads on bad days: cut off, out of order, untrue, and by those who mean no good.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    process::Command,
    time::Duration,
};

use pinnace_tests::{
    Gateway, eventually, http,
    images::{Image, digest},
    pushing::Pusher,
};
use serde_json::{Value, json};

/// How long a server may take to notice what has come.
const NOTICED_MAX: Duration = Duration::from_secs(20);

/// Content that does not repeat itself soon.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Where an upload stands: the number of its bytes.
fn stand(pusher: &Pusher<'_>, upload: &str) -> usize {
    let answer = pusher.send("GET", upload, &[], b"").expect(204);
    let last: usize = answer.header("range").unwrap().strip_prefix("0-").unwrap().parse().unwrap();
    if last == 0 { 0 } else { last + 1 }
}

#[test]
fn a_push_that_is_cut_off_goes_on_where_it_was_also_with_a_new_server() {
    let mut gateway = Gateway::start();
    let content = content(6 << 20);
    let name = digest(&content);
    let upload = Pusher::new(&gateway).begin("a");
    let mut sent = 0;
    for crash in [false, true] {
        // Two mebibytes of a body that says it is all of the rest.
        let pusher = Pusher::new(&gateway);
        let rest = (content.len() - sent).to_string();
        let head = pusher.head("PATCH", &upload, &[("Content-Length", &rest)]);
        let mut cut = TcpStream::connect(gateway.address()).unwrap();
        cut.write_all(head.as_bytes()).unwrap();
        cut.write_all(&content[sent..sent + (2 << 20)]).unwrap();
        if crash {
            eventually("what has come is on its way to the disk", NOTICED_MAX, || {
                (stand(&pusher, &upload) > sent).then_some(())
            });
            drop(pusher);
            gateway.kill();
            gateway.up();
        } else {
            // The server need not have noticed when the client comes back.
            drop(cut);
        }
        let pusher = Pusher::new(&gateway);
        let before = sent;
        sent = eventually("some of it is there", NOTICED_MAX, || {
            Some(stand(&pusher, &upload)).filter(|stand| *stand > before)
        });
        assert!(sent <= before + (2 << 20), "{sent}");
        let range = format!("{sent}-{}", sent + 9);
        let more = &content[sent..sent + 10];
        let added = pusher.send("PATCH", &upload, &[("Content-Range", &range)], more);
        // What was on its way may have come meanwhile: the answer says where to go on.
        sent = match added.status {
            202 => sent + 10,
            _ => stand(&pusher, &upload),
        };
    }
    let pusher = Pusher::new(&gateway);
    pusher.send("PUT", &format!("{upload}?digest={name}"), &[], &content[sent..]).expect(201);
    let back = pusher.send("GET", &format!("/v2/a/blobs/{name}"), &[], b"").expect(200);
    assert!(back.body == content, "all of it is there, in order");
    let part = pusher.send("GET", &format!("/v2/a/blobs/{name}"), &[("Range", "bytes=5-9")], b"");
    assert_eq!(part.expect(206).body, &content[5..10]);
}

#[test]
fn of_what_is_untrue_nothing_is_kept() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    let (right, wrong) = (digest(b"this"), digest(b"that"));
    let code = |answer: http::Answer| answer.json()["errors"][0]["code"].clone();
    let upload = pusher.begin("a");
    let refused = pusher.send("PUT", &format!("{upload}?digest={wrong}"), &[], b"this").expect(400);
    let said = refused.text();
    assert!(said.contains(&right) && said.contains(&wrong), "{said}");
    assert_eq!(code(refused), "DIGEST_INVALID");
    assert_eq!(code(pusher.send("GET", &upload, &[], b"").expect(404)), "BLOB_UPLOAD_UNKNOWN");
    let single = format!("/v2/a/blobs/uploads/?digest={wrong}");
    pusher.send("POST", &single, &[], b"this").expect(400);
    for one in [&right, &wrong] {
        pusher.send("HEAD", &format!("/v2/a/blobs/{one}"), &[], b"").expect(404);
    }
    let manifest = format!("/v2/a/manifests/{wrong}");
    let refused = pusher.send("PUT", &manifest, &[], br#"{"schemaVersion":2,"layers":[]}"#);
    assert_eq!(code(refused.expect(400)), "DIGEST_INVALID");
    let folder = gateway.state_dir().join("registry");
    for part in ["uploads", "blobs/sha256", "trash"] {
        assert_eq!(fs::read_dir(folder.join(part)).unwrap().count(), 0, "{part}");
    }
    // The same place takes the truth.
    pusher.push(&Image::hello("made:1"), "a", "1");
}

#[test]
fn a_refused_request_leaves_its_connection_as_it_is_or_says_so() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    let mut ended = 0;
    let (mut stream, mut reader) = connect(&gateway);
    for _ in 0..100 {
        let upload = pusher.begin("a");
        let range = [("Content-Range", "7-9"), ("Content-Length", "3")];
        let head = pusher.head("PATCH", &upload, &range);
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(b"abc").unwrap();
        let (status, closes) = read_answer(&mut reader);
        assert_eq!(status, 416);
        if closes {
            ended += 1;
            (stream, reader) = connect(&gateway);
        }
    }
    assert_eq!(ended, 0, "three bytes are read on");
    // A body that would go on for long is not waited for.
    let upload = pusher.begin("a");
    let range = [("Content-Range", "7-4294967295"), ("Content-Length", "4294967289")];
    stream.write_all(pusher.head("PATCH", &upload, &range).as_bytes()).unwrap();
    stream.write_all(b"abc").unwrap();
    assert_eq!(read_answer(&mut reader), (416, true));
}

fn connect(gateway: &Gateway) -> (TcpStream, BufReader<TcpStream>) {
    let stream = TcpStream::connect(gateway.address()).unwrap();
    stream.set_read_timeout(Some(NOTICED_MAX)).unwrap();
    (stream.try_clone().unwrap(), BufReader::new(stream))
}

/// The status of an answer, and whether it says that the connection ends.
fn read_answer(reader: &mut BufReader<TcpStream>) -> (u16, bool) {
    let (mut head, mut line) = (String::new(), String::new());
    while line != "\r\n" {
        line.clear();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the connection has ended: {head}");
        head += &line.to_ascii_lowercase();
    }
    let value = |name: &str| {
        let line = head.lines().find_map(|line| line.strip_prefix(name));
        line.map(|value| value.trim().to_owned())
    };
    let length = value("content-length:").map_or(0, |length| length.parse().unwrap());
    reader.read_exact(&mut vec![0; length]).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, value("connection:").is_some_and(|value| value == "close"))
}

#[test]
fn nobody_comes_in_without_the_password() {
    let gateway = Gateway::start();
    let image = Image::hello("made:1");
    Pusher::new(&gateway).push(&image, "a", "1");
    let blob = format!("/v2/a/blobs/{}", image.parts().layers()[0]);
    for authorization in ["", "Basic YWRtaW46d3Jvbmc=", "Bearer nonsense"] {
        let mut stranger = Pusher::new(&gateway);
        stranger.authorization = authorization.to_owned();
        for (method, path) in [
            ("GET", "/v2/"),
            ("GET", "/v2/_catalog"),
            ("GET", "/v2/a/manifests/1"),
            ("GET", &blob),
            ("POST", "/v2/a/blobs/uploads/"),
            ("PUT", "/v2/a/manifests/1"),
            ("DELETE", "/v2/a/manifests/1"),
            ("GET", "/v2/nonsense"),
            ("GET", "/system/registry"),
        ] {
            let refused = stranger.send(method, path, &[], b"").expect(401);
            let asked = refused.header("www-authenticate").unwrap();
            assert!(asked.starts_with("Basic realm="), "{asked}");
            if path.starts_with("/v2") {
                assert_eq!(refused.json()["errors"][0]["code"], "UNAUTHORIZED");
            }
        }
    }
    let base = Pusher::new(&gateway).send("GET", "/v2/", &[], b"").expect(200);
    assert_eq!(base.header("docker-distribution-api-version"), Some("registry/2.0"));
}

#[test]
fn hostile_requests_get_clear_errors() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    pusher.push(&Image::hello("made:1"), "a", "1");
    let long = "a".repeat(256);
    let zeros = format!("sha256:{}", "0".repeat(64));
    let tags: String = (0..65).map(|number| format!("&tag=t{number}")).collect();
    let upload = pusher.begin("a");
    let stranger = upload.replace("/v2/a/", "/v2/b/");
    let huge = [("Content-Range", "0-18446744073709551615")];
    let odd = [("Content-Range", "bytes 0-9/10")];
    let none: [(&str, &str); 0] = [];
    for (method, path, headers, status, code) in [
        ("GET", "/v2/../etc/manifests/1", &none[..], 400, "NAME_INVALID"),
        ("GET", "/v2/a%2Fb/manifests/1", &none, 400, "NAME_INVALID"),
        ("GET", "/v2/%2e%2e/%2e%2e/etc/blobs/passwd", &none, 400, "NAME_INVALID"),
        ("GET", "/v2/a%00/tags/list", &none, 400, "NAME_INVALID"),
        ("GET", "/v2/a%ff/tags/list", &none, 400, "NAME_INVALID"),
        ("GET", "/v2/UPPER/tags/list", &none, 400, "NAME_INVALID"),
        ("GET", &format!("/v2/{long}/tags/list"), &none, 400, "NAME_INVALID"),
        ("GET", "/v2/a/blobs/../../../registry.db", &none, 404, "UNSUPPORTED"),
        ("GET", "/v2/a/blobs/sha256:..%2f..%2fregistry.db", &none, 400, "NAME_INVALID"),
        ("GET", "/v2/a/blobs/sha256:00", &none, 400, "DIGEST_INVALID"),
        ("GET", "/v2/a/blobs/md5:00", &none, 400, "DIGEST_INVALID"),
        ("GET", &format!("/v2/a/blobs/{zeros}"), &none, 404, "BLOB_UNKNOWN"),
        ("GET", "/v2/a/manifests/.bad", &none, 404, "MANIFEST_UNKNOWN"),
        ("PUT", "/v2/a/manifests/.bad", &none, 400, "MANIFEST_INVALID"),
        ("PUT", "/v2/a/manifests/2", &none, 400, "MANIFEST_INVALID"),
        ("PUT", &format!("/v2/a/manifests/{zeros}?x{tags}"), &none, 414, "MANIFEST_INVALID"),
        ("GET", "/v2/a/tags/list?n=-1", &none, 400, "UNSUPPORTED"),
        ("GET", "/v2/b/tags/list", &none, 404, "NAME_UNKNOWN"),
        ("POST", "/v2/a/blobs/uploads/?digest=nonsense", &none, 400, "DIGEST_INVALID"),
        ("POST", "/v2/a/blobs/uploads/?mount=nonsense", &none, 400, "DIGEST_INVALID"),
        ("PATCH", &upload, &huge, 413, "SIZE_INVALID"),
        ("PATCH", &upload, &odd, 400, "BLOB_UPLOAD_INVALID"),
        ("PATCH", "/v2/a/blobs/uploads/..", &none, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", &stranger, &none, 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", &upload, &none, 400, "DIGEST_INVALID"),
        ("DELETE", "/v2/a/tags/list", &none, 405, "UNSUPPORTED"),
        ("GET", "/v2/a", &none, 404, "UNSUPPORTED"),
    ] {
        let headers = [headers, &[("Connection", "close")]].concat();
        let request = pusher.head(method, path, &headers);
        let said = http::send_raw(&pusher.host(), request.as_bytes()).unwrap();
        let (head, body) = said.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{method} {path}: {said}");
        let told: Value = serde_json::from_str(body).unwrap();
        assert_eq!(told["errors"][0]["code"], code, "{method} {path}: {said}");
        assert!(told["errors"][0]["message"].as_str().unwrap().len() > 10, "{said}");
    }
    let large = vec![b' '; (4 << 20) + 1];
    let refused = pusher.send("PUT", "/v2/a/manifests/large", &[], &large).expect(413);
    assert!(refused.text().contains("REGISTRY_MANIFEST_BYTES_MAX"), "{}", refused.text());
    pusher.send("DELETE", &upload, &[], b"").expect(204);
    pusher.send("GET", "/v2/a/manifests/1", &[], b"").expect(200);
}

#[test]
fn many_tags_come_in_pages() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    let manifest = br#"{"schemaVersion":2,"layers":[]}"#;
    let name = digest(manifest);
    let mut pushed = Vec::new();
    for some in 0..20 {
        let tags: Vec<_> = (0..60).map(|number| format!("t{some:02}-{number:02}")).collect();
        let query: Vec<_> = tags.iter().map(|tag| format!("tag={tag}")).collect();
        let path = format!("/v2/a/manifests/{name}?{}", query.join("&"));
        let answer = pusher.send("PUT", &path, &[], manifest).expect(201);
        let told = answer.headers.iter().filter(|(name, _)| name == "oci-tag").count();
        assert_eq!(told, 60);
        pushed.extend(tags);
    }
    let (mut path, mut seen, mut pages) = ("/v2/a/tags/list".to_owned(), Vec::new(), 0);
    loop {
        let answer = pusher.send("GET", &path, &[], b"").expect(200);
        let tags = answer.json()["tags"].as_array().unwrap().clone();
        seen.extend(tags.iter().map(|tag| tag.as_str().unwrap().to_owned()));
        pages += 1;
        let Some(link) = answer.header("link") else { break };
        let (next, rest) = link.strip_prefix('<').unwrap().split_once('>').unwrap();
        assert_eq!(rest, r#"; rel="next""#);
        path = next.to_owned();
    }
    assert_eq!((seen, pages), (pushed, 2));
    let none = pusher.send("GET", "/v2/a/tags/list?n=0", &[], b"").expect(200);
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), None));
}

#[test]
fn http_2_carries_pushes_and_pulls() {
    let gateway = Gateway::start();
    let pusher = Pusher::new(&gateway);
    let folder = tempfile::tempdir().unwrap();
    let (sent, back) = (folder.path().join("sent"), folder.path().join("back"));
    let content = content(3 << 20);
    fs::write(&sent, &content).unwrap();
    let curl = |arguments: &[&str]| {
        let mut command = Command::new("curl");
        command.args(["--http2-prior-knowledge", "--silent", "--show-error", "--fail"]);
        command.args(["--header", &format!("Authorization: {}", pusher.authorization)]);
        let output = command.args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {said}\n{}", gateway.log());
    };
    let name = digest(&content);
    let put = format!("{}{}?digest={name}", gateway.url(), pusher.begin("a"));
    curl(&["--upload-file", sent.to_str().unwrap(), &put]);
    let get = format!("{}/v2/a/blobs/{name}", gateway.url());
    curl(&["--output", back.to_str().unwrap(), &get]);
    assert!(fs::read(back).unwrap() == content);
}
