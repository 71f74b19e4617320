//! Sources and trees that strangers send.

use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use pinnace_tests::{Answer, Function, Gateway, builds::log, eventually};
use serde_json::json;
use sha2::Sha256;
use tar::{Builder, EntryType, Header};

use super::compiled;

const TEMPLATE: &str = "language: sh\npinnace:\n  base: host\n  command: [cat, /home/app/file]\n";

/// An archive with a good request and one more entry.
fn archive_with(add: impl FnOnce(&mut Builder<Vec<u8>>)) -> Vec<u8> {
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "com.openfaas.docker.config", br#"{"image":"hostile:1"}"#);
    add(&mut tar);
    tar.into_inner().unwrap()
}

fn file(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8]) {
    let mut header = Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, path, content).unwrap();
}

/// An entry whose names are not what a library would write.
fn odd(tar: &mut Builder<Vec<u8>>, kind: EntryType, path: &str, link: &str) {
    let mut header = Header::new_gnu();
    header.as_gnu_mut().unwrap().name[..path.len()].copy_from_slice(path.as_bytes());
    header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o777);
    header.set_size(0);
    header.set_cksum();
    tar.append(&header, std::io::empty()).unwrap();
}

fn template(tar: &mut Builder<Vec<u8>>) {
    file(tar, "context/template.yml", TEMPLATE.as_bytes());
}

#[test]
fn archives_that_lead_out_are_refused_and_leave_nothing() {
    let gateway = Gateway::start_with(&["--slots", "0"]);
    let outside = gateway.state_dir().join("outside");
    let refused = |what: &str, tar: Vec<u8>, word: &str| {
        let answer: Answer = gateway.try_build(&tar, &[]);
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        assert!(answer.text().contains(word), "{what}: {}", answer.text());
        assert!(!outside.exists(), "{what}");
    };
    let with_template = |kind: EntryType, path: &str, link: &str| {
        archive_with(|tar| {
            template(tar);
            odd(tar, kind, path, link);
        })
    };
    refused("upwards", with_template(EntryType::Regular, "context/../../../../outside", ""), "..");
    refused("a device", with_template(EntryType::Char, "context/null", ""), "device");
    let hard = with_template(EntryType::Link, "context/passwd", "../../../../../etc/passwd");
    refused("a hard link outward", hard, "`..`");
    let through = archive_with(|tar| {
        template(tar);
        odd(tar, EntryType::Symlink, "context/way", "../../../..");
        file(tar, "context/way/outside", b"x");
    });
    refused("a way through a link", through, "way");
    let linked = archive_with(|tar| {
        odd(tar, EntryType::Symlink, "context/template.yml", "/etc/passwd");
    });
    refused("a linked template", linked, "behind a link");
    refused("no template", archive_with(|_| {}), "template.yml is missing");
    let words = archive_with(|tar| file(tar, "context/template.yml", b"pinnace: { bass: host }"));
    refused("an unknown key", words, "unknown field `bass`");
    let dockerfile = archive_with(|tar| file(tar, "context/template.yml", b"language: x"));
    refused("no recipe", dockerfile, "no section `pinnace`");
    refused(
        "no request",
        Builder::new(Vec::new()).into_inner().unwrap(),
        "docker.config is missing",
    );
    refused("no tar", b"some words that are no tar".to_vec(), "");
    let work = gateway.state_dir().join("builds/work");
    eventually("nothing of these builds is left", Duration::from_secs(30), || {
        (std::fs::read_dir(&work).unwrap().count() == 0).then_some(())
    });
}

#[test]
fn a_link_in_a_source_is_a_text() {
    let gateway = Gateway::start();
    let tar = archive_with(|tar| {
        template(tar);
        odd(tar, EntryType::Symlink, "context/file", "/etc/shadow");
    });
    let answer = gateway.try_build(&tar, &[]).expect(200).json();
    assert_eq!(answer["status"], "success", "{answer:#}");
    gateway.deploy(&Function::new("hostile", "hostile:1"));
    // The sandbox has no such file, and the host's was not copied.
    let seen = gateway.call("hostile", b"").text();
    assert!(!seen.contains("root:"), "{seen}");
}

