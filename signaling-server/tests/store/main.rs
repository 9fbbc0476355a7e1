//! Rooms are kept: the same way in memory and on disk, and on disk through crashes, damage and a full disk.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/command.rs"]
mod command;

mod contract;
mod damage;
mod disk;
mod full_disk;
mod kill;
mod rooms;

use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use signaling_server::store::sqlite::{Options, SqliteStore};
use signaling_server::store::{
    Author, Batch, Caps, Compaction, Cut, CutOut, Event, Generation, Kind, Loaded, Observer, Reply, Seq,
    Store, StoreError, Written,
};
use wire::sync::{Crdt, Room};
use wire::{BatchId, RoomId};

/// No wait in a test is longer: what takes as long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn room(id: &str) -> Room {
    Room { crdt: Crdt::Loro, id: RoomId::try_from(id).unwrap() }
}

fn batch(author: &str, payload: impl Into<Bytes>) -> Batch {
    Batch { author: Author::from(author), id: BatchId::from(7), kind: Kind(1), payload: payload.into() }
}

/// A write whose outcome is still to come.
struct Pending<T>(Receiver<Result<T, StoreError>>);

impl<T> Pending<T> {
    fn outcome(self) -> Result<T, StoreError> {
        self.0.recv_timeout(PATIENCE).expect("an outcome in time")
    }
}

fn pending<T: Send + 'static>(write: impl FnOnce(Reply<T>)) -> Pending<T> {
    let (tell, told) = sync_channel(1);
    write(Reply::new(move |outcome| {
        // A test that has failed meanwhile does not listen.
        let _ = tell.send(outcome);
    }));
    Pending(told)
}

/// Any store, with calls that wait.
trait Waiting: Store {
    fn appended(&self, room: &Room, batch: Batch) -> Result<Written, StoreError> {
        pending(|reply| self.append(room, batch, reply)).outcome()
    }

    fn compacted(
        &self,
        room: &Room,
        generation: Option<Generation>,
        through: Seq,
        snapshot: impl Into<Bytes>,
    ) -> Result<Written, StoreError> {
        let compaction = Compaction { generation, through, snapshot: snapshot.into() };
        pending(|reply| self.compact(room, compaction, reply)).outcome()
    }

    fn cut_out(&self, room: &Room, cut: Cut) -> Result<CutOut, StoreError> {
        pending(|reply| self.cut(room, cut, reply)).outcome()
    }

    fn deleted(&self, room: &Room) -> Result<(), StoreError> {
        pending(|reply| self.delete(room, reply)).outcome()
    }

    fn loaded(&self, room: &Room) -> Loaded {
        self.load(room).unwrap().expect("something is stored")
    }
}

impl<S: Store + ?Sized> Waiting for S {}

fn payloads(loaded: &Loaded) -> Vec<&[u8]> {
    loaded.log.iter().map(|logged| &logged.batch.payload[..]).collect()
}

fn nobody() -> Observer {
    Arc::new(|_| {})
}

/// An observer, and what it has seen.
fn watched() -> (Observer, Arc<Mutex<Vec<Event>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let observer: Observer = Arc::new({
        let seen = Arc::clone(&seen);
        move |event| seen.lock().unwrap().push(event.clone())
    });
    (observer, seen)
}

fn options(dir: &Path) -> Options {
    Options {
        dir: dir.to_owned(),
        caps: Caps::default(),
        queue: 1 << 20,
        sync_interval: Duration::ZERO,
        observer: nobody(),
    }
}

fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(options(dir)).unwrap()
}
