//! Where a client really is, behind whatever proxies stand in between.
//!
//! Three facts make up a [`ClientAddress`]: the socket's own peer, a PROXY protocol header ahead of the connection, and
//! an `X-Forwarded-For` or `Forwarded` header in the request. The last two are believed only when they come from a
//! proxy named in `[proxy] trusted`; from anybody else they are ignored.

mod forwarded;
mod proxy_protocol;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::time::Duration;

use http::HeaderMap;
use ipnet::IpNet;
use tokio::io::AsyncRead;

use crate::config::{ForwardedHeader, ProxyConfig, ProxyProtocol};

pub use proxy_protocol::ProxyHeaderError;

/// Listens on `address`.
///
/// `[::]` takes IPv4 clients too where the system allows it. On a host without IPv6 it stands for `0.0.0.0`, so that
/// the default address works in containers and on hosts where IPv6 is switched off.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address) {
        Err(error) if address.ip() == Ipv6Addr::UNSPECIFIED && lacks_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port()))
        }
        outcome => outcome,
    }
}

fn lacks_ipv6(error: &io::Error) -> bool {
    // EAFNOSUPPORT (97 on Linux) has no ErrorKind of its own.
    error.kind() == io::ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(97)
}

/// The proxies that are believed about a client's address.
#[derive(Debug, Clone, Default)]
pub struct Proxies {
    trusted: Vec<IpNet>,
    protocol: ProxyProtocol,
    header: ForwardedHeader,
}

impl Proxies {
    /// The proxies that `config` names.
    pub fn from_config(config: &ProxyConfig) -> Self {
        Self { trusted: config.trusted.clone(), protocol: config.protocol, header: config.header }
    }

    /// Whether `address` is that of a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted.iter().any(|network| network.contains(&address))
    }

    /// Takes the PROXY protocol header off a new connection, if one is due from `socket`, and says who is there.
    ///
    /// Reads nothing when none is due, and never a byte beyond the header, so that TLS or HTTP starts right after it.
    /// Ends within `deadline`.
    ///
    /// # Errors
    ///
    /// When a header is due and what came is none, or is too long, or came too late. The connection should be closed
    /// without an answer.
    pub async fn greet<S>(
        &self,
        stream: &mut S,
        socket: SocketAddr,
        deadline: Duration,
    ) -> Result<Peer, ProxyHeaderError>
    where
        S: AsyncRead + Unpin,
    {
        if self.protocol == ProxyProtocol::None || !self.trusts(socket.ip()) {
            return Ok(Peer::direct(socket));
        }
        let named = tokio::time::timeout(deadline, proxy_protocol::read(stream))
            .await
            .map_err(|_| ProxyHeaderError::TooLate { deadline })??;
        Ok(named.map_or(Peer::direct(socket), Peer::named))
    }

    /// The address of the client that sent `headers` through `peer`.
    ///
    /// The header's entries are read from the right, the end our own proxies wrote, and the first that is no trusted
    /// proxy is the client; if all are, the leftmost. An entry that can not be read before that leaves the address of
    /// `peer`, and [`ClientAddress::source`] says so.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> ClientAddress {
        if !self.trusts(peer.address) {
            return peer.as_client(self);
        }
        let outermost = |entries| self.outermost(entries);
        match self.header {
            ForwardedHeader::None => peer.as_client(self),
            ForwardedHeader::XForwardedFor => forwarded::x_forwarded_for(headers)
                .map_or_else(|| peer.as_client(self), |entries| peer.seen_through(self, outermost(entries))),
            ForwardedHeader::Forwarded => forwarded::forwarded(headers)
                .map_or_else(|| peer.as_client(self), |entries| peer.seen_through(self, outermost(entries))),
        }
    }

    /// The first address from the right that is no trusted proxy, or the last one; `None` if one can not be read.
    fn outermost(&self, entries: Vec<Option<IpAddr>>) -> Option<IpAddr> {
        let mut outermost = None;
        for entry in entries.into_iter().rev() {
            let address = entry?;
            outermost = Some(address);
            if !self.trusts(address) {
                break;
            }
        }
        outermost
    }
}

