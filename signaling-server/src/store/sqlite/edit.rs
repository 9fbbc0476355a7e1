//! What is done to a whole room, by its server or by an operator. Each happens within a transaction of the caller's.

use std::time::SystemTime;

use wire::sync::Room;

use super::fault::Fault;
use super::tables::{Row, Tables};
use crate::store::{Caps, Compaction, Cut, CutOut, Loaded, Seq, StoreError, Usage, Written};

/// Puts a snapshot in place of what it contains.
pub(super) fn compact(
    tables: &Tables<'_>,
    (caps, usage): (Caps, Usage),
    room: &Room,
    row: Option<Row>,
    compaction: &Compaction,
    now: SystemTime,
) -> Result<Written, Fault> {
    if row.as_ref().map(Row::generation) != compaction.generation {
        return Err(StoreError::Changed.into());
    }
    let before = row.as_ref().map(|row| row.size);
    let mut row = match row {
        Some(row) => row,
        None => tables.add_room(room, now)?,
    };
    tables.drop_log_through(&row, compaction.through)?;
    tables.put_snapshot(room, &row, &compaction.snapshot)?;
    tables.measure(&mut row)?;
    caps.admit_change(usage, before, row.size)?;
    row.used_at = now;
    tables.keep_row(room, &row)?;
    Ok(Written { seq: compaction.through, generation: row.generation(), size: row.size })
}

/// Takes something out, and starts a new generation.
pub(super) fn cut(tables: &Tables<'_>, room: &Room, cut: &Cut) -> Result<CutOut, Fault> {
    let mut row = tables.row(room)?.ok_or(StoreError::NoSuchRoom)?;
    let removed = match cut {
        Cut::Batch(seq) => tables.drop_batch(&row, *seq)?,
        Cut::Author(author) => tables.drop_batches_of(&row, author)?,
        Cut::Snapshot => tables.drop_snapshot(&row)?,
    };
    if removed == 0 {
        return Err(StoreError::NothingToCut.into());
    }
    row.begin_generation();
    tables.measure(&mut row)?;
    tables.keep_row(room, &row)?;
    let batches = if *cut == Cut::Snapshot { 0 } else { removed as u64 };
    Ok(CutOut { batches, generation: row.generation(), size: row.size })
}

/// Forgets a room.
pub(super) fn delete(tables: &Tables<'_>, room: &Room) -> Result<(), Fault> {
    let row = tables.row(room)?.ok_or(StoreError::NoSuchRoom)?;
    Ok(tables.drop_room(&row)?)
}

/// Makes a room of what was read of one; its batches keep their places and times.
pub(super) fn restore(tables: &Tables<'_>, room: &Room, from: &Loaded, now: SystemTime) -> Result<(), Fault> {
    let mut row = tables.add_room(room, now)?;
    if let Some(snapshot) = &from.snapshot {
        tables.put_snapshot(room, &row, snapshot)?;
    }
    debug_assert!(from.log.first().is_none_or(|first| first.seq > Seq::ZERO), "places count from 1");
    tables.restore_log(room, &row, &from.log)?;
    tables.measure(&mut row)?;
    Ok(tables.keep_row(room, &row)?)
}
