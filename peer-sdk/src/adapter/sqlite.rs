//! Storage in one SQLite file, for any number of rooms.
//!
//! The file has one row for each update, with a checksum. It is written ahead (WAL) and synced at every commit, so that
//! what was taken survives a crash of the process and of the machine. One process at a time: a second one is refused.

use std::fmt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::{Storage, StorageError};

/// "peer", in SQLite's place for an application's mark.
const APPLICATION: i64 = 0x7065_6572;
const FORMAT: i64 = 1;

/// An open file.
pub struct Sqlite {
    path: PathBuf,
    db: Connection,
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sqlite").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Sqlite {
    /// Opens the file, or makes it. One that is damaged, or something else, is refused and left untouched.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let path = path.as_ref().to_owned();
        if path.exists() {
            // Looked at without writing first: opening for writing may already change a damaged file.
            inspect(&path)?;
        }
        let db = open(&path).map_err(|error| problem(&path, &error))?;
        Ok(Self { path, db })
    }

    fn run<T>(
        &mut self,
        act: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StorageError> {
        act(&mut self.db).map_err(|error| problem(&self.path, &error))
    }

    fn damaged(&self, reason: impl Into<String>) -> StorageError {
        StorageError::Damaged { path: self.path.clone(), reason: reason.into() }
    }
}

fn inspect(path: &Path) -> Result<(), StorageError> {
    let damaged = |reason: String| StorageError::Damaged { path: path.to_owned(), reason };
    if std::fs::metadata(path).is_ok_and(|file| file.len() == 0) {
        return Ok(());
    }
    let look = || -> rusqlite::Result<(i64, i64, String)> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
        let check = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((pragma("application_id")?, pragma("user_version")?, check))
    };
    match look() {
        Err(error) => Err(problem(path, &error)),
        Ok((_, _, check)) if check != "ok" => Err(damaged(check)),
        Ok((APPLICATION, found, _)) if found > FORMAT => {
            Err(StorageError::TooNew { path: path.to_owned(), found, known: FORMAT })
        }
        Ok((APPLICATION, _, _)) => Ok(()),
        Ok((0, 0, _)) if is_empty(path) => Ok(()),
        Ok(_) => Err(damaged("it is the database of another application".to_owned())),
    }
}

/// Whether it is a database without any tables, as an interrupted first start leaves it.
fn is_empty(path: &Path) -> bool {
    let count = || -> rusqlite::Result<i64> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
    };
    count() == Ok(0)
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut db = Connection::open(path)?;
    // Held from the first read on, and let go by the system when the process ends, however it ends.
    db.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    db.pragma_update(None, "journal_mode", "WAL")?;
    db.pragma_update(None, "synchronous", "FULL")?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    if application == APPLICATION {
        // Nothing is written before it has been read: it may turn out to be damaged.
        return Ok(db);
    }
    let tx = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    tx.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS updates (
             number INTEGER PRIMARY KEY,
             room TEXT NOT NULL,
             checksum INTEGER NOT NULL,
             bytes BLOB NOT NULL
         ) STRICT;
         CREATE INDEX IF NOT EXISTS updates_by_room ON updates (room, number);
         PRAGMA application_id = {APPLICATION};
         PRAGMA user_version = {FORMAT};"
    ))?;
    tx.commit()?;
    Ok(db)
}

fn problem(path: &Path, error: &rusqlite::Error) -> StorageError {
    let (path, reason) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StorageError::Damaged { path, reason },
        _ => StorageError::Failed { path, reason },
    }
}

/// FNV-1a of the room and the bytes: damage, not forgery.
fn checksum(room: &str, bytes: &[u8]) -> i64 {
    let all = room.as_bytes().iter().chain(&[0]).chain(bytes);
    let hash = all.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash.cast_signed()
}

const INSERT: &str = "INSERT INTO updates (room, checksum, bytes) VALUES (?1, ?2, ?3)";

