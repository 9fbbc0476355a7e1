//! The Loro Protocol's side of a session: the rooms it is in, and what it has under way there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use wire::fragment::{FragmentLimits, Reassembly};
use wire::id::BatchId;
use wire::sync::{self, Frame, FrameError, JoinError, Message, Permission, Remedy, Room, Status};

use super::Session;
use crate::access::{Grant, Presented};
use crate::frame;
use crate::limits::{Bucket, Rate};
use crate::metrics::{Disconnect, Join, Received, Sent};
use crate::relay::{Chamber, JoinRequest, Relays};
use crate::room::relay::{Author, Input};

/// Rooms of the Loro Protocol, as one connection is in them.
pub(super) struct Documents {
    rooms: HashMap<Room, Arc<Chamber>>,
    fragments: Reassembly,
    updates: Bucket,
}

impl Documents {
    fn new(updates: Rate, now: Instant) -> Self {
        Self {
            rooms: HashMap::new(),
            fragments: Reassembly::new(FragmentLimits::default()),
            updates: Bucket::new(updates, now),
        }
    }

    /// When the next fragment is overdue.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.fragments.deadline()
    }
}

/// Somebody may come into a room.
struct Admitted {
    permission: Permission,
    author: Author,
    /// By a token that came with the request.
    shown: Option<Grant>,
}

impl Session {
    /// Acts on a frame of the Loro Protocol and says what it was; an error ends the connection.
    pub(super) fn loro(&mut self, payload: &Bytes, now: Instant) -> Result<Received, Disconnect> {
        let Frame { room, message } = match Frame::decode(payload) {
            Ok(frame) => frame,
            Err(error) => return self.undecodable(error),
        };
        let received = kind(&message);
        let Some(relays) = self.relays.clone() else {
            if received == Received::Join {
                self.turn_away(&room, Join::Off, "relay_off", "this server does not relay documents");
            }
            return Ok(received);
        };
        match message {
            Message::JoinRequest { auth, version } => self.join(&relays, &room, &auth, version, now),
            Message::Leave => self.leave(&relays, &room, payload, now),
            message => self.pass(&relays, &room, message, payload, now),
        }
        Ok(received)
    }

    fn undecodable(&mut self, error: FrameError) -> Result<Received, Disconnect> {
        match error.remedy {
            Remedy::Ack(room, batch, status) => self.refuse(&room, batch, status),
            Remedy::JoinError(room) => {
                self.hub.metrics().relay.joins.inc(Join::Malformed);
                let message = Message::JoinError {
                    error: JoinError::Unknown,
                    message: Cow::Borrowed("the request to join is malformed"),
                };
                self.say(&room, &message);
            }
            Remedy::Close if self.relays.is_some() => return Err(Disconnect::Protocol),
            Remedy::Close => {}
        }
        Ok(Received::Malformed)
    }

    fn join(&mut self, relays: &Arc<Relays>, room: &Room, auth: &Bytes, version: Bytes, now: Instant) {
        let Some(admitted) = self.admit(room, auth) else {
            self.hub.metrics().relay.joins.inc(Join::AuthFailed);
            let message = Cow::Borrowed("the token does not open this room");
            return self.say(room, &Message::JoinError { error: JoinError::AuthFailed, message });
        };
        let known = self.documents.as_ref().map_or(0, |documents| documents.rooms.len());
        let member = self.documents.as_ref().is_some_and(|documents| documents.rooms.contains_key(room));
        if known >= self.bounds.topics && !member {
            let message = "the connection is in as many rooms as it may be";
            return self.turn_away(room, Join::TooManyRooms, "too_many_rooms", message);
        }
        let Admitted { permission, author, shown } = admitted;
        if let Some(grant) = shown {
            self.rights.show(room, grant, now);
        }
        let updates = self.bounds.updates;
        let documents = self.documents.get_or_insert_with(|| Box::new(Documents::new(updates, now)));
        let request = JoinRequest { permission, version, author };
        let chamber = relays.join(&self.caller, room, &request, now, &mut self.flush);
        documents.rooms.insert(room.clone(), chamber);
    }

    /// What may be done in a room by whoever shows this, or else by what the connection has shown before. Nothing, if
    /// that is nothing.
    fn admit(&self, room: &Room, auth: &Bytes) -> Option<Admitted> {
        let known = self.rights.of(room).filter(|_| auth.is_empty() || self.access.is_open());
        let shown = match known {
            Some(_) => None,
            None => {
                let token = std::str::from_utf8(auth).ok().filter(|token| !token.is_empty())?;
                Some(self.access.admit(&Presented::bearer(token), SystemTime::now()).ok()?)
            }
        };
        let grant = known.or(shown.as_ref())?;
        let id = room.id.as_str().as_bytes();
        let permission = match (grant.may_publish(id), grant.may_subscribe(id)) {
            (true, _) => Permission::Write,
            (false, true) => Permission::Read,
            (false, false) => return None,
        };
        Some(Admitted { permission, author: self.author(grant), shown })
    }

