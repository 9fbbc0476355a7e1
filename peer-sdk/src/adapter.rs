//! The ways to other peers and to the local disk, and the seams that they fill.
//!
//! An adapter knows sockets, files and formats, and nothing of documents; the engine knows documents, and nothing of
//! sockets. They meet in the driver, which gives every adapter a [`Door`] to it:
//!
//! - [`Transport`] dials one hub or relay. [`Signaling`] speaks to signaling servers. [`Channels`] makes one connection
//!   to one remote peer. Each is a future that runs as long as what it stands for lasts, and that is dropped to end it.
//! - [`Storage`] blocks; the driver calls it where it may.

pub mod memory;

#[cfg(feature = "webrtc")]
pub mod ice;

#[cfg(feature = "webrtc")]
pub mod mesh;

#[cfg(feature = "webrtc")]
pub mod signaling;

#[cfg(feature = "sqlite")]
pub mod sqlite;

#[cfg(feature = "webrtc")]
pub mod webrtc;

#[cfg(feature = "websocket")]
pub mod websocket;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::engine::{End, LinkId, SignalKind};
use wire::id::PeerId;

/// Messages that may wait for one link. The engine keeps to far less; one more ends the link.
pub(crate) const OUTGOING: usize = 4096;

/// Dials one hub or relay.
pub trait Transport: Send + Sync + 'static {
    /// Connects, [opens](Door::open) the door, and carries messages until the connection has ended. Dropping the
    /// future ends it at once.
    fn run(&self, door: Door) -> BoxFuture<'static, End>;

    /// The machine has other addresses than before: a connection from one that is gone carries nothing any more.
    fn moved(&self) {}

    /// Whether each update has to hold the changes of one author alone, because the other end files them by author.
    fn by_author(&self) -> bool {
        false
    }
}

/// Makes connections to remote peers, each with one data channel.
pub trait Channels: Send + Sync + 'static {
    /// Makes one, [opens](Door::open) the door when its data channel is open, and carries messages until it has ended.
    ///
    /// What it has to say to the other end over signaling goes to [`Door::signal`]; what the other end says comes from
    /// `heard`, in the order in which it came: both are simple-peer's signals, as JSON. Dropping the future has to end
    /// the connection, in the background if that takes time.
    fn run(
        &self,
        peer: PeerId,
        initiator: bool,
        heard: mpsc::Receiver<Bytes>,
        door: Door,
    ) -> BoxFuture<'static, End>;

    /// The machine has other addresses than before: connections from one that is gone need another way.
    fn moved(&self) {}
}

/// Speaks y-webrtc to signaling servers.
pub trait Signaling: Send + Sync + 'static {
    /// Subscribes the room at every server, again after each reconnect, publishes what is asked of it, and tells what
    /// it hears, for as long as it is not dropped.
    fn run(
        &self,
        room: String,
        session: PeerId,
        calls: mpsc::Receiver<Call>,
        door: Door,
    ) -> BoxFuture<'static, ()>;

    /// Stop waiting: the network may be back.
    fn wake(&self) {}

    /// Find out which servers are still there: a peer has gone quiet, and the network may be another one.
    fn prove(&self) {}

    /// The machine has other addresses than before: connections from one that is gone carry nothing any more.
    fn moved(&self) {}
}

/// Something to be published.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// `{type: "announce", from}` at every server.
    Announce,
    /// `{type: "signal", from, to, token, signal}` at a server at which that peer was heard of, or at all.
    Signal {
        /// To whom.
        to: PeerId,
        /// The glare token.
        token: f64,
        /// simple-peer's signal, as JSON.
        signal: Bytes,
    },
}

/// Something heard from signaling servers. What is not for us, and what we said ourselves, is left out.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// A server has taken our subscription, the first of those that are up now: what was said before was heard by nobody.
    Up,
    /// Somebody is there.
    Announced {
        /// Who.
        from: PeerId,
    },
    /// Somebody has a signal for us.
    Signal {
        /// Who.
        from: PeerId,
        /// What kind of signal.
        kind: SignalKind,
        /// The glare token.
        token: Option<f64>,
        /// simple-peer's signal, as JSON.
        signal: Bytes,
    },
    /// What comes cannot be decrypted: our password is not theirs.
    WrongPassword,
    /// How the servers are doing: told once at the beginning, and at each change.
    Servers(Vec<ServerState>),
}

/// How a signaling server is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerState {
    /// Scheme, host and port, and nothing that may be a secret.
    pub name: String,
    /// The room is subscribed there.
    pub up: bool,
    /// The HTTP status with which it has refused us, if it has. It is not asked again before
    /// [`Peer::wake`](crate::Peer::wake).
    pub refused: Option<u16>,
}

/// What an adapter tells the driver. `epoch` tells one connection of a link from the next.
#[derive(Debug)]
pub(crate) enum Arrival {
    Up { link: LinkId, epoch: u64, frame: usize, outgoing: mpsc::Sender<Bytes> },
    Frame { link: LinkId, epoch: u64, frame: Bytes },
    Sent { link: LinkId, epoch: u64, bytes: usize },
    Down { link: LinkId, epoch: u64, end: End },
    Local { channel: u64, data: Bytes },
    Note { link: LinkId, epoch: u64, note: Note },
    Heard(Heard),
}

