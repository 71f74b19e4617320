//! The URL of a gateway: where it comes from, and what may be asked of it.

use std::{fmt, net::IpAddr};

use ureq::http::Uri;

use crate::failure::usage;

/// Where a gateway is looked for when nothing names one.
pub const DEFAULT: &str = "http://127.0.0.1:8080";

/// A checked gateway URL without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    text: String,
    host: String,
    port: Option<u16>,
    plain_http: bool,
}

impl Address {
    /// The first that is given: flag, stack file, `OPENFAAS_URL`, `PINNACE_URL`, the default. A stack file that names the
    /// default, as new ones do, names none: with faas-cli the variable holds then.
    pub fn choose(
        flag: Option<&str>,
        stack: Option<&str>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> anyhow::Result<Self> {
        let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
        if let Some(text) = flag.and_then(given) {
            return Self::parse(&text, "--gateway");
        }
        let is_default = |text: &String| text.trim_end_matches('/') == DEFAULT;
        if let Some(text) = stack.and_then(given).filter(|text| !is_default(text)) {
            return Self::parse(&text, "the stack file's provider.gateway");
        }
        for name in ["OPENFAAS_URL", "PINNACE_URL"] {
            if let Some(text) = variable(name).as_deref().and_then(given) {
                return Self::parse(&text, name);
            }
        }
        Self::parse(DEFAULT, "the default")
    }

    fn parse(text: &str, source: &str) -> anyhow::Result<Self> {
        let wrong = |why: &str| {
            // A password in the URL must not be repeated.
            let shown = if text.contains('@') { "" } else { text };
            usage(format!("gateway {shown:?} from {source}: {why}, such as {DEFAULT}"))
        };
        let with_scheme =
            if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let trimmed = with_scheme.trim_end_matches('/');
        let uri: Uri = trimmed.parse().map_err(|_| wrong("is no URL"))?;
        let plain_http = match uri.scheme_str() {
            Some("http") => true,
            Some("https") => false,
            _ => return Err(wrong("is neither http nor https")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("holds a password; use `pinnace login` and a URL without it"));
        }
        if uri.query().is_some() {
            return Err(wrong("has a query"));
        }
        let host = authority.host().to_ascii_lowercase();
        let port = authority.port_u16();
        Ok(Self { text: trimmed.to_owned(), host, port, plain_http })
    }

    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The port, if the URL names one.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The key under which its credentials are stored (contract 2.1).
    pub fn key(&self) -> String {
        self.text.to_lowercase()
    }

    /// Whether it is on this host, so that nothing sent to it leaves the host.
    pub fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether others on the way can read what is sent.
    pub fn is_exposed(&self) -> bool {
        self.plain_http && !self.is_loopback()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: &str, stack: &str, openfaas: &str, pinnace: &str) -> String {
        let variable =
            |name: &str| Some(if name == "OPENFAAS_URL" { openfaas } else { pinnace }.to_owned());
        Address::choose(Some(flag), Some(stack), variable).unwrap().to_string()
    }

    fn parsed(text: &str) -> Address {
        Address::parse(text, "a test").unwrap()
    }

    #[test]
    fn precedence() {
        assert_eq!(chosen("http://a", "http://b", "http://c", "http://d"), "http://a");
        assert_eq!(chosen("", "http://b", "http://c", "http://d"), "http://b");
        assert_eq!(chosen("", "", "http://c", "http://d"), "http://c");
        assert_eq!(chosen("", "", "", "http://d"), "http://d");
        assert_eq!(chosen("", "", "", ""), DEFAULT);
        assert_eq!(chosen("", "http://127.0.0.1:8080/", "http://c", ""), "http://c");
        assert_eq!(chosen(DEFAULT, "http://b", "http://c", ""), DEFAULT);
    }

    #[test]
    fn the_key_is_lower_case_and_without_slash() {
        let address = parsed("HTTPS://Faas.Example.COM/Base/");
        assert_eq!(address.key(), "https://faas.example.com/base");
        assert!(!address.is_loopback());
        assert!(!address.is_exposed());
    }

    #[test]
    fn loopback_is_told_by_the_host_alone() {
        for here in ["http://127.0.0.1:1", "http://LOCALHOST", "127.9.9.9:80", "http://[::1]:80"] {
            assert!(parsed(here).is_loopback(), "{here}");
        }
        for there in ["http://127.0.0.1.example.com", "http://10.0.0.1", "http://localhost.evil"] {
            assert!(!parsed(there).is_loopback(), "{there}");
            assert!(parsed(there).is_exposed(), "{there}");
        }
    }

    #[test]
    fn what_is_no_gateway_is_refused_without_repeating_a_password() {
        for bad in ["ftp://a", "http://", "http://a b", "http://a?x=1"] {
            assert!(Address::parse(bad, "--gateway").is_err(), "{bad}");
        }
        let said = Address::parse("http://admin:hunter2@h", "--gateway").unwrap_err().to_string();
        assert!(said.contains("pinnace login") && !said.contains("hunter2"), "{said}");
    }
}