/// Who is at the other end of a connection, before any HTTP header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    address: IpAddr,
    named_by_proxy: bool,
}

impl Peer {
    /// The peer of a socket.
    pub fn direct(socket: SocketAddr) -> Self {
        Self { address: socket.ip().to_canonical(), named_by_proxy: false }
    }

    /// Somebody a trusted proxy spoke for.
    fn named(address: IpAddr) -> Self {
        Self { address: address.to_canonical(), named_by_proxy: true }
    }

    fn as_client(self, proxies: &Proxies) -> ClientAddress {
        let source = if self.named_by_proxy { Source::ProxyProtocol } else { Source::Socket };
        ClientAddress { address: self.address, source, exempt: self.is_exempt(proxies) }
    }

    fn seen_through(self, proxies: &Proxies, client: Option<IpAddr>) -> ClientAddress {
        match client {
            Some(address) => ClientAddress { address, source: Source::Header, exempt: false },
            None => ClientAddress { source: Source::UnreadableHeader, ..self.as_client(proxies) },
        }
    }

    // Only a socket proves an address. Were a named one enough, a proxy that passes on its clients' own headers would
    // let anybody be "127.0.0.1".
    fn is_exempt(self, proxies: &Proxies) -> bool {
        !self.named_by_proxy && (self.address.is_loopback() || proxies.trusts(self.address))
    }
}

/// The address of a client, as far as it can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress {
    address: IpAddr,
    source: Source,
    exempt: bool,
}

/// How an address became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// It is the socket's own peer.
    Socket,
    /// A trusted proxy's PROXY protocol header named it.
    ProxyProtocol,
    /// A trusted proxy's `X-Forwarded-For` or `Forwarded` header named it.
    Header,
    /// Such a header was there and could not be read; the address is that of the proxy.
    UnreadableHeader,
}

impl ClientAddress {
    /// The address; an IPv4 address is never written as an IPv6 one.
    pub fn ip(&self) -> IpAddr {
        self.address
    }

    /// How the address became known.
    pub fn source(&self) -> Source {
        self.source
    }

    /// What limits per address count by.
    pub fn key(&self) -> AddressKey {
        AddressKey::from(self.address)
    }

    /// Whether the limits per address do not apply: to loopback, and to trusted proxies themselves.
    pub fn is_exempt(&self) -> bool {
        self.exempt
    }
}

/// What limits per address count by: an IPv4 address, or the /64 of an IPv6 one, since whoever has one address of a
/// /64 has them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AddressKey(IpAddr);

