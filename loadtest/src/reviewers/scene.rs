//! All reviewers and their rooms: who writes what, who has it, who is there.

use std::time::Instant;

use bytes::Bytes;
use loro::VersionVector;
use wire::{
    BatchId,
    sync::{Message, Room as Name, Updates},
};

use super::{
    author::{Author, peer},
    figures::Counts,
    holds::Came,
    person::{Person, Place},
    presence,
    room::{Piece, Room},
};
use crate::stamp::Stamp;

/// Everybody, and everything that is booked.
pub(super) struct Scene {
    pub(super) people: Vec<Person>,
    pub(super) rooms: Vec<Room>,
    pub(super) counts: Counts,
    /// The first things that came in the wrong order, to be told.
    pub(super) disorder: Vec<String>,
    pub(super) origin: Instant,
    payload: usize,
    /// Counts what happens, to tell before from after.
    tick: u64,
}

impl Scene {
    /// Nobody has come yet.
    pub(super) fn new(people: Vec<Person>, rooms: Vec<Room>, payload: usize) -> Self {
        let (counts, disorder) = (Counts::default(), Vec::new());
        Self { people, rooms, counts, disorder, origin: Instant::now(), payload, tick: 0 }
    }

    /// What somebody says first: let me into the document, with what I have, and into presence.
    pub(super) fn greeting(&mut self, who: usize) -> [Bytes; 2] {
        let person = &mut self.people[who];
        person.place = Place::Joining { document: false, presence: false };
        let room = &self.rooms[person.room];
        [join(&room.document, &person.holds.version()), join(&room.presence, &VersionVector::default())]
    }

    /// Somebody writes an annotation; the frame that says so, if there is somebody to say it to.
    pub(super) fn annotate(&mut self, who: usize, due: Instant) -> Option<Bytes> {
        let stamp_due = self.since_origin(due);
        let person = &mut self.people[who];
        let (room, seat) = (&mut self.rooms[person.room], person.seat);
        let sequence = room.written_by(seat).len() as u32;
        let author = person.author.get_or_insert_with(|| Author::new(seat));
        let update = author.annotate(Stamp { sender: seat, sequence, due: stamp_due }, self.payload);
        let there = person.may_write();
        let place = room.write(seat, update, due, there);
        person.holds.take(seat, sequence);
        person.received.push(Piece::Annotation(place));
        self.counts.annotations += 1;
        there.then(|| self.send(who, place))
    }

    /// The frame in which somebody sends an annotation of its own; from now on the others in the room are waited for.
    pub(super) fn send(&mut self, who: usize, place: u32) -> Bytes {
        self.tick += 1;
        let person = &self.people[who];
        let (room, seat) = (&self.rooms[person.room], person.seat);
        let sequence = room.annotations[place as usize].sequence;
        let waits = |other: &&usize| {
            let other = &self.people[**other];
            other.is_present() && other.seat != seat && !other.holds.has(seat, sequence)
        };
        let awaited = room.members.iter().filter(waits).count() as u32;
        let person = &mut self.people[who];
        let room = &mut self.rooms[person.room];
        let batch = person.next_batch();
        person.unacked.push_back((batch, place));
        let annotation = &mut room.annotations[place as usize];
        (annotation.sent, annotation.awaited) = (self.tick, awaited);
        let frame = update(&room.document, batch, &annotation.update);
        if awaited > 0 && !room.awaited.contains(&place) {
            room.awaited.push(place);
        }
        frame
    }

    /// Somebody moves the cursor, or shows that it is still there; the frame that says so.
    pub(super) fn step(&mut self, who: usize, due: Instant) -> Option<Bytes> {
        let stamp_due = self.since_origin(due);
        let person = &mut self.people[who];
        if !person.is_present() || person.newcomer {
            return None;
        }
        let (sequence, millisecond) = person.next_move();
        let stamp = Stamp { sender: person.seat, sequence, due: stamp_due };
        let entries = presence::encode(person.seat, millisecond, stamp);
        self.counts.moves += 1;
        let batch = person.next_batch();
        Some(update(&self.rooms[person.room].presence, batch, &entries))
    }

    /// Somebody is in the document and in presence.
    pub(super) fn arrived(&mut self, who: usize, at: Instant) {
        self.tick += 1;
        let person = &mut self.people[who];
        person.place = Place::Present;
        person.since = (self.tick, at);
        person.tries = 0;
        self.counts.came_back += u64::from(std::mem::replace(&mut person.was_there, true));
    }

    /// Somebody's connection is gone: nobody waits for it any more.
    pub(super) fn gone(&mut self, who: usize) {
        let person = &mut self.people[who];
        let room = &mut self.rooms[person.room];
        for place in &room.awaited {
            let annotation = &mut room.annotations[*place as usize];
            let waited = person.since.0 < annotation.sent
                && person.seat != annotation.seat
                && !person.holds.has(annotation.seat, annotation.sequence);
            annotation.awaited -= u32::from(waited).min(annotation.awaited);
        }
        room.forget_what_came();
        person.gone();
    }

