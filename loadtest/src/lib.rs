//! Load tests for signaling servers and relays: many real WebSocket clients in one cheap process, and a verdict.
//!
//! Read in this order: [`cli`] says what can be asked for, [`signaling`] and [`relay`] hold the
//! scenarios, [`swarm`] drives
//! many [`client`] connections on one thread, [`measure`] counts, [`report`] prints. [`floor`] is the cheapest
//! server there can be, to compare others with.

mod accounts;
pub mod cli;
pub mod client;
pub mod floor;
pub mod frame;
pub mod measure;
pub mod relay;
pub mod report;
pub mod signaling;
mod stage;
pub mod stamp;
pub mod swarm;
