//! What outlives a connection: each room as a snapshot, and behind it a log of what came since.
//!
//! A room [loads](Store::load) what is stored before it does anything else, [appends](Store::append) each batch that
//! it takes, and from time to time puts a snapshot in place of the log ([`Store::compact`]). Writes are queued and
//! answered through a [`Reply`]; on disk that answer is our word that no crash can lose what was written.
//!
//! Two stores keep the one contract: [`memory`] forgets at the end of the process, [`sqlite`] does not. [`export`] is
//! how a room travels as a file.
//!
//! # When an append fails
//!
//! The log then lacks a batch that later ones may build on, and these may well be stored. So a room that was told of
//! a failure acknowledges nothing until a snapshot of all that it has is stored.
//!
//! # When somebody else changes a room
//!
//! An operator may cut, delete or import a room while a server has it in memory. Each of these starts a new
//! [`Generation`]. Appends go on, and their replies tell of it; compactions under the old one are refused, since they
//! would undo the change. A room that learns of a generation other than its own forgets what it has and loads again.

mod caps;
mod error;
pub mod export;
pub mod memory;
mod reply;
pub mod sqlite;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use wire::BatchId;
use wire::sync::Room;

pub use caps::{Caps, RoomSize, Usage};
pub use error::{Damage, Part, StoreError};
pub use reply::Reply;

/// The longest [`Author`], in bytes.
pub const MAX_AUTHOR: usize = 128;

/// What each batch is counted as beyond its payload, in bytes: its author, ids and place on the disk.
pub const BATCH_OVERHEAD: u64 = 64;

/// Keeps rooms. All methods may be called from any thread.
///
/// Writes to one room take effect in the order of the calls, and each is answered exactly once, on whatever thread
/// and possibly before the call returns. Reads block, so they belong on a blocking pool; they see every write that was
/// answered before.
pub trait Store: fmt::Debug + Send + Sync {
    /// The snapshot and log of a room, each part checked; `None` if nothing is stored of it.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if a part of it is not as it was written: it may then be neither appended to nor
    /// compacted until an operator has mended it. [`StoreError::Disk`] if it can not be read.
    fn load(&self, room: &Room) -> Result<Option<Loaded>, StoreError>;

    /// Puts a batch at the end of a room's log; the first one makes the room.
    ///
    /// Refused at once, with [`StoreError::Busy`], while too much waits to be written.
    fn append(&self, room: &Room, batch: Batch, reply: Reply<Written>);

    /// Puts a snapshot in place of a room's snapshot and of its log up to a batch, all or nothing. Answered with the
    /// generation and size that the room has then.
    fn compact(&self, room: &Room, compaction: Compaction, reply: Reply<Written>);

    /// Takes something out of a room for good, and starts a new generation of it.
    fn cut(&self, room: &Room, cut: Cut, reply: Reply<CutOut>);

    /// Forgets a room. Answered with [`StoreError::NoSuchRoom`] if nothing is stored of it.
    fn delete(&self, room: &Room, reply: Reply<()>);

    /// Forgets every room that nobody has loaded, appended to or compacted since then, except for those in `live`,
    /// which count as used now. Answered with those forgotten.
    fn sweep(&self, unused_since: SystemTime, live: Vec<Room>, reply: Reply<Vec<Room>>);

    /// Everything stored, by name.
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if it can not be read.
    fn list(&self) -> Result<Vec<RoomInfo>, StoreError>;

    /// One of [`list`](Self::list).
    ///
    /// # Errors
    ///
    /// [`StoreError::Disk`] if it can not be read.
    fn info(&self, room: &Room) -> Result<Option<RoomInfo>, StoreError>;

    /// How much is stored, as of the last write that was answered. Never blocks for long.
    fn usage(&self) -> Usage;

    /// How much may be stored.
    fn caps(&self) -> Caps;
}

/// Who sent a batch, as the server knows them: what an operator finds it by. Longer text is cut short at
/// [`MAX_AUTHOR`]. A clone shares the text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Author(Arc<str>);

impl Author {
    /// The author as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Arc<str>> for Author {
    fn from(text: Arc<str>) -> Self {
        if text.len() > MAX_AUTHOR { Self::from(&*text) } else { Self(text) }
    }
}

