//! One connection to a TURN server: whole messages in and out, over UDP, TCP or TLS.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::url::{Transport, TurnUrl};

/// The largest message taken from a server.
const MAX_MESSAGE: usize = 4096;

/// How patiently, and whom to trust.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long one step may take, from the first byte to the answer.
    pub patience: Duration,
    /// Who vouches for the certificate of a `turns:` server.
    pub trust: Trust,
}

/// Who vouches for a certificate.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The authorities this machine trusts.
    System,
    /// The authorities in a PEM file.
    File(PathBuf),
}

/// Why a probe ended.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The host name leads nowhere.
    #[error("{host} has no address: {source}")]
    Unresolved {
        /// The host.
        host: String,
        /// What the system said.
        source: io::Error,
    },
    /// No connection, or none any more.
    #[error("connection to {server} over {transport}: {source}")]
    Connection {
        /// The server.
        server: SocketAddr,
        /// How.
        transport: Transport,
        /// What the system, or TLS, said.
        source: io::Error,
    },
    /// The certificates to trust cannot be read.
    #[error("certificates to trust: {0}")]
    Trust(String),
    /// No answer in time. Over UDP that is also what a firewall looks like.
    #[error("no {waiting_for} came in time")]
    Silent {
        /// What did not come.
        waiting_for: &'static str,
    },
    /// The server said no.
    #[error("{request} was refused with {code} {reason}")]
    Refused {
        /// What was asked for.
        request: &'static str,
        /// Its code: 401 is a wrong or expired credential, 403 a denied peer, 486 a full quota.
        code: u16,
        /// In its own words.
        reason: String,
    },
    /// More than fits into one message.
    #[error("{len} bytes of data, limit is {}", super::MAX_DATA)]
    TooMuchData {
        /// How much it was.
        len: usize,
    },
    /// An answer that is none.
    #[error("answer to {request} makes no sense: {reason}")]
    Nonsense {
        /// What was asked for.
        request: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// A connection that takes and gives whole messages.
pub(super) struct Link {
    pub(super) server: SocketAddr,
    pub(super) transport: Transport,
    wire: Wire,
}

enum Wire {
    Datagrams(UdpSocket),
    Tcp(TcpStream, Frames),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>, Frames),
}

impl Link {
    pub(super) fn connect(url: &TurnUrl, settings: &Settings) -> Result<Self, ProbeError> {
        let host = url.host().to_owned();
        let unresolved = |source| ProbeError::Unresolved { host: host.clone(), source };
        let servers = (url.host(), url.port()).to_socket_addrs().map_err(unresolved)?;
        let transport = url.transport();
        let mut last = None;
        for server in servers {
            match dial(url, server, settings) {
                Ok(wire) => return Ok(Self { server, transport, wire: wire? }),
                Err(source) => last = Some(ProbeError::Connection { server, transport, source }),
            }
        }
        Err(last.unwrap_or_else(|| unresolved(io::ErrorKind::NotFound.into())))
    }

    pub(super) fn is_datagrams(&self) -> bool {
        matches!(self.wire, Wire::Datagrams(_))
    }

    /// Sends one message. Channel data is padded by the caller.
    pub(super) fn send(&mut self, message: &[u8]) -> Result<(), ProbeError> {
        let sent = match &mut self.wire {
            Wire::Datagrams(socket) => socket.send(message).map(|_| ()),
            Wire::Tcp(stream, _) => stream.write_all(message),
            Wire::Tls(stream, _) => stream.write_all(message).and_then(|()| stream.flush()),
        };
        sent.map_err(|source| self.broken(source))
    }

    /// The next message, or `None` when none came before the deadline.
    pub(super) fn receive(&mut self, deadline: Instant) -> Result<Option<Vec<u8>>, ProbeError> {
        let received = match &mut self.wire {
            Wire::Datagrams(socket) => receive_datagram(socket, deadline),
            Wire::Tcp(stream, frames) => frames.next(stream, |stream| stream, deadline),
            Wire::Tls(stream, frames) => frames.next(stream.as_mut(), |stream| stream.get_ref(), deadline),
        };
        received.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: io::Error) -> ProbeError {
        ProbeError::Connection { server: self.server, transport: self.transport, source }
    }
}

