//! A room of the Loro Protocol: who may come in, what they get, what becomes of what they send.
//!
//! A core like [`Room`](super::Room), in the same contract: [`Relay::handle`] takes one thing that happened,
//! [`Relay::poll`] says what to do about it and is drained before the next, [`Relay::deadline`] says when
//! [`Input::Tick`] is due. What the room keeps differs with its kind; joining, permissions, fragments,
//! acknowledgements and the store are the same for all.
//!
//! # An update
//!
//! It is looked at, and refused with a status or taken. What is taken is at once sent on as the frames that it came
//! in, and given to the store; its sender's acknowledgement waits for the store. Kinds that are not stored are
//! acknowledged at once.
//!
//! # Joining
//!
//! A room that is stored is loaded when the first one joins; who comes meanwhile waits. Joins and updates are
//! answered in the order in which they came. While a document is away for [`Work`] they queue, up to a bound.
//!
//! # When something breaks
//!
//! - A document that panics is thrown away and loaded again, without the update that did it; its sender is put out
//!   of the room, the others are told to join again.
//! - A room that cannot be loaded answers with [`JoinError`] and writes nothing.
//! - When the store fails, nothing is taken until a snapshot of the whole room is stored; then those who were refused
//!   are told to join again, and so bring what was refused.

mod backfill;
mod intake;
mod journal;
mod outcome;
pub(super) mod parcel;
mod seats;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::sync::{self, JoinError, Message, Permission, Room, RoomErrorCode, Status};

use super::ConnectionId;
use super::content::{Content, Job};
use super::document::{Document, Work};

pub use backfill::Backfill;
use journal::Journal;
pub(super) use journal::Receipt;
use seats::Seats;
pub use vocabulary::{
    Audience, Author, Entry, Event, Generation, Input, Keeping, Limits, Logged, MANY, ONE, Output, Reply,
    Seq, Stored, Ticket, WriteError, Written,
};

/// Where the batch ids of backfills start. Published clients count from 0 or draw at random.
const BACKFILLS: u64 = 0xb4cf_111e_0000_0000;
/// One room, its members, and what it keeps.
#[derive(Debug)]
pub struct Relay {
    name: Room,
    limits: Limits,
    phase: Phase,
    content: Content,
    seats: Seats,
    queue: VecDeque<Job>,
    /// Bytes of updates in `queue`.
    queued: usize,
    journal: Journal,
    outputs: VecDeque<Output>,
    /// The last batch id of a backfill.
    batch: u64,
    /// The document is being worked on.
    away: bool,
    /// What is in memory is not what is stored, or is broken: it is to be loaded again.
    stale: bool,
    /// How often the document broke with no update to blame.
    strikes: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has asked for it yet.
    Asleep,
    /// The store has been asked, or what it answered is being opened.
    Loading,
    Live,
}

impl Relay {
    /// An empty room of this name, which will load what is stored of it when the first one joins. `keeping` says
    /// what to do with a `%LOR` document and means nothing to other kinds.
    #[must_use]
    pub fn new(name: Room, keeping: Keeping, limits: Limits) -> Self {
        let content = Content::new(name.crdt, keeping, &limits);
        let phase = if content.is_stored() { Phase::Asleep } else { Phase::Live };
        Self {
            name,
            limits,
            phase,
            content,
            seats: Seats::new(limits.suggestions),
            queue: VecDeque::new(),
            queued: 0,
            journal: Journal::new(),
            outputs: VecDeque::new(),
            batch: BACKFILLS,
            away: false,
            stale: false,
            strikes: 0,
        }
    }

