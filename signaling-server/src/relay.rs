//! All rooms of the Loro Protocol: feeds each what happens to it, and has done what it decides.
//!
//! A [room](room::Relay) lives in memory from the first join until it has been left alone for a while; a stored one
//! is then loaded again when somebody asks for it.

mod backfills;
mod chamber;
mod keeping;
mod perform;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use dashmap::DashMap;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore};
use wire::id::{RoomId, RoomIdTooLong, TopicName};
use wire::sync::{Crdt, Room};

use crate::access::Glob;
use crate::config::{LimitsConfig, RelayConfig, RelayMode};
use crate::hub::Caller;
use crate::metrics::Metrics;
use crate::outbox::Flush;
use crate::room::relay as room;
use crate::store::memory::MemoryStore;
use crate::store::sqlite::{OpenError, Options, SqliteStore};
use crate::store::{Reply, Store, Usage};

use backfills::Backfills;
pub(crate) use chamber::Chamber;
pub(crate) use keeping::as_stored;

/// Rooms loaded at the same time; others wait their turn.
const LOADS_AT_ONCE: usize = 8;
/// Documents worked on at the same time on threads that may block.
const HEAVY_AT_ONCE: usize = 2;

/// Every room of the Loro Protocol that is in memory, and the store behind them.
pub struct Relays {
    rooms: DashMap<Room, Arc<Chamber>>,
    store: Arc<dyn Store>,
    limits: room::Limits,
    opaque: Vec<Glob>,
    idle_after: Duration,
    abandoned_after: Duration,
    metrics: Arc<Metrics>,
    loads: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
    backfills: Arc<Backfills>,
    /// Somebody else has written to the store.
    changed: Arc<Notify>,
}

