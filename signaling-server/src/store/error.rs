//! What can go wrong with a stored room.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use wire::sync::Room;

use super::Seq;

/// Why something was not read or not written. A write that failed has changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Too much waits to be written; later there may be room.
    #[error("{waiting} bytes wait to be written, limit is {limit}")]
    Busy {
        /// Bytes that wait.
        waiting: usize,
        /// Bytes that may.
        limit: usize,
    },
    /// The room would be too large.
    #[error("room would be {size} bytes, limit is {limit}")]
    RoomFull {
        /// Its bytes, with what was refused.
        size: u64,
        /// Bytes that a room may have.
        limit: u64,
    },
    /// All rooms together would be too large.
    #[error("all rooms would be {size} bytes together, limit is {limit}")]
    Full {
        /// Their bytes, with what was refused.
        size: u64,
        /// Bytes that they may have.
        limit: u64,
    },
    /// There are as many rooms as there may be.
    #[error("there are already {limit} rooms, which is the limit")]
    TooManyRooms {
        /// Rooms that there may be.
        limit: u64,
    },
    /// A compaction of another life of the room.
    #[error("room has been changed from outside since it was loaded")]
    Changed,
    /// Nothing is stored of the room.
    #[error("no such room is stored")]
    NoSuchRoom,
    /// There is nothing of that kind to take out.
    #[error("room has nothing of that kind in its log; what was compacted is part of its snapshot")]
    NothingToCut,
    /// A part of the room is not as it was written.
    #[error(transparent)]
    Damaged(Arc<Damage>),
    /// The disk is full; later there may be room.
    #[error("{}: no space left on the disk", file.display())]
    DiskFull {
        /// The file that did not fit.
        file: PathBuf,
    },
    /// The disk, or somebody who holds the file locked, is in the way.
    #[error("{}: {problem}", file.display())]
    Disk {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The store is closing, or its writer is gone.
    #[error("store is closed")]
    Closed,
}

/// A part of a room that is not as it was written, and what an operator can do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{}: room '{}': {part} is damaged: {problem}; it is left as it is until it is mended: \
     \"signaling-server rooms export\" saves what is intact, \"rooms delete\" and \"rooms import\" put that in place{}",
    file.display(), room.to_string().escape_debug(), part.remedy()
)]
pub struct Damage {
    /// The file.
    pub file: PathBuf,
    /// The room.
    pub room: Room,
    /// What of it.
    pub part: Part,
    /// What is wrong.
    pub problem: String,
}

/// A part of a stored room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its entry in the list of rooms.
    Entry,
    /// Its snapshot.
    Snapshot,
    /// One batch of its log.
    Batch(Seq),
    /// Its log from some place on.
    Log,
}

impl Part {
    fn remedy(self) -> String {
        match self {
            Self::Snapshot => "; \"rooms cut ROOM snapshot\" takes it out alone".to_owned(),
            Self::Batch(seq) => format!("; \"rooms cut ROOM {seq}\" takes it out alone"),
            Self::Entry | Self::Log => String::new(),
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry => f.write_str("its entry"),
            Self::Snapshot => f.write_str("its snapshot"),
            Self::Batch(seq) => write!(f, "batch {seq}"),
            Self::Log => f.write_str("its log"),
        }
    }
}