    /// Takes one thing that happened at `now`. Drain [`poll`](Self::poll) before the next.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        debug_assert!(self.outputs.is_empty(), "outputs are drained before the next input");
        match input {
            Input::Join { who, permission, version, author } => {
                self.join(now, who, permission, version, author);
            }
            Input::Frame { from, message, frame, fragments } => {
                self.message(now, from, message, frame, fragments);
            }
            Input::TooFast { from, batch } => self.refuse_for_now(now, from, batch, Status::RateLimited),
            Input::FragmentTimeout { from, batch } => {
                self.refuse_for_now(now, from, batch, Status::FragmentTimeout);
            }
            Input::Gone { who } => self.leave(now, who, self.limits.grace),
            Input::Drained { who } => drop(self.seats.leave(who)),
            Input::Loaded(loaded) => self.loaded(now, loaded),
            Input::Done(done) => self.done(now, *done),
            Input::Appended { ticket, result } => self.appended(now, ticket, result),
            Input::Compacted { ticket, result } => self.compacted(now, ticket, result),
            Input::Changed => self.stale |= self.phase != Phase::Asleep,
            Input::Tick => {}
        }
        self.keep_time(now);
        self.run(now);
    }

    /// The next thing to do, `None` when there is nothing left.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle`](Self::handle) at the latest, with [`Input::Tick`] if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let own = [self.seats.deadline(), self.content.deadline(), self.journal.deadline()];
        own.into_iter().flatten().min()
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &Room {
        &self.name
    }

    /// How many have joined or are about to.
    #[must_use]
    pub fn members(&self) -> usize {
        self.seats.len()
    }

    /// The life of what is stored that it has in memory, if it has loaded it.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        self.journal.generation()
    }

    /// How many keys of presence it holds, deleted ones not counted; 0 for other kinds.
    #[must_use]
    pub fn entries(&self) -> usize {
        self.content.entries()
    }

    /// How many bytes are stored of it, by the store's last word.
    #[must_use]
    pub fn stored(&self) -> u64 {
        self.journal.stored()
    }

    /// Whether it may be dropped: nobody is in it, and nothing is under way. A stored room is the same when it is
    /// made anew and loaded; others start afresh.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let quiet = self.queue.is_empty() && self.journal.is_idle() && self.content.deadline().is_none();
        self.seats.len() == 0 && quiet && !self.away && self.phase != Phase::Loading
    }

    fn join(
        &mut self,
        now: Instant,
        who: ConnectionId,
        permission: Permission,
        version: Bytes,
        author: Author,
    ) {
        let newcomer = !self.seats.contains(who);
        if newcomer && self.limits.members != 0 && self.seats.len() >= self.limits.members {
            return self.turn_away(who, "room_full", "the room is full");
        }
        let asked = self.queue.iter_mut().find_map(|job| match job {
            Job::Join { who: asked, version, .. } if *asked == who => Some(version),
            _ => None,
        });
        if let Some(asked) = asked {
            // One answer is enough for somebody who cannot wait: documents are not cheap to read.
            *asked = version;
            return self.seats.reserve(who, permission, author);
        }
        if self.queue.len() >= self.limits.queue {
            return self.turn_away(who, "room_busy", "too much waits for this room");
        }
        let writer = (permission == Permission::Write).then(|| author.clone());
        self.seats.reserve(who, permission, author);
        self.queue.push_back(Job::Join { who, version, writer, at: now });
        if self.phase == Phase::Asleep {
            self.phase = Phase::Loading;
            self.outputs.push_back(Output::Load);
        }
    }

    fn leave(&mut self, now: Instant, who: ConnectionId, grace: Duration) {
        if let Some(author) = self.seats.leave(who) {
            let farewell = self.content.leave(now, who, &author, grace);
            self.announce(now, farewell);
        }
    }

    fn evict(&mut self, now: Instant, who: ConnectionId, message: &'static str) {
        if self.seats.contains(who) {
            self.room_error(who, RoomErrorCode::Evicted, message);
            self.leave(now, who, Duration::ZERO);
        }
    }

    /// Does what time alone brings about.
    fn keep_time(&mut self, now: Instant) {
        while let Some(who) = self.seats.overdue(now) {
            self.suggest(now, who);
        }
        let farewell = self.content.expire(now);
        self.announce(now, farewell);
        let live = self.phase == Phase::Live && !self.stale;
        if live && self.journal.wants_snapshot(now, self.content.compacts(), &self.limits) {
            self.queue.push_back(Job::Snapshot);
        }
        self.reload_if_stale();
    }

    /// Does what is queued, or has it done.
    fn run(&mut self, now: Instant) {
        while self.phase == Phase::Live && !self.stale && !self.away {
            if !self.queue.is_empty()
                && let Some(document) = self.content.take_document(self.limits.room)
            {
                let jobs = std::mem::take(&mut self.queue);
                return self.send_away(document, jobs);
            }
            let Some(job) = self.queue.pop_front() else { return };
            let answer = self.content.perform(&job);
            self.settle(now, job, answer);
        }
    }

    /// Has the document worked on.
    fn send_away(&mut self, document: Box<Document>, jobs: VecDeque<Job>) {
        self.away = true;
        self.outputs.push_back(Output::Work(Box::new(Work::new(document, jobs))));
    }

    /// Sends an update of the room's own to everybody in it.
    fn announce(&mut self, now: Instant, update: Option<Bytes>) {
        let Some(update) = update else { return };
        let to = Audience { members: self.seats.seated(), except: None };
        if to.is_empty() {
            return;
        }
        let frames = self.backfill(vec![update]).collect();
        self.outputs.push_back(Output::Relay { frames, to, arrived: now });
    }

    fn backfill(&mut self, updates: Vec<Bytes>) -> Backfill {
        let backfill = Backfill::new(&self.name, self.batch, updates);
        self.batch += backfill.most_batches();
        backfill
    }

    fn acknowledge(&mut self, receipt: Receipt, status: Status) {
        let frame = sync::ack(&self.name, receipt.batch, status);
        let reply = Reply::Ack { status, arrived: receipt.arrived };
        self.outputs.push_back(Output::Reply { to: receipt.who, reply, frame });
    }

    /// Tells a member to join again, or will tell it when it has been long enough since the last time.
    fn suggest(&mut self, now: Instant, who: ConnectionId) {
        if self.seats.suggest(now, who) {
            self.room_error(who, RoomErrorCode::RejoinSuggested, "join again to exchange what is missing");
        }
    }

    fn room_error(&mut self, to: ConnectionId, code: RoomErrorCode, message: &'static str) {
        let message = Message::RoomError { code, message: Cow::Borrowed(message) };
        self.reply(to, Reply::RoomError(code), &message);
    }

    fn turn_away(&mut self, to: ConnectionId, code: &'static str, message: impl Into<Cow<'static, str>>) {
        let error = JoinError::App { code: Some(Cow::Borrowed(code)) };
        self.reply(to, Reply::JoinError, &Message::JoinError { error, message: message.into() });
    }

    fn reply(&mut self, to: ConnectionId, reply: Reply, message: &Message) {
        let frame = message.encode(&self.name).expect("a short message fits into a frame");
        self.outputs.push_back(Output::Reply { to, reply, frame });
    }
}