    /// What a batch of this connection is stored under.
    fn author(&self, grant: &Grant) -> Author {
        let author = match (grant.subject(), self.caller.address) {
            (Some(subject), _) => Arc::from(subject),
            (None, Some(address)) => Arc::from(address.to_string()),
            (None, None) => Arc::from("unknown"),
        };
        Author(author)
    }

    fn leave(&mut self, relays: &Arc<Relays>, room: &Room, frame: &Bytes, now: Instant) {
        let Some(documents) = &mut self.documents else { return };
        let Some(chamber) = documents.rooms.remove(room) else { return };
        self.rights.give_back(room, now);
        let fragments = &mut documents.fragments;
        let input = Input::Frame { from: self.caller.id, message: Message::Leave, frame, fragments };
        chamber.part(relays, &self.caller, input, now, &mut self.flush);
    }

    fn pass(&mut self, relays: &Arc<Relays>, room: &Room, message: Message, frame: &Bytes, now: Instant) {
        let batch = batch(&message);
        let from = self.caller.id;
        let member = self.documents.as_mut().and_then(|documents| {
            let chamber = Arc::clone(documents.rooms.get(room)?);
            Some((chamber, documents))
        });
        let Some((chamber, documents)) = member else {
            // Published clients go on sending after they have left.
            return batch.map_or((), |batch| self.refuse(room, batch, Status::PermissionDenied));
        };
        let input = match batch {
            Some(batch) if !documents.updates.take(now) => Input::TooFast { from, batch },
            _ => Input::Frame { from, message, frame, fragments: &mut documents.fragments },
        };
        self.flush.wait_a_turn |= batch.is_some() && self.hub.is_busy(now);
        chamber.enter(relays, input, now, &mut self.flush);
    }

    /// Gives up on fragments that are overdue.
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        let (Some(relays), Some(documents)) = (self.relays.clone(), &mut self.documents) else { return };
        while let Some((room, batch)) = documents.fragments.expired(now) {
            if let Some(chamber) = documents.rooms.get(&room) {
                let input = Input::FragmentTimeout { from: self.caller.id, batch };
                chamber.enter(&relays, input, now, &mut self.flush);
            }
        }
    }

    /// The connection has ended: its rooms hear of it. Not when the server itself is ending: those who come back to the
    /// next one would find each other's presence deleted.
    pub(super) fn leave_all(&mut self, why: Disconnect, now: Instant) {
        let (Some(relays), Some(documents)) = (self.relays.clone(), self.documents.take()) else { return };
        for chamber in documents.rooms.into_values() {
            let who = self.caller.id;
            let gone = if why == Disconnect::Drain { Input::Drained { who } } else { Input::Gone { who } };
            chamber.part(&relays, &self.caller, gone, now, &mut self.flush);
        }
    }

    fn refuse(&mut self, room: &Room, batch: BatchId, status: Status) {
        self.hub.metrics().relay.acks.inc(status.into());
        self.send(&sync::ack(room, batch, status));
    }

    fn turn_away(&mut self, room: &Room, outcome: Join, code: &'static str, message: &'static str) {
        self.hub.metrics().relay.joins.inc(outcome);
        let error = JoinError::App { code: Some(Cow::Borrowed(code)) };
        self.say(room, &Message::JoinError { error, message: Cow::Borrowed(message) });
    }

    fn say(&self, room: &Room, message: &Message) {
        self.send(&message.encode(room).expect("a short message fits into a frame"));
    }

    fn send(&self, payload: &Bytes) {
        let frame = frame::Frame::binary(payload);
        let metrics = self.hub.metrics();
        metrics.sent.inc(Sent::Relay);
        metrics.sent_bytes.add(Sent::Relay, frame.len() as u64);
        // The connection writes it at the end of this turn. Closed: it is ending, and counted as such.
        let _ = self.caller.outbox.push(frame);
    }
}

fn kind(message: &Message) -> Received {
    match message {
        Message::JoinRequest { .. } => Received::Join,
        Message::Update { .. } | Message::FragmentHeader(_) => Received::Update,
        Message::Fragment(_) => Received::Fragment,
        _ => Received::Loro,
    }
}

/// What is to be acknowledged of a message, if it is an update or the first word of one.
fn batch(message: &Message) -> Option<BatchId> {
    match message {
        Message::Update { batch, .. } => Some(*batch),
        Message::FragmentHeader(header) => Some(header.batch),
        _ => None,
    }
}
