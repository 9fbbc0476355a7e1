//! The database file: its tables, and how it is opened.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};
use thiserror::Error;

/// The database in a data directory.
pub(super) const FILE: &str = "relay.sqlite";

/// `SRLY`: whose file this is, in a field that SQLite keeps for that.
const APPLICATION: i32 = 0x5352_4C59;

/// Raised whenever an older server could not read or keep what a newer one writes.
const VERSION: i32 = 1;

/// How long one connection waits for another that writes. An operator's import may take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the write-ahead log is cut back to after a large write, in bytes.
const WAL_KEPT: i64 = 64 << 20;

/// A batch's place is its room's number and its place in the room's log, so that each room's batches lie side by side:
/// a room is read in one sweep, and a page that goes bad takes no more rooms with it than share it.
const TABLES: &str = "
CREATE TABLE room (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    crdt TEXT NOT NULL,
    id TEXT NOT NULL,
    edits INTEGER NOT NULL,
    next INTEGER NOT NULL,
    snapshot INTEGER NOT NULL,
    log INTEGER NOT NULL,
    batches INTEGER NOT NULL,
    used_at INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    UNIQUE (crdt, id)
) STRICT;
CREATE TABLE batch (
    place INTEGER PRIMARY KEY,
    stored_at INTEGER NOT NULL,
    author TEXT NOT NULL,
    id BLOB NOT NULL,
    kind INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
CREATE TABLE snapshot (
    room INTEGER PRIMARY KEY,
    checksum INTEGER NOT NULL,
    payload BLOB NOT NULL
) STRICT;
";

/// Why a data directory is not opened, in one line.
#[derive(Debug, Error)]
pub enum OpenError {
    /// There is none.
    #[error("{}: no such database", .0.display())]
    Missing(PathBuf),
    /// The file is something else.
    #[error("{}: not a database of this server, and left as it is", .0.display())]
    Foreign(PathBuf),
    /// A newer server has written it.
    #[error("{}: database has version {version}, this server reads up to {VERSION}: use the newer one", file.display())]
    Newer {
        /// The file.
        file: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Which rooms there are can not be told for certain, so that one might be taken for new and begun again.
    #[error(
        "{}: the list of rooms is damaged: {problem}; nothing was changed: put back a copy, or if the problem is an \
         index, run: sqlite3 {} REINDEX", file.display(), file.display()
    )]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Another server has it open.
    #[error("{}: data directory is in use by another server", .0.display())]
    InUse(PathBuf),
    /// The file system or the database engine is in the way.
    #[error("{}: {problem}", path.display())]
    Disk {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl OpenError {
    pub(super) fn disk(path: &Path, problem: impl fmt::Display) -> Self {
        Self::Disk { path: path.to_owned(), problem: problem.to_string() }
    }

    fn sql(file: &Path, error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => Self::Foreign(file.to_owned()),
            _ => Self::disk(file, error),
        }
    }
}

/// Opens the database for reading and writing, and makes it if there is none.
pub(super) fn create(file: &Path) -> Result<Connection, OpenError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    open(file, flags, |connection| {
        if is_empty(connection)? {
            make(connection)?;
        }
        Ok(())
    })
}

/// Whether every room is found under its name.
pub(super) fn check_rooms(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let checked = connection.query_row("PRAGMA integrity_check(room)", (), |row| row.get::<_, String>(0));
    match checked {
        Ok(verdict) if verdict == "ok" => Ok(()),
        Ok(problem) => {
            Err(OpenError::Damaged { file: file.to_owned(), problem: problem.replace('\n', ", ") })
        }
        Err(error) => Err(OpenError::Damaged { file: file.to_owned(), problem: error.to_string() }),
    }
}

/// Opens the database that is there, for reading and writing.
pub(super) fn existing(file: &Path) -> Result<Connection, OpenError> {
    if !file.exists() {
        return Err(OpenError::Missing(file.to_owned()));
    }
    open(file, OpenFlags::SQLITE_OPEN_READ_WRITE, |_| Ok(()))
}

/// Opens a database that this process has open already, for reading alone.
pub(super) fn reader(file: &Path) -> rusqlite::Result<Connection> {
    // Reading a database in WAL mode takes writing to the index beside it, so the file is not opened read-only.
    let connection = connect(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(
    file: &Path,
    flags: OpenFlags,
    prepare: impl FnOnce(&mut Connection) -> rusqlite::Result<()>,
) -> Result<Connection, OpenError> {
    let refuse = |error| OpenError::sql(file, &error);
    let mut connection = connect(file, flags).map_err(refuse)?;
    prepare(&mut connection).map_err(refuse)?;
    check(&connection, file)?;
    // Only now, since it writes to the file.
    write_ahead(&connection).map_err(refuse)?;
    Ok(connection)
}

fn connect(file: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(file, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(PATIENCE)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    Ok(connection)
}

/// A commit returns once it is on the disk, and readers and the writer do not wait for each other.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "journal_size_limit", WAL_KEPT)
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", (), |row| row.get(0))?;
    Ok(tables == 0 && pragma(connection, "application_id")? == 0)
}

fn make(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    if is_empty(&transaction)? {
        transaction.execute_batch(TABLES)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", VERSION)?;
    }
    transaction.commit()
}

fn check(connection: &Connection, file: &Path) -> Result<(), OpenError> {
    let pragma = |name| pragma(connection, name).map_err(|error| OpenError::sql(file, &error));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    match version {
        _ if application != APPLICATION => Err(OpenError::Foreign(file.to_owned())),
        VERSION => Ok(()),
        ..VERSION => Err(OpenError::Foreign(file.to_owned())),
        _ => Err(OpenError::Newer { file: file.to_owned(), version }),
    }
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i32> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let connection = create(&dir.path().join(FILE)).unwrap();
        // 2 is FULL: the write-ahead log is synced at each commit.
        assert_eq!(pragma(&connection, "synchronous").unwrap(), 2);
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }

    #[test]
    fn a_reader_can_not_write() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(FILE);
        let _writer = create(&file).unwrap();
        let error = reader(&file).unwrap().execute("DELETE FROM room", ()).unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(ErrorCode::ReadOnly));
    }
}
