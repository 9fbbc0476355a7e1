//! What the clients wrote, what came, and what is still owed.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bytes::Bytes;
use wire::{
    BatchId,
    sync::{Message, Room, RoomErrorCode, Status},
};

use super::{Protocol, document::Author, flood::Pace};
use crate::{
    accounts::{Accounts, Echo},
    measure::Latencies,
    stage::Recent,
    stamp::Stamp,
    swarm::Heard,
};

/// The books of all clients. Client `n` sits in room `n % rooms`.
pub(super) struct Books {
    pub(super) members: Vec<Member>,
    pub(super) accounts: Accounts,
    pub(super) counts: Counts,
    /// Latencies that the stage has not had yet.
    pub(super) recent: Recent,
    /// Members whose edit has reached everybody, if they are to write another one then.
    pub(super) arrived: Vec<usize>,
    /// For each client number, what it wrote.
    edits: Vec<Vec<Edit>>,
    /// Which member has a client number.
    seats: Vec<Option<usize>>,
    protocol: Protocol,
    pace: Pace,
    payload: usize,
    origin: Instant,
    from: Instant,
    until: Instant,
}

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) published: u64,
    /// Deliveries that came inside the measured window.
    pub(super) in_window: u64,
    /// From when an edit was due until a reader had it.
    pub(super) deliveries: Latencies,
    /// From when an edit was due until its author had the ack.
    pub(super) acks: Latencies,
    pub(super) statuses: BTreeMap<&'static str, u64>,
    pub(super) acked: u64,
    /// Acks for what nobody sent, or for the second time.
    pub(super) strange_acks: u64,
    pub(super) room_errors: u64,
    pub(super) refused_joins: u64,
    /// Frames that cannot be read.
    pub(super) unreadable: u64,
    /// How late the tester itself wrote at worst.
    pub(super) late: Duration,
}

/// One client.
pub(super) struct Member {
    pub(super) number: u32,
    pub(super) room: Room,
    pub(super) author: Author,
    pub(super) joined: bool,
    received: Vec<Received>,
}

struct Edit {
    update: Bytes,
    due: Instant,
    /// Readers that do not have it yet.
    awaited: u64,
    ack: Option<Status>,
}

/// One update as it came: most are what somebody sent, and are in memory only once.
enum Received {
    Sent { author: u32, sequence: u32 },
    Other(Bytes),
}

impl Books {
    /// Opens the books for the clients with these numbers, out of `clients`.
    pub(super) fn new(
        (clients, rooms): (u32, u32),
        members: Vec<Member>,
        (protocol, pace, payload): (Protocol, Pace, usize),
    ) -> Self {
        let numbers: Vec<_> = members.iter().map(|member| member.number).collect();
        let mut seats = vec![None; clients as usize];
        for (who, number) in numbers.iter().enumerate() {
            seats[*number as usize] = Some(who);
        }
        let now = Instant::now();
        Self {
            accounts: Accounts::new(clients, rooms, &numbers, Echo::OthersOnly),
            members,
            counts: Counts::default(),
            recent: Recent::default(),
            arrived: Vec::new(),
            edits: (0..clients).map(|_| Vec::new()).collect(),
            seats,
            protocol,
            pace,
            payload,
            origin: now,
            from: now,
            until: now,
        }
    }

    /// From now on it counts: the load starts at `origin`, and what is due in the window is measured.
    pub(super) fn start(&mut self, origin: Instant, from: Instant, until: Instant) {
        (self.origin, self.from, self.until) = (origin, from, until);
    }

    /// The measured window ends now, if it has not ended yet.
    pub(super) fn end_by(&mut self, now: Instant) {
        self.until = self.until.min(now);
    }

    /// The next edit of a member as a frame, booked as sent.
    pub(super) fn next_edit(&mut self, who: usize, due: Instant) -> Bytes {
        let member = &mut self.members[who];
        let edits = &mut self.edits[member.number as usize];
        let sequence = u32::try_from(edits.len()).unwrap_or(u32::MAX);
        let since = u64::try_from(due.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let stamp = Stamp { sender: member.number, sequence, due: since };
        let update = member.author.edit(stamp, self.payload);
        let frame = self.protocol.update(&member.room, BatchId::from(u64::from(sequence)), &update);
        let before = self.accounts.expected;
        self.accounts.published(who);
        self.counts.published += 1;
        let awaited = self.accounts.expected - before;
        edits.push(Edit { update, due, awaited, ack: None });
        frame.expect("an edit is far shorter than a frame, its payload was checked")
    }

    /// A message came for a member.
    pub(super) fn heard(&mut self, heard: &Heard<'_>) {
        let who = heard.who;
        let Ok(frame) = self.protocol.decode(heard.message) else {
            self.counts.unreadable += 1;
            return;
        };
        if frame.room != self.members[who].room {
            self.accounts.strayed += 1;
            return;
        }
        match frame.message {
            Message::Update { updates, .. } => {
                updates.iter().for_each(|update| self.received(who, heard.at, &update));
            }
            Message::Ack { batch, status } => self.acked(who, heard.at, batch, status),
            Message::JoinOk { .. } => self.members[who].joined = true,
            Message::JoinError { .. } => self.counts.refused_joins += 1,
            Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. } if self.refused_any() => {}
            Message::RoomError { .. } => self.counts.room_errors += 1,
            // Nothing is longer than a frame here, so nobody sends fragments; and no server joins or leaves.
            _ => self.counts.unreadable += 1,
        }
    }

