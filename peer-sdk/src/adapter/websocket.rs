//! The Loro Protocol over WebSockets: dialling a hub or relay, and being one ([`Hub`]).
//!
//! A connection over which nothing comes for [`PATIENCE`] although it was pinged is dead. Bytes count, not messages, so
//! that a long message over a slow line is no silence.

mod hub;
mod live;
mod sealed;

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use wire::sync::MAX_FRAME;

use super::{Door, Note, Path, Port, Transport};
use crate::engine::End;
use crate::surroundings::is_here;
pub use hub::{Hub, HubBuilder, HubError};
use live::{Liveness, Socket, Watched};
use sealed::Sealing;
pub use sealed::{BadKey, Key};

/// How long connecting, TLS and the upgrade may take, each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long nothing may come, at most. Then whoever is at the other end is told to others to be gone, a moment later, which
/// makes five seconds.
pub const PATIENCE: Duration = Duration::from_millis(3200);

/// Dials one hub or relay.
#[derive(Clone, Debug)]
pub struct WebSocket {
    url: Uri,
    host: String,
    port: u16,
    secure: bool,
    key: Option<Key>,
    /// Counts how often the machine got other addresses.
    moves: watch::Sender<u32>,
}

/// A URL that cannot be dialled.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{url}: {reason}")]
pub struct BadUrl {
    /// The URL as it was given, without what stands after `?`.
    pub url: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl WebSocket {
    /// `ws://host:port/path?query` or `wss://…`.
    pub fn new(url: &str) -> Result<Self, BadUrl> {
        let shown = url.split('?').next().unwrap_or_default().to_owned();
        let bad = |reason| BadUrl { url: shown.clone(), reason };
        let uri: Uri = url.parse().map_err(|_| bad("this is no url"))?;
        let secure = match uri.scheme_str() {
            Some("ws") => false,
            Some("wss") => true,
            _ => return Err(bad("only ws and wss can be dialled")),
        };
        let host = uri.host().ok_or_else(|| bad("the host is missing"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { host, port, secure, url: uri, key: None, moves: watch::Sender::default() })
    }

    /// Encrypts the document with this key, so that the relay cannot read it (`%ELO`). Everybody who is to read it
    /// dials with the same key. Presence does not go this way, for it could be read.
    #[must_use]
    pub fn sealed(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    /// A connection, and the address of ours that it uses.
    async fn dial(&self) -> Result<(WebSocketStream<Watched>, Option<IpAddr>), Failed> {
        let late = |_| Failed::lost("no connection in time");
        let tcp =
            timeout(HANDSHAKE, TcpStream::connect((self.host.as_str(), self.port))).await.map_err(late)?;
        let tcp = tcp.map_err(|error| Failed::lost(error.to_string()))?;
        let _ = tcp.set_nodelay(true);
        let here = tcp.local_addr().ok().map(|address| address.ip());
        let stream: Box<dyn Socket> = match self.secure {
            true => timeout(HANDSHAKE, self.encrypt(tcp)).await.map_err(late)??,
            false => Box::new(tcp),
        };
        let upgrade = client_async_with_config(self.url.clone(), Watched::new(stream), Some(settings()));
        match timeout(HANDSHAKE, upgrade).await.map_err(late)? {
            Ok((socket, _)) => Ok((socket, here)),
            Err(Error::Http(response)) => {
                let status = response.status();
                let end = if matches!(status.as_u16(), 401 | 403) { End::Refused } else { End::Lost };
                Err(Failed { end, why: format!("the upgrade was answered with {status}") })
            }
            Err(error) => Err(Failed::lost(error.to_string())),
        }
    }

    async fn encrypt(&self, tcp: TcpStream) -> Result<Box<dyn Socket>, Failed> {
        let name = rustls::pki_types::ServerName::try_from(self.host.clone())
            .map_err(|_| Failed::lost("the host is no name for a certificate"))?;
        let tls = TlsConnector::from(trust()).connect(name, tcp).await;
        tls.map(|tls| Box::new(tls) as Box<dyn Socket>).map_err(|error| Failed::lost(error.to_string()))
    }
}

/// What the system trusts, read once.
fn trust() -> Arc<rustls::ClientConfig> {
    static TRUST: OnceLock<Arc<rustls::ClientConfig>> = OnceLock::new();
    let read = || {
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the default versions");
        Arc::new(config.with_root_certificates(roots).with_no_client_auth())
    };
    Arc::clone(TRUST.get_or_init(read))
}

/// Why there is no connection.
struct Failed {
    end: End,
    why: String,
}

impl Failed {
    fn lost(why: impl Into<String>) -> Self {
        Self { end: End::Lost, why: why.into() }
    }
}

/// Messages no longer than the protocol has them, and little kept for writing, since the engine paces.
fn settings() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(MAX_FRAME + 1024))
        .max_frame_size(Some(MAX_FRAME + 1024))
        .write_buffer_size(0)
        .read_buffer_size(16 << 10)
}

impl Transport for WebSocket {
    fn run(&self, door: Door) -> BoxFuture<'static, End> {
        let (this, mut moves) = (self.clone(), self.moves.subscribe());
        Box::pin(async move {
            let dialled = tokio::select! {
                dialled = this.dial() => dialled,
                // It may be dialling from an address that is gone.
                Ok(()) = moves.changed() => return End::Lost,
            };
            let (socket, here) = match dialled {
                Ok(dialled) => dialled,
                Err(Failed { end, why }) => {
                    door.note(Note::Trouble(why.into())).await;
                    return end;
                }
            };
            let port = door.open(MAX_FRAME).await;
            door.note(Note::Path(Path::Hub)).await;
            let sealing = this.key.map(Sealing::new);
            Connection { socket, here, moves, port, door, sealing }.carry().await
        })
    }

