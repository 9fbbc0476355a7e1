//! One WebSocket connection of a pretended user: opened blocking, then driven by a [`crate::swarm::Swarm`].

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs},
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;
use tungstenite::handshake::{client::generate_key, derive_accept_key};

use crate::frame::{self, Frame, FrameError, Opcode};

mod link;

pub use link::{Link, write_some};

/// How long connecting and upgrading may take, each.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long is waited for a message while nothing but others come.
const NEXT_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_RESPONSE_HEAD: usize = 16 * 1024;

/// Why a client could not connect, or lost its connection.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address says something this tester cannot do.
    #[error("{url}: {reason}")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No TCP connection.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// HTTP answered, and did not upgrade.
    #[error("upgrade refused with http {0}")]
    Refused(u16),
    /// The answer to the upgrade was no HTTP, or not an answer to our key.
    #[error("bad answer to the upgrade: {0}")]
    Handshake(&'static str),
    /// The socket failed.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
    /// The server sent what no server may send.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The server sent a close frame.
    #[error("closed by the server with code {0}")]
    Closed(u16),
    /// The server closed the TCP connection.
    #[error("closed by the server without a close frame")]
    Eof,
    /// A real y-webrtc client gives up then, too.
    #[error("nothing heard for 30 s")]
    Silent,
    /// A ping was not answered.
    #[error("no pong within 30 s")]
    NoPong,
    /// The server does not read.
    #[error("{} bytes wait to be sent", link::MAX_UNSENT)]
    Unsent,
}

impl ClientError {
    /// What a close frame with this payload means; code 1005 when it has none.
    #[must_use]
    pub fn closed(payload: &[u8]) -> Self {
        let code = payload.get(..2).and_then(|code| code.try_into().ok());
        Self::Closed(code.map_or(1005, u16::from_be_bytes))
    }

    /// A short name for counting.
    #[must_use]
    pub fn kind(&self) -> String {
        match self {
            Self::Url { .. } => "bad url".to_owned(),
            Self::Connect(error) => format!("connect: {}", error.kind()),
            Self::Refused(status) => format!("http {status}"),
            Self::Handshake(_) => "bad handshake".to_owned(),
            Self::Io(error) => format!("lost: {}", error.kind()),
            Self::Frame(_) => "bad frame".to_owned(),
            Self::Closed(code) => format!("closed {code}"),
            Self::Eof => "closed without a frame".to_owned(),
            Self::Silent => "silent for 30 s".to_owned(),
            Self::NoPong => "no pong".to_owned(),
            Self::Unsent => "server does not read".to_owned(),
        }
    }
}

/// Where to connect to: a `ws://` address, resolved once.
#[derive(Debug, Clone)]
pub struct Target {
    address: SocketAddr,
    authority: String,
    path: String,
}

impl Target {
    /// Reads `ws://host[:port][/path][?query]` and resolves the host.
    ///
    /// # Errors
    /// Another scheme, no host, or a name that does not resolve.
    pub fn resolve(url: &str) -> Result<Self, ClientError> {
        let refuse = |reason| ClientError::Url { url: url.to_owned(), reason };
        let rest = url.strip_prefix("ws://").ok_or_else(|| refuse("expected ws://host:port/path"))?;
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        if authority.is_empty() || rest.contains(|c: char| c.is_ascii_control() || c == ' ') {
            return Err(refuse("expected ws://host:port/path"));
        }
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let address = resolve(authority).map_err(ClientError::Connect)?;
        Ok(Self { address, authority: authority.to_owned(), path })
    }

    /// Whether the server is on this machine, so that other loopback addresses can be connected from.
    #[must_use]
    pub fn is_ipv4_loopback(&self) -> bool {
        matches!(self.address.ip(), IpAddr::V4(ip) if ip.is_loopback())
    }
}

fn resolve(authority: &str) -> io::Result<SocketAddr> {
    let mut found = match authority.to_socket_addrs() {
        Err(error) if error.kind() == ErrorKind::InvalidInput => (authority, 80).to_socket_addrs()?,
        other => other?,
    };
    found.next().ok_or_else(|| ErrorKind::AddrNotAvailable.into())
}

/// A connection on which the upgrade has been answered, still blocking.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket.
    pub stream: TcpStream,
    /// What the server sent right behind its answer.
    pub leftover: Vec<u8>,
}

/// How one connection is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// The local address to connect from; `None` leaves it to the system.
    pub from: Option<IpAddr>,
    /// The size of the receive buffer in bytes; `None` leaves it to the system.
    pub receive_buffer: Option<usize>,
}

