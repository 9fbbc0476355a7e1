//! The one thread that writes: it takes whatever is queued, writes it, syncs once, and only then answers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rusqlite::{Connection, Transaction, TransactionBehavior};
use wire::sync::Room;

use super::fault::Fault;
use super::queue::{Append, Queue, Request, Work};
use super::tables::{Row, Tables};
use super::{Shared, edit, read};
use crate::store::{Caps, Compaction, Event, Observer, Reply, RoomSize, StoreError, Usage, Written};

/// How soon a change by another process is noticed while nothing is written.
const LOOK_AROUND: Duration = Duration::from_secs(1);

type Outcome<T> = Result<T, StoreError>;

pub(super) struct Writer {
    pub(super) connection: Connection,
    pub(super) file: PathBuf,
    pub(super) caps: Caps,
    pub(super) queue: Arc<Queue>,
    pub(super) sync_interval: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) observer: Observer,
    /// The last that was seen of what others write.
    pub(super) data_version: i64,
}

/// Refuses what waits if the writer ends before its time.
struct Abandon(Arc<Queue>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Writer {
    /// Writes until the queue is closed and empty.
    pub(super) fn run(mut self) {
        let _abandon = Abandon(Arc::clone(&self.queue));
        let mut not_before = Instant::now();
        loop {
            let work = self.queue.next(not_before, LOOK_AROUND);
            let began = Instant::now();
            match work {
                Work::Appends(appends) => self.append(appends),
                Work::One(request) => self.one(request),
                Work::Idle => {
                    self.look_around();
                    continue;
                }
                Work::Closed => return,
            }
            not_before = began + self.sync_interval;
        }
    }

    fn append(&mut self, appends: Vec<Append>) {
        match self.try_append(&appends) {
            Ok((outcomes, synced)) => {
                self.report_commit(&appends, &outcomes, synced);
                self.queue.written();
                for (append, outcome) in appends.into_iter().zip(outcomes) {
                    append.reply.tell(outcome);
                }
            }
            // So that a room on a bad page, or a batch too large for what is left of the disk, takes nobody with it.
            Err(fault) if appends.len() > 1 && fault.may_be_of_one() => {
                appends.into_iter().for_each(|append| self.append(vec![append]));
            }
            Err(fault) => {
                let error = fault.at(&self.file);
                self.report(&Event::Failed { writes: appends.len(), error: error.clone() });
                self.queue.written();
                for append in appends {
                    append.reply.tell(Err(error.clone()));
                }
            }
        }
    }

    /// Writes a group. One that a cap refuses is left out; if the disk refuses any, none is written.
    fn try_append(&mut self, appends: &[Append]) -> Result<(Vec<Outcome<Written>>, Duration), Fault> {
        self.transact(|writing| {
            let mut rows = HashMap::new();
            let outcomes = appends.iter().map(|append| match writing.append(&mut rows, append) {
                Ok(written) => Ok(Ok(written)),
                Err(Fault::Store(refusal)) => Ok(Err(refusal)),
                Err(failure) => Err(failure),
            });
            let outcomes = outcomes.collect::<Result<Vec<_>, _>>()?;
            for (room, row) in &rows {
                if let Some(row) = row {
                    writing.tables().keep_row(room, row)?;
                }
            }
            Ok(outcomes)
        })
    }

    fn one(&mut self, request: Request) {
        match request {
            Request::Append(append) => self.append(vec![append]),
            Request::Compact(room, compaction, reply) => {
                let outcome = self.compact(&room, &compaction);
                // Large, and given back before anybody hears that there is room.
                drop(compaction);
                self.answer(reply, outcome);
            }
            Request::Cut(room, cut, reply) => {
                let outcome = self.change(|writing| edit::cut(&writing.tables(), &room, &cut));
                self.answer(reply, outcome);
            }
            Request::Delete(room, reply) => {
                let outcome = self.change(|writing| edit::delete(&writing.tables(), &room));
                self.answer(reply, outcome);
            }
            Request::Sweep { unused_since, live, reply } => {
                let outcome = self.sweep(unused_since, live);
                self.answer(reply, outcome);
            }
        }
    }

    fn answer<T>(&self, reply: Reply<T>, outcome: Outcome<T>) {
        self.queue.written();
        reply.tell(outcome);
    }

    fn compact(&mut self, room: &Room, compaction: &Compaction) -> Outcome<Written> {
        let began = Instant::now();
        let (from, written) = self.change(|writing| {
            let row = writing.row(room)?;
            let from = row.as_ref().map_or(RoomSize::default(), |row| row.size);
            let caps = (writing.caps, writing.usage);
            let now = SystemTime::now();
            let written = edit::compact(&writing.tables(), caps, room, row, compaction, now)?;
            Ok((from, written))
        })?;
        self.report(&Event::Compacted { from, to: written.size, took: began.elapsed() });
        Ok(written)
    }

    fn sweep(&mut self, unused_since: SystemTime, live: Vec<Room>) -> Outcome<Vec<Room>> {
        let shared = Arc::clone(&self.shared);
        // Held until the commit: a load that begins meanwhile waits, and finds a room either kept or gone for good.
        let mut touched = shared.touched();
        touched.extend(live);
        let swept = self.change(|writing| {
            let tables = writing.tables();
            let now = SystemTime::now();
            for room in touched.iter() {
                if let Some(mut row) = tables.row(room)?.filter(|row| row.is_intact) {
                    row.used_at = now;
                    tables.keep_row(room, &row)?;
                }
            }
            let mut swept = Vec::new();
            for (room, row) in tables.rooms_unused_since(unused_since)? {
                if !touched.contains(&room) {
                    tables.drop_room(&row)?;
                    swept.push(room);
                }
            }
            Ok(swept)
        })?;
        touched.clear();
        drop(touched);
        self.report(&Event::Swept { rooms: swept.len() });
        Ok(swept)
    }

    /// A transaction whose failure is worth an event, unless the store itself has refused.
    fn change<T>(&mut self, work: impl FnOnce(&mut Writing<'_>) -> Result<T, Fault>) -> Outcome<T> {
        let outcome = self.transact(|writing| {
            let done = work(writing)?;
            writing.usage = writing.tables().usage()?;
            Ok(done)
        });
        let outcome = outcome.map_err(|fault| fault.at(&self.file));
        if let Err(error @ (StoreError::Disk { .. } | StoreError::DiskFull { .. })) = &outcome {
            self.report(&Event::Failed { writes: 1, error: error.clone() });
        }
        outcome.map(|(done, _)| done)
    }

    /// Does `work` and commits it, all or nothing; says how long the commit took. Usage is what `work` leaves it at.
    fn transact<T>(
        &mut self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T, Fault>,
    ) -> Result<(T, Duration), Fault> {
        let Self { connection, file, caps, shared, data_version, .. } = self;
        let seen = *data_version;
        let attempt = || {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut writing = Writing { transaction, caps: *caps, usage: shared.usage(), shared, file };
            let version = writing.tables().data_version()?;
            if version != seen {
                writing.usage = writing.tables().usage()?;
                shared.set_usage(writing.usage);
                *data_version = version;
            }
            let done = work(&mut writing)?;
            let usage = writing.usage;
            let commits = Instant::now();
            writing.transaction.commit()?;
            shared.set_usage(usage);
            Ok((done, commits.elapsed()))
        };
        let outcome = attempt();
        if self.data_version != seen {
            self.report(&Event::ChangedOutside);
        }
        outcome
    }

    /// Looks whether somebody else has written meanwhile.
    fn look_around(&mut self) {
        let tables = Tables(&self.connection);
        let changed = tables.data_version().is_ok_and(|version| version != self.data_version);
        if changed {
            // What can not be read now is looked at again in a second.
            let _ = self.change(|_| Ok(()));
        }
    }

    fn report(&self, event: &Event) {
        (self.observer)(event);
    }

    fn report_commit(&self, appends: &[Append], outcomes: &[Outcome<Written>], synced: Duration) {
        let stored =
            || appends.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(append, _)| append);
        let Some(oldest) = stored().map(|append| append.since).min() else {
            return;
        };
        self.report(&Event::Committed {
            batches: stored().count(),
            bytes: stored().map(|append| append.batch.payload.len()).sum(),
            synced,
            waited: oldest.elapsed(),
        });
    }
}

/// A transaction under way.
struct Writing<'w> {
    transaction: Transaction<'w>,
    caps: Caps,
    usage: Usage,
    shared: &'w Shared,
    file: &'w Path,
}

