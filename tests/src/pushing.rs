//! A client of a gateway's own registry: the few requests that a push is made of.

use std::fmt::Write as _;

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    gateway::Gateway,
    http::{self, Answer},
    images::{Image, digest},
};

/// A client that may push.
pub struct Pusher<'a> {
    gateway: &'a Gateway,
    /// What it shows in its header `Authorization`.
    pub authorization: String,
}

impl<'a> Pusher<'a> {
    /// A client of this gateway, as `admin`.
    #[must_use]
    pub fn new(gateway: &'a Gateway) -> Self {
        let pair = BASE64_STANDARD.encode(format!("admin:{}", gateway.password()));
        Self { gateway, authorization: format!("Basic {pair}") }
    }

    /// The registry as references name it.
    #[must_use]
    pub fn host(&self) -> String {
        self.gateway.address().to_string()
    }

    /// Sends a request.
    ///
    /// # Panics
    /// No answer comes.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let authorization = ("Authorization", self.authorization.as_str());
        let headers = [headers, &[authorization]].concat();
        let answer = http::send(method, &format!("{}{path}", self.gateway.url()), &headers, body);
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}\n{}", self.gateway.log()))
    }

    /// The head of a request that is written by hand.
    #[must_use]
    pub fn head(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> String {
        let (host, authorization) = (self.host(), &self.authorization);
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n"
        );
        for (name, value) in headers {
            // Writing to memory cannot fail.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        head + "\r\n"
    }

    /// Begins an upload and answers its path.
    ///
    /// # Panics
    /// It is refused.
    #[must_use]
    pub fn begin(&self, repository: &str) -> String {
        let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let begun = begun.expect(202);
        begun.header("location").expect("an upload has a place").to_owned()
    }

    /// Pushes a blob.
    ///
    /// # Panics
    /// It is refused.
    pub fn push_blob(&self, repository: &str, content: &[u8]) -> String {
        let (to, digest) = (self.begin(repository), digest(content));
        self.send("PUT", &format!("{to}?digest={digest}"), &[], content).expect(201);
        digest
    }

    /// Pushes an image under a tag.
    ///
    /// # Panics
    /// It is refused.
    pub fn push(&self, image: &Image, repository: &str, tag: &str) {
        let parts = image.parts();
        for content in parts.blobs.values() {
            self.push_blob(repository, content);
        }
        let kind = [("Content-Type", "application/vnd.oci.image.manifest.v1+json")];
        let path = format!("/v2/{repository}/manifests/{tag}");
        self.send("PUT", &path, &kind, &parts.manifest).expect(201);
    }
}
