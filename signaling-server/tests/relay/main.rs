//! Documents and presence through a real server, by clients that speak the Loro Protocol to it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/command.rs"]
mod command;
#[path = "../support/mod.rs"]
mod support;

mod peer;
mod process;

mod access;
mod durability;
mod harm;
mod keeping;
mod operator;
mod readers;
mod rooms;

use bytes::Bytes;
use wire::fragment::{FRAGMENT, Split};
use wire::id::BatchId;
use wire::sync::Room;

/// The frames of an update in fragments, as batch 1.
fn split(room: &Room, update: &[u8]) -> Vec<Bytes> {
    Split::new(room, BatchId::from(1), update, FRAGMENT).collect()
}