#[test]
fn what_a_command_leaves_is_read_by_an_archives_rules() {
    let gateway = Gateway::start();
    let odd_things = "mkdir made && cd made && mkfifo pipe && ln -s /etc/shadow link && echo x > file && \
                      chmod 6755 file && ln -s / root && mkdir locked && echo y > locked/z && chmod 0 locked";
    let answer = gateway.build(&compiled("odd:1", odd_things));
    assert!(log(&answer).contains("1 devices, sockets or pipes left out"), "{answer:#}");
    gateway.deploy(
        &Function::new("odd", "odd:1")
            .with("envProcess", "stat -c %a_%U_%F /home/app/made/file".into()),
    );
    let seen = gateway.call("odd", b"").expect(200).text();
    assert_eq!(seen.trim(), "755_app_regular file", "no setuid comes out");

    // A link in the place of what is kept, or above it, leads nowhere.
    let answer =
        gateway.try_build(&compiled("out:1", "ln -s /etc made").tar(), &[]).expect(200).json();
    assert_eq!(answer["status"], "success", "{answer:#}");
    let above = super::Source::new(
        "above:1",
        "pinnace:\n  base: host\n  compile: { run: [ln, -s, /etc, way], keep: [/home/app/way/passwd] }\n  \
         command: [cat]\n",
    );
    let answer = gateway.try_build(&above.tar(), &[]).expect(200).json();
    assert_eq!(answer["status"], "failed", "{answer:#}");
    assert!(answer["error"].as_str().unwrap().contains("has made nothing of"), "{answer:#}");
}

#[test]
fn a_build_has_the_fences_of_a_function() {
    let gateway = Gateway::start();
    let look = "id -u > made; cat /proc/self/status | grep -E 'CapEff|NoNewPrivs|Seccomp:' >> made; \
                (touch /usr/x /etc/x || true) 2>> made; ls /root >> made 2>&1; ls -d /var/lib >> made 2>&1; true";
    let _ = gateway.build(&compiled("fences:1", look));
    gateway.deploy(&Function::new("fences", "fences:1"));
    let seen = gateway.call("fences", b"").expect(200).text();
    for line in ["1000\n", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2", "/usr/x"] {
        assert!(seen.contains(line), "{line:?}: {seen}");
    }
}

#[test]
fn a_signature_is_asked_for_and_is_worth_the_password() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "payload\n").unwrap();
    let gateway = Gateway::start_with(&["--payload-secret", secret.path().to_str().unwrap()]);
    let tar = compiled("signed:1", "echo yes > made").tar();
    let url = format!("{}/build", gateway.url());
    let mut mac = Hmac::<Sha256>::new_from_slice(b"payload").unwrap();
    mac.update(&tar);
    let hex: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let good = format!("sha256={hex}");
    let send = |headers: &[(&str, &str)], body: &[u8]| {
        pinnace_tests::http::send("POST", &url, headers, body).unwrap()
    };
    assert_eq!(send(&[("X-Build-Signature", &good)], &tar).expect(200).json()["status"], "success");
    for headers in [
        vec![],
        vec![("X-Build-Signature", "sha256=00")],
        vec![("X-Build-Signature", hex.as_str())],
    ] {
        send(&headers, &tar).expect(401);
    }
    send(&[("X-Build-Signature", &good)], &[tar.as_slice(), b"x"].concat()).expect(401);
    let authorization = gateway.authorization();
    let said = send(&[("Authorization", &authorization)], &tar).expect(401).text();
    assert!(said.contains("X-Build-Signature"), "{said}");
}

#[test]
fn without_the_password_nothing_is_built() {
    let gateway = Gateway::start();
    let tar = compiled("a:1", "true").tar();
    let answer = pinnace_tests::http::send("POST", &format!("{}/build", gateway.url()), &[], &tar);
    answer.unwrap().expect(401);
    let key = pinnace_tests::http::send("GET", &format!("{}/publickey", gateway.url()), &[], b"");
    let key = key.unwrap().expect(200).json();
    assert_eq!(key["algorithm"], "nacl/box");
    assert!(
        key["public_key"].as_str().unwrap().starts_with(key["key_id"].as_str().unwrap()),
        "{key}"
    );
    assert_eq!(key.as_object().unwrap().len(), 3, "{}", json!(key));
}
