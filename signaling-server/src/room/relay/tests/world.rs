//! One room, the connections around it, and its store.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::{ExportMode, LoroDoc};
use wire::fragment::{FragmentLimits, Reassembly, Split};
use wire::id::{BatchId, RoomId};
use wire::sync::{self, Crdt, Frame, Message, Permission, Room, RoomErrorCode, Status};

use crate::room::ConnectionId;
use crate::room::relay::*;

pub(super) const ANA: ConnectionId = ConnectionId(1);
pub(super) const BEN: ConnectionId = ConnectionId(2);
pub(super) const EVE: ConnectionId = ConnectionId(3);

pub(super) struct World {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    pub(super) store: Disk,
    /// Work is not done before it is asked for.
    pub(super) slow_work: bool,
    work: VecDeque<Box<Work>>,
    /// How often there was work for a thread that may block.
    pub(super) heavy: usize,
    fragments: HashMap<ConnectionId, Reassembly>,
    /// Frames that each connection has been sent and has not read.
    inboxes: HashMap<ConnectionId, Vec<Bytes>>,
    pub(super) events: Vec<Event>,
    batches: u64,
}

/// What is stored, and what is waiting to be.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) stored: Stored,
    pub(super) entries: Vec<Entry>,
    seq: u32,
    /// What to say of writes: nothing yet, or that they failed.
    pub(super) held: bool,
    pub(super) broken: Option<WriteError>,
    /// Only the next write fails.
    pub(super) fail_once: bool,
    pub(super) no_snapshots: bool,
    pub(super) refused: usize,
    pub(super) unreadable: Option<String>,
    queue: VecDeque<Output>,
    pub(super) loads: usize,
    pub(super) snapshots: usize,
}

impl World {
    pub(super) fn new(crdt: Crdt) -> Self {
        Self::with(crdt, Keeping::Imported, Limits::default())
    }

    pub(super) fn with(crdt: Crdt, keeping: Keeping, limits: Limits) -> Self {
        let name = Room { crdt, id: RoomId::try_from("r").unwrap() };
        Self {
            relay: Relay::new(name, keeping, limits),
            now: Instant::now(),
            store: Disk::default(),
            slow_work: false,
            work: VecDeque::new(),
            heavy: 0,
            fragments: HashMap::new(),
            inboxes: HashMap::new(),
            events: Vec::new(),
            batches: 0,
        }
    }

    /// The same room after a restart: only what is stored is left.
    pub(super) fn restarted(self, keeping: Keeping, limits: Limits) -> Self {
        let mut world = Self::with(self.relay.name().crdt, keeping, limits);
        world.store = self.store;
        world.now = self.now;
        world
    }

    pub(super) fn tell(&mut self, input: Input<'_>) {
        self.relay.handle(self.now, input);
        self.perform();
        while let Some(next) = self.next_answer() {
            self.relay.handle(self.now, next);
            self.perform();
        }
    }

    fn perform(&mut self) {
        while let Some(output) = self.relay.poll() {
            match output {
                Output::Reply { to, frame, .. } => self.inboxes.entry(to).or_default().push(frame),
                Output::Relay { frames, to, .. } => {
                    for who in to.iter() {
                        self.inboxes.entry(who).or_default().extend(frames.iter().cloned());
                    }
                }
                Output::Backfill { to, backfill } => self.inboxes.entry(to).or_default().extend(backfill),
                Output::Work(work) => {
                    self.heavy += usize::from(work.is_heavy());
                    self.work.push_back(work);
                }
                Output::Event(event) => self.events.push(event),
                write => self.store.queue.push_back(write),
            }
        }
    }

