//! What a room of the Loro Protocol hears and says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::fragment::Reassembly;
use wire::id::BatchId;
use wire::sync::{Message, Permission, RoomErrorCode, Status};

use super::Backfill;
use crate::room::ConnectionId;
use crate::room::document::{Done, Work};

/// What a room puts up with. [`Default`] suits a server for everybody.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most members of one room; 0 means no limit.
    pub members: usize,
    /// Most bytes of one update, in one frame or in fragments.
    pub update: usize,
    /// Most joins and updates that wait for the room, while it is loaded or its document is away. One more is turned
    /// away, or refused as too fast.
    pub queue: usize,
    /// Most bytes of the updates that wait so.
    pub queued: usize,
    /// Most bytes stored of one room, in its snapshot and log. An update beyond is refused as too large.
    pub room: u64,
    /// Most bytes of presence in one room, deleted keys included. An update beyond is refused as too large.
    pub presence: usize,
    /// Bytes of the newest updates that rooms which are relayed blindly keep for newcomers. The oldest go first.
    pub backlog: usize,
    /// The log of a room becomes a snapshot when it is longer than this and than the last snapshot, in bytes.
    pub compact_after: u64,
    /// The least time between two suggestions to one member to join again. One that comes too soon is put off.
    pub suggestions: Duration,
    /// How long the presence of a connection that has ended stays, for networks that flap.
    pub grace: Duration,
    /// How long after the store failed to try again. Doubles with each failure, up to 30 s.
    pub retry: Duration,
}

impl Default for Limits {
    /// 1,000 members; updates of 32 MiB; 1,024 jobs and 64 MiB queued; 256 MiB stored; 1 MiB of presence; a backlog
    /// of 4 MiB; compaction after 256 KiB; a second between suggestions and before a retry; no grace.
    fn default() -> Self {
        Self {
            members: 1000,
            update: 32 << 20,
            queue: 1024,
            queued: 64 << 20,
            room: 256 << 20,
            presence: 1 << 20,
            backlog: 4 << 20,
            compact_after: 256 << 10,
            suggestions: Duration::from_secs(1),
            grace: Duration::ZERO,
            retry: Duration::from_secs(1),
        }
    }
}

/// What to do with a `%LOR` document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeping {
    /// Import what comes, so that a newcomer gets exactly what it lacks and the log can become a snapshot.
    Imported,
    /// Keep the log and never look into it: no update can break the room, but every newcomer gets all of it, and the
    /// version is always said to be empty.
    Opaque,
}

/// Who writes, as the server knows them: what an operator finds a batch by. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Author(pub Arc<str>);

/// One write to the store. Minted by the room, never used twice while it is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub(super) u64);

/// A batch's place in the stored log of its room, as the store counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seq(pub u32);

/// Which life of the room the stored log belongs to. When it changes, somebody else has changed what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation(pub u64);

/// An [`Entry`] whose payload is one update.
pub const ONE: u8 = 0;
/// An [`Entry`] whose payload is several updates, packed.
pub const MANY: u8 = 1;

/// A batch for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Who sent it.
    pub author: Author,
    /// What its author calls it; not unique.
    pub batch: BatchId,
    /// [`ONE`] or [`MANY`].
    pub kind: u8,
    /// Its updates.
    pub payload: Bytes,
}

/// A batch from the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub seq: Seq,
    /// [`ONE`] or [`MANY`].
    pub kind: u8,
    /// Its updates.
    pub payload: Bytes,
}

/// What is stored of a room; nothing at all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The life of the room; `None` if nothing is stored.
    pub generation: Option<Generation>,
    /// The last snapshot, as [`Output::Compact`] gave it.
    pub snapshot: Option<Bytes>,
    /// What came since, the oldest first.
    pub log: Vec<Logged>,
}

impl Stored {
    /// Bytes of the snapshot, and of the log.
    pub(crate) fn sizes(&self) -> (u64, u64) {
        let snapshot = self.snapshot.as_ref().map_or(0, Bytes::len);
        let log: usize = self.log.iter().map(|logged| logged.payload.len()).sum();
        (snapshot as u64, log as u64)
    }
}

/// A write that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The place of the batch, or of the last one that the snapshot replaced.
    pub seq: Seq,
    /// The life of the room that it belongs to.
    pub generation: Generation,
    /// Bytes of the room's snapshot now.
    pub snapshot: u64,
    /// Bytes of the room's log now.
    pub log: u64,
}

