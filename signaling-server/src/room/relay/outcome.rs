//! What became of things: answers of what the room keeps, and of the store.

use std::collections::VecDeque;
use std::time::Instant;

use bytes::Bytes;
use wire::sync::{Message, Permission, RoomErrorCode, Status};

use super::journal::Settled;
use super::{Audience, Entry, Event, MANY, ONE, Output, Phase, Receipt, Relay, Reply, Seq, Stored, Ticket};
use super::{WriteError, Written, parcel};
use crate::room::ConnectionId;
use crate::room::content::{Answer, Batch, Job, Opening, Taken};
use crate::room::document::Done;

/// How often a document may break with no update to blame before the room is given up.
const STRIKES: u32 = 3;

impl Relay {
    pub(super) fn loaded(&mut self, now: Instant, loaded: Result<Stored, String>) {
        let stored = match loaded {
            Ok(stored) => stored,
            Err(reason) => return self.give_up(reason),
        };
        let through = stored.log.last().map_or(Seq(0), |logged| logged.seq);
        self.journal.loaded(stored.generation, through, stored.sizes());
        let job = Job::Open(Opening::new(stored));
        if let Some(document) = self.content.take_document(self.limits.room) {
            return self.send_away(document, [job].into());
        }
        let answer = self.content.perform(&job);
        self.settle(now, job, answer);
    }

    /// The document is back, with answers.
    pub(super) fn done(&mut self, now: Instant, done: Done) {
        self.away = false;
        // First, since it is forgotten again if what is stored cannot be read.
        self.content.put_document(done.document);
        self.queue_again(done.rest);
        for (job, answer) in done.settled {
            self.settle(now, job, answer);
        }
        if let Some(culprit) = done.culprit {
            self.broken(now, culprit);
        }
    }

    /// What was not done goes before what has come meanwhile.
    fn queue_again(&mut self, mut rest: VecDeque<Job>) {
        rest.append(&mut self.queue);
        self.queue = rest;
    }

    /// The document panicked over this and is gone.
    fn broken(&mut self, now: Instant, culprit: Job) {
        self.stale = true;
        self.outputs.push_back(Output::Event(Event::Quarantined));
        match culprit {
            Job::Batch(batch) => {
                self.queued -= batch.len;
                self.acknowledge(batch.receipt, Status::InvalidUpdate);
                return self.evict(now, batch.receipt.who, "an update of yours broke the document");
            }
            Job::Open(_) => self.strikes = STRIKES,
            // The document that is loaded again is asked again.
            job @ Job::Join { .. } => self.queue.push_front(job),
            Job::Snapshot => {}
        }
        self.strikes += 1;
        if self.strikes > STRIKES {
            self.give_up("the document breaks when it is read".to_owned());
        }
    }

    /// What is stored cannot be had. Nothing is written, and everybody is told; who joins again makes it load again.
    fn give_up(&mut self, reason: String) {
        self.phase = Phase::Asleep;
        self.stale = false;
        self.strikes = 0;
        self.content.reset();
        let lost = self.journal.forget();
        lost.into_iter().for_each(|receipt| self.acknowledge(receipt, Status::Unknown));
        for job in std::mem::take(&mut self.queue) {
            match job {
                Job::Join { who, .. } => self.turn_away(who, "room_unreadable", reason.clone()),
                Job::Batch(batch) => self.acknowledge(batch.receipt, Status::Unknown),
                Job::Open(_) | Job::Snapshot => {}
            }
        }
        self.queued = 0;
        for who in self.seats.seated().iter().copied() {
            self.room_error(who, RoomErrorCode::RejoinSuggested, "the room had to be closed");
        }
        self.seats.clear();
        self.outputs.push_back(Output::Event(Event::Unreadable(reason)));
    }

    /// Loads again, once the store has answered for everything that it was given.
    pub(super) fn reload_if_stale(&mut self) {
        if !self.stale || self.away || self.phase != Phase::Live || self.journal.is_writing() {
            return;
        }
        self.stale = false;
        self.content.reset();
        // In a gap, these are in a log that lacks what they build on. Their senders will join again.
        let lost = self.journal.forget();
        lost.into_iter().for_each(|receipt| self.acknowledge(receipt, Status::Unknown));
        self.phase = Phase::Loading;
        self.outputs.push_back(Output::Load);
    }

    pub(super) fn settle(&mut self, now: Instant, job: Job, answer: Answer) {
        match (job, answer) {
            (Job::Join { who, .. }, Answer::Joined { version, updates }) => {
                self.joined(who, version, updates);
            }
            (Job::Batch(batch), Answer::Taken(taken)) => self.taken(now, batch, taken),
            (Job::Snapshot, Answer::Snapshot(snapshot)) => {
                let (ticket, generation, through) = self.journal.snapshot();
                self.outputs.push_back(Output::Compact { ticket, generation, through, snapshot });
            }
            (Job::Open(_), Answer::Opened { set_aside }) => self.opened(now, set_aside),
            (Job::Open(_), Answer::Unreadable(reason)) => self.give_up(reason),
            (job, answer) => debug_assert!(false, "{answer:?} is no answer to {job:?}"),
        }
    }

