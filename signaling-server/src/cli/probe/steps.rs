//! The steps of a probe, in the order a client takes them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::client_async_with_config;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::client::{Client, Stream, within};
use super::target::Target;

/// The longest message taken from the server.
const MAX_MESSAGE: usize = 1 << 20;

/// One thing a client needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Tcp,
    Tls,
    Upgrade,
    Subscribe,
    Echo,
    Ping,
}

impl Step {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Upgrade => "upgrade",
            Self::Subscribe => "subscribe",
            Self::Echo => "echo",
            Self::Ping => "ping",
        }
    }
}

/// How a step went.
pub(super) enum Outcome {
    Works { took: Duration, note: String },
    Fails { problem: String, hint: &'static str },
    Skipped { why: &'static str },
}

const NOT_TRIED: Outcome = Outcome::Skipped { why: "not tried" };

/// A server to try, and how.
pub(super) struct Probe {
    pub(super) target: Target,
    pub(super) trust: Arc<ClientConfig>,
    pub(super) room: String,
    pub(super) patience: Duration,
}

/// Why the rest can not be tried.
struct Stop;

impl Probe {
    /// Tries each step, tells `report`, and says whether all work that must.
    pub(super) async fn run(&self, mut report: impl FnMut(Step, &Outcome)) -> bool {
        let mut tried = Vec::new();
        let mut works = true;
        let mut note = |step, outcome: Outcome| {
            works &= !matches!(outcome, Outcome::Fails { .. });
            report(step, &outcome);
            tried.push(step);
        };
        if self.connect_and_talk(&mut note).await.is_err() {
            let all = [Step::Tcp, Step::Tls, Step::Upgrade, Step::Subscribe, Step::Echo, Step::Ping];
            for step in all.into_iter().filter(|step| !tried.contains(step)) {
                report(step, &NOT_TRIED);
            }
        }
        works
    }

    async fn connect_and_talk(&self, note: &mut impl FnMut(Step, Outcome)) -> Result<(), Stop> {
        let mut listener = self.connect(note).await?;
        // A second client, as in a real room; that the first could connect has been noted.
        let mut speaker = self.connect(&mut |_, _| {}).await;
        let ping = self.subscribe_and_ping(&mut listener).await;
        let delivery = self.try_delivery(&mut listener, speaker.as_mut().ok()).await;
        let is_heard = matches!(delivery, Outcome::Works { .. });
        note(Step::Subscribe, delivery);
        note(Step::Echo, if is_heard { self.try_echo(&mut listener).await } else { NOT_TRIED });
        note(Step::Ping, ping);
        Ok(())
    }

    async fn connect(&self, note: &mut impl FnMut(Step, Outcome)) -> Result<Client, Stop> {
        let stream = self.step(note, Step::Tcp, self.connect_tcp()).await?;
        let stream: Box<dyn Stream> = if self.target.is_tls {
            self.step(note, Step::Tls, self.connect_tls(stream)).await?
        } else {
            note(Step::Tls, Outcome::Skipped { why: "not asked for: the URL begins with ws://" });
            Box::new(stream)
        };
        self.step(note, Step::Upgrade, self.upgrade(stream)).await
    }

    /// Takes one step on the way to a connection, under the time limit.
    async fn step<T>(
        &self,
        note: &mut impl FnMut(Step, Outcome),
        step: Step,
        work: impl Future<Output = Result<(T, String), (String, &'static str)>>,
    ) -> Result<T, Stop> {
        let started = Instant::now();
        let outcome = within(self.patience, work).await.unwrap_or_else(|late| Err((late, SILENT)));
        match outcome {
            Ok((made, text)) => {
                note(step, Outcome::Works { took: started.elapsed(), note: text });
                Ok(made)
            }
            Err((problem, hint)) => {
                note(step, Outcome::Fails { problem, hint });
                Err(Stop)
            }
        }
    }

    async fn connect_tcp(&self) -> Result<(TcpStream, String), (String, &'static str)> {
        let (host, port) = (self.target.host.as_str(), self.target.port);
        let addresses = tokio::net::lookup_host((host, port)).await;
        let addresses: Vec<SocketAddr> =
            addresses.map_err(|error| (error.to_string(), "check the host name"))?.collect();
        let stream = TcpStream::connect(addresses.as_slice()).await.map_err(|error| {
            (
                format!("{host} port {port}: {error}"),
                "check that the server runs there and that no firewall is in between",
            )
        })?;
        let peer = stream.peer_addr().map(|peer| peer.to_string()).unwrap_or_default();
        // Small frames are not to wait for each other; where it can not be set, round trips are longer.
        let _ = stream.set_nodelay(true);
        Ok((stream, peer))
    }

    async fn connect_tls(
        &self,
        stream: TcpStream,
    ) -> Result<(Box<dyn Stream>, String), (String, &'static str)> {
        let name = ServerName::try_from(self.target.host.clone())
            .map_err(|_| ("the host is no name a certificate can have".to_owned(), "check the host name"))?;
        let stream = TlsConnector::from(Arc::clone(&self.trust)).connect(name, stream).await;
        let stream = stream.map_err(|error| (error.to_string(), tls_hint(&error)))?;
        let version =
            stream.get_ref().1.protocol_version().and_then(|version| version.as_str().map(str::to_owned));
        Ok((Box::new(stream), version.unwrap_or_default()))
    }

    async fn upgrade(&self, stream: Box<dyn Stream>) -> Result<(Client, String), (String, &'static str)> {
        let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE));
        match client_async_with_config(self.target.url.as_str(), stream, Some(config)).await {
            Ok((socket, _)) => Ok((Client { socket, patience: self.patience }, String::new())),
            Err(Error::Http(response)) => Err((refusal(&response), status_hint(response.status().as_u16()))),
            Err(error) => {
                Err((error.to_string(), "check that this is a WebSocket server, and ws:// against wss://"))
            }
        }
    }

    /// Subscribes, then asks for a pong: when it is here, so is the subscription, for messages are taken in order.
    async fn subscribe_and_ping(&self, listener: &mut Client) -> Outcome {
        let subscribe = json!({"type": "subscribe", "topics": [self.room]});
        if let Err(problem) = listener.send(&subscribe).await {
            return Outcome::Fails { problem, hint: BROKEN };
        }
        let started = Instant::now();
        let pong = match listener.send(&json!({"type": "ping"})).await {
            Ok(()) => listener.receive(|message| message["type"] == "pong").await,
            Err(problem) => Err(problem),
        };
        match pong {
            Ok((_, at)) => Outcome::Works { took: at - started, note: String::new() },
            Err(problem) => Outcome::Fails { problem, hint: "without pongs a client reconnects every 30 s" },
        }
    }

    async fn try_delivery(&self, listener: &mut Client, speaker: Option<&mut Client>) -> Outcome {
        const UNHEARD: &str = "what one client says does not reach another: does the token open this room (--room), for writing?";
        let Some(speaker) = speaker else {
            let problem = "a second connection was refused".to_owned();
            return Outcome::Fails { problem, hint: "check the limits per address" };
        };
        let delivered = match self.announce(speaker, "speaker").await {
            Ok(announced) => announced.reaches(listener).await,
            Err(problem) => Err(problem),
        };
        match delivered {
            Ok((message, took)) => Outcome::Works { took, note: subscribers(&message) },
            Err(problem) => Outcome::Fails { problem, hint: UNHEARD },
        }
    }

    async fn try_echo(&self, listener: &mut Client) -> Outcome {
        let echoed = match self.announce(listener, "listener").await {
            Ok(announced) => announced.reaches(listener).await,
            Err(problem) => return Outcome::Fails { problem, hint: BROKEN },
        };
        match echoed {
            Ok((_, took)) => Outcome::Works { took, note: String::new() },
            Err(_) => {
                Outcome::Skipped { why: "none: a publisher does not hear itself; y-webrtc does without" }
            }
        }
    }

    /// Says that somebody is there, the way a client does.
    async fn announce(&self, client: &mut Client, who: &str) -> Result<Announced, String> {
        let from = format!("{}-{who}", self.room);
        let data = json!({"type": "announce", "from": from});
        let at = Instant::now();
        client.send(&json!({"type": "publish", "topic": self.room, "data": data})).await?;
        Ok(Announced { from, at })
    }
}

/// An announcement on its way.
struct Announced {
    from: String,
    at: Instant,
}

impl Announced {
    async fn reaches(self, listener: &mut Client) -> Result<(Value, Duration), String> {
        let (message, at) = listener.receive(|message| message["data"]["from"] == self.from).await?;
        Ok((message, at - self.at))
    }
}

fn subscribers(message: &Value) -> String {
    message["clients"].as_u64().map(|clients| format!("room has {clients} subscribed")).unwrap_or_default()
}

/// The status and the beginning of the body, on one line.
fn refusal(response: &Response) -> String {
    let body = response.body().as_deref().unwrap_or_default();
    let body: String = String::from_utf8_lossy(body).chars().filter(|c| !c.is_control()).take(100).collect();
    let text = format!("HTTP {}: {body}", response.status());
    text.trim_end_matches([':', ' ']).to_owned()
}

const SILENT: &str = "something in between may drop packets, or the server is stuck";
const BROKEN: &str = "the connection broke after the upgrade: a proxy may cut WebSockets off";

fn status_hint(status: u16) -> &'static str {
    match status {
        401 => "give a valid token with --token",
        403 => "the token or the origin is not allowed",
        404 => "check the path: the server may be behind a proxy that expects another",
        429 => "too many connections from this address; try again later",
        301 | 302 | 307 | 308 => {
            "it redirects, and clients do not follow: check ws:// against wss://, and the host"
        }
        502..=504 => "a proxy can not reach the server, or the server is full or going away",
        200 | 400 | 426 => "this is no WebSocket server, or a proxy does not pass on the Upgrade header",
        _ => "the server refused the upgrade",
    }
}

fn tls_hint(error: &std::io::Error) -> &'static str {
    use rustls::{CertificateError as Certificate, Error};
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(Certificate::UnknownIssuer)) => {
            "the certificate is from an authority that is not trusted here: is the chain complete? (--ca)"
        }
        Some(Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        )) => "the certificate is for another host name",
        Some(Error::InvalidCertificate(Certificate::Expired | Certificate::ExpiredContext { .. })) => {
            "renew the certificate"
        }
        Some(Error::InvalidCertificate(_)) => "browsers would refuse this certificate too",
        Some(Error::InvalidMessage(_)) => "this port does not speak TLS: try ws://",
        _ => "check that this port speaks TLS",
    }
}
