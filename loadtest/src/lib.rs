//! Load tests for signaling servers and relays: many real WebSocket clients in one cheap process, and a verdict.
//!
//! Read in this order: [`cli`] says what can be asked for, [`signaling`] and [`relay`] hold the
//! scenarios, [`swarm`] drives
//! many [`client`] connections on one thread, [`measure`] counts, [`report`] prints. [`floor`] is the cheapest
//! server there can be, to compare others with.

mod accounts;
mod chance;
pub mod cli;
pub mod client;
mod connector;
pub mod floor;
pub mod frame;
pub mod html;
mod limits;
mod live;
pub mod measure;
pub mod mesh;
pub mod ramp;
pub mod relay;
pub mod report;
pub mod reviewers;
pub mod signaling;
mod stage;
pub mod stamp;
mod stop;
pub mod swarm;
pub mod threshold;
pub mod timeline;
