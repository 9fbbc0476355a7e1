//! The ways to other peers and to the local disk.

#[cfg(feature = "webrtc")]
pub mod ice;
#[cfg(feature = "webrtc")]
pub mod signaling;
#[cfg(feature = "webrtc")]
pub mod webrtc;
