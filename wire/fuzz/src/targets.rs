//! What is fuzzed, and what must hold for any bytes at all. Each target takes what a stranger might send and panics
//! if a promise is broken. `tests/fuzz_targets.rs` of `wire` runs the same functions without libFuzzer.

use std::time::{Duration, Instant};

use bytes::Bytes;
use loro_protocol as published;
use serde::de::IgnoredAny;
use wire::fragment::{FragmentLimits, Reassembly};
use wire::sealed::{self, Covers, Record};
use wire::sync::{Crdt, Fragment, FragmentHeader, Frame, Message, Room};
use wire::{BatchId, Dialect, Keepalive, Kind, Limits, Publish, RoomId, Signal, SignalError, Topics};

/// The dialects do not overlap, and none of them claims what another could read.
pub fn dialect(bytes: &[u8]) {
    for kind in [Kind::Text, Kind::Binary] {
        match Dialect::of(kind, bytes) {
            Dialect::Keepalive(Keepalive::Ping) => assert_eq!((kind, bytes), (Kind::Text, &b"ping"[..])),
            Dialect::Keepalive(Keepalive::Pong) => assert_eq!((kind, bytes), (Kind::Text, &b"pong"[..])),
            Dialect::Loro => assert!(kind == Kind::Binary && bytes.starts_with(b"%")),
            Dialect::Signal => continue,
        }
        assert!(Signal::parse(bytes, Limits::default()).is_err());
    }
}

/// A signaling message is refused exactly when `serde_json` refuses it, and one that is delivered says to its
/// receivers what its sender said.
pub fn signal(bytes: &[u8]) {
    let repaired = wire::repair(bytes);
    let text = std::str::from_utf8(&repaired).expect("a repaired message is UTF-8");
    let oracle = serde_json::from_str::<IgnoredAny>(text).is_ok();
    for depth in [2, 64, usize::MAX] {
        match Signal::parse(&repaired, Limits { depth }) {
            Ok(signal) => {
                assert!(oracle, "serde_json refuses what we accept");
                check(signal);
            }
            Err(SignalError::TooDeep { limit }) => assert_eq!(limit, depth.min(Limits::MAX_DEPTH)),
            Err(SignalError::NotJson { at }) => assert!(!oracle && at <= repaired.len()),
            Err(SignalError::NotUtf8 { .. }) => panic!("a repaired message is not UTF-8"),
        }
    }
    let untouched = Signal::parse(bytes, Limits::default());
    assert_eq!(matches!(untouched, Err(SignalError::NotUtf8 { .. })), std::str::from_utf8(bytes).is_err());
}

fn check(signal: Signal<'_>) {
    match signal {
        Signal::Subscribe(topics) | Signal::Unsubscribe(topics) => check_topics(topics),
        Signal::Publish(publish) => check_publish(&publish),
        Signal::Ping | Signal::Pong | Signal::Ignored => {}
    }
}

fn check_topics(topics: Topics<'_>) {
    for (name, measured) in topics.into_iter().zip(topics.within(3)) {
        match measured {
            Ok(same) => assert!(same == name && name.len() <= 3),
            Err(refused) => assert!(refused.len == name.len() && name.len() > 3),
        }
    }
}

fn check_publish(publish: &Publish<'_>) {
    assert!(!publish.topic().is_empty());
    let delivered = encode(publish, 12_345);
    let Ok(Signal::Publish(again)) = Signal::parse(&delivered, Limits { depth: usize::MAX }) else {
        panic!("what is delivered is not a publish any more");
    };
    assert_eq!((again.topic(), again.sender()), (publish.topic(), publish.sender()));
    assert_eq!(again.receiver(), publish.receiver());
    // Its `clients` are set by now: setting them again changes nothing else, however many digits that takes.
    assert_eq!(encode(&again, 12_345), delivered);
    assert_eq!(encode(&again, 0), encode(publish, 0));
}

fn encode(publish: &Publish<'_>, clients: usize) -> Vec<u8> {
    let mut out = Vec::new();
    publish.encode(clients, &mut out);
    assert_eq!(out.len(), publish.encoded_len(clients));
    out
}

