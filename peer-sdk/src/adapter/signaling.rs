//! A client of y-webrtc signaling servers, of several at once.
//!
//! Peers that know a topic find each other: they announce themselves, and send each other signals until they are
//! connected. One server is as good as another, so everything is published on all of them, one that is down is no
//! event of importance, and what comes through two of them comes twice. Nothing is queued for a server that is not
//! connected: signals go stale, and whoever gets no answer begins anew.
//!
//! With a [`Key`] on both sides, made of a password and the topic, nobody else can read or forge what is published,
//! byte for byte as y-webrtc does it. That they do not fit is told with [`Event::Password`].

pub(crate) mod any;
mod backoff;
pub(crate) mod dial;
mod envelope;
mod seal;
mod server;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use dial::Address;
pub use dial::{DialError, MAX_URL, UrlError};
pub use envelope::{Envelope, MAX_PEER_ID};
pub use seal::Key;
use server::Server;

/// The most servers of one client.
pub const MAX_SERVERS: usize = 16;

/// The most topics of one client; a server takes 128 from one connection.
pub const MAX_TOPICS: usize = 128;

/// The longest topic, in bytes.
pub const MAX_TOPIC: usize = 512;

/// The largest message that is taken from a server or given to one, in bytes.
pub const MAX_MESSAGE: usize = 256 * 1024;

/// Events that wait for their reader. When there are as many, nothing is read from the servers until there is room.
const EVENTS: usize = 256;

/// How a client behaves. The default is right for everything but tests.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Servers as `ws:` or `wss:` URLs, default none. A token may be part of the URL; it is not logged.
    pub servers: Vec<String>,
    /// Whom to trust over TLS, default whom the system trusts.
    pub tls: Option<Arc<ClientConfig>>,
    /// How often the server is asked whether it is there, default 15 s. One that says nothing for two of these is left and
    /// connected to again.
    pub ping: Duration,
    /// How long a server may take to accept a connection, default 10 s.
    pub connect_within: Duration,
    /// Whether encrypted messages name sender and receiver in the clear, default true. A server can then give them to
    /// their receiver alone instead of to the whole room; it learns which of the room's random ids talk to each other.
    pub directed: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            tls: None,
            ping: Duration::from_secs(15),
            connect_within: Duration::from_secs(10),
            directed: true,
        }
    }
}

/// One of the servers of a client, for as long as it is in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerId(u64);

#[cfg(test)]
impl ServerId {
    pub(crate) fn test(id: u64) -> Self {
        Self(id)
    }
}

/// How a server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Being connected to for the first time.
    Connecting,
    /// Connected, and subscribed to all topics.
    Connected,
    /// Not there; tried again by itself after at most 30 s.
    Waiting,
    /// Refused with an HTTP status that says that trying again as we are is useless (401, 403, 404). Not tried again
    /// until [`Signaling::wake`] or another list.
    Refused {
        /// The status.
        status: u16,
    },
}

/// One server, as it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerStatus {
    /// Which one.
    pub id: ServerId,
    /// Scheme, host and port. Path and query may hold a token and are left out.
    pub name: String,
    /// How it is doing.
    pub state: State,
}

/// Where to publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// On all servers that are connected.
    All,
    /// On one: an answer goes the way the offer came.
    One(ServerId),
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A server is connected, and all topics are subscribed there: the time to announce oneself.
    Connected {
        /// Which.
        server: ServerId,
    },
    /// A server is not connected any more, or could not be. Told once until it is connected again.
    Disconnected {
        /// Which.
        server: ServerId,
        /// [`State::Waiting`] or [`State::Refused`].
        state: State,
        /// What went wrong.
        reason: String,
    },
    /// Somebody has published. Our own messages come back too, from servers that echo.
    Received {
        /// On which server.
        server: ServerId,
        /// The topic, one of those subscribed.
        topic: String,
        /// What.
        message: Envelope,
    },
    /// Somebody is on the topic with whom we can not talk. Told once a minute and topic at most.
    Password {
        /// The topic.
        topic: String,
        /// Why not.
        problem: PasswordProblem,
    },
}

