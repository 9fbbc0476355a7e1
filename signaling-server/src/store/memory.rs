//! Rooms in memory: the same contract as on disk, until the process ends.
//!
//! Every write is done, and answered, before the call returns. Nothing is ever [`Busy`](StoreError::Busy).

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use wire::sync::Room;

use super::{
    Batch, Caps, Compaction, Cut, CutOut, Event, Generation, Loaded, Logged, Observer, Reply, RoomInfo,
    RoomSize, Seq, Store, StoreError, Usage, Written,
};

/// A store in memory.
pub struct MemoryStore {
    caps: Caps,
    observer: Observer,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    rooms: HashMap<Room, Shelf>,
    usage: Usage,
    /// Generations that there were.
    generations: u64,
}

/// What is kept of a room.
#[derive(Debug)]
struct Shelf {
    generation: Generation,
    next: u32,
    snapshot: Option<Bytes>,
    log: VecDeque<Logged>,
    size: RoomSize,
    used_at: SystemTime,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new(caps: Caps, observer: Observer) -> Self {
        Self { caps, observer, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("no code that holds this lock panics")
    }
}

impl Store for MemoryStore {
    fn load(&self, room: &Room) -> Result<Option<Loaded>, StoreError> {
        let mut kept = self.kept();
        Ok(kept.rooms.get_mut(room).map(|shelf| {
            shelf.used_at = SystemTime::now();
            Loaded {
                generation: shelf.generation,
                snapshot: shelf.snapshot.clone(),
                log: shelf.log.iter().cloned().collect(),
                size: shelf.size,
            }
        }))
    }

    fn append(&self, room: &Room, batch: Batch, reply: Reply<Written>) {
        let outcome = self.kept().append(self.caps, room, batch);
        reply.tell(outcome);
    }

    fn compact(&self, room: &Room, compaction: Compaction, reply: Reply<Written>) {
        let began = Instant::now();
        let outcome = self.kept().compact(self.caps, room, compaction);
        if let Ok((from, written)) = &outcome {
            (self.observer)(&Event::Compacted { from: *from, to: written.size, took: began.elapsed() });
        }
        reply.tell(outcome.map(|(_, written)| written));
    }

    fn cut(&self, room: &Room, cut: Cut, reply: Reply<CutOut>) {
        let outcome = self.kept().cut(room, &cut);
        reply.tell(outcome);
    }

    fn delete(&self, room: &Room, reply: Reply<()>) {
        let outcome = self.kept().remove(room).ok_or(StoreError::NoSuchRoom);
        reply.tell(outcome.map(drop));
    }

    fn sweep(&self, unused_since: SystemTime, live: Vec<Room>, reply: Reply<Vec<Room>>) {
        let swept = self.kept().sweep(unused_since, &live);
        (self.observer)(&Event::Swept { rooms: swept.len() });
        reply.tell(Ok(swept));
    }

    fn list(&self) -> Result<Vec<RoomInfo>, StoreError> {
        let mut rooms: Vec<_> = self.kept().rooms.iter().map(|(room, shelf)| shelf.info(room)).collect();
        rooms.sort_by(|a, b| name(&a.room).cmp(&name(&b.room)));
        Ok(rooms)
    }

    fn info(&self, room: &Room) -> Result<Option<RoomInfo>, StoreError> {
        Ok(self.kept().rooms.get(room).map(|shelf| shelf.info(room)))
    }

    fn usage(&self) -> Usage {
        self.kept().usage
    }

    fn caps(&self) -> Caps {
        self.caps
    }
}

fn name(room: &Room) -> ([u8; 4], &str) {
    (room.crdt.magic(), room.id.as_str())
}

impl Kept {
    fn append(&mut self, caps: Caps, room: &Room, mut batch: Batch) -> Result<Written, StoreError> {
        caps.admit(self.usage, self.rooms.get(room).map(|shelf| shelf.size), batch.weight())?;
        // A payload is a slice of what came from a socket, which may be far larger and would be kept with it.
        batch.payload = Bytes::copy_from_slice(&batch.payload);
        self.usage.bytes += batch.weight();
        let shelf = self.shelf(room);
        let seq = Seq(shelf.next);
        shelf.next += 1;
        shelf.used_at = SystemTime::now();
        shelf.size.log += batch.weight();
        shelf.size.batches += 1;
        shelf.log.push_back(Logged { seq, stored_at: shelf.used_at, batch });
        Ok(Written { seq, generation: shelf.generation, size: shelf.size })
    }

