//! Where to connect to, and what is shown there.

use std::{
    fmt,
    io::{self, ErrorKind},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    path::Path,
    str::FromStr,
    sync::Arc,
};

use anyhow::{Context, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

use super::{ClientError, Stream};

const SHAPE: &str = "expected ws://host:port/path or wss://host:port/path";

/// Where to connect to: a `ws://` or `wss://` address, resolved once, and the token that opens it.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    authority: String,
    path: String,
    tls: Option<Tls>,
    token: Option<Token>,
}

#[derive(Debug, Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

/// What opens a server. It is never printed.
#[derive(Clone)]
pub struct Token(String);

impl FromStr for Token {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err("it is empty or holds what is no visible ASCII") }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Token")
    }
}

impl Target {
    /// Reads `ws://host[:port][/path][?query]`, or the same with `wss`, and resolves the host. The roots of the
    /// system say which certificates are good.
    ///
    /// # Errors
    /// Another scheme, no host, or a name that does not resolve.
    pub fn resolve(url: &str) -> Result<Self, ClientError> {
        let refuse = |reason| ClientError::Url { url: without_query(url), reason };
        let (secure, rest) = match (url.strip_prefix("ws://"), url.strip_prefix("wss://")) {
            (Some(rest), _) => (false, rest),
            (_, Some(rest)) => (true, rest),
            _ => return Err(refuse(SHAPE)),
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.is_empty() || rest.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(refuse(SHAPE));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let port = if secure { 443 } else { 80 };
        let address = resolve(authority, port).map_err(ClientError::Connect)?;
        let tls = if secure {
            let name = ServerName::try_from(host(authority).to_owned()).map_err(|_| refuse(SHAPE))?;
            Some(Tls { config: trusting(system_roots()), name })
        } else {
            None
        };
        Ok(Self { address, authority: authority.to_owned(), path, tls, token: None })
    }

    /// The same, where certificates are good that one of the authorities in this PEM file has signed, and no others.
    ///
    /// # Errors
    /// When the file cannot be read or holds no certificate.
    pub fn with_authorities(mut self, file: &Path) -> anyhow::Result<Self> {
        let shown = file.display();
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(file).with_context(|| format!("cannot read {shown}"))?;
        for certificate in certificates {
            roots.add(certificate.with_context(|| format!("cannot read {shown}"))?)?;
        }
        ensure!(!roots.is_empty(), "{shown} holds no certificate");
        if let Some(tls) = &mut self.tls {
            tls.config = trusting(roots);
        }
        Ok(self)
    }

    /// The same, opened by a token, which is shown as `Authorization: Bearer`.
    #[must_use]
    pub fn with_token(mut self, token: Token) -> Self {
        self.token = Some(token);
        self
    }

    /// Whether the server is on this machine, so that other loopback addresses can be connected from.
    #[must_use]
    pub fn is_ipv4_loopback(&self) -> bool {
        matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback())
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The socket as it is spoken on; hands are shaken by the first that is written.
    pub(super) fn secure(&self, socket: TcpStream) -> Result<Stream<TcpStream>, ClientError> {
        let Some(Tls { config, name }) = &self.tls else { return Ok(Stream::new(socket, None)) };
        let tls = ClientConnection::new(Arc::clone(config), name.clone());
        let tls = tls.map_err(|error| ClientError::Tls(error.to_string()))?;
        Ok(Stream::new(socket, Some(Box::new(tls))))
    }

    /// The request for an upgrade.
    pub(super) fn request(&self, key: &str) -> String {
        let Self { path, authority, .. } = self;
        let token = self.token.as_ref();
        let token = token.map_or(String::new(), |Token(token)| format!("Authorization: Bearer {token}\r\n"));
        format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n{token}\r\n"
        )
    }
}

/// What may be shown of an address: a query may hold a token.
fn without_query(url: &str) -> String {
    url.split('?').next().unwrap_or_default().escape_debug().to_string()
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(authority: &str) -> &str {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_start_matches('[').trim_end_matches(']')
}

fn resolve(authority: &str, port: u16) -> io::Result<SocketAddr> {
    let mut found = match authority.to_socket_addrs() {
        Err(error) if error.kind() == ErrorKind::InvalidInput => (authority, port).to_socket_addrs()?,
        other => other?,
    };
    found.next().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // A certificate that cannot be read trusts nobody; the others do.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn trusting(roots: RootCertStore) -> Arc<ClientConfig> {
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_keeps_its_path_and_query() {
        let target = Target::resolve("ws://127.0.0.1:4444/signal?token=t").unwrap();
        assert_eq!((target.authority.as_str(), target.path.as_str()), ("127.0.0.1:4444", "/signal?token=t"));
        assert_eq!(Target::resolve("ws://127.0.0.1?a").unwrap().path, "/?a");
        assert_eq!(Target::resolve("ws://127.0.0.1").unwrap().address.port(), 80);
        let secure = Target::resolve("wss://127.0.0.1/x").unwrap();
        assert_eq!((secure.address.port(), secure.tls.is_some()), (443, true));
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused_without_its_query() {
        for url in ["http://127.0.0.1", "ws://", "ws://a b/", "ws://h/\r\nX: y", "https://h/?token=t0psecret"]
        {
            let refused = Target::resolve(url).unwrap_err();
            assert!(matches!(refused, ClientError::Url { .. }), "{url}");
            assert!(!refused.to_string().contains("t0psecret"));
        }
    }

    #[test]
    fn a_token_goes_into_a_header_and_is_never_shown() {
        let target = Target::resolve("ws://127.0.0.1/").unwrap().with_token("t0psecret".parse().unwrap());
        assert!(target.request("k").contains("\r\nAuthorization: Bearer t0psecret\r\n\r\n"));
        assert!(!format!("{target:?}").contains("t0psecret"));
        for token in ["", "a b", "a\r\nb"] {
            assert!(token.parse::<Token>().is_err());
        }
    }

    #[test]
    fn the_name_of_a_certificate_is_the_host_alone() {
        let hosts = ["example.com", "example.com:8443", "[::1]:443", "127.0.0.1"].map(host);
        assert_eq!(hosts, ["example.com", "example.com", "::1", "127.0.0.1"]);
    }
}
