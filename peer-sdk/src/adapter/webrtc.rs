//! One WebRTC connection to one remote peer, carrying one reliable and ordered data channel.
//!
//! [`Connection`] is what the application's side holds: it never waits, and dropping it closes the connection.
//! [`Events`] is what has happened, in order, ending with [`Event::Closed`]. Between them one task owns everything.
//!
//! Signals are those of simple-peer, so that the other side may be a browser: what [`Event::Signal`] brings goes to the
//! other peer by any way at all, and what comes from there goes to [`Connection::signal`]. A stranger may send anything:
//! a signal that makes no sense is refused and changes nothing.
//!
//! The side that is [`Role::Initiator`] opens the channel under the label [`LABEL`]. A peer that opens one with another
//! label speaks something else (a Yjs application's label is 40 hex digits), and is let go with
//! [`CloseReason::Foreign`]. A foreign peer that *answers* accepts any label; only what it then says tells it apart.

mod assemble;
mod channel;
mod checks;
mod negotiation;
mod outbox;
mod owner;
mod pace;
mod packet;
mod signal;
mod silence;
mod way;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::adapter::ice::IceServer;
use outbox::Outbox;
pub use outbox::SendError;
use pace::Pace;
use signal::Signal;
pub use signal::{MAX_CANDIDATE, MAX_SDP, SignalError};

/// What a data channel of ours is called.
pub const LABEL: &str = "loro/1";

/// The largest message that is sent or accepted, in bytes; what the other side announces may be less.
pub const MAX_MESSAGE: usize = 262_144;

/// Signals and requests that wait for the connection's task. One more is refused with [`SignalError::Busy`].
const COMMANDS: usize = 512;

/// Events that wait for their reader. When there are as many, or as many bytes as [`Settings::inbox`], nothing more is
/// taken from the channel, and the other side's sending comes to a halt.
const EVENTS: usize = 128;

/// Which side makes the first offer and opens the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Offers.
    Initiator,
    /// Waits for an offer, and answers.
    Answerer,
}

/// Which ways may be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// All of them, the most direct that works.
    #[default]
    All,
    /// Through a TURN server only: the other side does not learn our address.
    RelayOnly,
}

/// Whether names that browsers give instead of their local addresses (`….local`) are looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mdns {
    /// Looked up by multicast; where no interface takes multicast, as if [`Mdns::Off`].
    #[default]
    Resolve,
    /// Not looked up. The other side can still reach us, if our address is one it can reach.
    Off,
}

/// How a connection is made. The default suits peers anywhere, with no servers to help them.
#[derive(Clone, Debug)]
pub struct Settings {
    /// STUN and TURN servers, default none. See [`Event::Unsupported`] for those that can not be used.
    pub ice: Vec<IceServer>,
    /// Which ways may be used, default all.
    pub policy: Policy,
    /// Addresses to bind, default none, which means every interface of the machine but loopback, and loopback where
    /// there is no other. Port 0 chooses a free one.
    pub udp: Vec<SocketAddr>,
    /// Default [`Mdns::Resolve`].
    pub mdns: Mdns,
    /// How long it may take until the channel is open, default 30 s.
    pub connect_within: Duration,
    /// How long nothing need come from the other side until [`Event::Interrupted`], default 5 s.
    pub interrupted_after: Duration,
    /// How long an interruption may last until the connection is closed as [`CloseReason::Lost`], default 20 s.
    pub lost_after: Duration,
    /// How long nothing need come until the other side is asked whether it is there, default 2 s; at most 0.7 of
    /// [`interrupted_after`](Self::interrupted_after). It is asked several times a second until it answers. The initiator
    /// waits a little longer, for to be asked tells it as much.
    pub keepalive: Duration,
    /// How many bytes may wait to be sent, default 1 MiB. See [`Connection::send`].
    pub outbox: usize,
    /// How many bytes that have come may wait for [`Events::next`], default 4 MiB. Behind them up to 256 messages wait
    /// where we can not count bytes, and behind those the other side.
    pub inbox: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            ice: Vec::new(),
            policy: Policy::All,
            udp: Vec::new(),
            mdns: Mdns::Resolve,
            connect_within: Duration::from_secs(30),
            interrupted_after: Duration::from_secs(5),
            lost_after: Duration::from_secs(20),
            keepalive: Duration::from_secs(2),
            outbox: 1 << 20,
            inbox: 4 << 20,
        }
    }
}

