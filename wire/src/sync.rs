//! The Loro Protocol, version 1: rooms in which documents and presence are kept in step.
//!
//! Every frame names its [`Room`], then says what it is ([`Message`]). A peer joins a room with the version that it
//! has, is told the version that the room has, and gets what it lacks; from then on both send updates, each under a
//! [`BatchId`], and each update is answered by an acknowledgement with a [`Status`]. An update that does not fit
//! into a frame travels in [fragments](crate::fragment).
//!
//! Decoding copies nothing but the room id and what people read: updates, versions and fragments are slices of the
//! frame that came in, which a relay can send on as it is. Encoding allocates once, to size.

mod decode;
mod encode;

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::id::{BatchId, RoomId, RoomIdTooLong};
use crate::varint::{self, ReadError, Reader};

pub use encode::{FrameTooLong, ack, leave, update};
pub(crate) use encode::{fragment, largest_part};

/// The longest frame, in bytes. Nobody may send a longer one, nobody need accept it.
pub const MAX_FRAME: usize = 256 * 1024;

/// The WebSocket close code for a frame that only [`Remedy::Close`] answers.
pub const CLOSE_PROTOCOL_ERROR: u16 = 1002;

/// What is kept in step in a room, and so how its updates are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crdt {
    /// `%LOR`: a Loro document.
    Loro,
    /// `%EPH`: presence, a Loro `EphemeralStore`.
    Ephemeral,
    /// `%EPS`: presence that the server keeps for those who come later.
    PersistedEphemeral,
    /// `%ELO`: a Loro document that only its readers can decrypt; see [`sealed`](crate::sealed).
    Sealed,
    /// `%YJS`: a Yjs document.
    Yjs,
    /// `%YAW`: Yjs awareness.
    YjsAwareness,
    /// `%FLO`: a Flock document.
    Flock,
}

impl Crdt {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Loro,
        Self::Ephemeral,
        Self::PersistedEphemeral,
        Self::Sealed,
        Self::Yjs,
        Self::YjsAwareness,
        Self::Flock,
    ];

    /// The four bytes that frames of such rooms start with: `%` and three letters.
    pub const fn magic(self) -> [u8; 4] {
        match self {
            Self::Loro => *b"%LOR",
            Self::Ephemeral => *b"%EPH",
            Self::PersistedEphemeral => *b"%EPS",
            Self::Sealed => *b"%ELO",
            Self::Yjs => *b"%YJS",
            Self::YjsAwareness => *b"%YAW",
            Self::Flock => *b"%FLO",
        }
    }

    fn from_magic(magic: [u8; 4]) -> Option<Self> {
        Self::ALL.into_iter().find(|crdt| crdt.magic() == magic)
    }
}

/// Which room: the same id under another [`Crdt`] is another room.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Room {
    /// What is kept in step there.
    pub crdt: Crdt,
    /// Its name.
    pub id: RoomId,
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let magic = self.crdt.magic();
        write!(f, "{}/{}", magic.escape_ascii(), self.id)
    }
}

/// A frame, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The room that it is about.
    pub room: Room,
    /// What it says.
    pub message: Message,
}

/// What a frame says about its room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Lets me in; this is what I have.
    JoinRequest {
        /// Whatever the server wants to see; empty if nothing.
        auth: Bytes,
        /// The version that the sender has. One zero byte, or nothing, when it has nothing.
        version: Bytes,
    },
    /// You are in; this is what I have.
    JoinOk {
        /// What you may do.
        permission: Permission,
        /// The version that the sender has.
        version: Bytes,
        /// Room for applications; empty if unused.
        extra: Bytes,
    },
    /// You are not in.
    JoinError {
        /// Why, for programs.
        error: JoinError,
        /// Why, for people.
        message: Cow<'static, str>,
    },
    /// News.
    Update {
        /// What the sender calls it.
        batch: BatchId,
        /// What it is about.
        updates: Updates,
    },
    /// News follow in fragments.
    FragmentHeader(FragmentHeader),
    /// One of the fragments.
    Fragment(Fragment),
    /// You are in, but something is wrong.
    RoomError {
        /// What to do about it.
        code: RoomErrorCode,
        /// What it is, for people.
        message: Cow<'static, str>,
    },
    /// I am no longer interested.
    Leave,
    /// What became of an update of yours.
    Ack {
        /// What you called it.
        batch: BatchId,
        /// What became of it.
        status: Status,
    },
}

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Permission {
    /// Receive updates.
    Read,
    /// Receive and send updates.
    Write,
}

impl Permission {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Announces the fragments of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentHeader {
    /// What the sender calls the update.
    pub batch: BatchId,
    /// How many fragments there are. A stranger's claim.
    pub fragments: u64,
    /// How many bytes they are in all. A stranger's claim.
    pub len: u64,
}

/// A part of an update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What the sender calls the update.
    pub batch: BatchId,
    /// Which part it is, from 0.
    pub index: u64,
    /// The part.
    pub bytes: Bytes,
}

