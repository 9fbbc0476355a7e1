//! Between a room's words for what is stored and the store's.

use std::sync::Arc;

use tokio::sync::Notify;

use crate::config::{LimitsConfig, RelayConfig};
use crate::metrics::Metrics;
use crate::room::relay as room;
use crate::store::{
    Author, Batch, Compaction, Event, Generation, Kind, Loaded, Logged, Observer, Seq, StoreError, Written,
};

/// What clients are told of a room that cannot be read. The store's own words hold the room's name and a path.
const UNREADABLE: &str = "what is stored of this room cannot be read and was left as it is; the operator of the server can mend it";

pub(super) fn batch(entry: room::Entry) -> Batch {
    let room::Entry { author, batch, kind, payload } = entry;
    Batch { author: Author::from(author.0), id: batch, kind: Kind(kind), payload }
}

pub(super) fn compaction(
    generation: Option<room::Generation>,
    through: room::Seq,
    snapshot: bytes::Bytes,
) -> Compaction {
    let generation = generation.map(|room::Generation(generation)| Generation(generation));
    Compaction { generation, through: Seq(through.0), snapshot }
}

pub(super) fn generation(generation: Generation) -> room::Generation {
    room::Generation(generation.0)
}

pub(super) fn written(result: &Result<Written, StoreError>) -> Result<room::Written, room::WriteError> {
    match result {
        Ok(written) => Ok(room::Written {
            seq: room::Seq(written.seq.0),
            generation: generation(written.generation),
            snapshot: written.size.snapshot,
            log: written.size.log,
        }),
        Err(StoreError::RoomFull { .. } | StoreError::Full { .. } | StoreError::TooManyRooms { .. }) => {
            Err(room::WriteError::Full)
        }
        Err(_) => Err(room::WriteError::Failed),
    }
}

pub(super) fn stored(result: Result<Option<Loaded>, StoreError>) -> Result<room::Stored, String> {
    match result {
        Ok(None) => Ok(room::Stored::default()),
        Ok(Some(loaded)) => Ok(as_stored(loaded)),
        Err(error) => {
            let damaged = matches!(error, StoreError::Damaged(_));
            tracing::debug!(%error, "a room cannot be loaded");
            tracing::error!(
                damaged,
                "a room cannot be loaded; \"signaling-server rooms check\" names what is damaged and how to mend it"
            );
            Err(UNREADABLE.to_owned())
        }
    }
}

/// What the store has loaded, as a room takes it.
pub(crate) fn as_stored(loaded: Loaded) -> room::Stored {
    room::Stored {
        generation: Some(generation(loaded.generation)),
        snapshot: loaded.snapshot,
        log: loaded.log.into_iter().map(logged).collect(),
    }
}

fn logged(logged: Logged) -> room::Logged {
    room::Logged { seq: room::Seq(logged.seq.0), kind: logged.batch.kind.0, payload: logged.batch.payload }
}

/// What rooms put up with.
pub(super) fn limits(config: &RelayConfig, limits: &LimitsConfig) -> room::Limits {
    let usual = room::Limits::default();
    let room = config.bytes_per_room.get();
    room::Limits {
        members: limits.subscribers_per_room,
        update: usual.update.min(room),
        room: room as u64,
        compact_after: config.compact_after.get() as u64,
        grace: config.presence_grace.duration(),
        ..usual
    }
}

/// Counts what the store does, and tells of changes that are not this server's.
pub(super) fn observer(metrics: &Arc<Metrics>, changed: &Arc<Notify>) -> Observer {
    let (metrics, changed) = (Arc::clone(metrics), Arc::clone(changed));
    Arc::new(move |event| {
        let relay = &metrics.relay;
        match event {
            Event::Committed { batches, bytes, synced, waited: _ } => {
                relay.commit_batches.observe(*batches as f64);
                relay.commit_bytes.inc_by(*bytes as u64);
                relay.sync.observe(synced.as_secs_f64());
            }
            Event::Compacted { from: _, to: _, took } => relay.compaction.observe(took.as_secs_f64()),
            Event::Failed { writes, error } => {
                relay.store_failures.inc_by(*writes as u64);
                tracing::error!(writes, %error, "the store could not write");
            }
            Event::Swept { rooms } => relay.swept.inc_by(*rooms as u64),
            Event::ChangedOutside => changed.notify_one(),
        }
    })
}
