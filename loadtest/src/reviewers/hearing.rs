//! What a reviewer makes of what it hears.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use loro::VersionVector;
use memchr::memmem;
use wire::sync::{Frame, Message, RoomErrorCode, Status, Updates};

use super::{
    person::Place,
    presence,
    room::{Content, Piece},
    scene::{Scene, join, nanoseconds},
};
use crate::{client::Link, frame::Opcode, relay::books::name_of, swarm::Heard};

impl Scene {
    /// A message has come.
    pub(super) fn heard(&mut self, heard: Heard<'_>) {
        let Heard { who, at, opcode, message, link } = heard;
        if opcode == Opcode::Text {
            return self.heard_signaling(who, message);
        }
        let room = &self.rooms[self.people[who].room];
        if let Some(content) = room.remembered(message) {
            return self.take(who, at, &content);
        }
        let bytes = Bytes::copy_from_slice(message);
        let Ok(frame) = Frame::decode(&bytes) else {
            self.counts.unreadable += 1;
            return;
        };
        if frame.room == room.document {
            self.heard_of_document(who, at, &bytes, frame, link);
        } else if frame.room == room.presence {
            self.heard_of_presence(who, at, &bytes, frame.message, link);
        } else {
            self.counts.strayed += 1;
        }
    }

    fn heard_signaling(&mut self, who: usize, message: &[u8]) {
        if message.starts_with(br#"{"type":"pong""#) {
            return;
        }
        let topic = &self.rooms[self.people[who].room].topic;
        let here = memmem::find(message, topic.as_bytes()).is_some();
        *if here { &mut self.counts.announces } else { &mut self.counts.strayed } += 1;
    }

    fn heard_of_document(&mut self, who: usize, at: Instant, bytes: &Bytes, frame: Frame, link: &mut Link) {
        match frame.message {
            Message::Update { updates, .. } => {
                let content = self.recognise(who, &updates);
                self.rooms[self.people[who].room].remember(bytes.clone(), content.clone());
                self.take(who, at, &content);
            }
            Message::FragmentHeader(header) => {
                let fragments = self.people[who].fragments();
                self.counts.unreadable +=
                    u64::from(fragments.header(Instant::now(), &frame.room, header, bytes).is_err());
            }
            Message::Fragment(fragment) => {
                let fragments = self.people[who].fragments();
                match fragments.fragment(Instant::now(), &frame.room, fragment, bytes) {
                    Ok(None) => {}
                    Ok(Some(whole)) => {
                        self.people[who].fragments = None;
                        let content = self.recognise(who, &Updates::from_iter([&whole.update[..]]));
                        self.take(who, at, &content);
                    }
                    Err(_) => self.counts.unreadable += 1,
                }
            }
            Message::JoinOk { version, .. } => self.let_in(who, at, &version, link),
            Message::Ack { batch, status } => self.acked(who, at, u64::from_be_bytes(batch.0), status),
            Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. } => {
                self.counts.rejoins += 1;
                let person = &self.people[who];
                let frame = join(&self.rooms[person.room].document, &person.holds.version());
                link.send_frame(Opcode::Binary, &frame);
            }
            Message::RoomError { .. } | Message::JoinError { .. } => self.counts.room_errors += 1,
            Message::JoinRequest { .. } | Message::Leave => self.counts.unreadable += 1,
        }
    }

    fn heard_of_presence(
        &mut self,
        who: usize,
        at: Instant,
        bytes: &Bytes,
        message: Message,
        link: &mut Link,
    ) {
        match message {
            Message::Update { updates, .. } => {
                let sights: Option<Vec<_>> = updates.iter().map(|update| presence::parse(&update)).collect();
                let Some(sights) = sights else {
                    self.counts.unreadable += 1;
                    return;
                };
                let content = Content::Sights(sights.concat().into());
                self.rooms[self.people[who].room].remember(bytes.clone(), content.clone());
                self.take(who, at, &content);
            }
            Message::JoinOk { .. } => {
                if let Place::Joining { presence, .. } = &mut self.people[who].place {
                    *presence = true;
                }
                self.see_whether_it_is_there(who, at, link);
            }
            Message::Ack { status: Status::Ok, .. } => {}
            Message::Ack { status, .. } => *self.counts.refused.entry(name_of(status)).or_default() += 1,
            Message::RoomError { .. } | Message::JoinError { .. } => self.counts.room_errors += 1,
            _ => self.counts.unreadable += 1,
        }
    }

    fn recognise(&mut self, who: usize, updates: &Updates) -> Content {
        let room = &mut self.rooms[self.people[who].room];
        Content::Pieces(updates.iter().map(|update| room.recognise(&update)).collect::<Arc<_>>())
    }

    fn take(&mut self, who: usize, at: Instant, content: &Content) {
        match content {
            Content::Pieces(pieces) => {
                for piece in pieces.iter() {
                    match piece {
                        Piece::Annotation(place) => self.took(who, *place, at),
                        Piece::Blob(blob) => self.took_blob(who, *blob),
                    }
                }
                self.look_at_what_is_owed(who, at);
            }
            Content::Sights(sights) => {
                for sight in sights.iter() {
                    let person = &mut self.people[who];
                    if !person.sees(*sight) {
                        continue;
                    }
                    self.counts.sights += 1;
                    let due =
                        sight.stamp.map(|stamp| self.origin + std::time::Duration::from_nanos(stamp.due));
                    if let Some(due) = due.filter(|due| person.is_present() && person.since.1 <= *due) {
                        self.counts.presence.record(nanoseconds(due, at));
                    }
                }
            }
        }
    }

    /// The document is open: sends what the server lacks, and notes what it owes.
    fn let_in(&mut self, who: usize, at: Instant, version: &[u8], link: &mut Link) {
        let Ok(version) = VersionVector::decode(version) else {
            self.counts.unreadable += 1;
            return;
        };
        if let Place::Joining { document, .. } = &mut self.people[who].place {
            *document = true;
        }
        for place in self.missing_at(who, &version) {
            self.counts.brought += 1;
            let room = self.people[who].room;
            self.rooms[room].annotations[place as usize].live = false;
            let frame = self.send(who, place);
            link.send_frame(Opcode::Binary, &frame);
        }
        self.people[who].owed = Some(version);
        self.look_at_what_is_owed(who, at);
        self.see_whether_it_is_there(who, at, link);
    }

    fn see_whether_it_is_there(&mut self, who: usize, at: Instant, link: &mut Link) {
        if self.people[who].place != (Place::Joining { document: true, presence: true }) {
            return;
        }
        self.arrived(who, at);
        if let Some(frame) = self.step(who, at) {
            link.send_frame(Opcode::Binary, &frame);
        }
    }

    fn acked(&mut self, who: usize, at: Instant, batch: u64, status: Status) {
        let person = &mut self.people[who];
        let Some(nth) = person.unacked.iter().position(|(known, _)| *known == batch) else {
            self.counts.strange_acks += 1;
            return;
        };
        let place = person.unacked.remove(nth).map(|(_, place)| place).expect("it was just found there");
        if status != Status::Ok {
            *self.counts.refused.entry(name_of(status)).or_default() += 1;
            return;
        }
        let annotation = &mut self.rooms[person.room].annotations[place as usize];
        self.counts.acked += u64::from(!annotation.acked);
        annotation.acked = true;
        if annotation.live {
            self.counts.acks.record(nanoseconds(annotation.due, at));
        }
    }
}