/// Why a join is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinError {
    /// 0x00: for no reason that the protocol knows; also what unknown codes are read as.
    Unknown,
    /// 0x01: the version makes no sense. The published clients retry at once with an empty one.
    VersionUnknown {
        /// The version that the sender has.
        version: Option<Bytes>,
    },
    /// 0x02: not with that `auth`.
    AuthFailed,
    /// 0x7f: an application's own reason.
    App {
        /// The application's code.
        code: Option<Cow<'static, str>>,
    },
}

impl JoinError {
    const fn code(&self) -> u8 {
        match self {
            Self::Unknown => 0x00,
            Self::VersionUnknown { .. } => 0x01,
            Self::AuthFailed => 0x02,
            Self::App { .. } => 0x7f,
        }
    }
}

/// What is wrong in a room that one is a member of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RoomErrorCode {
    /// 0x01: join again, so that each gets what it lacks.
    RejoinSuggested,
    /// 0x02: out, and do not come back by yourself.
    Evicted,
    /// 0x7f: something else; also what unknown codes are read as.
    Unknown,
}

impl RoomErrorCode {
    const fn code(self) -> u8 {
        match self {
            Self::RejoinSuggested => 0x01,
            Self::Evicted => 0x02,
            Self::Unknown => 0x7f,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0x01 => Self::RejoinSuggested,
            0x02 => Self::Evicted,
            _ => Self::Unknown,
        }
    }
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// 0x00: it is taken.
    Ok,
    /// 0x01: it is refused; also what unknown codes are read as.
    Unknown,
    /// 0x03: its sender is no member, or may only read.
    PermissionDenied,
    /// 0x04: it makes no sense.
    InvalidUpdate,
    /// 0x05: it is too large, alone or put together from its fragments.
    PayloadTooLarge,
    /// 0x06: its sender has to slow down.
    RateLimited,
    /// 0x07: its fragments did not come in time.
    FragmentTimeout,
    /// 0x7f: an application's own reason.
    AppError,
}

impl Status {
    const fn code(self) -> u8 {
        match self {
            Self::Ok => 0x00,
            Self::Unknown => 0x01,
            Self::PermissionDenied => 0x03,
            Self::InvalidUpdate => 0x04,
            Self::PayloadTooLarge => 0x05,
            Self::RateLimited => 0x06,
            Self::FragmentTimeout => 0x07,
            Self::AppError => 0x7f,
        }
    }

    const fn from_code(code: u8) -> Self {
        match code {
            0x00 => Self::Ok,
            0x03 => Self::PermissionDenied,
            0x04 => Self::InvalidUpdate,
            0x05 => Self::PayloadTooLarge,
            0x06 => Self::RateLimited,
            0x07 => Self::FragmentTimeout,
            0x7f => Self::AppError,
            _ => Self::Unknown,
        }
    }
}

/// The updates in one [`Message::Update`], in order: as they stand in the frame, cut apart only when iterated, so
/// that a frame of very many empty ones costs no more than its length.
#[derive(Clone, PartialEq, Eq)]
pub struct Updates {
    count: usize,
    /// So many `varBytes`, and nothing else.
    body: Bytes,
}

impl Updates {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many bytes they are in all, with the few that stand between them.
    pub fn total_len(&self) -> usize {
        self.body.len()
    }

    /// Each of them, as a slice of the frame.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        let mut reader = Reader::new(&self.body);
        (0..self.count).map_while(move |_| reader.bytes().ok())
    }
}

impl<T: AsRef<[u8]>> FromIterator<T> for Updates {
    fn from_iter<I: IntoIterator<Item = T>>(updates: I) -> Self {
        let (mut count, mut body) = (0, Vec::new());
        for update in updates {
            varint::put_run(&mut body, update.as_ref());
            count += 1;
        }
        Self { count, body: body.into() }
    }
}

impl fmt::Debug for Updates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A frame that cannot be read, and what its sender should be told.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{fault}")]
pub struct FrameError {
    /// What is wrong with it.
    #[source]
    pub fault: Fault,
    /// What to do about it.
    pub remedy: Remedy,
}

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// Longer than [`MAX_FRAME`].
    #[error("frame is {len} bytes, limit is {MAX_FRAME}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Its first four bytes are those of no [`Crdt`].
    #[error("frame starts with \"{}\", which is no kind of room", .0.escape_ascii())]
    UnknownCrdt([u8; 4]),
    /// The room's name is too long.
    #[error(transparent)]
    RoomIdTooLong(#[from] RoomIdTooLong),
    /// Its type byte is that of no [`Message`].
    #[error("frame has the unknown type {0:#04x}")]
    UnknownType(u8),
    /// A [`Permission`] that is neither `read` nor `write`.
    #[error("permission is neither read nor write")]
    UnknownPermission,
    /// One of its fields.
    #[error(transparent)]
    Field(#[from] ReadError),
}

/// How to answer a frame that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// With an acknowledgement that says no. For a frame with updates the batch id is what stands where it belongs,
    /// at the end; a sender that knows no such batch ignores it.
    Ack(Room, BatchId, Status),
    /// With a [`Message::JoinError`].
    JoinError(Room),
    /// By closing the connection with [`CLOSE_PROTOCOL_ERROR`]: there is nobody to be told, or nothing to tell.
    Close,
}