impl Storage for Sqlite {
    fn load(&mut self, room: &str) -> Result<Vec<Bytes>, StorageError> {
        let rows = self.run(|db| {
            let mut query =
                db.prepare("SELECT number, checksum, bytes FROM updates WHERE room = ?1 ORDER BY number")?;
            let rows = query.query_map([room], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.collect::<rusqlite::Result<Vec<(i64, i64, Vec<u8>)>>>()
        })?;
        let sound = rows.into_iter().map(|(number, sum, bytes)| match checksum(room, &bytes) == sum {
            true => Ok(Bytes::from(bytes)),
            false => Err(self.damaged(format!("update {number} has the wrong checksum"))),
        });
        sound.collect()
    }

    fn append(&mut self, room: &str, update: &[u8]) -> Result<(), StorageError> {
        let row = params![room, checksum(room, update), update];
        self.run(|db| db.prepare_cached(INSERT)?.execute(row).map(drop))
    }

    fn compact(&mut self, room: &str, snapshot: &[u8]) -> Result<(), StorageError> {
        self.run(|db| {
            let tx = db.transaction()?;
            let last: Option<i64> = tx
                .query_row("SELECT max(number) FROM updates WHERE room = ?1", [room], |row| row.get(0))
                .optional()?
                .flatten();
            tx.execute(INSERT, params![room, checksum(room, snapshot), snapshot])?;
            tx.execute(
                "DELETE FROM updates WHERE room = ?1 AND number <= ?2",
                params![room, last.unwrap_or(0)],
            )?;
            tx.commit()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(updates: &[&'static str]) -> Vec<Bytes> {
        updates.iter().map(|update| Bytes::from_static(update.as_bytes())).collect()
    }

    #[test]
    fn rooms_are_kept_apart_and_in_order_across_openings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.db");
        let mut store = Sqlite::open(&path).unwrap();
        store.append("a", b"1").unwrap();
        store.append("b", b"2").unwrap();
        store.append("a", b"3").unwrap();
        drop(store);
        let mut store = Sqlite::open(&path).unwrap();
        assert_eq!(store.load("a").unwrap(), bytes(&["1", "3"]));
        assert_eq!(store.load("b").unwrap(), bytes(&["2"]));
        assert_eq!(store.load("c").unwrap(), bytes(&[]));
    }

    #[test]
    fn a_snapshot_takes_the_place_of_what_came_before_in_its_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Sqlite::open(dir.path().join("peer.db")).unwrap();
        store.append("a", b"1").unwrap();
        store.append("b", b"2").unwrap();
        store.compact("a", b"all").unwrap();
        store.append("a", b"3").unwrap();
        assert_eq!(store.load("a").unwrap(), bytes(&["all", "3"]));
        assert_eq!(store.load("b").unwrap(), bytes(&["2"]));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_untouched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.db");
        for content in [
            &b"this is no database, but it is long enough to be looked at as one, or so it seems. And more."
                [..],
            b"short",
        ] {
            std::fs::write(&path, content).unwrap();
            let error = Sqlite::open(&path).unwrap_err();
            assert!(matches!(&error, StorageError::Damaged { path: named, .. } if *named == path), "{error}");
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside it");
        let mut fresh = Sqlite::open(dir.path().join("fresh.db")).unwrap();
        fresh.append("a", b"1").unwrap();
    }

    #[test]
    fn bytes_that_changed_on_disk_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.db");
        let mut store = Sqlite::open(&path).unwrap();
        store.append("a", b"original").unwrap();
        store.run(|db| db.execute("UPDATE updates SET bytes = x'00'", [])).unwrap();
        assert!(matches!(store.load("a"), Err(StorageError::Damaged { .. })));
    }

    #[test]
    fn another_applications_file_and_a_later_format_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let other = dir.path().join("other.db");
        Connection::open(&other).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        assert!(matches!(Sqlite::open(&other), Err(StorageError::Damaged { .. })));
        let later = dir.path().join("later.db");
        drop(Sqlite::open(&later).unwrap());
        Connection::open(&later).unwrap().pragma_update(None, "user_version", 9).unwrap();
        assert!(matches!(Sqlite::open(&later), Err(StorageError::TooNew { found: 9, known: 1, .. })));
    }

    #[test]
    fn what_is_taken_is_synced_so_that_no_power_cut_loses_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.db");
        for _ in 0..2 {
            let store = Sqlite::open(&path).unwrap();
            let ask =
                |pragma: &str| store.db.query_row(pragma, [], |row| row.get::<_, rusqlite::types::Value>(0));
            assert_eq!(ask("PRAGMA synchronous"), Ok(2.into()), "FULL");
            assert_eq!(ask("PRAGMA journal_mode"), Ok("wal".to_owned().into()));
        }
    }

    #[test]
    fn a_second_opener_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("peer.db");
        let _first = Sqlite::open(&path).unwrap();
        assert!(matches!(Sqlite::open(&path), Err(StorageError::Failed { .. })));
    }
}