    fn compact(
        &mut self,
        caps: Caps,
        room: &Room,
        compaction: Compaction,
    ) -> Result<(RoomSize, Written), StoreError> {
        let Compaction { generation, through, snapshot } = compaction;
        let shelf = self.rooms.get(room);
        if shelf.map(|shelf| shelf.generation) != generation {
            return Err(StoreError::Changed);
        }
        let before = shelf.map(|shelf| shelf.size);
        let replaced = shelf.map_or(0, |shelf| shelf.log.partition_point(|logged| logged.seq <= through));
        let kept = shelf.iter().flat_map(|shelf| shelf.log.iter().skip(replaced));
        let to = RoomSize { snapshot: snapshot.len() as u64, ..measured(kept) };
        caps.admit_change(self.usage, before, to)?;
        let shelf = self.shelf(room);
        shelf.log.drain(..replaced);
        shelf.log.shrink_to_fit();
        shelf.snapshot = Some(snapshot);
        shelf.used_at = SystemTime::now();
        let from = std::mem::replace(&mut shelf.size, to);
        let written = Written { seq: through, generation: shelf.generation, size: to };
        self.usage.bytes = self.usage.bytes - from.total() + to.total();
        Ok((from, written))
    }

    fn cut(&mut self, room: &Room, cut: &Cut) -> Result<CutOut, StoreError> {
        let shelf = self.rooms.get_mut(room).ok_or(StoreError::NoSuchRoom)?;
        let had = shelf.log.len();
        let removed = match cut {
            Cut::Batch(seq) => {
                shelf.log.retain(|logged| logged.seq != *seq);
                had - shelf.log.len()
            }
            Cut::Author(author) => {
                shelf.log.retain(|logged| logged.batch.author != *author);
                had - shelf.log.len()
            }
            Cut::Snapshot => usize::from(shelf.snapshot.take().is_some()),
        };
        if removed == 0 {
            return Err(StoreError::NothingToCut);
        }
        self.generations += 1;
        shelf.generation = Generation(self.generations);
        let snapshot = shelf.snapshot.as_ref().map_or(0, |snapshot| snapshot.len() as u64);
        let to = RoomSize { snapshot, ..measured(shelf.log.iter()) };
        let from = std::mem::replace(&mut shelf.size, to);
        let batches = (had - shelf.log.len()) as u64;
        let cut_out = CutOut { batches, generation: shelf.generation, size: to };
        self.usage.bytes = self.usage.bytes - from.total() + to.total();
        Ok(cut_out)
    }

    fn sweep(&mut self, unused_since: SystemTime, live: &[Room]) -> Vec<Room> {
        let (now, live) = (SystemTime::now(), live.iter().collect::<HashSet<_>>());
        let mut unused = Vec::new();
        for (room, shelf) in &mut self.rooms {
            match live.contains(room) {
                true => shelf.used_at = now,
                false if shelf.used_at < unused_since => unused.push(room.clone()),
                false => {}
            }
        }
        for room in &unused {
            self.remove(room);
        }
        unused
    }

    fn remove(&mut self, room: &Room) -> Option<Shelf> {
        let shelf = self.rooms.remove(room)?;
        self.usage.rooms -= 1;
        self.usage.bytes -= shelf.size.total();
        Some(shelf)
    }

    /// The room's, made if there is none.
    fn shelf(&mut self, room: &Room) -> &mut Shelf {
        let Self { rooms, usage, generations } = self;
        rooms.entry(room.clone()).or_insert_with(|| {
            usage.rooms += 1;
            *generations += 1;
            Shelf {
                generation: Generation(*generations),
                next: 1,
                snapshot: None,
                log: VecDeque::new(),
                size: RoomSize::default(),
                used_at: SystemTime::now(),
            }
        })
    }
}

impl Shelf {
    fn info(&self, room: &Room) -> RoomInfo {
        RoomInfo { room: room.clone(), generation: self.generation, size: self.size, used_at: self.used_at }
    }
}

/// The size of a log.
fn measured<'a>(log: impl Iterator<Item = &'a Logged>) -> RoomSize {
    log.fold(RoomSize::default(), |size, logged| RoomSize {
        log: size.log + logged.batch.weight(),
        batches: size.batches + 1,
        ..size
    })
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("caps", &self.caps)
            .field("usage", &self.usage())
            .finish_non_exhaustive()
    }
}