    fn opened(&mut self, now: Instant, set_aside: Vec<Seq>) {
        self.phase = Phase::Live;
        if !set_aside.is_empty() {
            self.outputs.push_back(Output::Event(Event::SetAside(set_aside)));
        }
        // Whoever was here before may have something that the store does not.
        for who in self.seats.seated().iter().copied() {
            self.suggest(now, who);
        }
    }

    fn joined(&mut self, who: ConnectionId, version: Bytes, updates: Vec<Bytes>) {
        let Some(permission) = self.seats.take(who) else { return };
        let frame = self.join_ok(permission, version);
        self.outputs.push_back(Output::Reply { to: who, reply: Reply::JoinOk, frame });
        if !updates.is_empty() {
            let backfill = self.backfill(updates);
            self.outputs.push_back(Output::Backfill { to: who, backfill });
        }
    }

    fn join_ok(&self, permission: Permission, version: Bytes) -> Bytes {
        let ok = |version| Message::JoinOk { permission, version, extra: Bytes::new() };
        // A version of more peers than fit into a frame: told of an empty one, its receiver sends more than we lack.
        let frame =
            ok(version).encode(&self.name).or_else(|_| ok(Bytes::from_static(&[0])).encode(&self.name));
        frame.expect("an answer without a version fits into a frame")
    }

    fn taken(&mut self, now: Instant, batch: Batch, taken: Taken) {
        let Batch { receipt, mut updates, frames, author, len } = batch;
        self.queued -= len;
        if taken.pending {
            self.outputs.push_back(Output::Event(Event::Pending));
        }
        let whole = taken.count == updates.len();
        updates.truncate(taken.count);
        let news = taken.news && !updates.is_empty();
        if news {
            self.pass_on(receipt, &updates, whole.then_some(frames));
            let back = self.content.brought_back();
            self.announce(now, back);
        }
        // Of a batch that is taken in part, what is taken is kept, but its sender is refused.
        let thanks = taken.refused.is_none().then_some(receipt);
        if let Some(status) = taken.refused {
            self.acknowledge(receipt, status);
        }
        match (self.content.is_stored(), thanks) {
            (true, thanks) if news => {
                let ticket = self.journal.append(receipt.who, thanks);
                let (kind, payload) = match &updates[..] {
                    [update] => (ONE, update.clone()),
                    updates => (MANY, parcel::pack(updates)),
                };
                let entry = Entry { author, batch: receipt.batch, kind, payload };
                self.outputs.push_back(Output::Append { ticket, entry });
            }
            (true, Some(receipt)) => {
                self.journal.follow(receipt);
                self.acknowledge_stored();
            }
            (false, Some(receipt)) => self.acknowledge(receipt, Status::Ok),
            (_, None) => {}
        }
        if taken.pending {
            self.suggest(now, receipt.who);
        }
    }

    /// Sends updates on to all but their sender, in the frames that they came in if these hold nothing else.
    fn pass_on(&mut self, receipt: Receipt, updates: &[Bytes], frames: Option<Vec<Bytes>>) {
        let to = Audience { members: self.seats.seated(), except: Some(receipt.who) };
        if to.is_empty() {
            return;
        }
        let frames = frames.unwrap_or_else(|| self.backfill(updates.to_vec()).collect());
        self.outputs.push_back(Output::Relay { frames, to, arrived: receipt.arrived });
    }

    pub(super) fn appended(&mut self, now: Instant, ticket: Ticket, result: Result<Written, WriteError>) {
        let before = self.journal.has_gap();
        let settled = self.journal.appended(now, ticket, result, &self.limits);
        self.written(now, settled, before);
    }

    pub(super) fn compacted(&mut self, now: Instant, ticket: Ticket, result: Result<Written, WriteError>) {
        let before = self.journal.has_gap();
        let settled = self.journal.compacted(now, ticket, result);
        self.written(now, settled, before);
    }

    /// The store has answered; `before` says whether there was a gap before that.
    fn written(&mut self, now: Instant, settled: Settled, before: bool) {
        match settled {
            Settled::Kept => {}
            Settled::Lost { who, receipt, error } => {
                self.seats.owe(who);
                let status = match error {
                    WriteError::Full => Status::PayloadTooLarge,
                    WriteError::Failed => Status::Unknown,
                };
                if let Some(receipt) = receipt {
                    self.acknowledge(receipt, status);
                }
            }
            Settled::Changed => self.stale = true,
        }
        self.acknowledge_stored();
        match (before, self.journal.has_gap()) {
            (false, true) => self.outputs.push_back(Output::Event(Event::GapOpened)),
            (true, false) => self.gap_closed(now),
            _ => {}
        }
    }

    fn gap_closed(&mut self, now: Instant) {
        self.outputs.push_back(Output::Event(Event::GapClosed));
        for who in self.seats.owed() {
            self.suggest(now, who);
        }
    }

    fn acknowledge_stored(&mut self) {
        while let Some(receipt) = self.journal.acknowledged() {
            // Acknowledged only now: an ack is our word that a restart will not lose it.
            self.acknowledge(receipt, Status::Ok);
        }
    }
}
