//! What went wrong with TLS, as sentences. rustls shows some certificates' faults as names of its own code.

use std::{error::Error, fmt, io};

use rustls::{CertificateError, pki_types::UnixTime};

/// Most names of a certificate that are shown.
const NAMES_SHOWN: usize = 3;

/// Most characters of such a name.
const NAME_CHARS: usize = 80;

const SECONDS_PER_DAY: u64 = 24 * 60 * 60;

/// The errors behind an error, outermost first. What an I/O error carries is not among its sources.
pub(crate) fn chain<'e>(
    error: &'e (dyn Error + 'static),
) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |this: &&'e (dyn Error + 'static)| {
        let this = *this;
        let carried = this.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        carried.map(|carried| carried as &(dyn Error + 'static)).or_else(move || this.source())
    })
}

/// What is wrong with the other side of a TLS connection, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsFault {
    /// Its certificate.
    Certificate(String),
    /// It speaks something else.
    NotTls(String),
    /// Another thing.
    Other(String),
}

impl TlsFault {
    /// Why TLS failed, if an error comes of that.
    #[must_use]
    pub fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        chain(error).find_map(|error| error.downcast_ref()).map(Self::of)
    }

    fn of(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(why) => {
                Self::Certificate(format!("its certificate {}", of_certificate(why)))
            }
            rustls::Error::InvalidMessage(_) => {
                Self::NotTls(format!("it does not speak TLS ({error})"))
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Certificate(text) | Self::NotTls(text) | Self::Other(text)) = self;
        f.write_str(text)
    }
}

fn of_certificate(error: &CertificateError) -> String {
    use CertificateError as Fault;
    match error {
        Fault::UnknownIssuer => "is of an authority that is not trusted here".to_owned(),
        Fault::Expired => "has expired, or the clock of this host is wrong".to_owned(),
        Fault::ExpiredContext { time, not_after } => format!(
            "has expired {} days ago, or the clock of this host is wrong",
            days(*not_after, *time)
        ),
        Fault::NotValidYet => "is not valid yet, or the clock of this host is wrong".to_owned(),
        Fault::NotValidYetContext { time, not_before } => format!(
            "is not valid for another {} days, or the clock of this host is wrong",
            days(*time, *not_before)
        ),
        Fault::NotValidForName => "is for another name".to_owned(),
        Fault::NotValidForNameContext { expected, presented } => {
            format!("is not for {}, but for {}", expected.to_str(), names(presented))
        }
        Fault::Revoked => "was revoked".to_owned(),
        Fault::BadEncoding => "cannot be read".to_owned(),
        Fault::BadSignature => "is not signed by the authority that it names".to_owned(),
        Fault::InvalidPurpose | Fault::InvalidPurposeContext { .. } => {
            "is not one for servers (extended key usage)".to_owned()
        }
        Fault::Other(other) => of_verifier(&other.0.to_string()),
        other => format!("is refused ({other})"),
    }
}

/// What rustls passes on unread, by the verifier's name for it.
fn of_verifier(name: &str) -> String {
    match name {
        "CaUsedAsEndEntity" => {
            "is that of an authority (CA:TRUE), which no server may have; give it one with CA:FALSE"
                .to_owned()
        }
        "EndEntityUsedAsCa" => "is signed by one that is no authority's (CA:FALSE)".to_owned(),
        other => format!("is refused ({other})"),
    }
}

/// Days from one time to a later one, begun ones with them.
fn days(from: UnixTime, to: UnixTime) -> u64 {
    to.as_secs().saturating_sub(from.as_secs()).div_ceil(SECONDS_PER_DAY)
}

/// Names of a certificate, which rustls gives as `DnsName("a.example")`.
fn names(presented: &[String]) -> String {
    if presented.is_empty() {
        return "no name at all (subjectAltName)".to_owned();
    }
    let bare = |name: &String| {
        let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
        let inner = inner.unwrap_or(name).trim_matches('"');
        inner.chars().take(NAME_CHARS).collect::<String>()
    };
    let shown: Vec<String> = presented.iter().take(NAMES_SHOWN).map(bare).collect();
    let more = presented.len() - shown.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use rustls::{OtherError, pki_types::ServerName};

    use super::*;

    fn said(error: CertificateError) -> String {
        let error = io::Error::other(rustls::Error::InvalidCertificate(error));
        TlsFault::behind(&error).unwrap().to_string()
    }

    #[test]
    fn faults_of_certificates_are_sentences() {
        let at = |days: u64| UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400));
        let named = |names: &[&str]| CertificateError::NotValidForNameContext {
            expected: ServerName::try_from("a.example").unwrap(),
            presented: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let verifier = |name: &str| {
            CertificateError::Other(OtherError(Arc::new(io::Error::other(name.to_owned()))))
        };
        for (error, expected) in [
            (CertificateError::UnknownIssuer, "authority that is not trusted here"),
            (CertificateError::Expired, "has expired"),
            (
                CertificateError::ExpiredContext { time: at(40), not_after: at(10) },
                "expired 30 days ago",
            ),
            (
                CertificateError::NotValidYetContext { time: at(10), not_before: at(12) },
                "for another 2 days",
            ),
            (
                named(&["DnsName(\"b.example\")", "IpAddress(192.0.2.1)"]),
                "is not for a.example, but for b.example, 192.0.2.1",
            ),
            (named(&["DnsName(\"b\")"; 5]), "b, b, b and 2 more"),
            (named(&[]), "no name at all"),
            (verifier("CaUsedAsEndEntity"), "(CA:TRUE), which no server may have"),
            (verifier("EndEntityUsedAsCa"), "no authority's"),
            (verifier("NewFault"), "its certificate is refused (NewFault)"),
            (CertificateError::UnhandledCriticalExtension, "is refused (UnhandledCritical"),
        ] {
            let said = said(error);
            assert!(said.starts_with("its certificate ") && said.contains(expected), "{said}");
        }
    }

    #[test]
    fn what_is_no_fault_of_tls_is_told_apart() {
        assert_eq!(TlsFault::behind(&io::Error::from(io::ErrorKind::TimedOut)), None);
        let other = rustls::Error::HandshakeNotComplete;
        assert_eq!(TlsFault::behind(&other), Some(TlsFault::Other(other.to_string())));
        let message = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert!(matches!(TlsFault::behind(&message), Some(TlsFault::NotTls(_))));
    }
}
