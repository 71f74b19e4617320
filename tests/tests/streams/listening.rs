//! TLS, and several addresses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use pinnace_tests::{
    Gateway,
    clients::{curl, curled},
    eventually,
    gateway::{READY_MAX, free_address},
};
use rustix::process::{Pid, Signal, kill_process};

/// A certificate for localhost and its key, in files of a directory.
struct Certificate {
    folder: tempfile::TempDir,
}

impl Certificate {
    fn new() -> Self {
        let certificate = Self { folder: tempfile::tempdir().unwrap() };
        certificate.renew();
        certificate
    }

    /// Puts another pair in place; answers it as curl takes it.
    fn renew(&self) -> PathBuf {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let trusted = self.folder.path().join("trusted");
        fs::write(&trusted, made.cert.pem()).unwrap();
        fs::write(self.key(), made.signing_key.serialize_pem()).unwrap();
        fs::write(self.file(), made.cert.pem()).unwrap();
        trusted
    }

    fn file(&self) -> String {
        self.folder.path().join("tls.crt").to_string_lossy().into_owned()
    }

    fn key(&self) -> String {
        self.folder.path().join("tls.key").to_string_lossy().into_owned()
    }
}

/// A server that its platform does not know of, since it speaks TLS.
struct Secured(Child);

impl Secured {
    fn up(gateway: &Gateway) -> Self {
        let mut command = gateway.up_command_with(&[]);
        let log = fs::File::create(gateway.state_dir().join("secured.log")).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn end(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        self.0.wait().unwrap();
    }
}

fn trusting<'a>(certificate: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&["--cacert", certificate.to_str().unwrap()], more].concat()
}

#[test]
fn tls_speaks_both_protocols_and_its_certificate_can_be_renewed() {
    let mut gateway = Gateway::start();
    crate::deploy(&gateway);
    gateway.stop();
    let certificate = Certificate::new();
    let first = certificate.renew();
    let first_kept = certificate.folder.path().join("first");
    fs::copy(&first, &first_kept).unwrap();
    gateway.set_flags(&["--tls-cert", &certificate.file(), "--tls-key", &certificate.key()]);
    let server = Secured::up(&gateway);
    let url = format!("https://localhost:{}", gateway.address().port());
    let healthz = format!("{url}/healthz");
    eventually("it answers over TLS", READY_MAX, || {
        curl(&trusting(&first_kept, &["--fail", &healthz])).status.success().then_some(())
    });
    for (spoken, version) in [("--http2", "2"), ("--http1.1", "1.1")] {
        for tls in ["1.2", "1.3"] {
            for function in ["one", "two"] {
                let of = format!("{url}/function/{function}/echo");
                let words =
                    [spoken, "--tls-max", tls, "--data", "body", "--write-out", "%{http_version}"];
                let answer = curled(&trusting(&first_kept, &[&words[..], &[&of]].concat()));
                assert_eq!(answer, format!("body{version}"), "{spoken} TLS {tls} {function}");
            }
        }
    }
    let large = format!("{url}/function/one/zeros/64");
    let size = ["--output", "/dev/null", "--write-out", "%{size_download}", &large];
    assert_eq!(curled(&trusting(&first_kept, &size)), (64 << 20).to_string());

    // A new file that cannot be used changes nothing, and is told.
    fs::write(certificate.key(), "broken").unwrap();
    let log = gateway.state_dir().join("secured.log");
    let told = |word: &str| fs::read_to_string(&log).unwrap().contains(word).then_some(());
    eventually("the log tells of it", Duration::from_secs(20), || told("stays as it was"));
    assert_eq!(curled(&trusting(&first_kept, &[&healthz])), "OK");
    let second = certificate.renew();
    eventually("new connections get the new one", Duration::from_secs(20), || {
        curl(&trusting(&second, &["--fail", &healthz])).status.success().then_some(())
    });
    assert!(!curl(&trusting(&first_kept, &[&healthz])).status.success());
    server.end();
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_at_the_start() {
    let certificate = Certificate::new();
    let refused = |file: &str, key: &str, word: &str| {
        let mut gateway = Gateway::prepared(&[]);
        gateway.set_flags(&["--tls-cert", file, "--tls-key", key]);
        let output = gateway.up_command_with(&[]).stdin(Stdio::null()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(word), "{said}");
    };
    refused("/no/such/file", &certificate.key(), "--tls-cert /no/such/file: No such file");
    refused(&certificate.file(), &certificate.file(), "holds no private key");
    let other = Certificate::new();
    refused(&certificate.file(), &other.key(), "do not belong together");
}

#[test]
fn several_addresses_are_served_and_survive_a_crash() {
    let second = free_address();
    let sixth = format!("[::1]:{}", free_address().port());
    let mut gateway = Gateway::start_with(&["--listen", &second.to_string(), "--listen", &sixth]);
    crate::deploy(&gateway);
    let answer = |address: &str| curled(&[&format!("http://{address}/function/one")]);
    for address in [&gateway.address().to_string(), &second.to_string(), &sixth] {
        assert_eq!(answer(address), "hello\n", "{address}");
    }
    gateway.kill();
    // Callers wait for the next server, at each address.
    let caller = std::thread::spawn({
        let url = format!("http://{second}/function/one");
        move || curled(&[&url])
    });
    gateway.up();
    assert_eq!(caller.join().unwrap(), "hello\n");
    assert_eq!(answer(&sixth), "hello\n");
}