impl Writing<'_> {
    fn tables(&self) -> Tables<'_> {
        Tables(&self.transaction)
    }

    /// A room that may be written to: none that was found damaged and not mended since.
    fn row(&self, room: &Room) -> Result<Option<Row>, Fault> {
        let row = self.tables().row(room)?;
        if let Some(row) = &row {
            self.shared.check_sound(room, row.generation())?;
            read::check_row(self.file, room, row)?;
        }
        Ok(row)
    }

    fn append(&mut self, rows: &mut HashMap<Room, Option<Row>>, append: &Append) -> Result<Written, Fault> {
        let Append { room, batch, .. } = append;
        if !rows.contains_key(room) {
            rows.insert(room.clone(), self.row(room)?);
        }
        let row = rows.get_mut(room).expect("it has just been looked up");
        self.caps.admit(self.usage, row.as_ref().map(|row| row.size), batch.weight())?;
        let now = SystemTime::now();
        let row = match row {
            Some(row) => row,
            None => {
                self.usage.rooms += 1;
                row.insert(self.tables().add_room(room, now)?)
            }
        };
        let seq = Tables(&self.transaction).add_batch(room, row, now, batch)?;
        self.usage.bytes += batch.weight();
        Ok(Written { seq, generation: row.generation(), size: row.size })
    }
}
