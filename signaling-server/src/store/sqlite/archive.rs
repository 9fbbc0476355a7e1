//! A data directory from outside: what an operator does to it, whether or not a server has it open.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rusqlite::{Connection, TransactionBehavior};
use thiserror::Error;
use wire::sync::Room;

use super::fault::Fault;
use super::tables::{Tables, info};
use super::{OpenError, edit, read, schema};
use crate::store::{Cut, CutOut, Damage, Loaded, RoomInfo, StoreError};

/// The rooms of a data directory that exists already. Every method is one transaction; a server that has the
/// directory open learns of each change within a second ([`Event::ChangedOutside`](crate::store::Event)).
///
/// Caps are the server's: an operator may put in more.
#[derive(Debug)]
pub struct Archive {
    connection: Connection,
    file: PathBuf,
}

/// What could be read of a room.
#[derive(Debug)]
pub struct Salvage {
    /// What is intact.
    pub loaded: Loaded,
    /// What is not.
    pub damage: Vec<Damage>,
}

/// Why a room is not imported.
#[derive(Debug, Error)]
pub enum ImportError {
    /// It would overwrite one.
    #[error("room is stored already")]
    Exists,
    /// It can not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Archive {
    /// Opens the database in `dir`.
    ///
    /// # Errors
    ///
    /// In one line, if there is none, or none of ours.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        let file = dir.join(schema::FILE);
        Ok(Self { connection: schema::existing(&file)?, file })
    }

    /// Every room, by name.
    ///
    /// # Errors
    ///
    /// If the database can not be read.
    pub fn list(&self) -> Result<Vec<RoomInfo>, StoreError> {
        let rooms = Tables(&self.connection).rooms().map_err(|error| Fault::Sql(error).at(&self.file))?;
        Ok(rooms.into_iter().map(|(room, row)| info(room, &row)).collect())
    }

    /// What can be read of a room.
    ///
    /// # Errors
    ///
    /// If there is no such room, or the database can not be read.
    pub fn salvage(&self, room: &Room) -> Result<Salvage, StoreError> {
        let found = read::room(&self.connection, &self.file, room);
        match found.map_err(|error| Fault::Sql(error).at(&self.file))? {
            Some(read::Reading { loaded, damage }) => Ok(Salvage { loaded, damage }),
            None => Err(StoreError::NoSuchRoom),
        }
    }

    /// Makes a room of what was read of one, here or elsewhere. Its batches keep their places and times.
    ///
    /// # Errors
    ///
    /// If there is such a room already, or it can not be written.
    pub fn import(&mut self, room: &Room, from: &Loaded) -> Result<(), ImportError> {
        let imported = self.change(|tables| match tables.row(room)? {
            Some(_) => Ok(false),
            None => edit::restore(tables, room, from, SystemTime::now()).map(|()| true),
        });
        if imported? { Ok(()) } else { Err(ImportError::Exists) }
    }

    /// Makes a room of what was read of one, in place of what there is.
    ///
    /// # Errors
    ///
    /// If it can not be written.
    pub fn replace(&mut self, room: &Room, from: &Loaded) -> Result<(), StoreError> {
        self.change(|tables| {
            if let Some(row) = tables.row(room)? {
                tables.drop_room(&row)?;
            }
            edit::restore(tables, room, from, SystemTime::now())
        })
    }

    /// Forgets a room.
    ///
    /// # Errors
    ///
    /// If there is no such room, or it can not be written.
    pub fn delete(&mut self, room: &Room) -> Result<(), StoreError> {
        self.change(|tables| edit::delete(tables, room))
    }

    /// Takes something out of a room, and starts a new generation of it.
    ///
    /// # Errors
    ///
    /// If there is no such thing, or it can not be written.
    pub fn cut(&mut self, room: &Room, cut: &Cut) -> Result<CutOut, StoreError> {
        self.change(|tables| edit::cut(tables, room, cut))
    }

    fn change<T>(&mut self, work: impl FnOnce(&Tables<'_>) -> Result<T, Fault>) -> Result<T, StoreError> {
        let Self { connection, file } = self;
        let attempt = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let done = work(&Tables(&transaction))?;
            transaction.commit()?;
            Ok(done)
        };
        attempt().map_err(|fault: Fault| fault.at(file))
    }
}
