//! Which references are this server's own.
//!
//! That is decided by where the server listens and by the URL that its operator has given it, never by what a request
//! says: who deploys could else have any name stand for this registry.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use http::Uri;

/// The names of this server as references have them: host and port.
#[derive(Clone, Debug, Default)]
pub struct OwnHosts {
    listen: Vec<SocketAddr>,
    /// Host and port of the URL.
    external: Option<(String, u16)>,
    /// The port of references that name none, as the URL's scheme or the listeners have it.
    default_port: Option<u16>,
}

impl OwnHosts {
    /// The names of a server that listens at these addresses, over TLS or not, and has this URL.
    #[must_use]
    pub fn new(listen: Vec<SocketAddr>, has_tls: bool, external_url: Option<&str>) -> Self {
        let url = external_url.and_then(|url| url.parse::<Uri>().ok());
        let port_of = |scheme: &str| if scheme == "http" { 80 } else { 443 };
        let external = url.as_ref().and_then(|url| {
            let port = url.port_u16().unwrap_or_else(|| port_of(url.scheme_str().unwrap_or("")));
            Some((url.host()?.to_ascii_lowercase(), port))
        });
        let default_port = Some(if has_tls { 443 } else { 80 });
        Self { listen, external, default_port }
    }

    /// Whether a registry, as a reference names it, is this server.
    #[must_use]
    pub fn have(&self, registry: &str) -> bool {
        let (host, port) = match registry.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()),
            None => (registry, None),
        };
        let host = host.to_ascii_lowercase();
        let is_external = |(own, own_port): &(String, u16)| {
            *own == host && port.unwrap_or(*own_port) == *own_port
        };
        if self.external.as_ref().is_some_and(is_external) {
            return true;
        }
        let Some(port) = port.or(self.default_port) else { return false };
        let addresses = match host.as_str() {
            "localhost" => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
            host => host.parse().into_iter().collect::<Vec<IpAddr>>(),
        };
        let is_served = |own: &SocketAddr| {
            own.port() == port && addresses.iter().any(|address| serves(own.ip(), *address))
        };
        self.listen.iter().any(is_served)
    }
}

/// Whether who listens at an address is reached by another one.
fn serves(listens: IpAddr, address: IpAddr) -> bool {
    listens == address || (listens.is_unspecified() && is_of_this_host(address))
}

/// Whether an address is one of this host's: others cannot be bound.
fn is_of_this_host(address: IpAddr) -> bool {
    address.is_loopback()
        || (!address.is_unspecified()
            && !address.is_multicast()
            && UdpSocket::bind((address, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(listen: &[&str], has_tls: bool, url: Option<&str>) -> OwnHosts {
        OwnHosts::new(listen.iter().map(|address| address.parse().unwrap()).collect(), has_tls, url)
    }

    #[test]
    fn a_server_is_known_by_its_addresses_and_its_url() {
        let hosts = own(&["127.0.0.1:8080"], false, Some("https://faas.example/x"));
        for ours in ["127.0.0.1:8080", "localhost:8080", "faas.example", "FAAS.example:443"] {
            assert!(hosts.have(ours), "{ours}");
        }
        for other in [
            "127.0.0.1",
            "localhost",
            "localhost:8081",
            "127.0.0.2:8080",
            "faas.example:8080",
            "docker.io",
            "ghcr.io:8080",
            "",
            ":8080",
        ] {
            assert!(!hosts.have(other), "{other}");
        }
    }

    #[test]
    fn who_listens_everywhere_is_every_address_of_this_host() {
        let hosts = own(&["0.0.0.0:8080"], false, None);
        assert!(hosts.have("127.0.0.1:8080") && hosts.have("127.3.2.1:8080"));
        // An address of documents (RFC 5737), which nobody has.
        assert!(!hosts.have("192.0.2.1:8080") && !hosts.have("127.0.0.1:8081"));
    }

    #[test]
    fn a_port_that_nobody_writes_is_the_schemes() {
        assert!(own(&["127.0.0.1:80"], false, None).have("localhost"));
        assert!(own(&["127.0.0.1:443"], true, None).have("localhost"));
        assert!(!own(&["127.0.0.1:80"], true, None).have("localhost"));
        assert!(own(&[], false, Some("http://a.example:5000")).have("a.example"));
    }
}