    /// An annotation has come as it was sent.
    pub(super) fn took(&mut self, who: usize, place: u32, at: Instant) {
        let person = &mut self.people[who];
        let room = &mut self.rooms[person.room];
        let annotation = &mut room.annotations[place as usize];
        match person.holds.take(annotation.seat, annotation.sequence) {
            Came::Again => {
                self.counts.repeated += 1;
                return;
            }
            // Before everything is here that the server had, what is new may overtake what is old.
            Came::Early if person.owed.is_none() => {
                self.counts.out_of_order += 1;
                if self.disorder.len() < 3 {
                    let Person { room, seat, .. } = person;
                    let (other, sequence) = (annotation.seat, annotation.sequence);
                    self.disorder.push(format!(
                        "room {room}: annotation {sequence} of reviewer {other} reached reviewer {seat} before an earlier one"
                    ));
                }
            }
            Came::Early | Came::InOrder => {}
        }
        person.received.push(Piece::Annotation(place));
        self.counts.delivered += 1;
        let was_there = person.since.0 < annotation.sent;
        annotation.awaited -= u32::from(was_there).min(annotation.awaited);
        if was_there && annotation.live {
            let latency = nanoseconds(annotation.due, at);
            self.counts.deliveries.record(latency);
            self.counts.recent.record(latency);
            if annotation.awaited == 0 {
                self.counts.everybody.record(latency);
            }
        }
        if annotation.awaited == 0 {
            room.forget_what_came();
        }
    }

    /// Something else has come as an update: what a newcomer gets, or what nobody sent.
    pub(super) fn took_blob(&mut self, who: usize, blob: u32) {
        let person = &mut self.people[who];
        let room = &mut self.rooms[person.room];
        person.received.push(Piece::Blob(blob));
        let Some((from, to)) = room.range(blob) else {
            self.counts.unreadable += 1;
            return;
        };
        let had: Vec<_> = room.awaited.iter().map(|place| has(person, room, *place)).collect();
        person.holds.take_range(&from, &to);
        for (place, had) in room.awaited.clone().into_iter().zip(had) {
            let came = !had && has(person, room, place);
            let annotation = &mut room.annotations[place as usize];
            let waited = came && person.since.0 < annotation.sent && person.seat != annotation.seat;
            annotation.awaited -= u32::from(waited).min(annotation.awaited);
        }
        room.forget_what_came();
    }

    /// Sees whether somebody has everything by now that the server had when it was let in.
    pub(super) fn look_at_what_is_owed(&mut self, who: usize, at: Instant) {
        let person = &mut self.people[who];
        let caught_up = person.owed.as_ref().is_some_and(|owed| person.holds.includes(owed));
        if caught_up {
            person.owed = None;
            if !person.newcomer {
                self.counts.catch_up.record(nanoseconds(person.due, at));
            }
        }
    }

    /// What somebody has written that a server with this version does not have. What it has and did not acknowledge is
    /// as good as acknowledged.
    pub(super) fn missing_at(&mut self, who: usize, version: &VersionVector) -> Vec<u32> {
        let person = &self.people[who];
        let room = &mut self.rooms[person.room];
        let there = version.get(&peer(person.seat)).copied().unwrap_or(0);
        let kept = usize::try_from(there).unwrap_or(0);
        let own = room.written_by(person.seat).to_vec();
        for place in own.iter().take(kept) {
            let annotation = &mut room.annotations[*place as usize];
            self.counts.found_kept += u64::from(!annotation.acked);
            annotation.acked = true;
        }
        own.into_iter().skip(kept).collect()
    }

    /// How many are there, newcomers apart.
    pub(super) fn present(&self) -> u64 {
        self.people.iter().filter(|person| person.is_present() && !person.newcomer).count() as u64
    }

    fn since_origin(&self, due: Instant) -> u64 {
        nanoseconds(self.origin, due)
    }
}

fn has(person: &Person, room: &Room, place: u32) -> bool {
    let annotation = &room.annotations[place as usize];
    person.holds.has(annotation.seat, annotation.sequence)
}

/// The frame that asks to be let into a room.
pub(super) fn join(room: &Name, version: &VersionVector) -> Bytes {
    let message = Message::JoinRequest { auth: Bytes::new(), version: version.encode().into() };
    message.encode(room).expect("a version of some thousand seats fits into a frame")
}

fn update(room: &Name, batch: u64, update: &[u8]) -> Bytes {
    let message = Message::Update { batch: BatchId::from(batch), updates: Updates::from_iter([update]) };
    message.encode(room).expect("an annotation is far shorter than a frame, its length was checked")
}

/// From one moment to another; 0 if it is earlier.
pub(super) fn nanoseconds(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_once_the_document_is_open_is_sent_and_nothing_before_is_forgotten() {
        let mut scene = Scene::new(vec![Person::new(0, 0, 1, 0)], vec![Room::new("r", vec![0])], 60);
        let now = Instant::now();
        assert!(scene.annotate(0, now).is_none());
        scene.people[0].place = Place::Joining { document: true, presence: false };
        assert!(scene.annotate(0, now).is_some());
        assert_eq!(scene.missing_at(0, &VersionVector::default()), [0, 1]);
        let one: VersionVector = [(peer(0), 1)].into_iter().collect();
        assert_eq!(scene.missing_at(0, &one), [1]);
        assert!(scene.rooms[0].annotations[0].acked && !scene.rooms[0].annotations[1].acked);
    }
}
