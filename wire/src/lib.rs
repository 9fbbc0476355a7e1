//! Bytes to meaning and back: every dialect that crosses one of our sockets, without a clock, a socket or a task.
//!
//! A WebSocket message arrives. [`frame`] looks at its first bytes and says which [`Dialect`] it speaks:
//!
//! - the y-webrtc signaling protocol, JSON in text or binary messages: [`signal`];
//! - the Loro Protocol, binary messages that start with `%`: [`sync`], large updates in [`fragment`]s, encrypted
//!   ones [`sealed`]; what an update of Loro would take in memory is told by `vetting`, with the feature `loro`;
//! - the Loro Protocol's keepalive, the texts `ping` and `pong`.
//!
//! What a reader learns is owned ([`TopicName`], [`PeerId`]) or borrowed from the message; what is sent on is the
//! message as it came, with a splice where the protocol asks for one. Payloads are never parsed into a tree and
//! written out again, so a number, an escape or a lone surrogate reaches its receiver bit for bit.
//!
//! # What every decoder here promises
//!
//! Bytes from a stranger never panic, never recurse deeper than a given limit, and never make us allocate more
//! than a small multiple of their own length. What cannot be understood is a typed error that says what was
//! refused.

pub mod frame;
pub mod id;
pub mod signal;
pub mod sync;

pub mod fragment;
pub mod sealed;
#[cfg(feature = "loro")]
pub mod vetting;

mod json;
mod varint;

pub use frame::{Dialect, Keepalive, Kind};
pub use id::{BatchId, PeerId, RoomId, TopicName};
pub use signal::{Limits, PONG, Publish, Signal, SignalError, TopicTooLong, Topics, repair};
pub use varint::ReadError;
