//! Rooms on disk: one SQLite database in a data directory, in which an acknowledged write survives any crash.
//!
//! One thread writes, in WAL mode with `synchronous = FULL`: it takes whatever is queued, commits it in one
//! transaction, and answers after that, at most once in each [`sync_interval`](Options::sync_interval). Reads have connections of their own, and neither they nor the writer wait for
//! each other. The directory belongs on a disk of the machine itself: locks and syncs of network file systems promise
//! too little.
//!
//! While a server has a directory open no other server gets in, but an [`Archive`] does, to look and to mend.
//!
//! Space that is given up is used again; the file itself does not become shorter.

mod archive;
mod edit;
mod fault;
mod queue;
mod read;
mod schema;
mod tables;
mod writer;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use rusqlite::Connection;
use wire::sync::Room;

use super::{
    Batch, Caps, Compaction, Cut, CutOut, Damage, Generation, Loaded, Observer, Reply, RoomInfo, Store,
    StoreError, Usage, Written,
};
use fault::Fault;
use queue::{Append, Queue, Request};
use tables::{Tables, info};
use writer::Writer;

pub use archive::{Archive, ImportError, Salvage};
pub use schema::OpenError;

/// Beside the database: locked by the server that has it open.
const LOCK: &str = "relay.lock";

/// Payloads up to this length are copied before they wait. What is longer is most of what it came in.
const SHORT: usize = 64 << 10;

/// Connections for reading that are kept when nobody reads.
const READERS_KEPT: usize = 4;

/// How a data directory is opened.
#[derive(Clone)]
pub struct Options {
    /// The directory; made, for its owner's eyes only, if there is none.
    pub dir: PathBuf,
    /// How much may be stored.
    pub caps: Caps,
    /// How many bytes may wait to be written. Beyond that a write is refused with [`StoreError::Busy`], except that
    /// one larger than the whole is let in when it is alone.
    pub queue: usize,
    /// How long there is at least between two syncs, as long as little waits. What comes meanwhile is synced together,
    /// which saves most of what writing costs, and is acknowledged by so much later; what comes after a pause is synced
    /// at once.
    pub sync_interval: Duration,
    /// Is told what is done.
    pub observer: Observer,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("dir", &self.dir).field("caps", &self.caps).finish_non_exhaustive()
    }
}

/// A store on disk.
///
/// Dropping it writes and answers what is queued, which may take as long as the disk does; nothing is lost by a crash
/// instead, except for what nobody was told of.
#[derive(Debug)]
pub struct SqliteStore {
    queue: Arc<Queue>,
    readers: Readers,
    shared: Arc<Shared>,
    caps: Caps,
    writer: Option<JoinHandle<()>>,
    /// Let go of last.
    _lock: File,
}

/// What the writer and those who read have in common.
#[derive(Debug, Default)]
struct Shared {
    usage: Mutex<Usage>,
    /// Rooms that were found damaged, and in which generation.
    damaged: Mutex<HashMap<Room, (Generation, Arc<Damage>)>>,
    /// Rooms that were loaded since the last sweep.
    touched: Mutex<HashSet<Room>>,
}

impl SqliteStore {
    /// Opens a data directory. Rooms are read when they are asked for, so this takes no longer when there are many.
    ///
    /// # Errors
    ///
    /// In one line, if the directory is in use, or its database can not be opened or is none of ours. Nothing is
    /// changed then.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let Options { dir, caps, queue, sync_interval, observer } = options;
        make_dir(&dir)?;
        let lock = lock(&dir)?;
        let file = dir.join(schema::FILE);
        let connection = schema::create(&file)?;
        schema::check_rooms(&connection, &file)?;
        let read = |error: rusqlite::Error| OpenError::disk(&file, error);
        let usage = Tables(&connection).usage().map_err(read)?;
        let data_version = Tables(&connection).data_version().map_err(read)?;
        let queue = Arc::new(Queue::new(queue));
        let shared = Arc::new(Shared { usage: Mutex::new(usage), ..Shared::default() });
        let writer = Writer {
            connection,
            file: file.clone(),
            caps,
            queue: Arc::clone(&queue),
            sync_interval,
            shared: Arc::clone(&shared),
            observer,
            data_version,
        };
        let thread = thread::Builder::new().name("store-writer".to_owned());
        let writer = thread.spawn(|| writer.run()).map_err(|error| OpenError::disk(&dir, error))?;
        let readers = Readers { file, idle: Mutex::default() };
        Ok(Self { queue, readers, shared, caps, writer: Some(writer), _lock: lock })
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It has panicked, then: what waited was refused, and there is nothing left to do.
            let _ = writer.join();
        }
    }
}

