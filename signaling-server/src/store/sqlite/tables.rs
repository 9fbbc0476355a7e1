//! Rooms as rows. Everything here happens within a transaction of the caller's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use wire::sync::{Crdt, Room};
use wire::{BatchId, RoomId};

use crate::store::{Author, BATCH_OVERHEAD, Batch, Generation, Kind, Logged, RoomInfo, RoomSize, Seq, Usage};

/// Room numbers from here on leave no bits for the place in the log.
const NUMBERS: i64 = 1 << 31;

/// A room's row.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) number: i64,
    edits: u32,
    /// The place of the next batch.
    pub(super) next: u32,
    pub(super) size: RoomSize,
    pub(super) used_at: SystemTime,
    /// Whether it is as it was written.
    pub(super) is_intact: bool,
}

impl Row {
    pub(super) fn generation(&self) -> Generation {
        Generation((self.number.unsigned_abs() << 32) | u64::from(self.edits))
    }

    /// From now on the room counts as another.
    pub(super) fn begin_generation(&mut self) {
        self.edits = self.edits.wrapping_add(1);
    }

    /// The places of all batches that this room can have.
    fn places(&self) -> (i64, i64) {
        (self.place(Seq::ZERO), self.place(Seq(u32::MAX)))
    }

    fn place(&self, seq: Seq) -> i64 {
        (self.number << 32) | i64::from(seq.0)
    }
}

/// A batch as it stands in its row, and whether that is as it was written.
pub(super) struct Found {
    pub(super) logged: Logged,
    pub(super) is_intact: bool,
}

pub(super) struct Tables<'c>(pub(super) &'c Connection);