    fn moved(&self) {
        self.moves.send_modify(|moves| *moves = moves.wrapping_add(1));
    }

    fn by_author(&self) -> bool {
        self.key.is_some()
    }
}

/// A connection that is there.
struct Connection {
    socket: WebSocketStream<Watched>,
    here: Option<IpAddr>,
    moves: watch::Receiver<u32>,
    port: Port,
    door: Door,
    sealing: Option<Sealing>,
}

impl Connection {
    /// Carries messages until either end has enough.
    async fn carry(mut self) -> End {
        let mut liveness = Liveness::new(&self.socket);
        loop {
            let carried = tokio::select! {
                message = self.port.next() => match message {
                    Some(frame) => self.send(&frame, &mut liveness).await,
                    None => {
                        let _ = timeout(PATIENCE, self.socket.close(None)).await;
                        Err(End::Lost)
                    }
                },
                message = self.socket.next() => match message {
                    Some(Ok(message)) => self.receive(message, &mut liveness).await,
                    Some(Err(_)) | None => Err(End::Lost),
                },
                Ok(()) = self.moves.changed() => {
                    if self.here.is_none_or(is_here) { Ok(()) } else { Err(End::Lost) }
                }
                () = liveness.due() => match liveness.tick() {
                    live::Verdict::Alive => Ok(()),
                    live::Verdict::Ping(payload) => self.say(Message::Ping(Bytes::copy_from_slice(&payload))).await,
                    live::Verdict::Dead => Err(End::Lost),
                },
            };
            if let Err(end) = carried {
                return end;
            }
        }
    }

    async fn say(&mut self, message: Message) -> Result<(), End> {
        match timeout(PATIENCE * 5, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(End::Lost),
        }
    }

    /// Sends something that the engine says.
    async fn send(&mut self, frame: &Bytes, liveness: &mut Liveness) -> Result<(), End> {
        let frames = match &mut self.sealing {
            Some(sealing) => sealing.outgoing(Instant::now(), frame),
            None => vec![frame.clone()],
        };
        for frame in frames {
            let len = frame.len();
            self.say(Message::Binary(frame)).await?;
            liveness.sent(len);
        }
        patiently(&mut self.socket, liveness, self.port.sent(frame.len())).await
    }