/// Why documents cannot be relayed.
#[derive(Debug, Error)]
pub enum RelayStartError {
    /// The database cannot be used.
    #[error("relay.data_dir: {0}")]
    Store(#[from] OpenError),
}

/// A room in memory as operators see it.
#[derive(Clone, Debug)]
pub struct RelayReport {
    /// Which.
    pub room: Room,
    /// Connections that have joined.
    pub members: usize,
    /// Keys of presence; 0 for documents.
    pub entries: usize,
    /// Bytes stored; 0 for what is not stored.
    pub stored: u64,
}

impl Relays {
    /// The rooms as `config` wants them, `None` if it wants none. Opens the database.
    pub(crate) fn open(
        config: &RelayConfig,
        limits: &LimitsConfig,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Arc<Self>>, RelayStartError> {
        let caps = config.caps();
        let changed = Arc::new(Notify::new());
        let observer = keeping::observer(metrics, &changed);
        let store: Arc<dyn Store> = match (config.mode, &config.data_dir) {
            (RelayMode::Off, _) => return Ok(None),
            (RelayMode::Disk, Some(dir)) => Arc::new(SqliteStore::open(Options {
                dir: dir.clone(),
                caps,
                queue: config.write_queue.get(),
                sync_interval: config.sync_interval.duration(),
                observer,
            })?),
            (RelayMode::Memory | RelayMode::Disk, _) => Arc::new(MemoryStore::new(caps, observer)),
        };
        let opaque = config.opaque.iter().map(|pattern| Glob::new(pattern)).collect();
        Ok(Some(Arc::new(Self {
            rooms: DashMap::new(),
            store,
            limits: keeping::limits(config, limits),
            opaque,
            idle_after: config.idle_after.duration(),
            abandoned_after: config.abandoned_after.duration(),
            metrics: Arc::clone(metrics),
            loads: Arc::new(Semaphore::new(LOADS_AT_ONCE)),
            heavy: Arc::new(Semaphore::new(HEAVY_AT_ONCE)),
            backfills: Backfills::new(config.backfill.get(), Arc::clone(metrics)),
            changed,
        })))
    }

    /// Somebody asks to come in and may. What the room answers goes to its outbox.
    pub(crate) fn join(
        self: &Arc<Self>,
        caller: &Arc<Caller>,
        room: &Room,
        request: &JoinRequest,
        now: Instant,
        flush: &mut Flush,
    ) -> Arc<Chamber> {
        loop {
            let chamber = self.chamber(room);
            if chamber.join(self, caller, request, now, flush) {
                return chamber;
            }
            self.forget(&chamber);
        }
    }

    /// How much is stored.
    pub(crate) fn usage(&self) -> Usage {
        self.store.usage()
    }

    /// The rooms in memory. Costs time and memory in proportion to them.
    #[must_use]
    pub fn rooms(&self) -> Vec<RelayReport> {
        self.rooms.iter().map(|entry| entry.value().report()).collect()
    }

    /// One room in memory by its name as it is written, such as `%LOR/plan`, and its members, oldest connection first.
    #[must_use]
    pub fn room(&self, name: &TopicName) -> Option<(RelayReport, Vec<Arc<Caller>>)> {
        let room = room_named(std::str::from_utf8(name.as_bytes()).ok()?).ok()?;
        let chamber = self.rooms.get(&room).map(|entry| Arc::clone(entry.value()))?;
        Some((chamber.report(), chamber.callers()))
    }

    fn chamber(self: &Arc<Self>, room: &Room) -> Arc<Chamber> {
        if let Some(found) = self.rooms.get(room) {
            return Arc::clone(found.value());
        }
        let entry = self.rooms.entry(room.clone()).or_insert_with(|| {
            self.metrics.relay.rooms.inc();
            let opaque = self.opaque.iter().any(|pattern| pattern.matches(room.id.as_str().as_bytes()));
            let keeping = if opaque { room::Keeping::Opaque } else { room::Keeping::Imported };
            let core = room::Relay::new(room.clone(), keeping, self.limits);
            Arc::new(Chamber::new(Arc::downgrade(self), core, Handle::current()))
        });
        Arc::clone(entry.value())
    }

    fn forget(&self, chamber: &Arc<Chamber>) {
        if self.rooms.remove_if(chamber.name(), |_, found| Arc::ptr_eq(found, chamber)).is_some() {
            self.metrics.relay.rooms.dec();
        }
    }

    /// Forgets rooms that nobody has been in for a while.
    fn evict_idle(&self, now: Instant) {
        let chambers: Vec<_> = self.rooms.iter().map(|entry| Arc::clone(entry.value())).collect();
        for chamber in chambers {
            if chamber.retire_if_idle(now, self.idle_after) {
                self.forget(&chamber);
                self.metrics.relay.evicted.inc();
            }
        }
    }

    /// Rooms that somebody else has written to since they were loaded are told so.
    fn look_again(&self) {
        let chambers: Vec<_> = self.rooms.iter().map(|entry| Arc::clone(entry.value())).collect();
        for chamber in chambers {
            // Also a room of which nothing was stored: by now something may be. One that is just storing its first
            // batch may be taken for changed, and then loads once more.
            let loaded = chamber.generation();
            match self.store.info(chamber.name()) {
                Ok(info) if info.as_ref().map(|info| keeping::generation(info.generation)) == loaded => {}
                Ok(_) => chamber.answer(room::Input::Changed),
                Err(error) => tracing::warn!(%error, "a room that may have been changed cannot be looked at"),
            }
        }
    }

    fn sweep(&self) {
        let Some(since) = SystemTime::now().checked_sub(self.abandoned_after) else { return };
        let live = self.rooms.iter().map(|entry| entry.key().clone()).collect();
        let told = Reply::new(|swept: Result<Vec<Room>, _>| match swept {
            Ok(rooms) if rooms.is_empty() => {}
            Ok(rooms) => tracing::info!(rooms = rooms.len(), "abandoned rooms were forgotten"),
            Err(error) => tracing::warn!(%error, "abandoned rooms could not be looked for"),
        });
        self.store.sweep(since, live, told);
    }

    /// Does what is due from time to time, until the task is dropped.
    pub(crate) async fn tend(self: Arc<Self>) {
        const SLOWEST: Duration = Duration::from_secs(10);
        const SWEEP: Duration = Duration::from_secs(60);
        let pause = SLOWEST.min(self.idle_after / 2).max(Duration::from_millis(50));
        let mut next_sweep = Instant::now();
        loop {
            let changed = tokio::time::timeout(pause, self.changed.notified()).await.is_ok();
            let now = Instant::now();
            self.evict_idle(now);
            if !self.abandoned_after.is_zero() && now >= next_sweep {
                next_sweep = now + SWEEP.min(self.abandoned_after);
                self.sweep();
            }
            if changed {
                let relays = Arc::clone(&self);
                // It panics at most; the rooms then learn of the change when they are written to.
                let _ = tokio::task::spawn_blocking(move || relays.look_again()).await;
            }
        }
    }
}

impl fmt::Debug for Relays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Relays").field("store", &self.store).finish_non_exhaustive()
    }
}

/// A room by its name as it is written: `plan`, a Loro document, or `%ELO/plan` and so on.
pub(crate) fn room_named(text: &str) -> Result<Room, RoomIdTooLong> {
    let typed = Crdt::ALL.into_iter().find_map(|crdt| {
        let (magic, id) = text.split_once('/')?;
        (magic.as_bytes() == crdt.magic()).then_some((crdt, id))
    });
    let (crdt, id) = typed.unwrap_or((Crdt::Loro, text));
    Ok(Room { crdt, id: RoomId::try_from(id)? })
}

/// What somebody who may come in asks for.
#[derive(Clone, Debug)]
pub(crate) struct JoinRequest {
    pub(crate) permission: wire::sync::Permission,
    pub(crate) version: bytes::Bytes,
    pub(crate) author: room::Author,
}