impl Tables<'_> {
    pub(super) fn row(&self, room: &Room) -> rusqlite::Result<Option<Row>> {
        let mut statement = self.0.prepare_cached(
            "SELECT number, edits, next, snapshot, log, batches, used_at, checksum FROM room
             WHERE crdt = ? AND id = ?",
        )?;
        let name = (crdt_text(room.crdt), room.id.as_str());
        statement.query_row(name, |row| row_from(room, row)).optional()
    }

    /// Makes a room; the row is the caller's to keep.
    pub(super) fn add_room(&self, room: &Room, now: SystemTime) -> rusqlite::Result<Row> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO room (crdt, id, edits, next, snapshot, log, batches, used_at, checksum)
             VALUES (?, ?, 0, 1, 0, 0, 0, 0, 0)",
        )?;
        let number = statement.insert((crdt_text(room.crdt), room.id.as_str()))?;
        if number >= NUMBERS {
            return Err(rusqlite::Error::IntegralValueOutOfRange(0, number));
        }
        Ok(Row { number, edits: 0, next: 1, size: RoomSize::default(), used_at: now, is_intact: true })
    }

    /// Writes back what has changed in a row.
    pub(super) fn keep_row(&self, room: &Room, row: &Row) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(
            "UPDATE room SET edits = ?, next = ?, snapshot = ?, log = ?, batches = ?, used_at = ?, checksum = ?
             WHERE number = ?",
        )?;
        let RoomSize { snapshot, log, batches } = row.size;
        let size = (signed(snapshot), signed(log), signed(batches));
        let (used_at, checksum) = (millis(row.used_at), row_checksum(room, row));
        statement
            .execute((row.edits, row.next, size.0, size.1, size.2, used_at, checksum, row.number))
            .map(drop)
    }

    /// Puts a batch at the end of the log; the row is the caller's to keep.
    pub(super) fn add_batch(
        &self,
        room: &Room,
        row: &mut Row,
        now: SystemTime,
        batch: &Batch,
    ) -> rusqlite::Result<Seq> {
        let seq = Seq(row.next);
        let out_of_places = rusqlite::Error::IntegralValueOutOfRange(0, i64::from(row.next));
        row.next = row.next.checked_add(1).ok_or(out_of_places)?;
        row.size.log += batch.weight();
        row.size.batches += 1;
        row.used_at = now;
        self.put_batch(room, row, seq, now, batch)?;
        Ok(seq)
    }

    fn put_batch(
        &self,
        room: &Room,
        row: &Row,
        seq: Seq,
        at: SystemTime,
        batch: &Batch,
    ) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(
            "INSERT INTO batch (place, stored_at, author, id, kind, checksum, payload) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )?;
        let checksum = batch_checksum(room, seq, millis(at), batch);
        let Batch { author, id, kind, payload } = batch;
        let values = (row.place(seq), millis(at), author.as_str(), &id.0[..], kind.0, checksum, &payload[..]);
        statement.execute(values).map(drop)
    }

    /// Puts batches into an empty log, at the places that they had in another; the row is the caller's to measure and keep.
    pub(super) fn restore_log(&self, room: &Room, row: &Row, log: &[Logged]) -> rusqlite::Result<()> {
        log.iter()
            .try_for_each(|logged| self.put_batch(room, row, logged.seq, logged.stored_at, &logged.batch))
    }

    /// Puts the snapshot in place of one that there may be; the row is the caller's to measure and keep.
    pub(super) fn put_snapshot(&self, room: &Room, row: &Row, snapshot: &Bytes) -> rusqlite::Result<()> {
        let mut statement = self
            .0
            .prepare_cached("INSERT OR REPLACE INTO snapshot (room, checksum, payload) VALUES (?, ?, ?)")?;
        statement.execute((row.number, snapshot_checksum(room, snapshot), &snapshot[..])).map(drop)
    }

    /// The snapshot, and whether it is as it was written.
    pub(super) fn snapshot(&self, room: &Room, row: &Row) -> rusqlite::Result<Option<(Bytes, bool)>> {
        let mut statement = self.0.prepare_cached("SELECT checksum, payload FROM snapshot WHERE room = ?")?;
        let found =
            statement.query_row([row.number], |row| Ok((row.get::<_, u32>(0)?, row.get::<_, Vec<u8>>(1)?)));
        Ok(found.optional()?.map(|(checksum, payload)| {
            let payload = Bytes::from(payload);
            let is_intact = checksum == snapshot_checksum(room, &payload);
            (payload, is_intact)
        }))
    }

    /// Calls `each` with the batches of the log, in order.
    pub(super) fn each_batch(
        &self,
        room: &Room,
        row: &Row,
        mut each: impl FnMut(Found),
    ) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(
            "SELECT place, stored_at, author, id, kind, checksum, payload FROM batch
             WHERE place BETWEEN ? AND ? ORDER BY place",
        )?;
        let mut rows = statement.query(row.places())?;
        while let Some(row) = rows.next()? {
            each(found_from(room, row)?);
        }
        Ok(())
    }

    /// Takes the log out up to and with a batch; like the other removals, it leaves the row to measure and keep.
    pub(super) fn drop_log_through(&self, row: &Row, through: Seq) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached("DELETE FROM batch WHERE place BETWEEN ? AND ?")?;
        statement.execute((row.places().0, row.place(through))).map(drop)
    }

    pub(super) fn drop_batch(&self, row: &Row, seq: Seq) -> rusqlite::Result<usize> {
        self.0.prepare_cached("DELETE FROM batch WHERE place = ?")?.execute([row.place(seq)])
    }

    pub(super) fn drop_batches_of(&self, row: &Row, author: &Author) -> rusqlite::Result<usize> {
        let mut statement =
            self.0.prepare_cached("DELETE FROM batch WHERE place BETWEEN ? AND ? AND author = ?")?;
        let (first, last) = row.places();
        statement.execute((first, last, author.as_str()))
    }

    pub(super) fn drop_snapshot(&self, row: &Row) -> rusqlite::Result<usize> {
        self.0.prepare_cached("DELETE FROM snapshot WHERE room = ?")?.execute([row.number])
    }

    /// Measures snapshot and log again; the row is the caller's to keep.
    pub(super) fn measure(&self, row: &mut Row) -> rusqlite::Result<()> {
        let mut statement = self.0.prepare_cached(
            "SELECT count(*), coalesce(sum(length(payload)), 0), coalesce(max(place), 0),
                 coalesce((SELECT length(payload) FROM snapshot WHERE room = ?3), 0)
             FROM batch WHERE place BETWEEN ?1 AND ?2",
        )?;
        let (first, last) = row.places();
        statement.query_row((first, last, row.number), |found| {
            let (batches, payload, last) = (unsigned(found, 0)?, unsigned(found, 1)?, seq_of(found.get(2)?));
            row.size =
                RoomSize { snapshot: unsigned(found, 3)?, log: payload + batches * BATCH_OVERHEAD, batches };
            row.next = row.next.max(last.0.saturating_add(1));
            Ok(())
        })
    }

    pub(super) fn drop_room(&self, row: &Row) -> rusqlite::Result<()> {
        self.drop_log_through(row, Seq(u32::MAX))?;
        self.drop_snapshot(row)?;
        self.0.prepare_cached("DELETE FROM room WHERE number = ?")?.execute([row.number]).map(drop)
    }

    /// All rooms, by name. A row whose name is none is left out: there is no saying which room it is.
    pub(super) fn rooms(&self) -> rusqlite::Result<Vec<(Room, Row)>> {
        self.listed(
            "SELECT number, edits, next, snapshot, log, batches, used_at, checksum, crdt, id FROM room NOT INDEXED
             ORDER BY crdt, id",
            [],
        )
    }

    /// Those not used since then, as far as that is certain.
    pub(super) fn rooms_unused_since(&self, then: SystemTime) -> rusqlite::Result<Vec<(Room, Row)>> {
        let mut rooms = self.listed(
            "SELECT number, edits, next, snapshot, log, batches, used_at, checksum, crdt, id FROM room
             WHERE used_at < ?",
            [millis(then)],
        )?;
        rooms.retain(|(_, row)| row.is_intact);
        Ok(rooms)
    }

    fn listed(&self, sql: &str, values: impl rusqlite::Params) -> rusqlite::Result<Vec<(Room, Row)>> {
        let mut statement = self.0.prepare_cached(sql)?;
        let mut rows = statement.query(values)?;
        let mut rooms = Vec::new();
        while let Some(row) = rows.next()? {
            if let Some(room) = room_from(row)? {
                let row = row_from(&room, row)?;
                rooms.push((room, row));
            }
        }
        Ok(rooms)
    }

    pub(super) fn usage(&self) -> rusqlite::Result<Usage> {
        let mut statement =
            self.0.prepare_cached("SELECT count(*), coalesce(sum(snapshot + log), 0) FROM room")?;
        statement.query_row((), |row| Ok(Usage { rooms: unsigned(row, 0)?, bytes: unsigned(row, 1)? }))
    }

    /// A number that changes when another connection has written.
    pub(super) fn data_version(&self) -> rusqlite::Result<i64> {
        let mut statement: CachedStatement<'_> = self.0.prepare_cached("PRAGMA data_version")?;
        statement.query_row((), |row| row.get(0))
    }
}

