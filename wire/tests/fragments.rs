//! Large updates, taken apart and put together.

use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;
use wire::fragment::{Assembled, FRAGMENT, FragmentError, FragmentLimits, Reassembly, Split};
use wire::sync::{Crdt, Fragment, FragmentHeader, Frame, MAX_FRAME, Message, Room, Status};
use wire::{BatchId, RoomId};

const LIMITS: FragmentLimits = FragmentLimits {
    update: 1000,
    pending: 1500,
    batches: 3,
    fragments: 100,
    patience: Duration::from_secs(10),
};

fn room(id: &str) -> Room {
    Room { crdt: Crdt::Loro, id: RoomId::try_from(id).expect("a short id") }
}

fn batch(number: u64) -> BatchId {
    BatchId::from(number)
}

/// One sender, as a receiver sees it.
struct Sender {
    reassembly: Reassembly,
    now: Instant,
}

impl Sender {
    fn new(limits: FragmentLimits) -> Self {
        Self { reassembly: Reassembly::new(limits), now: Instant::now() }
    }

    fn wait(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn send(&mut self, frame: &Bytes) -> Result<Option<Assembled>, FragmentError> {
        let Frame { room, message } = Frame::decode(frame).expect("a good frame");
        match message {
            Message::FragmentHeader(header) => {
                self.reassembly.header(self.now, &room, header, frame).map(|()| None)
            }
            Message::Fragment(fragment) => self.reassembly.fragment(self.now, &room, fragment, frame),
            other => panic!("{other:?}"),
        }
    }

    fn header(&mut self, number: u64, fragments: u64, len: u64) -> Result<(), FragmentError> {
        let header = FragmentHeader { batch: batch(number), fragments, len };
        let frame = Message::FragmentHeader(header).encode(&room("g")).expect("short");
        self.send(&frame).map(drop)
    }

    fn fragment(
        &mut self,
        number: u64,
        index: u64,
        bytes: &'static str,
    ) -> Result<Option<Bytes>, FragmentError> {
        let fragment = Fragment { batch: batch(number), index, bytes: bytes.into() };
        let frame = Message::Fragment(fragment).encode(&room("g")).expect("short");
        self.send(&frame).map(|assembled| assembled.map(|assembled| assembled.update))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_update_arrives_whole_whatever_the_order_of_its_fragments(
        update in prop::collection::vec(any::<u8>(), 1..1000),
        size in 10..300_usize,
        order in any::<u64>(),
    ) {
        let here = room("g");
        let mut frames: Vec<_> = Split::new(&here, batch(1), &update, size).collect();
        if frames.len() == 1 {
            let expected = wire::sync::update(&here, batch(1), &[&update]).expect("short");
            prop_assert_eq!(&frames, &[expected]);
            return Ok(());
        }
        prop_assert_eq!(frames.len(), 1 + update.len().div_ceil(size));
        let mut sender = Sender::new(LIMITS);
        prop_assert_eq!(sender.send(&frames[0]), Ok(None));
        let mut shuffled: Vec<_> = frames[1..].to_vec();
        shuffled.sort_by_key(|frame| frame.iter().fold(order, |hash, &byte| hash.rotate_left(9) ^ u64::from(byte)));
        let last = shuffled.pop().expect("two fragments at least");
        for frame in &shuffled {
            prop_assert_eq!(sender.send(frame), Ok(None));
            prop_assert_eq!(sender.send(frame), Ok(None), "a fragment that comes twice");
        }
        prop_assert_eq!(sender.reassembly.pending(), update.len());
        let assembled = sender.send(&last).expect("good").expect("complete");
        prop_assert_eq!(&assembled.update, &update);
        prop_assert_eq!(sender.reassembly.pending(), 0);
        frames.truncate(assembled.frames.len());
        prop_assert_eq!(assembled.frames, frames);
    }
}

#[test]
fn frames_are_forwarded_as_they_came_without_a_copy() {
    let here = room("g");
    let frames: Vec<_> = Split::new(&here, batch(1), &vec![7; 2 * FRAGMENT], FRAGMENT).collect();
    let mut sender = Sender::new(FragmentLimits::default());
    let mut assembled = None;
    for frame in &frames {
        assembled = sender.send(frame).expect("good");
    }
    let forwarded = assembled.expect("complete").frames;
    assert_eq!(forwarded, frames);
    // The header is short.
    assert!(frames.iter().zip(&forwarded).skip(1).all(|(came, goes)| std::ptr::eq(&came[..], &goes[..])));
}

#[test]
fn fragments_fill_a_frame_at_most() {
    let long = Room { crdt: Crdt::Loro, id: RoomId::try_from("x".repeat(128).as_str()).expect("just short") };
    let update = vec![7; 5_000_000];
    for size in [0, FRAGMENT, usize::MAX] {
        let update = if size == 0 { &update[..1000] } else { &update };
        for frame in Split::new(&long, batch(1), update, size) {
            assert!(frame.len() <= MAX_FRAME && Frame::decode(&frame).is_ok());
        }
    }
    let frames: Vec<_> = Split::new(&long, batch(1), &update, FRAGMENT).map(|frame| frame.len()).collect();
    assert_eq!(frames.len(), 1 + 21);
    assert_eq!(frames[1], 4 + 2 + 128 + 1 + 8 + 1 + 3 + FRAGMENT);
}

#[test]
fn an_empty_update_is_one_frame() {
    let frames: Vec<_> = Split::new(&room("g"), batch(1), b"", FRAGMENT).collect();
    assert_eq!(frames, [wire::sync::update(&room("g"), batch(1), &[b""]).expect("short")]);
}

#[test]
fn a_header_that_announces_too_much_is_refused_before_anything_comes() {
    let mut sender = Sender::new(LIMITS);
    let error = sender.header(1, 2, 1001).expect_err("too long");
    assert_eq!(error, FragmentError::UpdateTooLong { len: 1001, limit: 1000 });
    assert_eq!(error.status(), Some(Status::PayloadTooLarge));
    for (fragments, len) in [(0, 0), (0, 10), (11, 10), (101, 1000), (u64::MAX, 1000), (1 << 31, 10)] {
        let error = sender.header(1, fragments, len).expect_err("bad count");
        assert_eq!(error, FragmentError::BadCount { fragments, len, limit: 100 });
        assert_eq!(error.status(), Some(Status::InvalidUpdate));
    }
    assert!(sender.header(1, 1, u64::MAX).is_err());
    assert_eq!(sender.fragment(1, 0, "x"), Err(FragmentError::UnknownBatch));
    assert_eq!(FragmentError::UnknownBatch.status(), None);
    assert_eq!(sender.reassembly.pending(), 0);
}

#[test]
fn what_is_under_way_is_bounded_in_bytes_and_in_number() {
    let mut sender = Sender::new(LIMITS);
    assert_eq!(sender.header(1, 2, 1000), Ok(()));
    let error = sender.header(2, 2, 501).expect_err("too much");
    assert_eq!(error, FragmentError::TooMuchPending { batches: 1, pending: 1000 });
    assert_eq!(error.status(), Some(Status::RateLimited));
    assert_eq!(sender.header(2, 2, 500), Ok(()));

    let mut sender = Sender::new(LIMITS);
    assert_eq!([1, 2, 3].map(|number| sender.header(number, 1, 1)), [Ok(()); 3]);
    assert_eq!(sender.header(4, 1, 1), Err(FragmentError::TooMuchPending { batches: 3, pending: 3 }));
    assert_eq!(sender.fragment(1, 0, "x"), Ok(Some("x".into())));
    assert_eq!(sender.header(4, 1, 1), Ok(()));
}

#[test]
fn fragments_that_do_not_keep_their_headers_word_are_refused_and_forgotten() {
    for (fragments, index, bytes, error) in [
        (2, 2, "x", FragmentError::NoSuchFragment { index: 2, fragments: 2 }),
        (3, 1, "2345678901", FragmentError::WrongLength { actual: 11, announced: 10 }),
        (2, 1, "2345", FragmentError::WrongLength { actual: 5, announced: 10 }),
    ] {
        let mut sender = Sender::new(LIMITS);
        assert_eq!(sender.header(1, fragments, 10), Ok(()));
        assert_eq!(sender.fragment(1, 0, "1"), Ok(None));
        assert_eq!(sender.fragment(1, index, bytes), Err(error));
        assert_eq!(error.status(), Some(Status::InvalidUpdate));
        assert_eq!(sender.fragment(1, 1, "234567890"), Err(FragmentError::UnknownBatch));
        assert_eq!((sender.reassembly.pending(), sender.reassembly.deadline()), (0, None));
    }
}

#[test]
fn a_sender_that_falls_silent_is_given_up_on_and_told_so_once() {
    let mut sender = Sender::new(LIMITS);
    assert_eq!(sender.reassembly.deadline(), None);
    let start = sender.now;
    sender.header(1, 2, 2).expect("good");
    sender.wait(4);
    sender.header(2, 3, 3).expect("good");
    assert_eq!(sender.reassembly.deadline(), Some(start + Duration::from_secs(10)));
    sender.wait(5);
    assert_eq!(sender.fragment(2, 0, "x"), Ok(None), "a fragment renews the patience");
    assert_eq!(sender.reassembly.expired(sender.now), None);
    sender.wait(1);
    assert_eq!(sender.reassembly.expired(sender.now), Some((room("g"), batch(1))));
    assert_eq!(sender.reassembly.expired(sender.now), None);
    assert_eq!(sender.fragment(1, 0, "x"), Err(FragmentError::UnknownBatch));
    sender.wait(8);
    assert_eq!(sender.fragment(2, 0, "x"), Ok(None), "one that has come before does not");
    assert_eq!(sender.reassembly.expired(sender.now), None);
    sender.wait(1);
    assert_eq!(sender.reassembly.expired(sender.now), Some((room("g"), batch(2))));
    assert_eq!(sender.reassembly.pending(), 0);
}

#[test]
fn a_header_that_comes_again_starts_afresh() {
    let mut sender = Sender::new(LIMITS);
    sender.header(1, 2, 1000).expect("good");
    assert_eq!(sender.fragment(1, 0, "old"), Ok(None));
    sender.header(1, 2, 4).expect("its first try no longer counts");
    assert_eq!(sender.fragment(1, 1, "ew"), Ok(None));
    assert_eq!(sender.fragment(1, 0, "in"), Ok(Some("inew".into())));
}

#[test]
fn rooms_and_batches_do_not_disturb_each_other() {
    let (here, there) = (room("here"), room("there"));
    let mut sender = Sender::new(LIMITS);
    let one: Vec<_> = Split::new(&here, batch(1), &[1; 100], 50).collect();
    let two: Vec<_> = Split::new(&there, batch(1), &[2; 100], 50).collect();
    for (one, two) in one[..2].iter().zip(&two[..2]) {
        assert_eq!((sender.send(one), sender.send(two)), (Ok(None), Ok(None)));
    }
    sender.reassembly.leave(&here);
    assert_eq!(sender.send(&one[2]), Err(FragmentError::UnknownBatch));
    let assembled = sender.send(&two[2]).expect("good").expect("complete");
    assert_eq!(assembled.update, [2; 100][..]);
}

#[test]
fn what_is_under_way_keeps_nothing_alive_that_came_with_it() {
    let mut sender = Sender::new(LIMITS);
    let header = Message::FragmentHeader(FragmentHeader { batch: batch(1), fragments: 2, len: 2 });
    let part = Message::Fragment(Fragment { batch: batch(1), index: 0, bytes: Bytes::from_static(b"x") });
    for message in [header, part] {
        let frame = message.encode(&room("g")).expect("short");
        let received = Bytes::from([&frame[..], &[0; 4096]].concat());
        assert_eq!(sender.send(&received.slice(..frame.len())), Ok(None));
        assert!(received.is_unique(), "{message:?}");
    }
}