/// The outer error is one another address of the server might not have.
fn dial(url: &TurnUrl, server: SocketAddr, settings: &Settings) -> io::Result<Result<Wire, ProbeError>> {
    if url.transport() == Transport::Udp {
        let any = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.connect(server)?;
        return Ok(Ok(Wire::Datagrams(socket)));
    }
    let stream = TcpStream::connect_timeout(&server, settings.patience)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(settings.patience))?;
    if url.transport() == Transport::Tcp {
        return Ok(Ok(Wire::Tcp(stream, Frames::default())));
    }
    stream.set_read_timeout(Some(settings.patience))?;
    let config = match tls_config(&settings.trust) {
        Ok(config) => config,
        Err(error) => return Ok(Err(error)),
    };
    let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
    let mut stream = stream;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream)?;
    }
    Ok(Ok(Wire::Tls(Box::new(StreamOwned::new(tls, stream)), Frames::default())))
}

fn tls_config(trust: &Trust) -> Result<ClientConfig, ProbeError> {
    let mut roots = RootCertStore::empty();
    match trust {
        Trust::System => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        Trust::File(path) => {
            let refused =
                |error: &dyn std::fmt::Display| ProbeError::Trust(format!("{}: {error}", path.display()));
            for certificate in CertificateDer::pem_file_iter(path).map_err(|error| refused(&error))? {
                let certificate = certificate.map_err(|error| refused(&error))?;
                roots.add(certificate).map_err(|error| refused(&error))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(ProbeError::Trust("there are none".to_owned()));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ProbeError::Trust(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn receive_datagram(socket: &UdpSocket, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
    let Some(left) = time_left(deadline) else { return Ok(None) };
    socket.set_read_timeout(Some(left))?;
    let mut datagram = vec![0; MAX_MESSAGE];
    match socket.recv(&mut datagram) {
        Ok(len) => {
            datagram.truncate(len);
            Ok(Some(datagram))
        }
        Err(error) if is_timeout(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Cuts a stream into messages. Holds at most one that is not whole yet.
#[derive(Default)]
struct Frames {
    received: Vec<u8>,
}

impl Frames {
    fn next<S: Read>(
        &mut self,
        stream: &mut S,
        socket: impl Fn(&S) -> &TcpStream,
        deadline: Instant,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(message) = self.cut()? {
                return Ok(Some(message));
            }
            let Some(left) = time_left(deadline) else { return Ok(None) };
            socket(stream).set_read_timeout(Some(left))?;
            let mut chunk = [0; MAX_MESSAGE];
            match stream.read(&mut chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => self.received.extend_from_slice(&chunk[..len]),
                Err(error) if is_timeout(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    /// The first whole message. On a stream both kinds are a multiple of four bytes long (RFC 8656, section 12.5).
    fn cut(&mut self) -> io::Result<Option<Vec<u8>>> {
        let &[first, _, high, low, ..] = self.received.as_slice() else { return Ok(None) };
        let body = usize::from(u16::from_be_bytes([high, low]));
        let len = if first < 0x40 { 20 + body } else { 4 + body.next_multiple_of(4) };
        if len > MAX_MESSAGE {
            return Err(io::Error::other(format!("a message of {len} bytes, limit is {MAX_MESSAGE}")));
        }
        if self.received.len() < len {
            return Ok(None);
        }
        Ok(Some(self.received.drain(..len).collect()))
    }
}

fn time_left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_where_messages_end() {
        let mut frames = Frames::default();
        let stun = [&[0x01, 0x01, 0, 4][..], &[7; 20]].concat();
        let channel = [0x40, 0, 0, 2, b'h', b'i', 0, 0];
        let stream = [&stun[..], &channel, &stun].concat();
        let mut cut = Vec::new();
        for byte in &stream {
            frames.received.push(*byte);
            cut.extend(frames.cut().unwrap());
        }
        assert_eq!(cut, [stun.clone(), channel.to_vec(), stun]);
        assert!(frames.received.is_empty());
    }

    #[test]
    fn a_message_that_claims_to_be_huge_is_refused_before_it_is_stored() {
        let mut frames = Frames { received: vec![0x01, 0x01, 0xff, 0xff] };
        assert!(frames.cut().unwrap_err().to_string().contains("limit is 4096"));
    }
}
