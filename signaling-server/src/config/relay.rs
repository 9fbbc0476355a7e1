//! `[relay]`: rooms of the Loro Protocol, and how they are kept.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Period, Size, values};
use crate::store::Caps;

/// `[relay]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RelayConfig {
    /// Whether documents and presence are relayed, and where they are kept. Default `off`.
    pub mode: RelayMode,
    /// Mode `disk`: the directory for the database; made if there is none. Default none.
    #[serde(with = "values::empty_is_none")]
    pub data_dir: Option<PathBuf>,
    /// How many rooms may be stored. Default 10000; 0: no limit.
    pub rooms: usize,
    /// How many bytes one room may take in the store, snapshot and log together. Bounds memory. Default 64 MiB.
    pub bytes_per_room: Size,
    /// How many bytes all rooms together may take in the store; at least `bytes_per_room`. Default 4 GiB; 0: no limit.
    pub bytes: Size,
    /// How long a room is kept that nobody uses. Default 0: for ever.
    pub abandoned_after: Period,
    /// How long a room's log grows before it becomes a snapshot; less than `bytes_per_room`. Default 1 MiB.
    pub compact_after: Size,
    /// Mode `disk`: how many bytes may wait to be written; what comes on top is refused. Bounds memory. Default 64 MiB.
    pub write_queue: Size,
    /// Mode `disk`: how long there is at least between two syncs of the disk; what comes meanwhile is synced and
    /// acknowledged together. Default 50 ms; 0: nothing waits for anything else.
    pub sync_interval: Period,
    /// Patterns (`*`, `?`) of documents that are kept as a log and never looked into. Default none.
    pub opaque: Vec<String>,
    /// How long a room that nobody is in stays in memory. Default 30 s.
    pub idle_after: Period,
    /// How long the presence of a connection that has ended stays. Default 0.
    pub presence_grace: Period,
    /// How much may be on its way to newcomers, all together. Bounds memory. Default 256 MiB.
    pub backfill: Size,
    /// How many updates one connection may send each second in the long run; more are refused. Default 100; 0: no
    /// limit.
    pub updates_per_second: u32,
    /// How many updates one connection may send at once after a pause. Default 1000.
    pub updates_burst: u32,
    /// While documents are relayed, how many bytes one connection may send each second in the long run; more are read
    /// later. Counts if it is more than `limits.bytes_per_second`. Default 4 MiB.
    pub bytes_per_second: Size,
    /// While documents are relayed, how many bytes one connection may send at once after a pause. Default 32 MiB.
    pub bytes_burst: Size,
}

/// Where documents are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayMode {
    /// Nothing is relayed: the server does signaling alone.
    #[default]
    Off,
    /// In memory, until the server ends.
    Memory,
    /// On disk: an acknowledged update survives any crash.
    Disk,
}

impl RelayConfig {
    /// How much may be stored.
    pub fn caps(&self) -> Caps {
        Caps {
            rooms: self.rooms as u64,
            bytes_per_room: self.bytes_per_room.get() as u64,
            bytes: self.bytes.get() as u64,
        }
    }
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            mode: RelayMode::Off,
            data_dir: None,
            rooms: 10_000,
            bytes_per_room: Size::kib(64 * 1024),
            bytes: Size::kib(4 * 1024 * 1024),
            abandoned_after: Period::seconds(0),
            compact_after: Size::kib(1024),
            write_queue: Size::kib(64 * 1024),
            sync_interval: Period::millis(50),
            opaque: Vec::new(),
            idle_after: Period::seconds(30),
            presence_grace: Period::seconds(0),
            backfill: Size::kib(256 * 1024),
            updates_per_second: 100,
            updates_burst: 1000,
            bytes_per_second: Size::kib(4 * 1024),
            bytes_burst: Size::kib(32 * 1024),
        }
    }
}