/// A frame of the Loro Protocol that is accepted is accepted by the published crate too, and both write it alike.
pub fn sync(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let Ok(frame) = Frame::decode(&bytes) else { return };
    assert_eq!(Dialect::of(Kind::Binary, &bytes), Dialect::Loro);
    let rewritten = frame.message.encode(&frame.room).expect("no longer than it came");
    assert_eq!(Frame::decode(&rewritten).as_ref(), Ok(&frame));
    // Its count of updates is true, so the published crate may reserve memory for so many.
    let theirs = published::decode(&bytes).expect("the published crate is looser");
    assert_eq!(published::encode(&theirs).as_deref(), Ok(&rewritten[..]));
    if let Message::Update { updates, .. } = &frame.message {
        assert_eq!(updates.iter().count(), updates.len());
    }
}

/// An encrypted update that is accepted has a header that we would write, and one that the published crate reads.
pub fn sealed(bytes: &[u8]) {
    let update = Bytes::copy_from_slice(bytes);
    let Ok(records) = sealed::records(&update).collect::<Result<Vec<_>, _>>() else { return };
    let whole: Vec<_> = records.iter().map(|record| &record.bytes).collect();
    assert_eq!(sealed::container(&whole), update);
    for record in records {
        check_record(&record);
        let theirs =
            published::elo::parse_elo_record_header(&record.bytes).expect("the published crate is looser");
        assert_eq!((theirs.aad, theirs.ct), (&record.header[..], &record.ciphertext[..]));
    }
}

fn check_record(record: &Record) {
    let key_id = std::str::from_utf8(&record.key_id).expect("a key id is text");
    let header = match &record.covers {
        Covers::Span(span) => sealed::span_header(span, key_id, record.iv),
        Covers::Snapshot(version) => {
            assert_eq!(version.iter().count(), version.len());
            sealed::snapshot_header(version.iter(), key_id, record.iv)
        }
    };
    assert_eq!(header.as_ref(), Ok(&record.header));
    assert_eq!(Record::encode(&record.header, &record.ciphertext), record.bytes);
}

/// Whatever headers and fragments come in whatever order, what is kept stays within its limits, and an update that
/// is put together is as long as was announced. Each step takes four bytes.
pub fn fragment(bytes: &[u8]) {
    let limits = FragmentLimits {
        update: 40,
        pending: 60,
        batches: 3,
        fragments: 6,
        patience: Duration::from_secs(3),
    };
    let room = Room { crdt: Crdt::Loro, id: RoomId::try_from("g").expect("a short id") };
    let (mut reassembly, mut now) = (Reassembly::new(limits), Instant::now());
    let (frame, filling) = (Bytes::from_static(b"frame"), Bytes::from_static(&[7; 256]));
    let mut announced = [0; 5];
    for step in bytes.chunks_exact(4) {
        let &[what, batch, a, b] = step else { break };
        let slot = usize::from(batch) % announced.len();
        let batch = BatchId::from(slot as u64);
        match what % 8 {
            0 => reassembly.leave(&room),
            1 => now += Duration::from_secs(u64::from(a % 4)),
            2 | 3 => {
                let header = FragmentHeader { batch, fragments: u64::from(a % 9), len: u64::from(b % 50) };
                if reassembly.header(now, &room, header, &frame).is_ok() {
                    announced[slot] = header.len as usize;
                }
            }
            _ => {
                let fragment =
                    Fragment { batch, index: u64::from(a % 9), bytes: filling.slice(..usize::from(b % 50)) };
                if let Ok(Some(assembled)) = reassembly.fragment(now, &room, fragment, &frame) {
                    assert_eq!(assembled.update.len(), announced[slot]);
                    assert!(assembled.frames.len() >= 2 && assembled.frames.len() <= 1 + limits.fragments);
                }
            }
        }
        while reassembly.expired(now).is_some() {}
        assert!(reassembly.pending() <= limits.pending);
        assert_eq!(reassembly.deadline().is_none(), reassembly.pending() == 0);
        assert!(
            reassembly.deadline().is_none_or(|deadline| deadline > now && deadline <= now + limits.patience)
        );
    }
}
