//! What the engine hears and says.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use loro::{LoroValue, VersionVector};
use wire::id::{PeerId, RoomId};
use wire::sync::Status;

/// One way to one other end. Frames of a link that has gone down are never given to the engine again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkId {
    /// To a hub or relay that we dial: its place in [`Config::uplinks`]. The same after a reconnect.
    Uplink(u16),
    /// From a peer that dialled us. Minted by the hub, never used twice while it runs.
    Guest(u64),
    /// A data channel. Minted by the engine with [`Output::Connect`], never used twice.
    Channel(u64),
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uplink(n) => write!(f, "uplink {n}"),
            Self::Guest(n) => write!(f, "guest {n}"),
            Self::Channel(n) => write!(f, "channel {n}"),
        }
    }
}

/// What an engine is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// The room, at every hub and relay and in signaling.
    pub room: RoomId,
    /// What this run of the peer is called in signaling and in presence. Fresh for each run.
    pub session: PeerId,
    /// Where all randomness comes from. Two engines of one seed behave alike.
    pub seed: u64,
    /// Milliseconds since 1970 at the instant that the engine is made, by our clock. Others need not agree.
    pub wall: u64,
    /// What to show to each hub or relay when joining; its length is how many there are.
    pub uplinks: Vec<Bytes>,
    /// Those of them, by their places, that file updates by author: each update that is sent there holds the changes of
    /// one author alone.
    pub by_author: Vec<u16>,
    /// Most data channels at once; 0 is none at all, and then signaling is ignored.
    pub channels: usize,
}

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The application has changed the document: everything that it has and [`Engine::version`](super::Engine::version)
    /// had not.
    Edited(Bytes),
    /// What others are to see of us; nothing takes it away. See [`MAX_PRESENCE`](super::MAX_PRESENCE).
    Present(Option<LoroValue>),
    /// A link is there. `frame` is the longest message that it carries, in bytes.
    Up {
        /// Which.
        link: LinkId,
        /// Most bytes of one message.
        frame: usize,
    },
    /// A message has come.
    Frame {
        /// Over which link.
        link: LinkId,
        /// The message.
        frame: Bytes,
    },
    /// So many bytes of what was [sent](Output::Send) have left our memory for the network.
    Drained {
        /// Over which link.
        link: LinkId,
        /// How many since the last time.
        bytes: usize,
    },
    /// A link is gone, or could not be made.
    Down {
        /// Which.
        link: LinkId,
        /// Whether to try again.
        end: End,
    },
    /// Nothing comes over a link, which is still there: whoever it leads to may be gone.
    Interrupted {
        /// Which.
        link: LinkId,
    },
    /// After an interruption: the other end is there.
    Resumed {
        /// Which.
        link: LinkId,
    },
    /// The answer to [`Output::Append`] and [`Output::Compact`].
    Stored {
        /// Which.
        ticket: Ticket,
        /// Whether it is on disk.
        result: Result<(), StoreFailed>,
    },
    /// A signaling server has taken our subscription: at the start, and after each reconnect.
    SignalingUp,
    /// Somebody says over signaling that it is there.
    Announced {
        /// Who.
        from: PeerId,
    },
    /// Somebody says something to us over signaling.
    Signalled {
        /// Who.
        from: PeerId,
        /// What kind of thing.
        kind: SignalKind,
        /// Decides glare; the larger one counts.
        token: Option<f64>,
        /// What a connection is to be told, opaque here.
        data: Bytes,
    },
    /// A connection that we make has something to say to its other end.
    Local {
        /// Which.
        channel: u64,
        /// What, opaque here.
        data: Bytes,
    },
    /// Stop waiting: the network may be back.
    Wake,
    /// A document was thrown away ([`Output::Restore`]); this is what is known of it.
    Restored(Vec<Bytes>),
    /// Say goodbye. Links should be closed once what this makes us send has been sent.
    Close,
    /// Nothing, but time has passed.
    Tick,
}