/// Over what a connection goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// From peer to peer.
    Direct,
    /// Through a TURN server, ours or theirs.
    Relayed,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// To be brought to the other peer's `signal`, in order.
    Signal(Value),
    /// These URLs of [`Settings::ice`] can not be used here: TURN over TCP or TLS and STUN over TLS are not supported,
    /// or it is no URL of a STUN or TURN server. Comes first, once for each list of servers. A peer that nothing but
    /// TURN over TCP or TLS would reach is reached through a hub or not at all.
    Unsupported {
        /// As they were given.
        urls: Vec<String>,
    },
    /// The channel is open: from now on [`Connection::send`] works.
    Open {
        /// What the channel is called.
        label: String,
        /// The largest message that the other side takes, at most [`MAX_MESSAGE`].
        max_message_size: usize,
    },
    /// A binary message.
    Message(Bytes),
    /// A text message, in UTF-8 unless the other side lied.
    Text(Bytes),
    /// After [`SendError::Full`]: at least half of the outbox is free again.
    Drained,
    /// Which way it goes, when that is known, when it changes, and when the round trip has changed by a quarter.
    Path {
        /// The way.
        path: Path,
        /// From the last check, unless none has been measured.
        round_trip: Option<Duration>,
    },
    /// Nothing has come for [`Settings::interrupted_after`]. ICE is restarted by itself, so signals follow.
    Interrupted,
    /// After an interruption: the other side is back, and nothing was lost.
    Resumed,
    /// The last event.
    Closed {
        /// Why.
        reason: CloseReason,
    },
}

/// Why a connection is closed.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum CloseReason {
    /// [`Connection::close`], or the handle was dropped.
    #[error("closed on this side")]
    Local,
    /// The other side closed it.
    #[error("closed by the other side")]
    Remote,
    /// It was open, and then nothing came any more.
    #[error("the other side no longer answers")]
    Lost,
    /// No way to the other side was found in time.
    #[error("no way to the other side was found within {within:?}")]
    Unreachable {
        /// The limit, [`Settings::connect_within`].
        within: Duration,
    },
    /// The other side opened a channel that is not ours.
    #[error("the other side's channel is called {label:?}, expected {LABEL:?}")]
    Foreign {
        /// What it is called, cut to 64 characters.
        label: String,
    },
    /// The other side did what no peer does: a second channel, or more than is kept of it.
    #[error("the other side {0}")]
    Misbehaved(&'static str),
    /// It could not be set up or driven on this machine.
    #[error("WebRTC failed here: {0}")]
    Fault(String),
}

/// Whether a signal is one that a connection would look at.
pub(crate) fn check(signal: &Value) -> Result<(), SignalError> {
    Signal::parse(signal).map(|_| ())
}

/// A handle on a connection. All methods return at once. Dropping it closes the connection, without waiting for what
/// has not been sent.
#[derive(Debug)]
pub struct Connection {
    commands: mpsc::Sender<Command>,
    outbox: Arc<Outbox>,
    ended: watch::Receiver<bool>,
    close: CancellationToken,
    role: Role,
    // Last, so that a dropped handle stops the task.
    _stop: tokio_util::sync::DropGuard,
}

/// What has happened to a connection. Dropping it closes the connection too.
#[derive(Debug)]
pub struct Events {
    events: mpsc::Receiver<Event>,
    room: Arc<Semaphore>,
}

/// What a handle asks the connection's task for.
#[derive(Debug)]
pub(crate) enum Command {
    Signal(Signal),
    Renegotiate,
    RestartIce(Option<Vec<IceServer>>),
    SignalAnew,
    Moved,
}

