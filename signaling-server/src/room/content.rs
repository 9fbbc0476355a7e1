//! What a room of the Loro Protocol keeps, by its kind: all kinds are asked the same things.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::sync::{Crdt, Status};

use super::ConnectionId;
use super::blind::Blind;
use super::document::{Document, Kind};
use super::presence::Presence;
use super::relay::{Author, Keeping, Limits, MANY, ONE, Receipt, Seq, Stored, parcel};

/// Something to be answered.
#[derive(Debug)]
pub(super) enum Job {
    /// Become what is stored.
    Open(Opening),
    /// Tell a newcomer what it lacks.
    Join {
        who: ConnectionId,
        version: Bytes,
        /// As whom it may write, if it may.
        writer: Option<Author>,
        /// When it asked.
        at: Instant,
    },
    /// Take updates.
    Batch(Batch),
    /// Say everything, as the store keeps it.
    Snapshot,
}

/// Updates that one member has sent together.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) receipt: Receipt,
    pub(super) author: Author,
    pub(super) updates: Vec<Bytes>,
    /// The frames that they came in.
    pub(super) frames: Vec<Bytes>,
    /// Bytes of `updates`.
    pub(super) len: usize,
}

/// What is stored, and what of it is left out because it cannot be read without harm.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) stored: Stored,
    pub(super) set_aside: Vec<Seq>,
}

impl Opening {
    pub(super) fn new(stored: Stored) -> Self {
        Self { stored, set_aside: Vec::new() }
    }

    /// The snapshot's parts.
    pub(super) fn snapshot(&self) -> Result<Vec<Bytes>, String> {
        let Some(snapshot) = self.stored.snapshot.clone() else { return Ok(Vec::new()) };
        parcel::unpack(snapshot).ok_or_else(|| "the stored snapshot is damaged".to_owned())
    }

    /// The updates of each batch of the log.
    pub(super) fn log(&self) -> impl Iterator<Item = (Seq, Result<Vec<Bytes>, String>)> + '_ {
        let read = self.stored.log.iter().filter(|logged| !self.set_aside.contains(&logged.seq));
        read.map(|logged| {
            let updates = match logged.kind {
                ONE => Some(vec![logged.payload.clone()]),
                MANY => parcel::unpack(logged.payload.clone()),
                _ => None,
            };
            (logged.seq, updates.ok_or_else(|| format!("batch {} of the log is damaged", logged.seq.0)))
        })
    }

    /// Bytes to be read.
    pub(super) fn len(&self) -> u64 {
        let (snapshot, log) = self.stored.sizes();
        snapshot + log
    }
}

/// What became of a [`Job`].
#[derive(Debug)]
pub(super) enum Answer {
    /// Open. These batches of the log were left out.
    Opened { set_aside: Vec<Seq> },
    /// What is stored cannot be read, for this reason.
    Unreadable(String),
    /// The version that the room has, and what the newcomer lacks.
    Joined { version: Bytes, updates: Vec<Bytes> },
    /// See there.
    Taken(Taken),
    /// Everything, in one parcel.
    Snapshot(Bytes),
}

/// What became of a [`Batch`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// How many of its updates were taken, from the first.
    pub(super) count: usize,
    /// Why the next one was not.
    pub(super) refused: Option<Status>,
    /// Some of them wait for updates that they build on.
    pub(super) pending: bool,
    /// There is something in them that others should hear and the store should keep.
    pub(super) news: bool,
}

impl Taken {
    /// All of so many.
    pub(super) fn all(count: usize) -> Self {
        Self { count, refused: None, pending: false, news: count > 0 }
    }

    /// The one after so many is refused.
    pub(super) fn refused_after(count: usize, status: Status) -> Self {
        Self { refused: Some(status), ..Self::all(count) }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) enum Content {
    Document {
        kind: Kind,
        /// While it is at home.
        home: Option<Box<Document>>,
    },
    Presence(Presence),
    Blind(Blind),
}

impl Content {
    pub(super) fn new(crdt: Crdt, keeping: Keeping, limits: &Limits) -> Self {
        let document = |kind| Self::Document { kind, home: None };
        match (crdt, keeping) {
            (Crdt::Loro, Keeping::Imported) => document(Kind::Imported),
            (Crdt::Loro, Keeping::Opaque) => document(Kind::Opaque),
            (Crdt::Sealed, _) => document(Kind::Sealed),
            (Crdt::Ephemeral, _) => Self::Presence(Presence::passing(limits.presence)),
            (Crdt::PersistedEphemeral, _) => Self::Presence(Presence::lasting(limits.presence)),
            (Crdt::Yjs | Crdt::Flock, _) => Self::Blind(Blind::documents(limits.backlog)),
            (Crdt::YjsAwareness, _) => Self::Blind(Blind::awareness(limits.backlog)),
        }
    }

    /// Whether a restart should not lose it.
    pub(super) fn is_stored(&self) -> bool {
        match self {
            Self::Document { .. } => true,
            Self::Presence(presence) => presence.is_lasting(),
            Self::Blind(_) => false,
        }
    }

    /// Whether its snapshot is shorter than its log.
    pub(super) fn compacts(&self) -> bool {
        matches!(self, Self::Document { kind: Kind::Imported, .. } | Self::Presence(_))
    }

    /// Answers at once. A document is never asked here: it may take its time, and may panic.
    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match self {
            Self::Document { .. } => Answer::Unreadable("the document is away".to_owned()),
            Self::Presence(presence) => presence.perform(job),
            Self::Blind(blind) => blind.perform(job),
        }
    }

    /// Keys of presence.
    pub(super) fn entries(&self) -> usize {
        match self {
            Self::Presence(presence) => presence.entries(),
            _ => 0,
        }
    }

    /// Forgets everything, to be opened again.
    pub(super) fn reset(&mut self) {
        match self {
            Self::Document { home, .. } => *home = None,
            Self::Presence(presence) => presence.clear(),
            Self::Blind(blind) => blind.clear(),
        }
    }

    /// A member has left. What the others should hear of it.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        who: ConnectionId,
        author: &Author,
        grace: Duration,
    ) -> Option<Bytes> {
        match self {
            Self::Presence(presence) => presence.leave(now, who, author, grace),
            Self::Blind(blind) => {
                blind.leave(who);
                None
            }
            _ => None,
        }
    }

    /// What everybody should hear, its author included, after a batch.
    pub(super) fn brought_back(&mut self) -> Option<Bytes> {
        match self {
            Self::Presence(presence) => presence.brought_back(),
            _ => None,
        }
    }

    /// What the others should hear now that time has passed.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Bytes> {
        match self {
            Self::Presence(presence) => presence.expire(now),
            _ => None,
        }
    }

    /// When to [`expire`](Self::expire) at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Presence(presence) => presence.deadline(),
            _ => None,
        }
    }
}