impl Store for SqliteStore {
    fn load(&self, room: &Room) -> Result<Option<Loaded>, StoreError> {
        // Before it is read: a sweep that comes in between spares it, and one that came before has taken it.
        self.shared.touched().insert(room.clone());
        let reading = self.readers.read(|connection, file| Ok(read::room(connection, file, room)?))?;
        let Some(mut reading) = reading else {
            self.shared.touched().remove(room);
            return Ok(None);
        };
        if reading.damage.is_empty() {
            return Ok(Some(reading.loaded));
        }
        let damage = Arc::new(reading.damage.swap_remove(0));
        let found = (reading.loaded.generation, Arc::clone(&damage));
        self.shared.damaged().insert(room.clone(), found);
        Err(StoreError::Damaged(damage))
    }

    fn append(&self, room: &Room, mut batch: Batch, reply: Reply<Written>) {
        // A slice of what came from a socket, which may be far larger and would wait for the disk with it.
        if batch.payload.len() < SHORT {
            batch.payload = Bytes::copy_from_slice(&batch.payload);
        }
        self.queue.push(Request::Append(Append { room: room.clone(), batch, reply, since: Instant::now() }));
    }

    fn compact(&self, room: &Room, compaction: Compaction, reply: Reply<Written>) {
        self.queue.push(Request::Compact(room.clone(), compaction, reply));
    }

    fn cut(&self, room: &Room, cut: Cut, reply: Reply<CutOut>) {
        self.queue.push(Request::Cut(room.clone(), cut, reply));
    }

    fn delete(&self, room: &Room, reply: Reply<()>) {
        self.queue.push(Request::Delete(room.clone(), reply));
    }

    fn sweep(&self, unused_since: SystemTime, live: Vec<Room>, reply: Reply<Vec<Room>>) {
        self.queue.push(Request::Sweep { unused_since, live, reply });
    }

    fn list(&self) -> Result<Vec<RoomInfo>, StoreError> {
        let rooms = self.readers.read(|connection, _| Ok(Tables(connection).rooms()?))?;
        Ok(rooms.into_iter().map(|(room, row)| info(room, &row)).collect())
    }

    fn info(&self, room: &Room) -> Result<Option<RoomInfo>, StoreError> {
        let row = self.readers.read(|connection, _| Ok(Tables(connection).row(room)?))?;
        Ok(row.map(|row| info(room.clone(), &row)))
    }

    fn usage(&self) -> Usage {
        self.shared.usage()
    }

    fn caps(&self) -> Caps {
        self.caps
    }
}

impl Shared {
    fn usage(&self) -> Usage {
        *self.usage.lock().expect("no code that holds this lock panics")
    }

    fn set_usage(&self, usage: Usage) {
        *self.usage.lock().expect("no code that holds this lock panics") = usage;
    }

    fn damaged(&self) -> MutexGuard<'_, HashMap<Room, (Generation, Arc<Damage>)>> {
        self.damaged.lock().expect("no code that holds this lock panics")
    }

    fn touched(&self) -> MutexGuard<'_, HashSet<Room>> {
        self.touched.lock().expect("no code that holds this lock panics")
    }

    /// Nothing is written to a room that was found damaged until it is of another generation.
    fn check_sound(&self, room: &Room, generation: Generation) -> Result<(), StoreError> {
        let mut damaged = self.damaged();
        match damaged.get(room) {
            Some((found, damage)) if *found == generation => Err(StoreError::Damaged(Arc::clone(damage))),
            Some(_) => {
                damaged.remove(room);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Connections for reading.
#[derive(Debug)]
struct Readers {
    file: PathBuf,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    /// Reads on a connection that nobody else uses meanwhile.
    fn read<T>(&self, read: impl FnOnce(&Connection, &Path) -> Result<T, Fault>) -> Result<T, StoreError> {
        let idle = self.idle().pop();
        let connection = idle.map_or_else(|| schema::reader(&self.file), Ok);
        let connection = connection.map_err(|error| Fault::Sql(error).at(&self.file))?;
        let outcome = read(&connection, &self.file);
        let mut idle = self.idle();
        if idle.len() < READERS_KEPT {
            idle.push(connection);
        }
        outcome.map_err(|fault| fault.at(&self.file))
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().expect("no code that holds this lock panics")
    }
}

fn make_dir(dir: &Path) -> Result<(), OpenError> {
    if dir.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir).map_err(|error| OpenError::disk(dir, error))?;
    // The directory's own entry is as worth keeping as what it will hold. Not every system can do this.
    if let Some(Ok(parent)) = dir.parent().map(File::open) {
        let _ = parent.sync_all();
    }
    Ok(())
}

fn lock(dir: &Path) -> Result<File, OpenError> {
    let path = dir.join(LOCK);
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|error| OpenError::disk(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(OpenError::disk(&path, error)),
    }
}
