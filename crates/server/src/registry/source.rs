//! Where an image can be had: its registry's mirrors in the order in which they were named, then the
//! registry itself; and which hosts may be spoken to without TLS.

use std::net::IpAddr;

use http::Uri;
use pinnace_core::image::Reference;

use super::error::PullError;

/// The registry of references that name none, and the host that serves it.
const DOCKER_HUB: &str = "docker.io";
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";

/// A mirror of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The registry as references name it.
    pub registry: String,
    /// Where it is: `https://host[:port]`, with a path before `/v2` if there is one.
    pub url: Uri,
}

/// A server that may have an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    /// Host, with its port if it is not the scheme's own.
    pub authority: String,
    /// The name under which credentials for it are kept.
    pub account: String,
    /// `None` until it is known whether it speaks TLS.
    pub scheme: Option<&'static str>,
    /// Path before `/v2`.
    pub prefix: String,
}

/// Hosts that may be spoken to without TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlainHosts(Vec<String>);

impl PlainHosts {
    /// Adds a host, with the port that is meant if it is not any; answers whether it is one.
    pub fn add(&mut self, host: &str) -> bool {
        let parsed = host.parse::<http::uri::Authority>();
        let is_host = parsed.is_ok_and(|parsed| !parsed.as_str().contains('@'));
        if is_host {
            self.0.push(host.to_owned());
        }
        is_host
    }

    /// Whether this host, with or without a port, is this machine or was named so.
    #[must_use]
    pub fn allow(&self, authority: &str) -> bool {
        is_loopback(authority)
            || self.0.iter().any(|named| named == authority || named == host_of(authority))
    }

    /// Refuses an address without TLS, unless its host may have one.
    pub(super) fn check(&self, url: &Uri, what: &str) -> Result<(), PullError> {
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        match url.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.allow(authority) => Ok(()),
            Some("http") => Err(PullError::registry(format!(
                "{what} is http://{authority}, which is not encrypted; if that is meant, start \
                 Pinnace with --insecure-registry {authority}"
            ))),
            _ => Err(PullError::registry(format!("{what} is no address of a web server"))),
        }
    }
}

impl Mirror {
    /// Reads `REGISTRY=URL`.
    ///
    /// # Errors
    /// A sentence about what is wrong with it; without TLS only where `plain` allows it.
    pub fn parse(text: &str, plain: &PlainHosts) -> Result<Self, String> {
        let form = "write it as docker.io=https://mirror.example";
        let (registry, url) = text.split_once('=').ok_or(form)?;
        let registry = Reference::parse(&format!("{registry}/x"))
            .ok()
            .map(|reference| reference.registry().to_owned())
            .filter(|host| host == registry || (host == DOCKER_HUB && registry.ends_with(host)))
            .ok_or_else(|| format!("{registry:?} is no registry; {form}"))?;
        let url: Uri = url.parse().map_err(|_| format!("{url:?} is no URL; {form}"))?;
        let is_web = matches!(url.scheme_str(), Some("http" | "https"));
        let authority = url.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        if !is_web || url.query().is_some() || authority.contains('@') {
            return Err(format!("{url} is no plain http or https URL; {form}"));
        }
        plain.check(&url, "the mirror").map_err(|error| error.to_string())?;
        Ok(Self { registry, url })
    }
}

/// The servers to ask for an image of this registry, in order.
pub(super) fn sources(registry: &str, mirrors: &[Mirror]) -> Vec<Source> {
    let mut sources: Vec<Source> = mirrors
        .iter()
        .filter(|mirror| mirror.registry == registry)
        .filter_map(|mirror| {
            let authority = mirror.url.authority()?.to_string();
            Some(Source {
                account: authority.clone(),
                authority,
                scheme: Some(if mirror.url.scheme_str() == Some("http") {
                    "http"
                } else {
                    "https"
                }),
                prefix: mirror.url.path().trim_end_matches('/').to_owned(),
            })
        })
        .collect();
    let host = if registry == DOCKER_HUB { DOCKER_HUB_HOST } else { registry };
    sources.push(Source {
        authority: host.to_owned(),
        account: registry.to_owned(),
        scheme: None,
        prefix: String::new(),
    });
    sources
}

/// A host without its port, and an IPv6 address without brackets.
fn host_of(authority: &str) -> &str {
    if let Some(rest) = authority.strip_prefix('[') {
        return rest.split(']').next().unwrap_or(rest);
    }
    authority.rsplit_once(':').map_or(authority, |(host, _)| host)
}

fn is_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_named_hosts_go_without_tls() {
        let mut plain = PlainHosts::default();
        assert!(plain.add("lan.example:5000") && plain.add("10.0.0.7"));
        assert!(!plain.add("a b") && !plain.add("me@lan.example") && !plain.add("https://a"));
        for allowed in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:5000",
            "127.8.9.1",
            "[::1]:5000",
            "lan.example:5000",
            "10.0.0.7:80",
            "10.0.0.7",
        ] {
            assert!(plain.allow(allowed), "{allowed}");
        }
        for refused in [
            "ghcr.io",
            "lan.example",
            "lan.example:5001",
            "localhost.example",
            "127.0.0.1.example:80",
            "10.0.0.70",
            "[::2]:80",
        ] {
            assert!(!plain.allow(refused), "{refused}");
        }
        let url = |text: &str| text.parse::<Uri>().unwrap();
        assert!(plain.check(&url("http://127.0.0.1/x"), "it").is_ok());
        assert!(plain.check(&url("https://ghcr.io/x"), "it").is_ok());
        let said = plain.check(&url("http://ghcr.io/x"), "it").unwrap_err().to_string();
        assert!(said.contains("--insecure-registry ghcr.io"), "{said}");
        assert!(plain.check(&url("/x"), "it").is_err());
    }

    #[test]
    fn mirrors_come_first_in_their_order() {
        let mirrors: Vec<Mirror> = [
            "docker.io=https://one.example/hub/",
            "ghcr.io=https://other.example",
            "index.docker.io=http://127.0.0.1:5000",
        ]
        .iter()
        .map(|text| Mirror::parse(text, &PlainHosts::default()).unwrap())
        .collect();
        let found = sources("docker.io", &mirrors);
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.scheme, s.authority.as_str(), s.prefix.as_str(), s.account.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                (Some("https"), "one.example", "/hub", "one.example"),
                (Some("http"), "127.0.0.1:5000", "", "127.0.0.1:5000"),
                (None, "registry-1.docker.io", "", "docker.io"),
            ]
        );
        assert_eq!(sources("quay.io", &mirrors).len(), 1);
    }

    #[test]
    fn mirrors_are_checked() {
        for bad in [
            "",
            "docker.io",
            "docker.io=mirror.example",
            "docker.io=ftp://mirror.example",
            "docker.io=http://mirror.example",
            "docker.io=https://user:secret@mirror.example",
            "docker.io=https://mirror.example/?x",
            "team=https://mirror.example",
            "docker.io/team=https://mirror.example",
        ] {
            assert!(Mirror::parse(bad, &PlainHosts::default()).is_err(), "{bad}");
        }
    }
}
