//! The Loro Protocol over WebSockets: dialling a hub or relay, and being one ([`Hub`]).
//!
//! A connection over which nothing comes for [`PATIENCE`] although it was pinged is dead. Bytes count, not messages, so
//! that a long message over a slow line is no silence.

mod hub;
mod live;
mod sealed;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::http::Uri;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use wire::sync::MAX_FRAME;

use super::{Door, Note, Path, Port, Transport};
use crate::engine::End;
pub use hub::{Hub, HubBuilder, HubError};
use live::{Liveness, Socket, Watched};
use sealed::Sealing;
pub use sealed::{BadKey, Key};

/// How long connecting, TLS and the upgrade may take, each.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long nothing may come.
pub const PATIENCE: Duration = Duration::from_secs(4);

/// Dials one hub or relay.
#[derive(Clone, Debug)]
pub struct WebSocket {
    url: Uri,
    host: String,
    port: u16,
    secure: bool,
    key: Option<Key>,
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
        Ok(Self { host, port, secure, url: uri, key: None })
    }

    /// Encrypts the document with this key, so that the relay cannot read it (`%ELO`). Everybody who is to read it
    /// dials with the same key. Presence does not go this way, for it could be read.
    #[must_use]
    pub fn sealed(mut self, key: Key) -> Self {
        self.key = Some(key);
        self
    }

    async fn dial(&self) -> Result<WebSocketStream<Watched>, Failed> {
        let late = |_| Failed::lost("no connection in time");
        let tcp =
            timeout(HANDSHAKE, TcpStream::connect((self.host.as_str(), self.port))).await.map_err(late)?;
        let tcp = tcp.map_err(|error| Failed::lost(error.to_string()))?;
        let _ = tcp.set_nodelay(true);
        let stream: Box<dyn Socket> = match self.secure {
            true => timeout(HANDSHAKE, self.encrypt(tcp)).await.map_err(late)??,
            false => Box::new(tcp),
        };
        let upgrade = client_async_with_config(self.url.clone(), Watched::new(stream), Some(settings()));
        match timeout(HANDSHAKE, upgrade).await.map_err(late)? {
            Ok((socket, _)) => Ok(socket),
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
        let this = self.clone();
        Box::pin(async move {
            let socket = match this.dial().await {
                Ok(socket) => socket,
                Err(Failed { end, why }) => {
                    door.note(Note::Trouble(why.into())).await;
                    return end;
                }
            };
            let port = door.open(MAX_FRAME).await;
            door.note(Note::Path(Path::Hub)).await;
            let sealing = this.key.map(Sealing::new);
            Connection { socket, port, door, sealing }.carry().await
        })
    }

    fn by_author(&self) -> bool {
        self.key.is_some()
    }
}

/// A connection that is there.
struct Connection {
    socket: WebSocketStream<Watched>,
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
                    Some(Ok(message)) => self.receive(message, &liveness).await,
                    Some(Err(_)) | None => Err(End::Lost),
                },
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
        self.port.sent(frame.len()).await;
        Ok(())
    }

    async fn receive(&mut self, message: Message, liveness: &Liveness) -> Result<(), End> {
        match message {
            Message::Binary(frame) => self.hear(frame).await,
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
    async fn hear(&mut self, frame: Bytes) -> Result<(), End> {
        let Some(sealing) = &mut self.sealing else {
            self.port.received(frame).await;
            return Ok(());
        };
        let frames = sealing.incoming(Instant::now(), &frame).map_err(|_| End::Lost)?;
        let wrong = sealing.has_wrong_key();
        for frame in frames {
            self.port.received(frame).await;
        }
        if wrong {
            self.door.note(Note::WrongKey).await;
        }
        Ok(())
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
    use super::*;

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
