//! What is fuzzed, and what must hold for any bytes at all. Each target takes what a stranger might send and panics
//! if a promise is broken. `tests/fuzz_targets.rs` of `wire` runs the same functions without libFuzzer.

use serde::de::IgnoredAny;
use wire::{Dialect, Keepalive, Kind, Limits, Publish, Signal, SignalError, Topics};

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
