//! How a peer is doing, and what happens to it.

use std::sync::Arc;
use std::time::Duration;

use loro::VersionVector;
use wire::sync::Status as Refusal;

use crate::adapter::{Path, ServerState};
use crate::engine::{LinkId, Reason};

/// How a peer is doing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Everything that is known here is on the local disk, if there is storage.
    pub stored: bool,
    /// See [`Peer::caught_up`](super::Peer::caught_up).
    pub caught_up: bool,
    /// Every hub and relay that is dialled, and every other link that is up.
    pub links: Vec<LinkState>,
    /// Every signaling server.
    pub signaling: Vec<ServerState>,
    /// STUN and TURN servers that cannot be used: those that want TURN over TCP or TLS, and what is no server. Peers
    /// that nothing else would reach are reached through a hub or relay, or not at all.
    pub unsupported: Vec<String>,
    /// Frames and updates that could not be read, ever.
    pub garbage: u64,
    /// Why the last write to the local disk failed, if it did.
    pub trouble: Option<String>,
    /// Everything that is known here: what the rest of this is about. What the application has committed since the last
    /// look may be missing.
    pub version: VersionVector,
    /// The peer is closed: nothing changes any more.
    pub closed: bool,
}

impl Status {
    /// Whether a hub or relay has everything that is known here, and has acknowledged what it got from us.
    #[must_use]
    pub fn acknowledged(&self) -> bool {
        let hub = |link: &&LinkState| matches!(link.link, LinkId::Uplink(_));
        self.links.iter().filter(hub).any(|link| link.holds_all && link.unacknowledged == 0)
    }

    /// How many of those at the other ends are known to have everything that is known here.
    #[must_use]
    pub fn held_by(&self) -> usize {
        self.links.iter().filter(|link| link.holds_all).count()
    }
}

/// How one link is doing.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkState {
    /// Which. Hubs and relays count in the order in which they were given to the builder.
    pub link: LinkId,
    /// It is there.
    pub up: bool,
    /// Versions have been exchanged.
    pub joined: bool,
    /// The other end is known to have everything.
    pub holds_all: bool,
    /// Updates that wait for an acknowledgement.
    pub unacknowledged: usize,
    /// Which way it goes.
    pub path: Option<Path>,
    /// How long a message takes there and back, where it was measured.
    pub round_trip: Option<Duration>,
    /// Why it is not there, or was not the last time.
    pub trouble: Option<Arc<str>>,
}

/// Something that an application may want to know. Changes of the document come from the document's own subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody came, changed or left.
    Presence,
    /// Versions have been exchanged over a link, for the first time since it came up.
    Joined(LinkId),
    /// A link was ended from here. [`Reason::is_final`] says that it is not tried again before [`Peer::wake`](super::Peer::wake).
    Ended(LinkId, Reason),
    /// The other end lets us read only: it is sent nothing.
    ReadOnly(LinkId),
    /// The other end does not take what was edited here, for this reason. It is tried again now and then.
    Refused(LinkId, Refusal),
    /// Somebody is in the room with whom we cannot talk over signaling: of the two, one has no password, or another one.
    /// Anybody who knows the room can cause it, so it is a hint for a person and no proof. Told once a minute at most.
    WrongPassword,
    /// Something that comes over this link cannot be decrypted: it was encrypted with another key, or damaged. Said once
    /// in a while for each; the rest goes on.
    WrongKey(LinkId),
    /// The local disk did not keep what it was given, for this reason. It is tried again until it does.
    StoreFailed(String),
    /// An update broke the peer's copy of the document; it is made anew from the application's.
    Restored,
    /// The application's document does not work any more, for this reason: nothing reaches it. Start again, with what
    /// is stored.
    DocumentBroken(String),
}
