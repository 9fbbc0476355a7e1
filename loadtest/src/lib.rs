//! Load tests for signaling servers: many real WebSocket clients in one cheap process, and a verdict.
//!
//! Read in this order: [`cli`] says what can be asked for, [`signaling`] holds the scenarios, [`swarm`] drives
//! many [`client`] connections on one thread, [`measure`] counts, [`report`] prints. [`floor`] is the cheapest
//! server there can be, to compare others with.

pub mod cli;
pub mod client;
pub mod floor;
pub mod frame;
pub mod measure;
pub mod report;
pub mod signaling;
pub mod stamp;
pub mod swarm;
