//! `stun:`, `turn:` and `turns:` URLs (RFC 7064, RFC 7065), parsed once.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

/// The longest URL that is accepted, in bytes.
pub const MAX_URL: usize = 300;

/// Why a URL was refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum UrlError {
    /// More than [`MAX_URL`] bytes.
    #[error("URL is {len} bytes, limit is {MAX_URL}")]
    TooLong {
        /// How long it is.
        len: usize,
    },
    /// Another scheme than those expected.
    #[error("{url:?} does not begin with {expected}")]
    Scheme {
        /// What was given.
        url: String,
        /// What would have done.
        expected: &'static str,
    },
    /// No host, or something in it that is no host name, IPv4 address or `[IPv6 address]`.
    #[error(
        "{url:?} names no host; it is a name, an IPv4 address or an IPv6 address in brackets, right after the colon"
    )]
    Host {
        /// What was given.
        url: String,
    },
    /// A port that is no number from 1 to 65535.
    #[error("{url:?} has a port that is no number from 1 to 65535")]
    Port {
        /// What was given.
        url: String,
    },
    /// A query other than `?transport=udp` and `?transport=tcp`.
    #[error("{url:?} has a query other than ?transport=udp and ?transport=tcp")]
    Query {
        /// What was given.
        url: String,
    },
    /// `turns:` over UDP, which is DTLS; no browser speaks it.
    #[error("{url:?} asks for DTLS; browsers speak turns: over TCP only")]
    Dtls {
        /// What was given.
        url: String,
    },
}

/// How the connection to a TURN server is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Plain datagrams.
    Udp,
    /// A plain TCP connection.
    Tcp,
    /// TLS over a TCP connection.
    Tls,
}

/// Where a STUN server is: `stun:host[:port]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StunUrl {
    text: String,
}

/// Where a TURN server is and how to reach it: `turn:host[:port][?transport=udp|tcp]` or
/// `turns:host[:port][?transport=tcp]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TurnUrl {
    text: String,
    host: String,
    port: u16,
    transport: Transport,
}

impl TurnUrl {
    /// The host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 3478, or 5349 for `turns:`, when the URL names none.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How the connection is made; UDP for a `turn:` URL that does not say.
    pub fn transport(&self) -> Transport {
        self.transport
    }
}

impl FromStr for StunUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = after_scheme(text, &["stun:"], "stun:")?.1;
        if rest.contains('?') {
            return Err(UrlError::Query { url: text.to_owned() });
        }
        host_and_port(text, rest)?;
        Ok(Self { text: text.to_owned() })
    }
}

impl FromStr for TurnUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = after_scheme(text, &["turn:", "turns:"], "turn: or turns:")?;
        let (authority, query) = match rest.split_once('?') {
            Some((authority, query)) => (authority, Some(query)),
            None => (rest, None),
        };
        let transport = match (scheme, query) {
            ("turn:", None | Some("transport=udp")) => Transport::Udp,
            ("turn:", Some("transport=tcp")) => Transport::Tcp,
            ("turns:", None | Some("transport=tcp")) => Transport::Tls,
            ("turns:", Some("transport=udp")) => return Err(UrlError::Dtls { url: text.to_owned() }),
            _ => return Err(UrlError::Query { url: text.to_owned() }),
        };
        let (host, port) = host_and_port(text, authority)?;
        let port = port.unwrap_or(if transport == Transport::Tls { 5349 } else { 3478 });
        Ok(Self { text: text.to_owned(), host: host.to_owned(), port, transport })
    }
}

impl fmt::Display for StunUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for TurnUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Udp => "UDP",
            Transport::Tcp => "TCP",
            Transport::Tls => "TLS",
        })
    }
}

fn after_scheme<'a>(
    text: &'a str,
    schemes: &[&'static str],
    expected: &'static str,
) -> Result<(&'static str, &'a str), UrlError> {
    if text.len() > MAX_URL {
        return Err(UrlError::TooLong { len: text.len() });
    }
    schemes
        .iter()
        .find_map(|scheme| Some((*scheme, text.strip_prefix(scheme)?)))
        .ok_or_else(|| UrlError::Scheme { url: text.to_owned(), expected })
}

fn host_and_port<'a>(url: &str, authority: &'a str) -> Result<(&'a str, Option<u16>), UrlError> {
    let no_host = || UrlError::Host { url: url.to_owned() };
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(no_host)?;
        host.parse::<Ipv6Addr>().map_err(|_| no_host())?;
        match rest.strip_prefix(':') {
            Some(port) => (host, Some(port)),
            None if rest.is_empty() => (host, None),
            None => return Err(no_host()),
        }
    } else {
        let (host, port) =
            authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
        if !is_host_name(host) {
            return Err(no_host());
        }
        (host, port)
    };
    let port = port
        .map(|port| parse_port(port).ok_or_else(|| UrlError::Port { url: url.to_owned() }))
        .transpose()?;
    Ok((host, port))
}

fn is_host_name(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with(['-', '.'])
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_')
}

fn parse_port(text: &str) -> Option<u16> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_url_says_where_and_how() {
        for (text, host, port, transport) in [
            ("turn:turn.example.org", "turn.example.org", 3478, Transport::Udp),
            ("turn:turn.example.org:3479?transport=udp", "turn.example.org", 3479, Transport::Udp),
            ("turn:192.0.2.1:80?transport=tcp", "192.0.2.1", 80, Transport::Tcp),
            ("turns:turn.example.org", "turn.example.org", 5349, Transport::Tls),
            ("turns:[2001:db8::1]:443?transport=tcp", "2001:db8::1", 443, Transport::Tls),
        ] {
            let url: TurnUrl = text.parse().unwrap();
            assert_eq!((url.host(), url.port(), url.transport()), (host, port, transport), "{text}");
            assert_eq!(url.to_string(), text);
        }
    }

    #[test]
    fn what_a_browser_would_not_take_is_refused() {
        for text in [
            "",
            "turn",
            "turn:",
            "turn://turn.example.org",
            "turn:user@turn.example.org",
            "turn:host:0",
            "turn:host:+1",
            "turn:host:65536",
            "turn:host:",
            "turn:[::1",
            "turn:[nonsense]:1",
            "turn:[::1]x",
            "turn:::1",
            "turn:host?transport=sctp",
            "turn:host?transport=udp&x=1",
            "turns:host?transport=udp",
            "stun:host",
            "turn:host name",
            "turn:-host",
            "TURN:host",
        ] {
            assert!(text.parse::<TurnUrl>().is_err(), "{text}");
        }
        assert!(format!("turn:{}", "a".repeat(MAX_URL)).parse::<TurnUrl>().is_err());
        for text in ["stun:", "stun:host?transport=udp", "turn:host", "stuns:host", "stun://host"] {
            assert!(text.parse::<StunUrl>().is_err(), "{text}");
        }
        assert_eq!(
            "stun:stun.example.org:3478".parse::<StunUrl>().unwrap().to_string(),
            "stun:stun.example.org:3478"
        );
    }
}