impl From<IpAddr> for AddressKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self(IpAddr::V4(address)),
            IpAddr::V6(address) => {
                let network = u128::from(address) & (u128::MAX << 64);
                Self(IpAddr::V6(Ipv6Addr::from(network)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(header: ForwardedHeader) -> Proxies {
        let trusted = vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        Proxies { trusted, protocol: ProxyProtocol::None, header }
    }

    fn peer(text: &str) -> Peer {
        Peer::direct(SocketAddr::new(text.parse().unwrap(), 1))
    }

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    fn seen(from: &str, values: &[&str]) -> (String, Source) {
        let name = "x-forwarded-for";
        let client = proxies(ForwardedHeader::XForwardedFor).client(peer(from), &headers(name, values));
        (client.ip().to_string(), client.source())
    }

    fn forwarded(values: &[&str]) -> (String, Source) {
        let client =
            proxies(ForwardedHeader::Forwarded).client(peer("10.0.0.1"), &headers("forwarded", values));
        (client.ip().to_string(), client.source())
    }

    #[test]
    fn a_stranger_can_not_say_where_it_is() {
        assert_eq!(seen("203.0.113.9", &["198.51.100.1"]), ("203.0.113.9".into(), Source::Socket));
    }

    #[test]
    fn the_rightmost_entry_that_is_no_proxy_is_the_client() {
        let through = |values: &[&str]| seen("10.0.0.1", values);
        assert_eq!(through(&["198.51.100.1"]), ("198.51.100.1".into(), Source::Header));
        assert_eq!(through(&["6.6.6.6, 198.51.100.1, 10.2.3.4"]), ("198.51.100.1".into(), Source::Header));
        assert_eq!(
            through(&["6.6.6.6", "198.51.100.1", "10.2.3.4"]),
            ("198.51.100.1".into(), Source::Header)
        );
        assert_eq!(through(&["garbage, 198.51.100.1"]), ("198.51.100.1".into(), Source::Header));
        assert_eq!(through(&["10.9.9.9, 10.2.3.4"]), ("10.9.9.9".into(), Source::Header));
        assert_eq!(through(&["[2001:db8::1]:4711"]), ("2001:db8::1".into(), Source::Header));
        assert_eq!(through(&["2001:db8::1"]), ("2001:db8::1".into(), Source::Header));
        assert_eq!(through(&["198.51.100.1:55"]), ("198.51.100.1".into(), Source::Header));
        assert_eq!(through(&["::ffff:198.51.100.1"]), ("198.51.100.1".into(), Source::Header));
    }

    #[test]
    fn a_header_that_can_not_be_read_leaves_the_proxys_address() {
        for value in ["garbage", "", "198.51.100.1,", "198.51.100.1, unknown", "1.2.3", "[::1", "1.2.3.4:x"] {
            assert_eq!(seen("10.0.0.1", &[value]), ("10.0.0.1".into(), Source::UnreadableHeader), "{value}");
        }
    }

    #[test]
    fn the_standard_header_is_read_with_its_quotes_and_parameters() {
        let header = |ip: &str| (ip.to_owned(), Source::Header);
        assert_eq!(forwarded(&["for=192.0.2.60;proto=http;by=203.0.113.43"]), header("192.0.2.60"));
        assert_eq!(forwarded(&["For=\"[2001:db8:cafe::17]:4711\""]), header("2001:db8:cafe::17"));
        assert_eq!(
            forwarded(&["for=6.6.6.6, for=192.0.2.43", "proto=https ; for=10.1.1.1"]),
            header("192.0.2.43")
        );
        assert_eq!(
            forwarded(&["for=6.6.6.6;host=\"a, for=7.7.7.7\\\"\", for=192.0.2.43"]),
            header("192.0.2.43")
        );
        assert_eq!(forwarded(&["for=192.0.2.43;host=\"a, for=7.7.7.7; \\\"\""]), header("192.0.2.43"));
    }

    #[test]
    fn a_hidden_or_damaged_standard_header_leaves_the_proxys_address() {
        for value in [
            "for=unknown",
            "for=_hidden",
            "proto=http",
            "for=\"192.0.2.1",
            "",
            "for=",
            "for=1.1.1.1;for=2.2.2.2",
        ] {
            assert_eq!(forwarded(&[value]), ("10.0.0.1".into(), Source::UnreadableHeader), "{value}");
        }
    }

    #[test]
    fn only_a_socket_proves_that_a_client_is_exempt() {
        let proxies = proxies(ForwardedHeader::XForwardedFor);
        let none = HeaderMap::new();
        assert!(proxies.client(peer("127.0.0.1"), &none).is_exempt());
        assert!(proxies.client(peer("::1"), &none).is_exempt());
        assert!(proxies.client(peer("::ffff:127.0.0.1"), &none).is_exempt());
        assert!(proxies.client(peer("10.1.1.1"), &none).is_exempt());
        assert!(!proxies.client(peer("203.0.113.9"), &none).is_exempt());
        let claimed = headers("x-forwarded-for", &["127.0.0.1"]);
        assert!(!proxies.client(peer("10.1.1.1"), &claimed).is_exempt());
        let named = Peer::named("127.0.0.1".parse().unwrap());
        assert!(!proxies.client(named, &none).is_exempt());
    }

    #[test]
    fn limits_count_ipv4_by_address_and_ipv6_by_its_64() {
        let key = |text: &str| AddressKey::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(key("198.51.100.1"), key("::ffff:198.51.100.1"));
        assert_ne!(key("198.51.100.1"), key("198.51.100.2"));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff:ffff:ffff:ffff"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    }

    #[test]
    fn the_default_address_takes_both_families_or_at_least_ipv4() {
        let listener = listen("[::]:0".parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    }
}
