//! Addresses with a scheme, and connections to them, with TLS where the scheme asks for it.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use http::Uri;
use http::uri::PathAndQuery;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest URL, in bytes.
pub const MAX_URL: usize = 4096;

/// Why a URL was refused. What it says is not repeated, for it may hold a token.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UrlError {
    /// More than [`MAX_URL`] bytes.
    #[error("URL is {len} bytes, limit is {MAX_URL}")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// Not a URL with one of these schemes and a host.
    #[error("expected a URL with {plain}:// or {secure}:// and a host")]
    Malformed {
        /// The scheme without TLS.
        plain: &'static str,
        /// The scheme with TLS.
        secure: &'static str,
    },
    /// Too many URLs.
    #[error("{count} URLs, limit is {limit}")]
    TooMany {
        /// How many.
        count: usize,
        /// How many may be.
        limit: usize,
    },
}

/// Why there is no connection.
#[derive(Debug, Error)]
pub enum DialError {
    /// No TCP connection.
    #[error("no connection: {0}")]
    Tcp(std::io::Error),
    /// The host is no name that a certificate could have.
    #[error("the host can not have a certificate")]
    Name,
    /// No TLS: most often a certificate that is not trusted.
    #[error("no TLS: {0}")]
    Tls(std::io::Error),
}

/// Bytes both ways, with or without TLS.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address of ours that it uses.
    fn here(&self) -> Option<IpAddr>;
}

impl Stream for TcpStream {
    fn here(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|address| address.ip())
    }
}

impl Stream for TlsStream<TcpStream> {
    fn here(&self) -> Option<IpAddr> {
        self.get_ref().0.here()
    }
}

/// A URL, parsed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Address {
    uri: Uri,
    host: String,
    port: u16,
    is_secure: bool,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

impl Address {
    pub(crate) fn parse(url: &str, plain: &'static str, secure: &'static str) -> Result<Self, UrlError> {
        if url.len() > MAX_URL {
            return Err(UrlError::TooLong { len: url.len() });
        }
        let malformed = || UrlError::Malformed { plain, secure };
        let uri: Uri = url.parse().map_err(|_| malformed())?;
        let scheme = uri.scheme_str().ok_or_else(malformed)?;
        let is_secure = scheme == secure;
        if !is_secure && scheme != plain {
            return Err(malformed());
        }
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or_else(malformed)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        if host.is_empty() {
            return Err(malformed());
        }
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if is_secure {
                    443
                } else {
                    80
                }
            }
            _ => authority.port_u16().ok_or_else(malformed)?,
        };
        Ok(Self { host, port, is_secure, uri })
    }

    /// All of it.
    pub(crate) fn uri(&self) -> &Uri {
        &self.uri
    }

    pub(crate) fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", PathAndQuery::as_str)
    }

    /// Host and port as they were given.
    pub(crate) fn authority(&self) -> &str {
        self.uri.authority().map_or("", http::uri::Authority::as_str)
    }

    /// Scheme, host and port: what may be shown.
    pub(crate) fn name(&self) -> String {
        format!("{}://{}", self.uri.scheme_str().unwrap_or_default(), self.authority())
    }
}

/// Connects. Takes as long as the system lets it; callers have a deadline.
pub(crate) async fn dial(
    address: &Address,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, DialError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port)).await.map_err(DialError::Tcp)?;
    // A signal is small and waited for.
    let _ = stream.set_nodelay(true);
    if !address.is_secure {
        return Ok(Box::new(stream));
    }
    let name = ServerName::try_from(address.host.clone()).map_err(|_| DialError::Name)?;
    let config = match tls {
        Some(config) => config,
        None => system_trust().await,
    };
    let stream = TlsConnector::from(config).connect(name, stream).await.map_err(DialError::Tls)?;
    Ok(Box::new(stream))
}

/// Trust in the system's certificates, read once. That there are none is no error here: each handshake will say that
/// its certificate is not trusted.
async fn system_trust() -> Arc<ClientConfig> {
    static TRUST: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(trust) = TRUST.get() {
        return Arc::clone(trust);
    }
    let read = tokio::task::spawn_blocking(|| rustls_native_certs::load_native_certs().certs).await;
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(read.unwrap_or_default());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::clone(TRUST.get_or_init(|| Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_host_and_may_have_a_token_that_is_never_shown() {
        let address = Address::parse("wss://signal.example/room?token=secret", "ws", "wss").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_secure), ("signal.example", 443, true));
        assert_eq!(address.path_and_query(), "/room?token=secret");
        assert_eq!(format!("{address:?}"), "wss://signal.example");
        let address = Address::parse("ws://[::1]:4444", "ws", "wss").unwrap();
        assert_eq!((address.host.as_str(), address.port, address.is_secure), ("::1", 4444, false));
        assert_eq!(address.path_and_query(), "/");
    }

    #[test]
    fn what_is_no_such_url_is_refused() {
        for url in
            ["", "signal.example", "http://h", "ws:", "ws://", "ws://user:pass@h", "ws://h:99999", "ws://h h"]
        {
            assert!(Address::parse(url, "ws", "wss").is_err(), "{url}");
        }
        let long = format!("ws://h/{}", "x".repeat(MAX_URL));
        assert_eq!(Address::parse(&long, "ws", "wss"), Err(UrlError::TooLong { len: long.len() }));
    }
}