/// What to do about it.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Connect to a hub or relay, and answer with [`Input::Up`] or [`Input::Down`].
    Dial {
        /// Its place in [`Config::uplinks`].
        uplink: u16,
    },
    /// Send a message. At most about [`HIGH_WATER`](super::HIGH_WATER) bytes more than were
    /// [drained](Input::Drained) are asked for, but for answers, which are small.
    Send {
        /// Over which link.
        link: LinkId,
        /// The message.
        frame: Bytes,
    },
    /// End a link. No [`Input::Down`] is needed; nothing is sent there any more.
    Cut {
        /// Which.
        link: LinkId,
        /// Why.
        reason: Reason,
    },
    /// Keep an update on disk, and answer. The next write is asked for only after the answer.
    Append {
        /// What to answer under.
        ticket: Ticket,
        /// The update.
        update: Bytes,
    },
    /// Keep this in place of everything that was stored before, and answer.
    Compact {
        /// What to answer under.
        ticket: Ticket,
        /// All of the document.
        snapshot: Bytes,
    },
    /// Say over every signaling server that we are there.
    Announce,
    /// Say something to one peer over signaling.
    Signal {
        /// To whom.
        to: PeerId,
        /// Decides glare.
        token: f64,
        /// What, as the connection said it.
        data: Bytes,
    },
    /// Make a connection with one data channel. Answer with [`Input::Local`] as often as it has something to say,
    /// then with [`Input::Up`] or [`Input::Down`].
    Connect {
        /// What to call it.
        channel: u64,
        /// With whom.
        peer: PeerId,
        /// Whether we make the offer, and so the channel.
        initiator: bool,
    },
    /// Give a connection what its other end has said over signaling.
    Deliver {
        /// Which.
        channel: u64,
        /// What.
        data: Bytes,
    },
    /// The document has news for the application: everything between its version and ours, which
    /// [`Engine::updates_since`](super::Engine::updates_since) gives.
    Changed,
    /// The document broke and was thrown away. Answer with [`Input::Restored`].
    Restore,
    /// Something that an application may want to know.
    Event(Event),
}

/// Something that an application may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody came, changed or left: [`Engine::online`](super::Engine::online) differs.
    Presence,
    /// Versions have been exchanged over a link for the first time since it came up.
    Joined(LinkId),
    /// The other end lets us read only: it is sent nothing.
    ReadOnly(LinkId),
    /// The other end does not take what we have written.
    Refused(LinkId, Status),
    /// The disk does not keep what it is given. It is tried again.
    StoreFailed,
    /// A link was ended from here.
    Cut(LinkId, Reason),
}

/// Whether a link that ended may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The network, or a restart: after a while.
    Lost,
    /// The other end does not want us: not before [`Input::Wake`].
    Refused,
    /// The other end speaks another protocol: not for a long while.
    Foreign,
}

impl End {
    /// What it is called when it is ended from here.
    pub(super) fn reason(self) -> Option<Reason> {
        match self {
            Self::Lost => None,
            Self::Refused => Some(Reason::AuthFailed),
            Self::Foreign => Some(Reason::Foreign),
        }
    }
}

/// The disk did not keep what it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the disk does not keep what it is given")]
pub struct StoreFailed;

/// One write. Minted by the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// What kind of thing a y-webrtc signal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalKind {
    /// An offer.
    Offer,
    /// An answer.
    Answer,
    /// A candidate, or whatever else.
    Other,
}

/// Why a link is ended from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// What comes is not the Loro Protocol: another application in the same room.
    #[error("the other end speaks another protocol")]
    Foreign,
    /// Too much of what came could not be read.
    #[error("too many frames could not be read")]
    Garbage,
    /// What came broke the document.
    #[error("an update broke the document")]
    Hostile,
    /// So much waits for it that it will be brought up to date afresh.
    #[error("the other end takes nothing")]
    TooSlow,
    /// It does not answer.
    #[error("the other end does not answer")]
    Silent,
    /// It does not let us in, with these credentials.
    #[error("the other end does not accept our credentials")]
    AuthFailed,
    /// It does not let us in for another reason, which may pass.
    #[error("the other end does not let us in")]
    JoinRefused,
    /// It has put us out.
    #[error("the other end has put us out")]
    Evicted,
    /// There are better data channels to keep.
    #[error("one data channel too many")]
    Surplus,
    /// A connection did not come about in time.
    #[error("no data channel in time")]
    Timeout,
    /// Both ends made an offer, and the other one's counts.
    #[error("the other end's offer counts")]
    Glare,
}

impl Reason {
    /// Whether trying again is of no use before something is changed.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::AuthFailed | Self::Evicted)
    }
}

/// Somebody who is there.
#[derive(Clone, Debug, PartialEq)]
pub struct Online {
    /// Which run of which peer.
    pub session: String,
    /// What it shows.
    pub value: LoroValue,
    /// How long it has been there, as far as we have seen.
    pub since: Duration,
    /// The links over which it was heard of; one of them may lead straight to it.
    pub links: Vec<LinkId>,
    /// The link that leads straight to it.
    pub direct: Option<LinkId>,
}

/// How one link is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkStatus {
    /// Which.
    pub link: LinkId,
    /// Versions have been exchanged since it came up.
    pub joined: bool,
    /// The other end is known to hold everything that we hold.
    pub holds_all: bool,
    /// Updates that wait for an acknowledgement.
    pub unacknowledged: usize,
}

/// How all of it is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineStatus {
    /// What we hold.
    pub version: VersionVector,
    /// Everything that we hold is on disk.
    pub stored: bool,
    /// Every link that is up.
    pub links: Vec<LinkStatus>,
    /// How many hubs and relays are being dialled.
    pub dialling: usize,
    /// Frames and updates that could not be read, ever.
    pub garbage: u64,
}
