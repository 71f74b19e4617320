//! The server's own certificate: read from two files, and again when they change.
//!
//! Connections keep what they began with; new ones get the newest that could be used. A file that cannot be used
//! is told of once, and what was there stays.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use pinnace_core::limits::{TLS_FILE_BYTES_MAX, TLS_HANDSHAKE_TIME_MAX};
use pinnace_proxy::{Layer, Stream};
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, interval, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::proxy::ending::Ear;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where certificate and key are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, and those that vouch for it, in PEM form.
    pub certificate: PathBuf,
    /// Its private key, in PEM form.
    pub key: PathBuf,
}

/// Why certificate and key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateFault {
    /// A file cannot be read.
    #[error("{flag} {path}: {error}", path = path.display())]
    Read {
        /// Which flag names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// No certificate.
    #[error("--tls-cert {path} holds no certificate in PEM form", path = .0.display())]
    NoCertificate(PathBuf),
    /// No key.
    #[error("--tls-key {path} holds no private key in PEM form", path = .0.display())]
    NoKey(PathBuf),
    /// A key that asks for a password.
    #[error(
        "--tls-key {path} is encrypted, and nobody is there to ask for its password; store it \
         decrypted: openssl pkey -in {path} -out NEW", path = .0.display()
    )]
    Encrypted(PathBuf),
    /// They do not belong together, or are of a kind that is not known.
    #[error(
        "the certificate of --tls-cert {certificate} cannot be used with the key of --tls-key {key}: {why}",
        certificate = files.certificate.display(), key = files.key.display()
    )]
    Unfit {
        /// The files.
        files: CertificateFiles,
        /// What is wrong.
        why: String,
    },
}

/// A certificate with its key, ready for connections.
#[derive(Debug)]
pub struct Certificate {
    files: CertificateFiles,
    config: ArcSwap<ServerConfig>,
}

/// What shows that a file has changed.
type Mark = Option<(SystemTime, u64)>;

impl Certificate {
    /// Reads certificate and key.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn load(files: CertificateFiles) -> Result<Self, CertificateFault> {
        let config = ArcSwap::from_pointee(config(&files)?);
        Ok(Self { files, config })
    }

    /// Reads the files again whenever they change, for ever.
    pub async fn keep_fresh(self: Arc<Self>) {
        let mut seen = self.marks();
        let mut clock = interval(LOOK_EVERY);
        loop {
            clock.tick().await;
            let certificate = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                let marks = certificate.marks();
                if marks != seen {
                    certificate.renew();
                }
                marks
            });
            seen = looked.await.unwrap_or(seen);
        }
    }

    fn marks(&self) -> (Mark, Mark) {
        (mark(&self.files.certificate), mark(&self.files.key))
    }

    fn renew(&self) {
        match config(&self.files) {
            Ok(config) => {
                self.config.store(Arc::new(config));
                let file = self.files.certificate.display();
                tracing::info!(%file, "new connections get the new certificate");
            }
            Err(fault) => tracing::error!("the certificate stays as it was: {fault}"),
        }
    }

    /// Speaks TLS on a connection. `None` if the client does not, not in time, or is not waited for any longer.
    pub async fn accept(&self, ear: &mut Ear, stream: Stream) -> Option<Stream> {
        let now = Instant::now();
        // One that hangs here makes room when others need its place.
        ear.idle(now);
        let shaken = TlsAcceptor::from(self.config.load_full()).accept(stream);
        let shaken = timeout_at(now + TLS_HANDSHAKE_TIME_MAX, shaken);
        let heard = std::future::poll_fn(|cx| match ear.hears(cx) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        tokio::select! {
            shaken = shaken => match shaken {
                Ok(Ok(stream)) => Some(Stream::Layered(Box::new(Secured(stream)))),
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a client and TLS did not come together");
                    None
                }
                Err(_) => None,
            },
            () = heard => None,
        }
    }
}

fn mark(path: &Path) -> Mark {
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn config(files: &CertificateFiles) -> Result<ServerConfig, CertificateFault> {
    let pem = read("--tls-cert", &files.certificate)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| CertificateFault::NoCertificate(files.certificate.clone()))?;
    let key = key(&files.key)?;
    let unfit = |why: String| CertificateFault::Unfit { files: files.clone(), why };
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => unfit("they do not belong together".to_owned()),
        other => unfit(other.to_string()),
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, CertificateFault> {
    let pem = read("--tls-key", path)?;
    let has = |mark: &[u8]| pem.windows(mark.len()).any(|bytes| bytes == mark);
    if has(b"ENCRYPTED") {
        return Err(CertificateFault::Encrypted(path.to_owned()));
    }
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| CertificateFault::NoKey(path.to_owned()))
}

fn read(flag: &'static str, path: &Path) -> Result<Vec<u8>, CertificateFault> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| {
        let size = file.take(TLS_FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        match size as u64 > TLS_FILE_BYTES_MAX {
            true => Err(io::Error::other(format!(
                "is larger than {TLS_FILE_BYTES_MAX} bytes (TLS_FILE_BYTES_MAX)"
            ))),
            false => Ok(()),
        }
    });
    read.map_err(|error| CertificateFault::Read { flag, path: path.to_owned(), error })?;
    Ok(bytes)
}

/// A connection under TLS.
#[derive(Debug)]
struct Secured(TlsStream<Stream>);

impl Layer for Secured {
    fn poll_receive(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(std::pin::Pin::new(&mut self.0).poll_read(cx, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(folder: &Path, name: &str) -> CertificateFiles {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let files = CertificateFiles {
            certificate: folder.join(format!("{name}.crt")),
            key: folder.join(format!("{name}.key")),
        };
        fs::write(&files.certificate, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    fn refused(files: &CertificateFiles) -> String {
        Certificate::load(files.clone()).unwrap_err().to_string()
    }

    #[test]
    fn what_cannot_be_used_is_told_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let (good, other) = (made(folder.path(), "good"), made(folder.path(), "other"));
        assert!(Certificate::load(good.clone()).is_ok());
        let mixed = CertificateFiles { key: other.key, ..good.clone() };
        assert!(refused(&mixed).contains("do not belong together"), "{}", refused(&mixed));
        let none = CertificateFiles { key: folder.path().join("none"), ..good.clone() };
        assert!(refused(&none).starts_with("--tls-key") && refused(&none).contains("No such file"));
        let swapped = CertificateFiles { certificate: good.key.clone(), ..good.clone() };
        assert!(refused(&swapped).contains("no certificate in PEM form"));
        let no_key = CertificateFiles { key: good.certificate.clone(), ..good.clone() };
        assert!(refused(&no_key).contains("no private key in PEM form"));
        fs::write(&none.key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n").unwrap();
        assert!(refused(&none).contains("openssl pkey"));
        fs::write(&none.key, vec![b'x'; TLS_FILE_BYTES_MAX as usize + 1]).unwrap();
        assert!(refused(&none).contains("TLS_FILE_BYTES_MAX"));
    }

    #[test]
    fn a_broken_new_file_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let files = made(folder.path(), "one");
        let certificate = Certificate::load(files.clone()).unwrap();
        let first = certificate.config.load_full();
        fs::write(&files.key, "half of").unwrap();
        certificate.renew();
        assert!(Arc::ptr_eq(&first, &certificate.config.load()));
        made(folder.path(), "one");
        certificate.renew();
        assert!(!Arc::ptr_eq(&first, &certificate.config.load()));
    }
}
