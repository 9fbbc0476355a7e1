//! Reading a room: everything is checked, and what is damaged is told apart from what is not.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode};
use wire::sync::Room;

use super::tables::{Row, Tables};
use crate::store::{Damage, Loaded, Logged, Part, StoreError};

/// A room as far as it could be read.
#[derive(Debug)]
pub(super) struct Reading {
    /// What is intact; its size is the one that the room should have.
    pub(super) loaded: Loaded,
    /// What is not.
    pub(super) damage: Vec<Damage>,
}

/// Reads a room, all of it as of one moment.
pub(super) fn room(connection: &Connection, file: &Path, room: &Room) -> rusqlite::Result<Option<Reading>> {
    // Never written in, so it ends well however it ends.
    let transaction = connection.unchecked_transaction()?;
    let tables = Tables(&transaction);
    let Some(row) = tables.row(room)? else {
        return Ok(None);
    };
    let mut examiner = Examiner { tables, file, room, row, damage: Vec::new() };
    if !examiner.row.is_intact {
        examiner.note(Part::Entry, MISMATCH);
    }
    let (snapshot, log) = (examiner.snapshot()?, examiner.log()?);
    let Examiner { row, damage, .. } = examiner;
    let loaded = Loaded { generation: row.generation(), snapshot, log, size: row.size };
    Ok(Some(Reading { loaded, damage }))
}

/// A room whose entry is damaged is not written to: where its batches belong is not certain.
pub(super) fn check_row(file: &Path, room: &Room, row: &Row) -> Result<(), StoreError> {
    if row.is_intact {
        return Ok(());
    }
    let (file, room) = (file.to_owned(), room.clone());
    Err(StoreError::Damaged(Arc::new(Damage { file, room, part: Part::Entry, problem: MISMATCH.to_owned() })))
}

struct Examiner<'a> {
    tables: Tables<'a>,
    file: &'a Path,
    room: &'a Room,
    row: Row,
    damage: Vec<Damage>,
}

impl Examiner<'_> {
    fn snapshot(&mut self) -> rusqlite::Result<Option<Bytes>> {
        match self.tables.snapshot(self.room, &self.row) {
            Ok(Some((_, false))) => self.note(Part::Snapshot, MISMATCH),
            Ok(None) if self.row.size.snapshot > 0 => self.note(Part::Snapshot, "it is missing"),
            Ok(found) => return Ok(found.map(|(snapshot, _)| snapshot)),
            Err(error) if is_damage(&error) => self.note(Part::Snapshot, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(None)
    }

    fn log(&mut self) -> rusqlite::Result<Vec<Logged>> {
        let (mut log, mut broken) = (Vec::new(), Vec::new());
        let read = self.tables.each_batch(self.room, &self.row, |found| match found.is_intact {
            true => log.push(found.logged),
            false => broken.push(found.logged.seq),
        });
        let seen = (log.len() + broken.len()) as u64;
        for seq in broken {
            self.note(Part::Batch(seq), MISMATCH);
        }
        match read {
            Ok(()) if seen == self.row.size.batches => {}
            Ok(()) => {
                let problem = format!("it has {seen} batches in place of {}", self.row.size.batches);
                self.note(Part::Log, problem);
            }
            Err(error) if is_damage(&error) => self.note(Part::Log, error.to_string()),
            Err(error) => return Err(error),
        }
        Ok(log)
    }

    fn note(&mut self, part: Part, problem: impl Into<String>) {
        let (file, room) = (self.file.to_owned(), self.room.clone());
        self.damage.push(Damage { file, room, part, problem: problem.into() });
    }
}

const MISMATCH: &str = "its checksum does not match";

/// Whether an error says that bytes on the disk are not what was written, and not that they can not be had now.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => failure.code == ErrorCode::DatabaseCorrupt,
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::Utf8Error(..) => true,
        _ => false,
    }
}
