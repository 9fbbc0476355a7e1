//! Rooms over WebSockets: a signaling server for y-webrtc clients.
//!
//! The modules in the order a message takes: [`server`] binds and accepts, [`http`] upgrades, `connection` reads and
//! writes one socket, `session` knows what its messages mean, [`hub`] has all rooms, [`room`] decides who hears what,
//! [`outbox`] holds what waits for a socket. [`access`], [`limits`] and [`address`] say who may do how much;
//! [`ice`] tells peers of STUN and TURN servers, [`store`] keeps rooms, [`config`] is what can be set, [`metrics`] and
//! [`operator`] what can be seen. [`notify`] talks to the service manager, [`reload`] reads files again.
//!
//! Another service can nest it:
//!
//! ```no_run
//! use signaling_server::{config::Config, http, signaling::Signaling};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let signaling = Signaling::new(&Config::default())?;
//! let app: axum::Router = axum::Router::new().nest("/signaling", http::router(signaling));
//! # Ok(())
//! # }
//! ```

pub mod access;
pub mod address;
pub mod cli;
pub mod config;
mod connection;
pub mod frame;
pub mod http;
pub mod hub;
pub mod ice;
pub mod limits;
pub mod metrics;
pub mod notify;
pub mod operator;
pub mod outbox;
pub mod relay;
pub mod reload;
pub mod room;
pub mod server;
pub mod session;
pub mod signaling;
mod socket;
pub mod store;
pub mod tls;
pub mod watched;