    async fn receive(&mut self, message: Message, liveness: &mut Liveness) -> Result<(), End> {
        match message {
            Message::Binary(frame) => self.hear(frame, liveness).await,
            Message::Text(text) if text.as_str() == "ping" => self.say(Message::text("pong")).await,
            Message::Pong(payload) => {
                if let Some(time) = liveness.pong(&payload) {
                    self.door.note(Note::RoundTrip(time)).await;
                }
                Ok(())
            }
            Message::Close(close) => Err(ended(&close, &self.door).await),
            _ => Ok(()),
        }
    }

    /// Tells the engine what the other end says.
    async fn hear(&mut self, frame: Bytes, liveness: &mut Liveness) -> Result<(), End> {
        let Some(sealing) = &mut self.sealing else {
            return patiently(&mut self.socket, liveness, self.port.received(frame)).await;
        };
        let frames = sealing.incoming(Instant::now(), &frame).map_err(|_| End::Lost)?;
        let wrong = sealing.has_wrong_key();
        for frame in frames {
            patiently(&mut self.socket, liveness, self.port.received(frame)).await?;
        }
        if wrong {
            self.door.note(Note::WrongKey).await;
        }
        Ok(())
    }
}

/// Waits for the driver, which may be busy for seconds; meanwhile the other end hears that we are there.
async fn patiently(
    socket: &mut WebSocketStream<Watched>,
    liveness: &mut Liveness,
    driver: impl Future<Output = ()>,
) -> Result<(), End> {
    tokio::pin!(driver);
    loop {
        tokio::select! {
            () = &mut driver => return Ok(()),
            () = liveness.due() => {
                liveness.waits();
                let sign = socket.send(Message::Pong(Bytes::new()));
                if !matches!(timeout(PATIENCE * 5, sign).await, Ok(Ok(()))) {
                    return Err(End::Lost);
                }
            }
        }
    }
}

/// What a close frame means.
async fn ended(close: &Option<CloseFrame>, door: &Door) -> End {
    let Some(CloseFrame { code, reason }) = close else { return End::Lost };
    let code = u16::from(*code);
    let said = matches!(reason.as_str(), "auth_failed" | "permission_changed" | "room_closed");
    let refused = said || matches!(code, 1008 | 4400..=4499);
    if refused {
        door.note(Note::Trouble(format!("closed with {code} {reason}").into())).await;
    }
    if refused { End::Refused } else { End::Lost }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio_tungstenite::tungstenite::protocol::Role;

    use super::super::Arrival;
    use super::*;
    use crate::engine::LinkId;

    #[tokio::test(start_paused = true)]
    async fn while_the_driver_is_busy_the_other_end_hears_that_we_are_there() {
        let (here, there) = tokio::io::duplex(1 << 16);
        let socket = WebSocketStream::from_raw_socket(Watched::new(Box::new(here)), Role::Client, None).await;
        let mut there = WebSocketStream::from_raw_socket(there, Role::Server, None).await;
        let (arrive, mut arrivals) = mpsc::channel(1);
        let door = Door::new(LinkId::Uplink(0), 1, arrive);
        let port = door.open(MAX_FRAME).await;
        let moves = watch::channel(0).1;
        tokio::spawn(Connection { socket, here: None, moves, port, door, sealing: None }.carry());
        there.send(Message::Binary(Bytes::from_static(b"a frame"))).await.unwrap();
        for _ in 0..50 {
            timeout(PATIENCE, there.next()).await.expect("a sign in time").unwrap().unwrap();
        }
        assert!(matches!(arrivals.recv().await, Some(Arrival::Up { .. })));
        assert!(matches!(arrivals.recv().await, Some(Arrival::Frame { frame, .. }) if frame == "a frame"));
    }

    #[test]
    fn a_url_is_understood_or_refused_without_showing_its_token() {
        let dial = WebSocket::new("wss://hub.example/room?token=secret").unwrap();
        assert_eq!((dial.host.as_str(), dial.port, dial.secure), ("hub.example", 443, true));
        let dial = WebSocket::new("ws://[::1]:7450").unwrap();
        assert_eq!((dial.host.as_str(), dial.port, dial.secure), ("::1", 7450, false));
        let error = WebSocket::new("http://hub.example/?token=secret").unwrap_err();
        assert_eq!(error.to_string(), "http://hub.example/: only ws and wss can be dialled");
    }
}