impl Connection {
    /// Starts a connection, in a task of its own on the current tokio runtime. An initiator's offer is among the first
    /// events.
    #[must_use]
    pub fn start(role: Role, settings: Settings) -> (Self, Events) {
        let (commands, requests) = mpsc::channel(COMMANDS);
        let (tell, events) = mpsc::channel(EVENTS);
        let (end, ended) = watch::channel(false);
        let (close, stop) = (CancellationToken::new(), CancellationToken::new());
        // A message larger than the whole budget could never be taken.
        let room = Arc::new(Semaphore::new(settings.inbox.max(MAX_MESSAGE)));
        let pace = Arc::new(Pace::new(role, &settings));
        let (outbox, queue) = Outbox::new(settings.outbox, Arc::clone(&pace));
        let link = owner::Link {
            events: tell,
            room: Arc::clone(&room),
            outbox: Arc::clone(&outbox),
            pace,
            close: close.clone(),
            stop: stop.clone(),
        };
        tokio::spawn(owner::run(role, settings, link, requests, queue, end));
        (Self { commands, outbox, ended, close, role, _stop: stop.drop_guard() }, Events { events, room })
    }

    /// Which side this is.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    /// Gives the connection a signal of the other peer.
    ///
    /// # Errors
    ///
    /// When it is none that is understood, is larger than a signal can be, or 512 others wait. The connection goes
    /// on in each case.
    pub fn signal(&self, signal: &Value) -> Result<(), SignalError> {
        let signal = Signal::parse(signal)?;
        self.ask(Command::Signal(signal))
    }

    /// Queues a binary message, and says how many bytes wait now, this one included. What the channel's own buffer
    /// (128 KiB) has taken is not counted.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] when the outbox has no room for it; [`Event::Drained`] follows once it is half empty. A message
    /// larger than the other side takes, and one before [`Event::Open`] or after the end, are refused too.
    pub fn send(&self, message: Bytes) -> Result<usize, SendError> {
        self.outbox.push(message)
    }

    /// How many bytes wait to be sent.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.outbox.queued()
    }

    /// Negotiates again: the initiator offers, the other side asks it to.
    ///
    /// # Errors
    ///
    /// When 512 requests wait, or the connection has ended.
    pub fn renegotiate(&self) -> Result<(), SignalError> {
        self.ask(Command::Renegotiate)
    }

    /// Looks for a way anew, on the interfaces that the machine has now, and with `servers` from now on if any are
    /// given. What is on its way is not lost. Either side may ask; an open connection that is interrupted does so by
    /// itself.
    ///
    /// # Errors
    ///
    /// When 512 requests wait, or the connection has ended.
    pub fn restart_ice(&self, servers: Option<Vec<IceServer>>) -> Result<(), SignalError> {
        self.ask(Command::RestartIce(servers))
    }

    /// What was signalled of late may not have arrived, and does so from now on: a connection that is interrupted looks
    /// for a way anew at once.
    ///
    /// # Errors
    ///
    /// When 512 requests wait, or the connection has ended.
    pub fn signals_anew(&self) -> Result<(), SignalError> {
        self.ask(Command::SignalAnew)
    }

    /// The machine has other addresses than before: if the one is gone that this connection uses, it looks for a way anew
    /// at once, and not only when it has noticed that nothing comes.
    ///
    /// # Errors
    ///
    /// When 512 requests wait, or the connection has ended.
    pub fn moved(&self) -> Result<(), SignalError> {
        self.ask(Command::Moved)
    }

    /// Closes the connection in order: what waits is sent for up to four seconds (not at all while it is interrupted),
    /// then the other side is told. Harmless
    /// when it is called again. [`Event::Closed`] says when it is done.
    pub fn close(&self) {
        self.outbox.shut();
        self.close.cancel();
    }

    /// Ready once the connection has ended and its sockets are closed, whether or not the events were read.
    pub async fn ended(&self) {
        let mut ended = self.ended.clone();
        // An error means that the task is gone, which is an end too.
        let _ = ended.wait_for(|ended| *ended).await;
    }

    fn ask(&self, command: Command) -> Result<(), SignalError> {
        self.commands.try_send(command).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => SignalError::Busy { limit: COMMANDS },
            mpsc::error::TrySendError::Closed(_) => SignalError::Ended,
        })
    }
}

impl Events {
    /// The next event; `None` after [`Event::Closed`]. Can be cancelled without losing one.
    pub async fn next(&mut self) -> Option<Event> {
        let event = self.events.recv().await?;
        if let Event::Message(data) | Event::Text(data) = &event {
            self.room.add_permits(data.len());
        }
        Some(event)
    }
}