impl Upgraded {
    /// Connects and upgrades, waiting at most [`HANDSHAKE_TIMEOUT`] for each.
    ///
    /// # Errors
    /// Whatever kept this client out, see [`ClientError`].
    pub fn open(target: &Target, options: Options) -> Result<Self, ClientError> {
        let mut stream = connect(target.address, options).map_err(ClientError::Connect)?;
        let key = generate_key();
        let Target { authority, path, .. } = target;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {authority}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes())?;
        let leftover = read_response(&mut stream, &derive_accept_key(key.as_bytes()))?;
        Ok(Self { stream, leftover })
    }

    /// Sends one frame, waiting for the socket to take it.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn send(&mut self, opcode: Opcode, payload: &[u8]) -> Result<(), ClientError> {
        let mut bytes = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
        frame::push_masked(&mut bytes, opcode, payload, rand::random());
        Ok(self.stream.write_all(&bytes)?)
    }

    /// Waits for the next text message, at most [`HANDSHAKE_TIMEOUT`] for each piece of it. Pings are answered.
    ///
    /// # Errors
    /// When the connection is lost or closed, or nothing came in time.
    pub fn next_text(&mut self) -> Result<Vec<u8>, ClientError> {
        self.next(Opcode::Text)
    }

    /// The same for the next binary message.
    ///
    /// # Errors
    /// When the connection is lost or closed, or nothing came in time.
    pub fn next_binary(&mut self) -> Result<Vec<u8>, ClientError> {
        self.next(Opcode::Binary)
    }

    fn next(&mut self, wanted: Opcode) -> Result<Vec<u8>, ClientError> {
        let give_up = Instant::now() + NEXT_TIMEOUT;
        while Instant::now() < give_up {
            let Some(frame) = Frame::first(&self.leftover)? else {
                self.read_more()?;
                continue;
            };
            let (opcode, len, payload) = (frame.opcode, frame.len, frame.payload.to_vec());
            self.leftover.drain(..len);
            match opcode {
                opcode if opcode == wanted => return Ok(payload),
                Opcode::Ping => self.send(Opcode::Pong, &payload)?,
                Opcode::Close => return Err(ClientError::closed(&payload)),
                Opcode::Text | Opcode::Binary | Opcode::Pong => {}
            }
        }
        Err(io::Error::from(ErrorKind::TimedOut).into())
    }

    fn read_more(&mut self) -> Result<(), ClientError> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk)? {
            0 => Err(ClientError::Eof),
            count => {
                self.leftover.extend_from_slice(&chunk[..count]);
                Ok(())
            }
        }
    }
}

fn connect(address: SocketAddr, options: Options) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(size) = options.receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    if let Some(ip) = options.from {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    socket.connect_timeout(&address.into(), HANDSHAKE_TIMEOUT)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_read_timeout(Some(HANDSHAKE_TIMEOUT))?;
    Ok(socket.into())
}

/// Reads the answer to an upgrade; what came behind it is returned.
fn read_response(stream: &mut TcpStream, expected: &str) -> Result<Vec<u8>, ClientError> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    while bytes.len() < MAX_RESPONSE_HEAD {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Err(ClientError::Eof);
        }
        bytes.extend_from_slice(&chunk[..count]);
        if let Some(end) = accepted(&bytes, expected)? {
            return Ok(bytes.split_off(end));
        }
    }
    Err(ClientError::Handshake("its head is longer than 16 KiB"))
}

/// Where the head ends if it is complete and accepts our key.
fn accepted(bytes: &[u8], expected: &str) -> Result<Option<usize>, ClientError> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).map_err(|_| ClientError::Handshake("it is no http"))?;
    let httparse::Status::Complete(end) = parsed else { return Ok(None) };
    match response.code {
        Some(101) => {}
        other => return Err(ClientError::Refused(other.unwrap_or(0))),
    }
    let accept =
        response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-accept"));
    match accept {
        Some(header) if header.value == expected.as_bytes() => Ok(Some(end)),
        _ => Err(ClientError::Handshake("it does not answer our key")),
    }
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
    }

    #[test]
    fn an_address_that_cannot_be_meant_is_refused() {
        for url in ["http://127.0.0.1", "wss://127.0.0.1", "ws://", "ws://a b/", "ws://h/\r\nX: y"] {
            assert!(matches!(Target::resolve(url), Err(ClientError::Url { .. })), "{url}");
        }
    }

    #[test]
    fn only_an_answer_to_our_key_upgrades() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: abc\r\n\r\nrest";
        assert_eq!(accepted(answer, "abc").unwrap(), Some(answer.len() - 4));
        assert_eq!(accepted(&answer[..20], "abc").unwrap(), None);
        assert!(matches!(accepted(answer, "abd"), Err(ClientError::Handshake(_))));
        assert!(matches!(accepted(b"HTTP/1.1 429 No\r\n\r\n", "abc"), Err(ClientError::Refused(429))));
        assert!(matches!(accepted(b"SSH-2.0\r\n\r\n", "abc"), Err(ClientError::Handshake(_))));
    }
}
