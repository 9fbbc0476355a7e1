//! coturn from one typed description, and TURN credentials that expire.
//!
//! Browsers behind symmetric NATs reach each other only through a TURN server. This crate has the two halves of
//! running one with coturn:
//!
//! - for the service that hands out credentials: [`credential`] mints them from a secret shared with coturn, [`url`]
//!   names servers, and [`ice`] puts both into the answer that `new RTCPeerConnection` takes. This much is there
//!   without any feature, and it opens no sockets and starts no tasks;
//! - for the operator: `description` reads and checks what a TURN server should be (feature `description`), `render`
//!   turns it into a hardened `turnserver.conf`, and `probe` asks a running server whether it relays (feature
//!   `probe`). The command `turn-config` (feature `cli`) offers the same from a shell.

pub mod credential;
pub mod url;

pub mod ice;

#[cfg(feature = "description")]
pub mod description;
#[cfg(feature = "description")]
pub mod render;

#[cfg(feature = "probe")]
pub mod probe;