/// Why we and somebody on the topic do not understand each other. Anybody who knows the topic can cause it, so it is a
/// hint for a person and no proof.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PasswordProblem {
    /// Both have one.
    #[error("somebody has another password for this room")]
    Different,
    /// Only they have one.
    #[error("this room has a password")]
    Missing,
    /// Only we have one.
    #[error("somebody uses no password for this room")]
    Superfluous,
}

/// Why a topic was not subscribed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopicError {
    /// Its name.
    #[error("topic is {len} bytes, expected 1 to {MAX_TOPIC}")]
    Name {
        /// How long it is.
        len: usize,
    },
    /// Their number.
    #[error("{MAX_TOPICS} topics are subscribed, which is the limit")]
    TooMany,
}

/// A client. Dropping it closes all connections.
#[derive(Debug)]
pub struct Signaling {
    shared: Arc<Shared>,
    settings: Settings,
    events: mpsc::Sender<Event>,
}

/// What has happened on all servers. Dropping it lets the client go deaf, and its connections end.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<Event>);

impl Events {
    /// The next event; `None` once the client is dropped. Can be cancelled without losing one.
    pub async fn next(&mut self) -> Option<Event> {
        self.0.recv().await
    }
}

/// What the client and its servers' tasks share. The lock is never held across an await.
#[derive(Debug, Default)]
struct Shared(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    topics: HashMap<String, Topic>,
    servers: Vec<Listed>,
    next_id: u64,
}

/// A topic that is subscribed.
#[derive(Clone, Debug, Default)]
struct Topic {
    key: Option<Key>,
    last_problem: Option<std::time::Instant>,
}