impl From<&str> for Author {
    fn from(text: &str) -> Self {
        Self(text[..text.floor_char_boundary(MAX_AUTHOR)].into())
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a payload is to the room that stored it. The store keeps it and reads nothing into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

/// Something to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Who sent it.
    pub author: Author,
    /// What its author calls it; not unique.
    pub id: BatchId,
    /// How its payload is to be read.
    pub kind: Kind,
    /// What it says.
    pub payload: Bytes,
}

impl Batch {
    /// What it counts against the caps, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.payload.len() as u64 + BATCH_OVERHEAD
    }
}

/// A batch's place in its room's log, from 1. Never used twice in one [`Generation`], even if the log was emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u32);

impl Seq {
    /// Before the first.
    pub const ZERO: Self = Self(0);
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which life of a room something belongs to. A new one, never used before in this store, starts when the room is
/// made, imported or cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Generation(pub(crate) u64);

/// A batch in a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// Its place.
    pub seq: Seq,
    /// When it was stored, to the millisecond, by the clock of this machine.
    pub stored_at: SystemTime,
    /// The batch.
    pub batch: Batch,
}

/// What is stored of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// The life of the room that this is from.
    pub generation: Generation,
    /// The snapshot, if there is one.
    pub snapshot: Option<Bytes>,
    /// What came since the snapshot, the oldest first.
    pub log: Vec<Logged>,
    /// How much that is.
    pub size: RoomSize,
}

impl Loaded {
    /// The last place in use.
    #[must_use]
    pub fn last(&self) -> Seq {
        self.log.last().map_or(Seq::ZERO, |logged| logged.seq)
    }
}

/// What became of a write to a room's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// The place of the batch, or of the last one that the compaction replaced.
    pub seq: Seq,
    /// The life of the room that it belongs to. If that is not the one loaded, the room has to load again.
    pub generation: Generation,
    /// How large the room is now.
    pub size: RoomSize,
}

/// A snapshot, and what it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compaction {
    /// The life of the room that the snapshot is from; `None` if nothing is known to be stored.
    pub generation: Option<Generation>,
    /// The last batch that the snapshot contains. Those after it stay in the log.
    pub through: Seq,
    /// Everything up to there.
    pub snapshot: Bytes,
}

/// What to take out of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cut {
    /// One batch of the log.
    Batch(Seq),
    /// Every batch of one author in the log.
    Author(Author),
    /// The snapshot. Batches that build on it make sense again once somebody sends what it held.
    Snapshot,
}

/// What was taken out of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CutOut {
    /// How many batches; 0 for the snapshot.
    pub batches: u64,
    /// The life of the room that starts with it.
    pub generation: Generation,
    /// How large the room is now.
    pub size: RoomSize,
}

/// A stored room from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoomInfo {
    /// Which room.
    pub room: Room,
    /// Its present life.
    pub generation: Generation,
    /// How much is stored of it.
    pub size: RoomSize,
    /// When it was last appended to, compacted or, to within the time between two sweeps, loaded.
    pub used_at: SystemTime,
}

/// Something that a store did, for whoever counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Appends were written and synced together.
    Committed {
        /// How many.
        batches: usize,
        /// Their payloads, in bytes.
        bytes: usize,
        /// How long the commit took, which is mostly the disk's sync.
        synced: Duration,
        /// How long the oldest of them had waited until it was on disk.
        waited: Duration,
    },
    /// A room's log became a snapshot.
    Compacted {
        /// How large the room was.
        from: RoomSize,
        /// How large it is.
        to: RoomSize,
        /// How long it took.
        took: Duration,
    },
    /// Writes that should have worked did not; their rooms know already.
    Failed {
        /// How many.
        writes: usize,
        /// What went wrong.
        error: StoreError,
    },
    /// Rooms that nobody used were forgotten.
    Swept {
        /// How many.
        rooms: usize,
    },
    /// Somebody else, an operator's command, has written to the database. Which rooms are of another generation now,
    /// [`Store::list`] tells.
    ChangedOutside,
}

/// Is told of each [`Event`], on the thread that writes: it takes no long.
pub type Observer = Arc<dyn Fn(&Event) + Send + Sync>;
