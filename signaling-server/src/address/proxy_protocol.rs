//! The header that a TCP proxy sends ahead of a connection: PROXY protocol version 2.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ppp::v2::{Addresses, Command, Header, PROTOCOL_PREFIX};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};

/// The part of every header that says how long the rest is.
const FIXED: usize = 16;
/// The longest rest taken. Addresses are at most 216 bytes; what cloud load balancers add is some hundred.
const MAX_REST: usize = 4096;

/// Why a connection from a trusted proxy is closed before its first request.
#[derive(Debug, Error)]
pub enum ProxyHeaderError {
    /// It ended, or failed, inside the header.
    #[error("connection ended inside its PROXY protocol header: {0}")]
    Io(#[from] io::Error),
    /// It began with something else.
    #[error("connection does not begin with a PROXY protocol v2 header")]
    Missing,
    /// The header announces more than any sensible proxy sends.
    #[error("PROXY protocol header announces {length} bytes, limit is {MAX_REST}")]
    TooLong {
        /// The announced number of bytes.
        length: usize,
    },
    /// The header breaks its own rules.
    #[error("PROXY protocol header is malformed: {0}")]
    Malformed(#[from] ppp::v2::ParseError),
    /// The header was not complete in time.
    #[error("PROXY protocol header took longer than {deadline:?}")]
    TooLate {
        /// How long it could have taken.
        deadline: Duration,
    },
}

/// Reads one header, and not a byte more. `None`: the proxy speaks for itself (a health check), or names no IP address.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S) -> Result<Option<IpAddr>, ProxyHeaderError> {
    let mut header = vec![0; FIXED];
    stream.read_exact(&mut header).await?;
    if !header.starts_with(PROTOCOL_PREFIX) {
        return Err(ProxyHeaderError::Missing);
    }
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    if length > MAX_REST {
        return Err(ProxyHeaderError::TooLong { length });
    }
    header.resize(FIXED + length, 0);
    stream.read_exact(&mut header[FIXED..]).await?;
    let header = Header::try_from(header.as_slice())?;
    Ok(named(&header))
}

fn named(header: &Header<'_>) -> Option<IpAddr> {
    match (header.command, header.addresses) {
        (Command::Proxy, Addresses::IPv4(addresses)) => Some(addresses.source_address.into()),
        (Command::Proxy, Addresses::IPv6(addresses)) => Some(addresses.source_address.into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::address::{Proxies, Source};
    use crate::config::{ForwardedHeader, ProxyProtocol};

    const DEADLINE: Duration = Duration::from_secs(5);

    fn header(version_command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [PROTOCOL_PREFIX, &[version_command, family], &length, rest].concat()
    }

    fn tcp4() -> Vec<u8> {
        header(0x21, 0x11, &[198, 51, 100, 7, 10, 0, 0, 1, 0x30, 0x39, 0x11, 0x5c])
    }

    fn proxies() -> Proxies {
        Proxies {
            trusted: vec!["10.0.0.0/8".parse().unwrap()],
            protocol: ProxyProtocol::V2,
            header: ForwardedHeader::None,
        }
    }

    async fn greeted(bytes: &[u8]) -> Result<(IpAddr, Source), ProxyHeaderError> {
        let mut stream = bytes;
        let socket: SocketAddr = "10.0.0.1:9".parse().unwrap();
        let peer = proxies().greet(&mut stream, socket, DEADLINE).await?;
        let client = proxies().client(peer, &http::HeaderMap::new());
        Ok((client.ip(), client.source()))
    }

    #[tokio::test]
    async fn a_trusted_proxy_names_the_client() {
        let (ip, source) = greeted(&tcp4()).await.unwrap();
        assert_eq!((ip.to_string(), source), ("198.51.100.7".to_owned(), Source::ProxyProtocol));
        let mut addresses = [0; 36];
        addresses[..2].copy_from_slice(&[0x20, 0x01]);
        addresses[15] = 9;
        let (ip, _) = greeted(&header(0x21, 0x21, &addresses)).await.unwrap();
        assert_eq!(ip.to_string(), "2001::9");
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left_for_the_connection() {
        let (mut proxy, mut server) = tokio::io::duplex(1024);
        let tail = [4, 0, 1, 0];
        let with_extension = header(0x21, 0x11, &[&tcp4()[16..], &tail[..]].concat());
        proxy.write_all(&with_extension).await.unwrap();
        proxy.write_all(b"GET /").await.unwrap();
        drop(proxy);
        let named = read(&mut server).await.unwrap();
        let mut left = String::new();
        server.read_to_string(&mut left).await.unwrap();
        assert_eq!((named.unwrap().to_string().as_str(), left.as_str()), ("198.51.100.7", "GET /"));
    }

    #[tokio::test]
    async fn a_health_check_of_the_proxy_counts_as_the_proxy() {
        let (ip, source) = greeted(&header(0x20, 0x00, &[])).await.unwrap();
        assert_eq!((ip.to_string(), source), ("10.0.0.1".to_owned(), Source::Socket));
    }

    #[tokio::test]
    async fn a_connection_without_a_sound_header_is_refused() {
        assert!(matches!(greeted(b"GET / HTTP/1.1\r\n\r\n").await, Err(ProxyHeaderError::Missing)));
        assert!(matches!(greeted(&tcp4()[..20]).await, Err(ProxyHeaderError::Io(_))));
        assert!(matches!(greeted(&header(0x21, 0x11, &[1, 2])).await, Err(ProxyHeaderError::Malformed(_))));
        assert!(matches!(greeted(&header(0x41, 0x11, &[0; 12])).await, Err(ProxyHeaderError::Malformed(_))));
        let long = header(0x21, 0x11, &vec![0; MAX_REST + 1]);
        assert!(matches!(greeted(&long).await, Err(ProxyHeaderError::TooLong { length: 4097 })));
    }

    #[tokio::test]
    async fn nothing_is_read_from_a_peer_that_is_no_proxy() {
        let bytes = tcp4();
        let mut stream = &bytes[..];
        let socket: SocketAddr = "203.0.113.9:9".parse().unwrap();
        let peer = proxies().greet(&mut stream, socket, DEADLINE).await.unwrap();
        assert_eq!(peer, crate::address::Peer::direct(socket));
        assert_eq!(stream.len(), bytes.len());
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_that_never_ends_is_refused_at_the_deadline() {
        let (mut proxy, mut server) = tokio::io::duplex(1024);
        proxy.write_all(&tcp4()[..15]).await.unwrap();
        let socket: SocketAddr = "10.0.0.1:9".parse().unwrap();
        let refused = proxies().greet(&mut server, socket, DEADLINE).await;
        assert!(matches!(refused, Err(ProxyHeaderError::TooLate { .. })));
    }
}
