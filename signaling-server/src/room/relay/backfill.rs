//! What a newcomer lacks, cut into frames one at a time as its socket takes them.

use std::collections::VecDeque;

use bytes::Bytes;
use wire::fragment::FRAGMENT;
use wire::id::BatchId;
use wire::sync::{self, Fragment, FragmentHeader, Message, Room};

/// The frames that bring somebody up to date. Each is encoded when it is asked for, so that what waits for a slow
/// socket is the updates alone, which newcomers may share.
///
/// They may be mixed with frames of other updates, but not with those of another backfill of the same room.
#[derive(Clone, Debug)]
pub struct Backfill {
    room: Room,
    /// The last batch id used. Ids are drawn from a range that no published client uses.
    batch: u64,
    updates: VecDeque<Bytes>,
    /// The first update is under way in fragments, and so many bytes of it have been sent.
    sent: Option<usize>,
}

impl Backfill {
    /// The frames of these updates, in order. Their batch ids count up from the one after `batch`.
    pub(crate) fn new(room: &Room, batch: u64, updates: Vec<Bytes>) -> Self {
        Self { room: room.clone(), batch, updates: updates.into(), sent: None }
    }

    /// How many bytes of updates are still to be sent.
    #[must_use]
    pub fn left(&self) -> usize {
        let all: usize = self.updates.iter().map(Bytes::len).sum();
        all - self.sent.unwrap_or(0)
    }

    /// How many batch ids the updates may take.
    pub(crate) fn most_batches(&self) -> u64 {
        self.updates.len() as u64
    }

    fn id(&self) -> BatchId {
        BatchId::from(self.batch)
    }

    /// The updates at the front that fit into one frame together; there is at least one.
    fn together(&mut self) -> Bytes {
        let mut len = 0;
        let fit = self.updates.iter().take_while(|update| {
            len += update.len() + 5;
            len <= FRAGMENT
        });
        let count = fit.count().max(1);
        let updates: Vec<Bytes> = self.updates.drain(..count).collect();
        self.batch += 1;
        sync::update(&self.room, self.id(), &updates).expect("as many as a fragment is long fit into a frame")
    }

    fn header(&mut self, len: usize) -> Bytes {
        self.batch += 1;
        self.sent = Some(0);
        let fragments = len.div_ceil(FRAGMENT) as u64;
        self.frame(&Message::FragmentHeader(FragmentHeader { batch: self.id(), fragments, len: len as u64 }))
    }

    fn fragment(&mut self, update: &Bytes, start: usize) -> Bytes {
        let end = update.len().min(start + FRAGMENT);
        if end == update.len() {
            self.updates.pop_front();
            self.sent = None;
        } else {
            self.sent = Some(end);
        }
        let index = (start / FRAGMENT) as u64;
        self.frame(&Message::Fragment(Fragment { batch: self.id(), index, bytes: update.slice(start..end) }))
    }

    fn frame(&self, message: &Message) -> Bytes {
        message.encode(&self.room).expect("a fragment and its header fit into a frame")
    }
}

impl Iterator for Backfill {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let first = self.updates.front()?.clone();
        Some(match self.sent {
            Some(start) => self.fragment(&first, start),
            None if first.len() > FRAGMENT => self.header(first.len()),
            None => self.together(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use wire::fragment::{FragmentLimits, Reassembly};
    use wire::id::RoomId;
    use wire::sync::{Crdt, Frame, MAX_FRAME};

    use super::*;

    /// What a client makes of the frames.
    fn received(frames: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let now = Instant::now();
        let mut fragments = Reassembly::new(FragmentLimits::default());
        let mut updates = Vec::new();
        for frame in frames {
            assert!(frame.len() <= MAX_FRAME);
            let Frame { room, message } = Frame::decode(&frame).unwrap();
            match message {
                Message::Update { updates: some, .. } => updates.extend(some.iter()),
                Message::FragmentHeader(header) => fragments.header(now, &room, header, &frame).unwrap(),
                Message::Fragment(fragment) => {
                    let whole = fragments.fragment(now, &room, fragment, &frame).unwrap();
                    updates.extend(whole.map(|whole| whole.update));
                }
                other => panic!("{other:?}"),
            }
        }
        updates
    }

    #[test]
    fn updates_of_any_size_arrive_whole_and_in_order() {
        let room = Room { crdt: Crdt::Loro, id: RoomId::try_from("r".repeat(128).as_str()).unwrap() };
        let lengths = [3, 0, FRAGMENT, FRAGMENT + 1, 7, 5 * FRAGMENT, 100_000, 100_000, 100_000];
        let updates: Vec<Bytes> = lengths.iter().map(|&len| vec![len as u8; len].into()).collect();
        let backfill = Backfill::new(&room, 0, updates.clone());
        assert_eq!(backfill.left(), lengths.iter().sum::<usize>());
        assert_eq!(received(backfill), updates);
    }

    #[test]
    fn small_updates_share_a_frame() {
        let room = Room { crdt: Crdt::Yjs, id: RoomId::try_from("r").unwrap() };
        let backfill = Backfill::new(&room, 0, vec![Bytes::from_static(b"a"); 1000]);
        assert_eq!(backfill.clone().count(), 1);
        assert_eq!(received(backfill).len(), 1000);
    }
}