    fn next_answer(&mut self) -> Option<Input<'static>> {
        if !self.slow_work
            && let Some(work) = self.work.pop_front()
        {
            return Some(Input::Done(work.run()));
        }
        self.store.answer()
    }

    /// Does the work that has been put off.
    pub(super) fn work(&mut self) {
        let slow = std::mem::take(&mut self.slow_work);
        self.tell(Input::Tick);
        self.slow_work = slow;
    }

    pub(super) fn wait(&mut self, time: Duration) {
        self.now += time;
        self.expire();
        self.tell(Input::Tick);
    }

    fn expire(&mut self) {
        let expired = |fragments: &mut Reassembly, now| {
            std::iter::from_fn(|| fragments.expired(now)).map(|(_, batch)| batch).collect::<Vec<_>>()
        };
        let now = self.now;
        let late: Vec<_> =
            self.fragments.iter_mut().map(|(from, fragments)| (*from, expired(fragments, now))).collect();
        for (from, batches) in late {
            batches.into_iter().for_each(|batch| self.tell(Input::FragmentTimeout { from, batch }));
        }
    }

    pub(super) fn join(&mut self, who: ConnectionId) {
        self.join_as(who, Permission::Write, &[0]);
    }

    pub(super) fn join_as(&mut self, who: ConnectionId, permission: Permission, version: &[u8]) {
        let author = author(who);
        self.tell(Input::Join { who, permission, version: Bytes::copy_from_slice(version), author });
    }

    /// Joins on a new connection as whoever was on another one.
    pub(super) fn join_again(&mut self, who: ConnectionId, before: ConnectionId) {
        let (permission, author) = (Permission::Write, author(before));
        self.tell(Input::Join { who, permission, version: Bytes::new(), author });
    }

    /// Joins, and says what came: the version, and the updates.
    pub(super) fn joined(&mut self, who: ConnectionId, version: &[u8]) -> (Bytes, Vec<Bytes>) {
        self.clear();
        self.join_as(who, Permission::Write, version);
        let messages = self.read(who);
        let Some(Message::JoinOk { version, permission: Permission::Write, .. }) = messages.first() else {
            panic!("{messages:?}");
        };
        (version.clone(), updates(&messages))
    }

    pub(super) fn frame(&mut self, from: ConnectionId, frame: &Bytes) {
        let Frame { room, message } = Frame::decode(frame).unwrap();
        assert_eq!(&room, self.relay.name());
        let mut fragments =
            self.fragments.remove(&from).unwrap_or_else(|| Reassembly::new(FragmentLimits::default()));
        self.tell(Input::Frame { from, message, frame, fragments: &mut fragments });
        self.fragments.insert(from, fragments);
    }

    pub(super) fn gone(&mut self, who: ConnectionId) {
        self.fragments.remove(&who);
        self.tell(Input::Gone { who });
    }

    /// The frames that bring an update.
    pub(super) fn frames(&mut self, update: &[u8]) -> (BatchId, Vec<Bytes>) {
        self.batches += 1;
        let batch = BatchId::from(self.batches);
        (batch, Split::new(self.relay.name(), batch, update, wire::fragment::FRAGMENT).collect())
    }

    /// Sends an update.
    pub(super) fn send(&mut self, from: ConnectionId, update: &[u8]) -> BatchId {
        let (batch, frames) = self.frames(update);
        frames.iter().for_each(|frame| self.frame(from, frame));
        batch
    }

    /// Sends several updates in one frame.
    pub(super) fn send_all(&mut self, from: ConnectionId, updates: &[Vec<u8>]) -> BatchId {
        self.batches += 1;
        let batch = BatchId::from(self.batches);
        let frame = sync::update(self.relay.name(), batch, updates).unwrap();
        self.frame(from, &frame);
        batch
    }

    /// The frames that have come, as they came.
    pub(super) fn frames_of(&mut self, who: ConnectionId) -> Vec<Bytes> {
        self.inboxes.remove(&who).unwrap_or_default()
    }

    pub(super) fn read(&mut self, who: ConnectionId) -> Vec<Message> {
        let frames = self.frames_of(who);
        frames.iter().map(|frame| Frame::decode(frame).unwrap().message).collect()
    }

    /// What somebody was told of its batches; whatever else came is left out.
    pub(super) fn acks(&mut self, who: ConnectionId) -> Vec<(BatchId, Status)> {
        let acks = self.read(who).into_iter().filter_map(|message| match message {
            Message::Ack { batch, status } => Some((batch, status)),
            _ => None,
        });
        acks.collect()
    }

    /// The updates that came, put together; whatever else came is left out.
    pub(super) fn updates(&mut self, who: ConnectionId) -> Vec<Bytes> {
        updates(&self.read(who))
    }

    /// How often somebody is told to join again.
    pub(super) fn suggestions(&mut self, who: ConnectionId) -> usize {
        let suggests = |message: &&Message| {
            matches!(message, Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. })
        };
        self.read(who).iter().filter(suggests).count()
    }

    pub(super) fn clear(&mut self) {
        self.inboxes.clear();
    }
}

