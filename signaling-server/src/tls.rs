//! TLS by rustls: a certificate that is replaced on disk is in force for the next handshake, and no connection that
//! is already open notices.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::TlsConfig;
use crate::watched::{Change, Content, FileError, Watched};

/// Turns accepted sockets into TLS streams. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    certificate: Arc<Watched<CertifiedKey>>,
    reload_interval: Duration,
}

/// Why the certificate or its key can not be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TlsError {
    /// One file is given without the other.
    #[error("{missing}: expected a file, because {given} is given")]
    Half {
        /// The configuration's key that is set.
        given: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A file is no good.
    #[error("{key}: {error}")]
    File {
        /// The configuration's key that names the file.
        key: &'static str,
        /// What is wrong with it.
        error: FileError,
    },
}

impl Tls {
    /// Reads the certificate and key that `config` names; `None` if it names none.
    ///
    /// # Errors
    ///
    /// When only one is named, a file can not be read or used, or the two do not belong together.
    pub fn from_config(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let (cert, key) = match (&config.cert, &config.key) {
            (None, None) => return Ok(None),
            (Some(cert), Some(key)) => (cert.clone(), key.clone()),
            (Some(_), None) => return Err(TlsError::Half { given: "tls.cert", missing: "tls.key" }),
            (None, Some(_)) => return Err(TlsError::Half { given: "tls.key", missing: "tls.cert" }),
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let for_keys = Arc::clone(&provider);
        let certificate =
            Watched::load(vec![cert, key.clone()], move |files| certified_key(files, &for_keys));
        let certificate = certificate.map_err(|error| TlsError::File {
            key: if error.path == key { "tls.key" } else { "tls.cert" },
            error,
        })?;
        let resolver = Arc::new(Newest(Arc::clone(&certificate)));
        Ok(Some(Self {
            acceptor: TlsAcceptor::from(Arc::new(server_config(provider, resolver))),
            certificate,
            reload_interval: config.reload_interval.duration(),
        }))
    }

    /// Does the handshake. A client decides how long that takes: run it in the connection's own task, under a deadline.
    ///
    /// # Errors
    ///
    /// When the client breaks off, or speaks no TLS 1.2 or 1.3.
    pub async fn accept<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        self.acceptor.accept(stream).await
    }

    /// Re-reads the files when they change, for ever; bad new files are refused, logged, and the old ones stay in
    /// force. Each change is told to `report`. The future never ends: run it in a task that the server owns.
    pub async fn watch(self, report: impl Fn(&Change)) {
        self.certificate.watch(self.reload_interval, report).await;
    }

    /// Looks at the files now, as [`watch`](Self::watch) does each interval.
    pub async fn reload(&self, report: impl Fn(&Change)) {
        self.certificate.look_now(&report).await;
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.certificate).finish()
    }
}

fn server_config(provider: Arc<CryptoProvider>, resolver: Arc<Newest>) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Answers each handshake with the newest good certificate.
#[derive(Debug)]
struct Newest(Arc<Watched<CertifiedKey>>);

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

fn certified_key(files: &[Content<'_>], provider: &CryptoProvider) -> Result<CertifiedKey, FileError> {
    let [cert, key] = files else { unreachable!("two files are watched") };
    let chain = chain(cert)?;
    let certified = CertifiedKey::from_der(chain, private_key(key)?, provider);
    certified.map_err(|error| match error {
        rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            key.error(format!("expected the key of the certificate in {}, found another", cert.path.display()))
        }
        rustls::Error::InvalidCertificate(reason) => cert.error(format!("certificate can not be used: {reason:?}")),
        _ => key.error("expected a private key (ECDSA, Ed25519 or RSA of at least 2048 bits), found one that can not be used"),
    })
}

fn chain(file: &Content<'_>) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file.bytes).collect();
    let chain = chain.map_err(|error| file.error(format!("expected PEM: {error}")))?;
    if chain.is_empty() {
        return Err(file.error("expected a PEM block \"CERTIFICATE\", found none"));
    }
    Ok(chain)
}

fn private_key(file: &Content<'_>) -> Result<PrivateKeyDer<'static>, FileError> {
    if file.bytes.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
        return Err(file.error("expected an unencrypted private key, found an encrypted one"));
    }
    PrivateKeyDer::from_pem_slice(file.bytes).map_err(|error| match error {
        pem::Error::NoItemsFound => file.error("expected a PEM block \"PRIVATE KEY\", found none"),
        error => file.error(format!("expected PEM: {error}")),
    })
}

/// In the heading of an encrypted PKCS #8 key, and in the `Proc-Type` of an older one.
const ENCRYPTED: &[u8] = b"ENCRYPTED";

/// Reads the certificates of a PEM file, for a client that trusts a private authority.
///
/// # Errors
///
/// When the file can not be read or holds no certificate.
pub fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let bytes = crate::watched::read(path)?;
    chain(&Content { path, bytes: &bytes })
}
