//! What comes in over a link: from a frame to what it means.

use bytes::Bytes;
use loro::VersionVector;
use wire::fragment::FragmentError;
use wire::id::BatchId;
use wire::sync::{Frame, FrameError, JoinError, Message, Permission, Remedy, Room, Status};

use super::{Hands, Heard, JOIN, Link, Stage};
use crate::engine::replica::{Refused, raise};
use crate::engine::vocabulary::Reason;

/// The most updates in one frame. More are refused, since each costs more than its bytes.
const MOST_UPDATES: usize = 4096;
/// The longest name of a session that a hub may give as its own.
const MAX_NAME: usize = 256;

impl Link {
    /// Takes a frame. An error ends the link.
    pub(in crate::engine) fn receive(
        &mut self,
        frame: &Bytes,
        hands: &mut Hands<'_>,
    ) -> Result<Heard, Reason> {
        let mut heard = Heard::default();
        match Frame::decode(frame) {
            Ok(Frame { room, message }) if room == self.document => {
                self.heard_anything = true;
                self.about_document(message, frame, hands, &mut heard)?;
            }
            Ok(Frame { room, message }) if room == self.presence => {
                self.heard_anything = true;
                self.about_presence(message, frame, hands, &mut heard)?;
            }
            Ok(Frame { room, message }) => self.about_another_room(&room, &message, hands)?,
            Err(error) => self.unreadable(error, hands)?,
        }
        Ok(heard)
    }

    fn unreadable(&mut self, error: FrameError, hands: &mut Hands<'_>) -> Result<(), Reason> {
        match error.remedy {
            Remedy::Close if !self.heard_anything => return Err(Reason::Foreign),
            Remedy::Close => return Err(Reason::Garbage),
            Remedy::Ack(room, batch, status) => self.acknowledge(&room, batch, status, hands.out),
            Remedy::JoinError(room) => self.refuse_join(&room, hands),
        }
        self.strike()
    }

    fn refuse_join(&mut self, room: &Room, hands: &mut Hands<'_>) {
        let error = JoinError::App { code: Some("no_such_room".into()) };
        self.say(
            &Message::JoinError { error, message: "there is no such room here".into() },
            room,
            hands.out,
        );
    }

    fn about_another_room(
        &mut self,
        room: &Room,
        message: &Message,
        hands: &mut Hands<'_>,
    ) -> Result<(), Reason> {
        match message {
            Message::JoinRequest { .. } if !self.is_uplink() => self.refuse_join(room, hands),
            Message::Update { batch, .. } => {
                self.acknowledge(room, *batch, Status::PermissionDenied, hands.out);
            }
            _ => {}
        }
        self.strike()
    }

    fn about_document(
        &mut self,
        message: Message,
        frame: &Bytes,
        hands: &mut Hands<'_>,
        heard: &mut Heard,
    ) -> Result<(), Reason> {
        match message {
            Message::JoinRequest { version, .. } => self.asked(&version, hands),
            Message::JoinOk { permission, version, extra } => {
                self.tree.pruned_by_them(&extra);
                self.shown_to_us(permission, &version, hands)
            }
            Message::JoinError { error, .. } => self.turned_away(&error, hands),
            Message::RoomError { code, .. } => self.room_error(code, hands),
            Message::Ack { batch, status } => {
                self.answered(batch, status, hands);
                Ok(())
            }
            Message::Leave => {
                self.left();
                Ok(())
            }
            Message::Update { batch, .. } if !self.is_member() => self.not_a_member(batch, hands),
            Message::FragmentHeader(header) if !self.is_member() => self.not_a_member(header.batch, hands),
            Message::Fragment(fragment) if !self.is_member() => self.not_a_member(fragment.batch, hands),
            Message::Update { batch, updates } if updates.len() > MOST_UPDATES => {
                self.acknowledge(&self.document.clone(), batch, Status::PayloadTooLarge, hands.out);
                self.strike()
            }
            Message::Update { batch, updates } => self.take(batch, updates.iter(), hands, heard),
            Message::FragmentHeader(header) => {
                let started = self.fragments.header(hands.now, &self.document, header, frame);
                started.or_else(|error| self.bad_fragment(header.batch, error, hands))
            }
            Message::Fragment(fragment) => {
                let batch = fragment.batch;
                self.awaited_until = self.awaited_until.map(|_| hands.now + JOIN);
                match self.fragments.fragment(hands.now, &self.document, fragment, frame) {
                    Ok(None) => Ok(()),
                    Ok(Some(whole)) => self.take(batch, [whole.update].into_iter(), hands, heard),
                    Err(error) => self.bad_fragment(batch, error, hands),
                }
            }
        }
    }

