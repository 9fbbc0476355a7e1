//! A peer that keeps a Loro document in step over a hub, the local disk and WebRTC.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use loro::LoroDoc;
//! use peer_sdk::{Peer, WebRtc};
//! use peer_sdk::adapter::sqlite::Sqlite;
//!
//! let doc = LoroDoc::new();
//! let peer = Peer::builder("peer-plan-42")
//!     .document(&doc)
//!     .storage(Sqlite::open("plans.db")?)
//!     .websocket("ws://127.0.0.1:7450")
//!     .webrtc(WebRtc::signaling(["wss://signal.example"]).ice_from("https://signal.example/ice").password("secret"))
//!     .start()
//!     .await?;
//! doc.get_list("notes").push("line 3 is wrong")?;
//! doc.commit();
//! peer.stored().await?;
//! peer.caught_up().await;
//! peer.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! The modules in the order in which a newcomer may read them: [`peer`] is what an application holds, [`document`] and
//! [`presence`] its two sides; `driver` is the event loop, and `surroundings` what happens to the machine; [`engine`] decides everything, without IO, clock or
//! randomness; [`adapter`] has the ways to others and to the disk.

pub mod peer;

pub mod document;
pub mod error;
pub mod presence;

mod driver;
mod surroundings;

pub mod adapter;
pub mod engine;

#[cfg(feature = "webrtc")]
pub use adapter::mesh::WebRtc;
pub use error::{Closed, PresenceError, StartError};
pub use peer::{Event, LinkState, Peer, PeerBuilder, Status};

/// The examples of the readme, which have to compile.
#[cfg(all(doctest, feature = "sqlite", feature = "webrtc", feature = "websocket"))]
#[doc = include_str!("../README.md")]
struct Readme;