    fn refused_any(&self) -> bool {
        self.counts.statuses.keys().any(|name| *name != name_of(Status::Ok))
    }

    fn received(&mut self, who: usize, at: Instant, update: &Bytes) {
        let mut stamps = Stamp::all(update);
        let first = stamps.next();
        for stamp in first.into_iter().chain(stamps) {
            self.delivered(who, at, stamp);
        }
        let sent = first.and_then(|stamp| {
            let edit = self.edits.get(stamp.sender as usize)?.get(stamp.sequence as usize)?;
            let Stamp { sender: author, sequence, .. } = stamp;
            (edit.update == update).then_some(Received::Sent { author, sequence })
        });
        self.members[who].received.push(sent.unwrap_or_else(|| Received::Other(update.clone())));
    }

    fn delivered(&mut self, who: usize, at: Instant, stamp: Stamp) {
        self.accounts.heard(who, stamp);
        if self.from <= at && at < self.until {
            self.counts.in_window += 1;
        }
        let edits = self.edits.get_mut(stamp.sender as usize);
        let Some(edit) = edits.and_then(|edits| edits.get_mut(stamp.sequence as usize)) else { return };
        let latency = nanoseconds(edit.due, at);
        self.recent.record(latency);
        if self.from <= edit.due && edit.due < self.until {
            self.counts.deliveries.record(latency);
        }
        edit.awaited = edit.awaited.saturating_sub(1);
        if edit.awaited == 0 && matches!(self.pace, Pace::Saturated { .. }) {
            self.arrived.extend(self.seats[stamp.sender as usize]);
        }
    }

    fn acked(&mut self, who: usize, at: Instant, batch: BatchId, status: Status) {
        let sequence = usize::try_from(u64::from_be_bytes(batch.0)).unwrap_or(usize::MAX);
        let edit = self.edits[self.members[who].number as usize].get_mut(sequence);
        let Some(edit) = edit.filter(|edit| edit.ack.is_none()) else {
            self.counts.strange_acks += 1;
            return;
        };
        edit.ack = Some(status);
        self.counts.acked += 1;
        *self.counts.statuses.entry(name_of(status)).or_default() += 1;
        if status != Status::Ok {
            self.accounts.refused(who);
        } else if self.from <= edit.due && edit.due < self.until {
            self.counts.acks.record(nanoseconds(edit.due, at));
        }
    }

    /// Whether everything that is owed came: deliveries, and acks where there are any.
    pub(super) fn is_settled(&self) -> bool {
        self.accounts.is_settled() && self.acks_missing() == 0
    }

    /// Acks that are owed.
    pub(super) fn acks_missing(&self) -> u64 {
        if self.protocol.acknowledges() { self.counts.published - self.counts.acked } else { 0 }
    }

    /// How many edits of a member everybody must have: up to the last that was acknowledged, or all where nothing is.
    pub(super) fn promised(&self, who: usize) -> usize {
        let edits = &self.edits[self.members[who].number as usize];
        if !self.protocol.acknowledges() {
            return edits.len();
        }
        edits.iter().rposition(|edit| edit.ack == Some(Status::Ok)).map_or(0, |last| last + 1)
    }

    /// What a member received, in order.
    pub(super) fn updates_of(&self, who: usize) -> Vec<Vec<u8>> {
        let update = |received: &Received| match received {
            Received::Sent { author, sequence } => {
                self.edits[*author as usize][*sequence as usize].update.to_vec()
            }
            Received::Other(update) => update.to_vec(),
        };
        self.members[who].received.iter().map(update).collect()
    }
}

impl Member {
    /// A client that has written and received nothing.
    pub(super) fn new(number: u32, room: Room) -> Self {
        Self { number, room, author: Author::new(number), joined: false, received: Vec::new() }
    }
}

fn nanoseconds(due: Instant, at: Instant) -> u64 {
    u64::try_from(at.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX)
}

/// What a status is called in reports.
pub(crate) const fn name_of(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Unknown => "unknown",
        Status::PermissionDenied => "permission_denied",
        Status::InvalidUpdate => "invalid_update",
        Status::PayloadTooLarge => "payload_too_large",
        Status::RateLimited => "rate_limited",
        Status::FragmentTimeout => "fragment_timeout",
        Status::AppError => "app_error",
    }
}
