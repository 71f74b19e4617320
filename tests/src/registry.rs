//! A real registry of a test's own: Debian's docker-registry, on loopback.
//!
//! Two servers share one storage: one without any protection takes what tests push, the other is as a test
//! wants it.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tempfile::TempDir;

use crate::{gateway::free_address, http, images::Image, wait::eventually};

/// How long a registry may take until it listens.
const START_MAX: Duration = Duration::from_secs(30);

/// The one who may use a protected registry, and the password.
pub const USER: &str = "tester";
/// The password.
pub const PASSWORD: &str = "a secret of tests";
/// Both, as htpasswd keeps them (bcrypt).
const HTPASSWD: &str = "tester:$2y$05$abcdefghijklmnopqrstuuVbisaD03RZ081njR.RVLCrMsZSIWF06\n";

/// A registry. Ends when it is dropped.
pub struct Registry {
    dir: TempDir,
    servers: Vec<Child>,
    push: String,
    host: String,
    is_protected: bool,
}

impl Registry {
    /// A registry that everybody may use, without TLS.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn open() -> Self {
        Self::start(false)
    }

    /// A registry with TLS, its certificate signed by an authority of its own, that asks for [`USER`].
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn protected() -> Self {
        Self::start(true)
    }

    fn start(is_protected: bool) -> Self {
        let dir = tempfile::Builder::new().prefix("pinnace-registry-").tempdir();
        let dir = dir.expect("the temporary directory is writable");
        let (push, host) = (free_address().to_string(), free_address().to_string());
        let mut registry = Self { dir, servers: Vec::new(), push, host, is_protected };
        if is_protected {
            registry.write_certificates();
            fs::write(registry.path("htpasswd"), HTPASSWD).expect("the directory is writable");
        }
        registry.up();
        registry
    }

    /// Starts the servers, after [`Self::stop`] for instance.
    ///
    /// # Panics
    /// They do not start.
    pub fn up(&mut self) {
        let push = self.config("push", &self.push, false);
        let host = self.config("host", &self.host, self.is_protected);
        for config in [push, host] {
            let mut command = Command::new("docker-registry");
            command.arg("serve").arg(config).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let server = command.spawn();
            self.servers
                .push(server.expect("docker-registry is installed (xtask test --provision)"));
        }
        for address in [&self.push, &self.host] {
            eventually("the registry listens", START_MAX, || {
                std::net::TcpStream::connect(address).ok()
            });
        }
    }

    /// Ends the servers; what was pushed stays.
    pub fn stop(&mut self) {
        for mut server in self.servers.drain(..) {
            drop(server.kill());
            drop(server.wait());
        }
    }

    /// The registry as references name it.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The certificate of the authority that a protected registry's is signed by.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.path("authority.pem")
    }

    /// Pushes an image.
    ///
    /// # Panics
    /// It is refused.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) {
        let parts = image.parts();
        for (digest, content) in &parts.blobs {
            let url = format!("http://{}/v2/{repository}/blobs/uploads/", self.push);
            let begun = http::send("POST", &url, &[], b"").expect("the registry answers");
            let to = begun.header("location").expect("an upload has a place").to_owned();
            let joint = if to.contains('?') { '&' } else { '?' };
            let kind = [("Content-Type", "application/octet-stream")];
            let sent = http::send("PUT", &format!("{to}{joint}digest={digest}"), &kind, content);
            sent.expect("the registry answers").expect(201);
        }
        let url = format!("http://{}/v2/{repository}/manifests/{tag}", self.push);
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        http::send("PUT", &url, &kind, &parts.manifest).expect("the registry answers").expect(201);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn config(&self, name: &str, address: &str, is_protected: bool) -> PathBuf {
        let mut config = json!({
            "version": 0.1,
            "log": { "level": "error", "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": self.path("storage") } },
            "http": { "addr": address },
        });
        if is_protected {
            config["http"]["tls"] = json!({
                "certificate": self.path("server.pem"), "key": self.path("server.key"),
            });
            config["auth"] = json!({
                "htpasswd": { "realm": "tests", "path": self.path("htpasswd") },
            });
        }
        let path = self.path(&format!("{name}.yml"));
        // JSON is YAML.
        fs::write(&path, config.to_string()).expect("the directory is writable");
        path
    }

    fn write_certificates(&self) {
        let mut params = CertificateParams::new(Vec::new()).expect("no name is no bad name");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("there is randomness");
        let authority = CertifiedIssuer::self_signed(params, key).expect("the key can sign");
        let host = self.host.split(':').next().unwrap_or_default().to_owned();
        let key = KeyPair::generate().expect("there is randomness");
        let server = CertificateParams::new(vec![host]).expect("an address is a name");
        let server = server.signed_by(&key, &authority).expect("the key can sign");
        for (name, pem) in [
            ("authority.pem", authority.pem()),
            ("server.pem", server.pem()),
            ("server.key", key.serialize_pem()),
        ] {
            fs::write(self.path(name), pem).expect("the directory is writable");
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}