impl Disk {
    /// As an operator does who imports a room.
    pub(super) fn put(&mut self, stored: Stored) {
        self.seq = stored.log.last().map_or(0, |logged| logged.seq.0);
        self.stored = stored;
    }

    fn answer(&mut self) -> Option<Input<'static>> {
        if let Some(Output::Load) = self.queue.front() {
            self.queue.pop_front();
            self.loads += 1;
            let loaded = self.unreadable.clone().map_or_else(|| Ok(self.stored.clone()), Err);
            return Some(Input::Loaded(loaded));
        }
        if self.held {
            return None;
        }
        let write = self.queue.pop_front()?;
        if self.no_snapshots && matches!(write, Output::Compact { .. }) {
            self.refused += 1;
            return Some(refuse(&write, WriteError::Failed));
        }
        let error = if self.fail_once { self.broken.take() } else { self.broken };
        Some(match error {
            Some(error) => refuse(&write, error),
            None => self.write(write),
        })
    }

    fn write(&mut self, write: Output) -> Input<'static> {
        let generation = *self.stored.generation.get_or_insert(Generation(1));
        match write {
            Output::Append { ticket, entry } => {
                self.seq += 1;
                let logged = Logged { seq: Seq(self.seq), kind: entry.kind, payload: entry.payload.clone() };
                self.stored.log.push(logged);
                self.entries.push(entry);
                Input::Appended { ticket, result: Ok(self.written(generation)) }
            }
            Output::Compact { ticket, through, snapshot, .. } => {
                self.stored.log.retain(|logged| logged.seq > through);
                self.stored.snapshot = Some(snapshot);
                self.snapshots += 1;
                Input::Compacted { ticket, result: Ok(self.written(generation)) }
            }
            other => panic!("no write: {other:?}"),
        }
    }

    fn written(&self, generation: Generation) -> Written {
        let (snapshot, log) = self.stored.sizes();
        Written { seq: Seq(self.seq), generation, snapshot, log }
    }
}

/// As whom a connection writes.
fn author(who: ConnectionId) -> Author {
    Author(format!("user {}", who.0).into())
}

fn refuse(write: &Output, error: WriteError) -> Input<'static> {
    match write {
        Output::Append { ticket, .. } => Input::Appended { ticket: *ticket, result: Err(error) },
        Output::Compact { ticket, .. } => Input::Compacted { ticket: *ticket, result: Err(error) },
        other => panic!("no write: {other:?}"),
    }
}

fn updates(messages: &[Message]) -> Vec<Bytes> {
    let mut all = Vec::new();
    let mut parts: Vec<u8> = Vec::new();
    let mut left = 0;
    for message in messages {
        match message {
            Message::Update { updates, .. } => all.extend(updates.iter()),
            Message::FragmentHeader(header) => left = header.fragments,
            Message::Fragment(fragment) => {
                parts.extend_from_slice(&fragment.bytes);
                left -= 1;
                if left == 0 {
                    all.push(std::mem::take(&mut parts).into());
                }
            }
            _ => {}
        }
    }
    all
}

/// A document, as an application has it.
pub(super) fn doc(peer: u64) -> LoroDoc {
    let doc = LoroDoc::new();
    doc.set_peer_id(peer).unwrap();
    doc
}

/// Writes at the end of the document, and says what is new.
pub(super) fn edit(doc: &LoroDoc, text: &str) -> Vec<u8> {
    let before = doc.oplog_vv();
    doc.get_text("t").push_str(text).unwrap();
    doc.commit();
    doc.export(ExportMode::updates(&before)).unwrap()
}

pub(super) fn text(doc: &LoroDoc) -> String {
    doc.get_text("t").to_string()
}

pub(super) fn import(doc: &LoroDoc, updates: &[Bytes]) {
    updates.iter().for_each(|update| drop(doc.import(update).unwrap()));
}

pub(super) fn version(doc: &LoroDoc) -> Vec<u8> {
    doc.oplog_vv().encode()
}

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
