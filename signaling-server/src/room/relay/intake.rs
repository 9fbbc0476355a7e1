//! From a frame to something in the queue, or to a refusal.

use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::fragment::{FragmentError, Reassembly};
use wire::id::BatchId;
use wire::sync::{FragmentHeader, Message, Status, Updates};

use super::{Receipt, Relay};
use crate::room::ConnectionId;
use crate::room::content::{Batch, Job};

/// The most updates in one frame. More are refused, since each costs more than its bytes.
const MAX_UPDATES: usize = 4096;

impl Relay {
    pub(super) fn message(
        &mut self,
        now: Instant,
        from: ConnectionId,
        message: Message,
        frame: &Bytes,
        fragments: &mut Reassembly,
    ) {
        let receipt = |batch| Receipt { who: from, batch, arrived: now };
        match message {
            Message::Update { batch, updates } => self.update(now, receipt(batch), &updates, frame),
            Message::FragmentHeader(header) => {
                self.header(now, receipt(header.batch), header, frame, fragments);
            }
            Message::Fragment(fragment) => {
                let receipt = receipt(fragment.batch);
                match fragments.fragment(now, self.name(), fragment, frame) {
                    Ok(None) => {}
                    Ok(Some(whole)) => self.enqueue(now, receipt, vec![whole.update], whole.frames),
                    Err(error) => self.bad_fragment(now, receipt, error),
                }
            }
            Message::Leave => {
                fragments.leave(self.name());
                self.leave(now, from, Duration::ZERO);
            }
            // It takes ten seconds at most for all fragments of an update, and forgets what has come if they take
            // longer. We have not kept what we sent: who joins again gets what it lacks.
            Message::Ack { status: Status::FragmentTimeout, .. } => self.suggest(now, from),
            // Joins are an input of their own, once it is known what they allow. The rest is what servers say, or
            // what a client makes of an update, which is its own affair.
            Message::JoinRequest { .. }
            | Message::JoinOk { .. }
            | Message::JoinError { .. }
            | Message::RoomError { .. }
            | Message::Ack { .. } => {}
        }
    }

    fn update(&mut self, now: Instant, receipt: Receipt, updates: &Updates, frame: &Bytes) {
        if updates.len() > MAX_UPDATES {
            return self.acknowledge(receipt, Status::PayloadTooLarge);
        }
        self.enqueue(now, receipt, updates.iter().collect(), vec![frame.clone()]);
    }

    fn header(
        &mut self,
        now: Instant,
        receipt: Receipt,
        header: FragmentHeader,
        frame: &Bytes,
        fragments: &mut Reassembly,
    ) {
        let len = usize::try_from(header.len).unwrap_or(usize::MAX);
        if let Err(status) = self.admit(receipt.who, len) {
            return self.acknowledge(receipt, status);
        }
        if let Err(error) = fragments.header(now, self.name(), header, frame) {
            self.bad_fragment(now, receipt, error);
        }
    }

    fn bad_fragment(&mut self, now: Instant, receipt: Receipt, error: FragmentError) {
        match error.status() {
            Some(status @ Status::RateLimited) => {
                self.refuse_for_now(now, receipt.who, receipt.batch, status);
            }
            Some(status) => self.acknowledge(receipt, status),
            None => {}
        }
    }

    fn enqueue(&mut self, now: Instant, receipt: Receipt, updates: Vec<Bytes>, frames: Vec<Bytes>) {
        let len = updates.iter().map(Bytes::len).sum();
        if let Err(status) = self.admit(receipt.who, len) {
            return self.acknowledge(receipt, status);
        }
        if self.queue.len() >= self.limits.queue || self.queued.saturating_add(len) > self.limits.queued {
            return self.refuse_for_now(now, receipt.who, receipt.batch, Status::RateLimited);
        }
        let author = self.seats.writer(receipt.who).expect("who was admitted may write").clone();
        self.queued += len;
        self.queue.push_back(Job::Batch(Batch { receipt, author, updates, frames, len }));
    }

    /// Whether somebody may send so many bytes now, or else why not.
    fn admit(&mut self, who: ConnectionId, len: usize) -> Result<(), Status> {
        if self.seats.writer(who).is_none() {
            return Err(Status::PermissionDenied);
        }
        if len > self.limits.update || self.journal.is_full(len, &self.limits) {
            return Err(Status::PayloadTooLarge);
        }
        if self.journal.has_gap() {
            self.seats.owe(who);
            return Err(Status::Unknown);
        }
        Ok(())
    }

    /// Refuses what its sender should bring again: members are told to join again, which is how clients do that.
    pub(super) fn refuse_for_now(&mut self, now: Instant, who: ConnectionId, batch: BatchId, status: Status) {
        self.acknowledge(Receipt { who, batch, arrived: now }, status);
        self.suggest(now, who);
    }
}