    /// Whether updates are expected: a hub may send some before we have read its answer.
    fn is_member(&self) -> bool {
        self.is_live() || self.join.is_some()
    }

    fn not_a_member(&mut self, batch: BatchId, hands: &mut Hands<'_>) -> Result<(), Reason> {
        self.acknowledge(&self.document.clone(), batch, Status::PermissionDenied, hands.out);
        self.strike()
    }

    fn bad_fragment(
        &mut self,
        batch: BatchId,
        error: FragmentError,
        hands: &mut Hands<'_>,
    ) -> Result<(), Reason> {
        if let Some(status) = error.status() {
            self.acknowledge(&self.document.clone(), batch, status, hands.out);
        }
        if error.status() == Some(Status::RateLimited) { Ok(()) } else { self.strike() }
    }

    fn take(
        &mut self,
        batch: BatchId,
        updates: impl Iterator<Item = Bytes>,
        hands: &mut Hands<'_>,
        heard: &mut Heard,
    ) -> Result<(), Reason> {
        self.awaited_until = self.awaited_until.map(|_| hands.now + JOIN);
        let mut pending = false;
        let mut covers = VersionVector::default();
        for update in updates {
            match hands.replica.take(&update) {
                Ok(imported) => {
                    // What waits for something may wait for what is lost: nobody holds that.
                    if !imported.pending {
                        raise(&mut self.theirs, &imported.covers);
                    }
                    raise(&mut covers, &imported.covers);
                    raise(&mut heard.gained, &imported.gained);
                    pending |= imported.pending;
                }
                Err(Refused::Malformed) => {
                    self.acknowledge(&self.document.clone(), batch, Status::InvalidUpdate, hands.out);
                    return self.strike();
                }
                Err(Refused::Broken) => return Err(Reason::Hostile),
            }
        }
        if !heard.gained.is_empty() {
            self.fruitless = 0;
        } else if !pending && self.is_channel() {
            self.prune(&covers, hands);
        }
        if pending {
            // What it builds on has not come: the other end has it, or knows who has, or it is lost for good.
            self.reconcile_later(hands);
            self.fruitless = self.fruitless.saturating_add(1);
        }
        self.owe_thanks(batch, hands.replica.version().clone())
    }

    fn left(&mut self) {
        if !self.is_uplink() {
            self.stage = Stage::Strange;
            self.outgoing = None;
            self.inflight.clear();
            self.fragments.leave(&self.document);
        }
    }

    fn about_presence(
        &mut self,
        message: Message,
        frame: &Bytes,
        hands: &mut Hands<'_>,
        heard: &mut Heard,
    ) -> Result<(), Reason> {
        match message {
            Message::JoinRequest { .. } if self.is_uplink() => return self.strike(),
            Message::JoinRequest { .. } => {
                let extra = if self.is_channel() { Bytes::new() } else { self.auth.clone() };
                let ok = Message::JoinOk { permission: Permission::Write, version: Bytes::new(), extra };
                self.say(&ok, &self.presence.clone(), hands.out);
                self.present = true;
                heard.wants_presence = true;
            }
            Message::JoinOk { extra, .. } if self.asks => {
                let named = (1..=MAX_NAME).contains(&extra.len()) && self.is_uplink();
                self.host = std::str::from_utf8(&extra).ok().filter(|_| named).map(str::to_owned);
                self.present = true;
                heard.wants_presence = true;
            }
            Message::Update { batch, updates } => {
                // Published clients keep what they sent until they hear of it; a data channel's ends are ours.
                if !self.is_channel() {
                    self.acknowledge(&self.presence.clone(), batch, Status::Ok, hands.out);
                }
                heard.presence.extend(updates.iter().take(MOST_UPDATES));
            }
            Message::FragmentHeader(header) => {
                let started = self.fragments.header(hands.now, &self.presence, header, frame);
                return started.or_else(|_| self.strike());
            }
            Message::Fragment(fragment) => {
                match self.fragments.fragment(hands.now, &self.presence, fragment, frame) {
                    Ok(whole) => heard.presence.extend(whole.map(|whole| whole.update)),
                    Err(_) => return self.strike(),
                }
            }
            Message::Leave => self.present = false,
            Message::JoinOk { .. } => return self.strike(),
            // A hub without presence is a hub all the same.
            Message::JoinError { .. } | Message::RoomError { .. } | Message::Ack { .. } => {}
        }
        Ok(())
    }

    /// Garbage in presence, which the engine reads.
    pub(in crate::engine) fn bad_presence(&mut self) -> Result<(), Reason> {
        self.strike()
    }
}