pub(super) fn info(room: Room, row: &Row) -> RoomInfo {
    RoomInfo { room, generation: row.generation(), size: row.size, used_at: row.used_at }
}

fn row_from(room: &Room, row: &rusqlite::Row<'_>) -> rusqlite::Result<Row> {
    let mut found = Row {
        number: row.get(0)?,
        edits: row.get(1)?,
        next: row.get(2)?,
        size: RoomSize { snapshot: unsigned(row, 3)?, log: unsigned(row, 4)?, batches: unsigned(row, 5)? },
        used_at: time(unsigned(row, 6)?),
        is_intact: false,
    };
    found.is_intact = row.get::<_, u32>(7)? == row_checksum(room, &found);
    Ok(found)
}

fn room_from(row: &rusqlite::Row<'_>) -> rusqlite::Result<Option<Room>> {
    let (crdt, id) = (row.get_ref(8)?.as_str(), row.get_ref(9)?.as_str());
    let crdt = Crdt::ALL.into_iter().find(|known| crdt == Ok(crdt_text(*known)));
    let id = id.ok().and_then(|id| RoomId::try_from(id).ok());
    Ok(crdt.zip(id).map(|(crdt, id)| Room { crdt, id }))
}

fn found_from(room: &Room, row: &rusqlite::Row<'_>) -> rusqlite::Result<Found> {
    let seq = seq_of(row.get(0)?);
    let stored_at = unsigned(row, 1)?;
    let author: String = row.get(2)?;
    let batch = Batch {
        author: Author::from(author.as_str()),
        id: BatchId(row.get(3)?),
        kind: Kind(row.get(4)?),
        payload: Bytes::from(row.get::<_, Vec<u8>>(6)?),
    };
    let is_intact = row.get::<_, u32>(5)? == batch_checksum(room, seq, signed(stored_at), &batch);
    Ok(Found { logged: Logged { seq, stored_at: time(stored_at), batch }, is_intact })
}

fn seq_of(place: i64) -> Seq {
    Seq((place & i64::from(u32::MAX)) as u32)
}

fn row_checksum(room: &Room, row: &Row) -> u32 {
    let mut hasher = room_hasher(room);
    let RoomSize { snapshot, log, batches } = row.size;
    let size = [signed(snapshot), signed(log), signed(batches)];
    for number in [row.number, row.edits.into(), row.next.into(), millis(row.used_at)].iter().chain(&size) {
        hasher.update(&number.to_le_bytes());
    }
    hasher.finalize()
}

/// Over all that a row says and where it belongs, so that a row that strays into another room is found out too.
fn batch_checksum(room: &Room, seq: Seq, stored_at: i64, batch: &Batch) -> u32 {
    let mut hasher = room_hasher(room);
    hasher.update(&seq.0.to_le_bytes());
    hasher.update(&stored_at.to_le_bytes());
    hasher.update(&[batch.kind.0, batch.author.as_str().len() as u8]);
    hasher.update(batch.author.as_str().as_bytes());
    hasher.update(&batch.id.0);
    hasher.update(&batch.payload);
    hasher.finalize()
}

fn snapshot_checksum(room: &Room, snapshot: &[u8]) -> u32 {
    let mut hasher = room_hasher(room);
    hasher.update(snapshot);
    hasher.finalize()
}

fn room_hasher(room: &Room) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&room.crdt.magic());
    hasher.update(&[room.id.as_str().len() as u8]);
    hasher.update(room.id.as_str().as_bytes());
    hasher
}

fn crdt_text(crdt: Crdt) -> &'static str {
    match crdt {
        Crdt::Loro => "%LOR",
        Crdt::Ephemeral => "%EPH",
        Crdt::PersistedEphemeral => "%EPS",
        Crdt::Sealed => "%ELO",
        Crdt::Yjs => "%YJS",
        Crdt::YjsAwareness => "%YAW",
        Crdt::Flock => "%FLO",
    }
}

fn unsigned(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Integer, "a negative number".into())
    })
}

/// Sizes and times are far below what SQLite can count to.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn millis(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn time(millis: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(millis)).unwrap_or(UNIX_EPOCH)
}
