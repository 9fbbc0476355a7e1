//! What goes out over a link: updates as fast as the other end takes them, acknowledgements, presence.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;
use wire::id::BatchId;
use wire::sync::{self, Fragment, FragmentHeader, Message, Room, Status};

use super::{Hands, Link, Owe};
use crate::engine::replica::{missing, raise};
use crate::engine::vocabulary::{Event, Output, Reason};
use crate::engine::{HIGH_WATER, MOST_UNSENT};

/// Updates that may wait for the disk before they are acknowledged.
const MOST_RECEIPTS: usize = 4096;
/// How long updates are held back after a refusal, at first and at most.
const HOLD: Duration = Duration::from_secs(1);
const LONGEST_HOLD: Duration = Duration::from_secs(30);

/// An update that is being sent.
#[derive(Debug)]
pub(super) struct Outgoing {
    batch: BatchId,
    update: Bytes,
    /// How much of it has been sent; `None`: not even the header.
    sent: Option<usize>,
}

/// An update whose sender waits for the word that it is safe.
#[derive(Debug)]
pub(super) struct Receipt {
    pub(super) batch: BatchId,
    /// It is safe once the disk holds this.
    pub(super) version: VersionVector,
}

impl Link {
    /// Sends what is owed, as far as the other end and the network take it.
    pub(in crate::engine) fn pump(&mut self, hands: &mut Hands<'_>) {
        loop {
            while self.outgoing.is_some() {
                if self.unsent >= HIGH_WATER {
                    return;
                }
                self.send_part(hands.out);
            }
            if !self.start_next(hands) {
                return;
            }
        }
    }

    /// Begins to send an update, if one is owed and may be sent.
    fn start_next(&mut self, hands: &mut Hands<'_>) -> bool {
        let held = self.held_until.is_some() || !self.inflight.has_room();
        if !self.is_live() || !self.may_write || self.owe == Owe::Nothing || held {
            return false;
        }
        let promised = self.inflight.promised(&self.theirs);
        let ends = if self.owe == Owe::All { hands.replica.version() } else { &self.pushed };
        let mut spans = missing(ends, &promised);
        if self.by_author {
            spans.truncate(1);
        }
        if spans.is_empty() {
            self.owe = Owe::Nothing;
            self.pushed = VersionVector::default();
            return false;
        }
        let covers = spans.iter().map(|span| (span.peer, span.counter.end)).collect();
        let update = hands.replica.spans(spans);
        self.start(hands.now, update, covers);
        true
    }

    fn start(&mut self, now: Instant, update: Bytes, covers: VersionVector) {
        let batch = self.inflight.mint();
        if self.is_acknowledged() {
            self.inflight.sent(now, covers, update.len());
        } else {
            // Guests need not acknowledge: they are taken to hold it until they show that they do not.
            raise(&mut self.theirs, &covers);
        }
        self.outgoing = Some(Outgoing { batch, update, sent: None });
    }

    /// Whether the other end acknowledges what it gets.
    fn is_acknowledged(&self) -> bool {
        self.is_channel() || self.is_uplink()
    }

    fn send_part(&mut self, out: &mut VecDeque<Output>) {
        let Some(mut outgoing) = self.outgoing.take() else { return };
        let (len, batch) = (outgoing.update.len(), outgoing.batch);
        let message = match outgoing.sent {
            None if len <= self.fragment => {
                let frame = sync::update(&self.document, batch, &[&outgoing.update]);
                return self.send(frame.expect("as long as a fragment fits into a frame"), out);
            }
            None => {
                outgoing.sent = Some(0);
                let fragments = len.div_ceil(self.fragment) as u64;
                Message::FragmentHeader(FragmentHeader { batch, fragments, len: len as u64 })
            }
            Some(start) => {
                let end = len.min(start + self.fragment);
                outgoing.sent = Some(end);
                let index = (start / self.fragment) as u64;
                Message::Fragment(Fragment { batch, index, bytes: outgoing.update.slice(start..end) })
            }
        };
        self.say(&message, &self.document.clone(), out);
        if outgoing.sent.is_none_or(|sent| sent < len) {
            self.outgoing = Some(outgoing);
        }
    }

    /// So many bytes have left for the network.
    pub(in crate::engine) fn drained(&mut self, bytes: usize) {
        self.unsent = self.unsent.saturating_sub(bytes);
    }

    /// Whether more waits for the network than is put up with.
    pub(in crate::engine) fn is_stuck(&self) -> bool {
        self.unsent > MOST_UNSENT
    }

    /// Acknowledges what the disk holds by now.
    pub(in crate::engine) fn thank(&mut self, hands: &mut Hands<'_>) {
        while let Some(receipt) = self.receipts.front() {
            if !hands.journal.holds(&receipt.version) {
                return;
            }
            let batch = receipt.batch;
            self.receipts.pop_front();
            // Acknowledged only now: an ack is our word that a restart will not lose it.
            self.acknowledge(&self.document.clone(), batch, Status::Ok, hands.out);
        }
    }

    /// Remembers to acknowledge an update once the disk holds it.
    pub(super) fn owe_thanks(&mut self, batch: BatchId, version: VersionVector) -> Result<(), Reason> {
        if self.is_uplink() {
            return Ok(());
        }
        if self.receipts.len() >= MOST_RECEIPTS {
            return Err(Reason::TooSlow);
        }
        self.receipts.push_back(Receipt { batch, version });
        Ok(())
    }

    /// Tells what became of an update, unless it came from a hub or relay, which only wants to hear of late fragments.
    pub(super) fn acknowledge(
        &mut self,
        room: &Room,
        batch: BatchId,
        status: Status,
        out: &mut VecDeque<Output>,
    ) {
        if !self.is_uplink() || status == Status::FragmentTimeout {
            self.send(sync::ack(room, batch, status), out);
        }
    }

    pub(super) fn answered(&mut self, batch: BatchId, status: Status, hands: &mut Hands<'_>) {
        let Some(covers) = self.inflight.answered(batch) else { return };
        if status == Status::Ok {
            self.refusals = 0;
            raise(&mut self.theirs, &covers);
            return;
        }
        let hold = HOLD.saturating_mul(1 << self.refusals.min(5)).min(LONGEST_HOLD);
        self.refusals = self.refusals.saturating_add(1);
        self.held_until = Some(hands.now + hold);
        self.owe(Owe::All);
        if status == Status::PermissionDenied {
            // Not a member any more, or one that may only read: the answer to a join says which.
            self.exchange_soon(hands.now + hold);
        }
        if !matches!(status, Status::RateLimited | Status::FragmentTimeout) {
            hands.out.push_back(Output::Event(Event::Refused(self.id, status)));
        }
    }

    /// Sends presence.
    pub(in crate::engine) fn tell_presence(&mut self, update: &[u8], out: &mut VecDeque<Output>) {
        let batch = self.inflight.mint();
        if let Ok(frame) = sync::update(&self.presence, batch, &[update]) {
            self.send(frame, out);
        }
    }

    /// Whether the network takes what may as well be said later.
    pub(in crate::engine) fn has_room(&self) -> bool {
        self.unsent < HIGH_WATER
    }

    /// Says that we go.
    pub(in crate::engine) fn leave(&mut self, out: &mut VecDeque<Output>) {
        if self.present {
            self.send(sync::leave(&self.presence), out);
        }
        if self.is_live() {
            self.send(sync::leave(&self.document), out);
        }
    }
}
