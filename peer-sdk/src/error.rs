//! What can go wrong, by what the caller can do about it.

use thiserror::Error;
use wire::id::RoomIdTooLong;

use crate::adapter::StorageError;
#[cfg(feature = "webrtc")]
use crate::adapter::signaling::UrlError;
#[cfg(feature = "websocket")]
use crate::adapter::websocket::BadUrl;
use crate::engine::Unreadable;

/// Why a peer does not start. Nothing has been written or sent.
#[derive(Debug, Error)]
pub enum StartError {
    /// The room's name is too long: choose another.
    #[error(transparent)]
    RoomTooLong(#[from] RoomIdTooLong),
    /// An address cannot be dialled: correct it.
    #[cfg(feature = "websocket")]
    #[error(transparent)]
    BadUrl(#[from] BadUrl),
    /// An address of a signaling server, or of a source of ICE servers, cannot be used: correct it.
    #[cfg(feature = "webrtc")]
    #[error(transparent)]
    BadSignaling(#[from] UrlError),
    /// What is to be shown to a hub or relay when joining is too long: shorten it.
    #[error("credentials are {len} bytes, limit is {limit}")]
    AuthTooLong {
        /// Their length in bytes.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// The local disk does not give what it has. A damaged file is untouched; the peer can be started with a fresh one
    /// beside it, and gets from the others what they have.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What the local disk has is not readable as a document. It is untouched; as above.
    #[error("the stored document is damaged: {0}")]
    Document(#[from] Unreadable),
    /// The application's document cannot take what is stored: it may be poisoned by a panic.
    #[error("the document does not take what is stored: {0}")]
    Import(String),
    /// Presence is too large, or cannot be written as JSON.
    #[error(transparent)]
    Presence(#[from] PresenceError),
    /// Another peer of this process serves the room at this hub.
    #[error("the hub serves this room for another peer already")]
    RoomTaken,
}

/// The peer is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the peer is closed")]
pub struct Closed;

/// Why presence is not shown. What was shown before stays.
#[derive(Debug, Error)]
pub enum PresenceError {
    /// It is too large.
    #[error("presence is {len} bytes, limit is {limit}")]
    TooLarge {
        /// Its length in bytes, encoded.
        len: usize,
        /// The limit.
        limit: usize,
    },
    /// It cannot be written as JSON, as is the case with maps whose keys are no strings.
    #[error("presence cannot be written: {0}")]
    Unwritable(#[from] serde_json::Error),
    /// The peer is closed.
    #[error("the peer is closed")]
    Closed,
}