/// A server of the list.
#[derive(Debug)]
struct Listed {
    id: ServerId,
    url: String,
    address: Address,
    state: State,
    /// Frames for the socket, there while it is connected.
    frames: Option<mpsc::Sender<String>>,
    wake: Arc<tokio::sync::Notify>,
    moved: Arc<tokio::sync::Notify>,
    _stop: DropGuard,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing under this lock leaves the table half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Signaling {
    /// Starts a client on the current tokio runtime; it connects at once.
    ///
    /// # Errors
    ///
    /// When a URL is none of a WebSocket, or there are more than [`MAX_SERVERS`].
    pub fn start(settings: Settings) -> Result<(Self, Events), UrlError> {
        let (events, receiver) = mpsc::channel(EVENTS);
        let signaling = Self { shared: Arc::default(), settings, events };
        signaling.set_servers(&signaling.settings.servers)?;
        Ok((signaling, Events(receiver)))
    }

    /// Uses these servers from now on. Those that were used before and stand in the list stay connected. If any of them
    /// is refused, nothing changes.
    ///
    /// # Errors
    ///
    /// As [`Signaling::start`].
    pub fn set_servers(&self, urls: &[String]) -> Result<(), UrlError> {
        let parsed = parse(urls)?;
        let mut table = self.shared.lock();
        table.servers.retain(|server| urls.contains(&server.url));
        for (url, address) in parsed {
            if table.servers.iter().all(|server| server.url != url) {
                self.add(&mut table, url, address);
            }
        }
        Ok(())
    }

    fn add(&self, table: &mut Table, url: String, address: Address) {
        let id = ServerId(table.next_id);
        table.next_id += 1;
        let (wake, moved): (Arc<tokio::sync::Notify>, Arc<tokio::sync::Notify>) = Default::default();
        let stop = CancellationToken::new();
        let server = Server {
            id,
            address: address.clone(),
            settings: self.settings.clone(),
            shared: Arc::downgrade(&self.shared),
            events: self.events.clone(),
            wake: Arc::clone(&wake),
            moved: Arc::clone(&moved),
        };
        tokio::spawn(stop.clone().run_until_cancelled_owned(server.run()));
        let (state, frames) = (State::Connecting, None);
        let _stop = stop.drop_guard();
        table.servers.push(Listed { id, url, address, state, frames, wake, moved, _stop });
    }

    /// How each server is doing, in the order they were first given.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        let shown = |server: &Listed| ServerStatus {
            id: server.id,
            name: server.address.name(),
            state: server.state.clone(),
        };
        self.shared.lock().servers.iter().map(shown).collect()
    }

    /// Listens on a topic, on all servers, with `key` from now on. Again with another key replaces the key.
    ///
    /// # Errors
    ///
    /// When the topic's name is too long, or there are [`MAX_TOPICS`] others.
    pub fn subscribe(&self, topic: &str, key: Option<Key>) -> Result<(), TopicError> {
        if !(1..=MAX_TOPIC).contains(&topic.len()) {
            return Err(TopicError::Name { len: topic.len() });
        }
        let mut table = self.shared.lock();
        if table.topics.len() >= MAX_TOPICS && !table.topics.contains_key(topic) {
            return Err(TopicError::TooMany);
        }
        table.topics.insert(topic.to_owned(), Topic { key, last_problem: None });
        table.send(Via::All, &envelope::subscribe([topic]));
        Ok(())
    }

    /// Listens on a topic no longer.
    pub fn unsubscribe(&self, topic: &str) {
        let mut table = self.shared.lock();
        if table.topics.remove(topic).is_some() {
            table.send(Via::All, &envelope::unsubscribe(topic));
        }
    }

    /// Publishes on a topic that is subscribed, encrypted if it has a key. Says to how many servers it goes: none for
    /// a message above [`MAX_MESSAGE`], on a topic that is not subscribed, while no server is connected, or where 256
    /// messages wait already.
    pub fn publish(&self, topic: &str, message: &Envelope, via: Via) -> usize {
        let mut table = self.shared.lock();
        let Some(subscribed) = table.topics.get(topic) else { return 0 };
        let frame = message.publish(topic, subscribed.key.as_ref(), self.settings.directed);
        if frame.len() > MAX_MESSAGE { 0 } else { table.send(via, &frame) }
    }

    /// The machine is back, in the foreground or on a network: servers that are waited for are connected to now, refused
    /// ones are asked again, and those that seem connected have 3 s to prove it.
    pub fn wake(&self) {
        self.shared.lock().servers.iter().for_each(|server| server.wake.notify_one());
    }

    /// The machine has other addresses than before: connections from one that is gone are made anew at once, and servers
    /// that are waited for are connected to now.
    pub fn moved(&self) {
        self.shared.lock().servers.iter().for_each(|server| server.moved.notify_one());
    }

    /// The network may be another one: those that seem connected have 3 s to prove it.
    pub fn prove(&self) {
        let table = self.shared.lock();
        let connected = table.servers.iter().filter(|server| server.state == State::Connected);
        connected.for_each(|server| server.wake.notify_one());
    }
}

/// Whether these can be the servers of a client.
pub(crate) fn check(urls: &[String]) -> Result<(), UrlError> {
    parse(urls).map(|_| ())
}

/// Each once, with what it means.
fn parse(urls: &[String]) -> Result<Vec<(String, Address)>, UrlError> {
    if urls.len() > MAX_SERVERS {
        return Err(UrlError::TooMany { count: urls.len(), limit: MAX_SERVERS });
    }
    let mut parsed: Vec<(String, Address)> = Vec::new();
    for url in urls {
        let address = Address::parse(url, "ws", "wss")?;
        if parsed.iter().all(|(other, _)| other != url) {
            parsed.push((url.clone(), address));
        }
    }
    Ok(parsed)
}

impl Table {
    /// Queues a frame, and says for how many servers.
    fn send(&mut self, via: Via, frame: &str) -> usize {
        let meant = |server: &&Listed| match via {
            Via::All => true,
            Via::One(id) => server.id == id,
        };
        let connected = self.servers.iter().filter(meant).filter_map(|server| server.frames.as_ref());
        connected.filter(|frames| frames.try_send(frame.to_owned()).is_ok()).count()
    }
}