/// Something about a link that is worth showing.
#[derive(Clone, Debug, PartialEq)]
pub enum Note {
    /// How long a message took there and back.
    RoundTrip(std::time::Duration),
    /// Which way the packets go.
    Path(Path),
    /// Why it did not come about, or ended.
    Trouble(Arc<str>),
    /// What comes cannot be decrypted: our key is not theirs, or it was damaged.
    WrongKey,
    /// Nothing comes from the other end, which may be gone. The link is still there.
    Interrupted,
    /// After an interruption: the other end is there, and nothing was lost.
    Resumed,
    /// These STUN or TURN servers cannot be used here.
    Unsupported(Vec<String>),
}

/// Which way a link goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Straight to the other peer.
    Direct,
    /// To the other peer through a TURN server.
    Turn,
    /// To a hub or relay, and whoever else is there.
    Hub,
}

/// An adapter's way to the driver, for one connection. A clone leads to the same.
#[derive(Clone, Debug)]
pub struct Door {
    link: LinkId,
    epoch: u64,
    arrivals: mpsc::Sender<Arrival>,
}

impl Door {
    pub(crate) fn new(link: LinkId, epoch: u64, arrivals: mpsc::Sender<Arrival>) -> Self {
        Self { link, epoch, arrivals }
    }

    /// The connection is there, and carries messages of at most `frame` bytes.
    pub async fn open(&self, frame: usize) -> Port {
        let (outgoing, messages) = mpsc::channel(OUTGOING);
        let (link, epoch) = (self.link, self.epoch);
        self.tell(Arrival::Up { link, epoch, frame, outgoing }).await;
        Port { messages, door: self.clone() }
    }

    /// A data channel's connection has something to say over signaling.
    pub async fn signal(&self, data: Bytes) {
        if let LinkId::Channel(channel) = self.link {
            self.tell(Arrival::Local { channel, data }).await;
        }
    }

    /// Something was heard from a signaling server.
    pub async fn heard(&self, heard: Heard) {
        self.tell(Arrival::Heard(heard)).await;
    }

    /// Something worth showing.
    pub async fn note(&self, note: Note) {
        let (link, epoch) = (self.link, self.epoch);
        self.tell(Arrival::Note { link, epoch, note }).await;
    }

    pub(crate) async fn down(&self, end: End) {
        let (link, epoch) = (self.link, self.epoch);
        self.tell(Arrival::Down { link, epoch, end }).await;
    }

    /// Waits while the driver has much to do, and so slows the network down.
    async fn tell(&self, arrival: Arrival) {
        // A driver that is gone drops us soon.
        let _ = self.arrivals.send(arrival).await;
    }
}

/// One connection, as its adapter sees it.
#[derive(Debug)]
pub struct Port {
    messages: mpsc::Receiver<Bytes>,
    door: Door,
}

impl Port {
    /// The next message to send; `None` when the link is to be closed. Can be cancelled without losing one.
    pub async fn next(&mut self) -> Option<Bytes> {
        self.messages.recv().await
    }

    /// A message of so many bytes has left for the network.
    pub async fn sent(&self, bytes: usize) {
        let (link, epoch) = (self.door.link, self.door.epoch);
        self.door.tell(Arrival::Sent { link, epoch, bytes }).await;
    }

    /// A message has come.
    pub async fn received(&self, frame: Bytes) {
        let (link, epoch) = (self.door.link, self.door.epoch);
        self.door.tell(Arrival::Frame { link, epoch, frame }).await;
    }
}

/// Keeps documents on the local disk. Its methods block; they are called from one thread at a time.
pub trait Storage: Send + 'static {
    /// Everything that is kept of a room: what [`append`](Self::append) and [`compact`](Self::compact) were given, in
    /// order.
    fn load(&mut self, room: &str) -> Result<Vec<Bytes>, StorageError>;

    /// Keeps one more update. When this returns, a crash does not lose it.
    fn append(&mut self, room: &str, update: &[u8]) -> Result<(), StorageError>;

    /// Keeps this in place of everything before. A crash leaves the one or the other.
    fn compact(&mut self, room: &str, snapshot: &[u8]) -> Result<(), StorageError>;
}

/// Why the local disk does not do what it is asked.
#[derive(Debug, Error)]
pub enum StorageError {
    /// What is there cannot be read. It was left as it is: move it away, or open another one beside it.
    #[error("{} is damaged and was left untouched: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was written by a later version of this crate. It was left as it is.
    #[error("{} has format {found}, the latest known is {known}", path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The latest that we know.
        known: i64,
    },
    /// The disk is full, or the file may not be written, or the like. It may work later.
    #[error("{} cannot be used: {reason}", path.display())]
    Failed {
        /// The file.
        path: PathBuf,
        /// What the system says.
        reason: String,
    },
}