/// Why a write is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteError {
    /// The room, or all rooms together, would be larger than they may be. Its sender is told that it is too large.
    Full,
    /// The disk is full or broken, or too much waits to be written. Its sender is refused without a reason.
    Failed,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Input<'a> {
    /// A connection asks to come in and may; or it is in already, and from now on may do this. If it asks again before
    /// it has been answered, it is answered once.
    Join {
        /// Who.
        who: ConnectionId,
        /// What it may do.
        permission: Permission,
        /// The version that it has, as it says.
        version: Bytes,
        /// What its batches are stored under.
        author: Author,
    },
    /// A connection, in the room or not, has sent a frame about it. Joins are [`Input::Join`]; they are ignored here.
    Frame {
        /// Who.
        from: ConnectionId,
        /// What it says.
        message: Message,
        /// The frame itself, for sending on.
        frame: &'a Bytes,
        /// What the connection has under way in fragments, in all rooms.
        fragments: &'a mut Reassembly,
    },
    /// A connection was faster than it may be: this batch has not been looked at.
    TooFast {
        /// Who.
        from: ConnectionId,
        /// What it called it.
        batch: BatchId,
    },
    /// The [`Reassembly`] of a connection has given up on this batch.
    FragmentTimeout {
        /// Who.
        from: ConnectionId,
        /// What it called it.
        batch: BatchId,
    },
    /// A connection has ended, in the room or not.
    Gone {
        /// Which.
        who: ConnectionId,
    },
    /// The server ends a connection because it is stopping. The others hear nothing: they are about to come back
    /// elsewhere, and so is who this was.
    Drained {
        /// Which.
        who: ConnectionId,
    },
    /// The answer to [`Output::Load`]; an error is a reason for people, without names.
    Loaded(Result<Stored, String>),
    /// The answer to [`Output::Work`].
    Done(Box<Done>),
    /// The answer to [`Output::Append`].
    Appended {
        /// Which.
        ticket: Ticket,
        /// What became of it.
        result: Result<Written, WriteError>,
    },
    /// The answer to [`Output::Compact`].
    Compacted {
        /// Which.
        ticket: Ticket,
        /// What became of it.
        result: Result<Written, WriteError>,
    },
    /// Somebody else has changed what is stored, as [`Relay::generation`](super::Relay::generation) would tell: it is
    /// to be loaded again.
    Changed,
    /// Nothing, but time has passed.
    Tick,
}

/// What to do about it.
#[derive(Debug)]
pub enum Output {
    /// Send a frame to one connection, if it is still there.
    Reply {
        /// Which.
        to: ConnectionId,
        /// What it is, for counting.
        reply: Reply,
        /// The frame.
        frame: Bytes,
    },
    /// Send these frames to each of these connections, in this order and with no other frames of the room between
    /// them. One whose outbox is full is closed: it gets what it missed when it joins again.
    Relay {
        /// The frames, shared by all receivers.
        frames: Vec<Bytes>,
        /// The members that receive them.
        to: Audience,
        /// When the update came.
        arrived: Instant,
    },
    /// Send these frames to one connection, at the pace at which its socket takes them, other frames in between. A
    /// later backfill of the same room to the same connection takes the place of what is left of this one.
    Backfill {
        /// Which.
        to: ConnectionId,
        /// The frames.
        backfill: Backfill,
    },
    /// Have this [run](Work::run), on a thread that may block if it [is heavy](Work::is_heavy), and answer with
    /// [`Input::Done`]. The room's lock is not held meanwhile.
    Work(Box<Work>),
    /// Load what is stored, every write answered before included, and answer with [`Input::Loaded`].
    Load,
    /// Put a batch at the end of the log, and answer with [`Input::Appended`]. Writes keep their order.
    Append {
        /// What to answer under.
        ticket: Ticket,
        /// The batch.
        entry: Entry,
    },
    /// Put a snapshot in place of the last one and of the log up to a place, and answer with [`Input::Compacted`].
    Compact {
        /// What to answer under.
        ticket: Ticket,
        /// The life of the room that it is of. If the store has another one by now, nothing is written and
        /// [`Written::generation`] or an error says so.
        generation: Option<Generation>,
        /// The last place that the snapshot covers.
        through: Seq,
        /// The snapshot.
        snapshot: Bytes,
    },
    /// Something worth counting, or telling the operator.
    Event(Event),
}

/// The members of a room but for one, if one of them is not to hear what it has said itself. In no particular order; a
/// clone shares the list.
#[derive(Clone, Debug)]
pub struct Audience {
    pub(super) members: Arc<[ConnectionId]>,
    pub(super) except: Option<ConnectionId>,
}

impl Audience {
    /// Each of them once.
    pub fn iter(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.members.iter().copied().filter(|who| Some(*who) != self.except)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

/// What a frame to one connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is in.
    JoinOk,
    /// It is not in.
    JoinError,
    /// What became of a batch.
    Ack {
        /// This.
        status: Status,
        /// When the batch, or the first word of it, came.
        arrived: Instant,
    },
    /// It is in, but something is wrong.
    RoomError(RoomErrorCode),
}

/// Something worth counting, or telling the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An update waits for others that it builds on.
    Pending,
    /// The document panicked; it is loaded again, without the update that did it.
    Quarantined,
    /// These batches of the log panic when they are imported, and were left out. The next compaction drops them.
    SetAside(Vec<Seq>),
    /// The room cannot be loaded; nothing of it was changed.
    Unreadable(String),
    /// The store does not keep what it is given: nothing is taken until it does.
    GapOpened,
    /// It does again, and everything is stored.
    GapClosed,
}
