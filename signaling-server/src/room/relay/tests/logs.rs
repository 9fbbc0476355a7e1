//! Rooms that are not looked into: `%ELO`, opaque `%LOR`, `%YJS`, `%YAW` and `%FLO`.

use bytes::Bytes;
use loro::VersionVector;
use wire::sealed::{self, Covers, Record, Span};
use wire::sync::{Crdt, Status};

use super::world::*;
use crate::room::relay::{Keeping, Limits};

fn span(peer: &str, start: u64, end: u64) -> Bytes {
    let peer = Bytes::copy_from_slice(peer.as_bytes());
    let header = sealed::span_header(&Span { peer, start, end }, "key", [1; 12]).unwrap();
    sealed::container(&[Record::encode(&header, format!("secret {start}").as_bytes())])
}

fn snapshot(version: &[(&str, u64)]) -> Bytes {
    let header = sealed::snapshot_header(version.iter().copied(), "key", [2; 12]).unwrap();
    sealed::container(&[Record::encode(&header, b"everything")])
}

fn version_of(peers: &[(u64, i32)]) -> Vec<u8> {
    VersionVector::from_iter(peers.iter().copied()).encode()
}

fn spans(updates: &[Bytes]) -> Vec<(String, u64, u64)> {
    let records = updates.iter().flat_map(|update| sealed::records(update).collect::<Vec<_>>());
    let spans = records.map(|record| match record.unwrap().covers {
        Covers::Span(span) => (String::from_utf8(span.peer.to_vec()).unwrap(), span.start, span.end),
        Covers::Snapshot(_) => ("snapshot".to_owned(), 0, 0),
    });
    spans.collect()
}

#[test]
fn a_sealed_room_gives_newcomers_the_records_that_they_lack() {
    let mut world = World::new(Crdt::Sealed);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let batch = world.send(ANA, &span("1", 0, 5));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    assert_eq!(world.updates(BEN), [span("1", 0, 5)]);
    world.send(ANA, &span("1", 5, 9));
    world.send(BEN, &span("2", 0, 3));

    let (told, updates) = world.joined(EVE, &[0]);
    assert_eq!(VersionVector::decode(&told).unwrap(), VersionVector::from_iter([(1, 9), (2, 3)]));
    assert_eq!(spans(&updates).len(), 3);
    let (_, updates) = world.joined(EVE, &version_of(&[(1, 5), (2, 3)]));
    assert_eq!(spans(&updates), [("1".to_owned(), 5, 9)]);
    assert!(world.joined(EVE, &version_of(&[(1, 9), (2, 7)])).1.is_empty());
    assert_eq!(spans(&world.joined(EVE, b"garbage").1).len(), 3);
}

#[test]
fn what_takes_long_in_a_sealed_room_is_not_done_where_others_wait() {
    let mut world = World::new(Crdt::Sealed);
    world.join(ANA);
    let record = |n: u64| {
        let header = sealed::span_header(
            &Span { peer: Bytes::from_static(b"1"), start: n, end: n + 1 },
            "key",
            [1; 12],
        );
        sealed::container(&[Record::encode(&header.unwrap(), &[0; 30_000])])
    };
    world.send(ANA, &record(0));
    world.joined(BEN, &[0]);
    assert_eq!(world.heavy, 0);
    for n in 1..5 {
        world.send(ANA, &record(n));
    }
    assert_eq!(world.heavy, 0, "each is small");
    assert_eq!(spans(&world.joined(EVE, &[0]).1).len(), 5);
    assert_eq!(world.heavy, 1);

    let mut world = world.restarted(Keeping::Imported, Limits::default());
    assert_eq!(spans(&world.joined(EVE, &[0]).1).len(), 5);
    assert_eq!(world.heavy, 2, "opening and answering");
}

#[test]
fn what_takes_long_in_an_opaque_room_is_not_done_where_others_wait() {
    let mut world = World::with(Crdt::Loro, Keeping::Opaque, Limits::default());
    world.join(ANA);
    // As good as incompressible.
    let text: String =
        (0..20_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    let update = edit(&doc(1), &text);
    world.send(ANA, &update);
    let mut world = world.restarted(Keeping::Opaque, Limits::default());
    world.slow_work = true;
    world.join(ANA);
    assert_eq!((world.heavy, world.read(ANA).len()), (1, 0), "what is stored is being read");
    world.work();
    assert_eq!(world.updates(ANA), [update]);
    assert_eq!(world.heavy, 1, "nothing is copied for somebody who joins");
}

#[test]
fn a_sealed_rooms_version_ends_at_the_first_hole() {
    let mut world = World::new(Crdt::Sealed);
    world.join(ANA);
    world.send(ANA, &span("1", 5, 9));
    assert_eq!(world.joined(BEN, &[0]).0, [0][..], "so that its author sends what is missing");
    world.send(ANA, &span("1", 0, 5));
    assert_eq!(world.joined(BEN, &[0]).0, version_of(&[(1, 9)]));
}

#[test]
fn no_record_takes_the_place_of_another() {
    let mut world = World::new(Crdt::Sealed);
    [ANA, EVE].into_iter().for_each(|who| world.join(who));
    world.send(EVE, &span("1", 0, 1_000_000));
    world.send(ANA, &span("1", 0, 5));
    world.send(ANA, &span("1", 0, 5));
    assert_eq!(spans(&world.joined(BEN, &[0]).1).len(), 2, "though the same twice is kept once");
}

#[test]
fn a_sealed_snapshot_that_says_nothing_new_is_acknowledged_and_forgotten() {
    let mut world = World::new(Crdt::Sealed);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &span("1", 0, 5));
    world.clear();
    let batch = world.send(ANA, &snapshot(&[("1", 5)]));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    assert!(world.frames_of(BEN).is_empty());
    assert_eq!(world.store.entries.len(), 1);
    world.send(ANA, &snapshot(&[("1", 6)]));
    assert_eq!(world.updates(BEN).len(), 1);
    assert_eq!(spans(&world.joined(EVE, &version_of(&[(1, 5)])).1), [("snapshot".to_owned(), 0, 0)]);
}

#[test]
fn a_sealed_room_is_there_after_a_restart() {
    let mut world = World::new(Crdt::Sealed);
    world.join(ANA);
    world.send(ANA, &span("1", 0, 5));
    world.send(ANA, &span("not a number", 0, 5));
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let (told, updates) = world.joined(BEN, &[0]);
    assert_eq!((told.to_vec(), spans(&updates).len()), (version_of(&[(1, 5)]), 2));
}

#[test]
fn what_is_no_sealed_container_is_refused() {
    let mut world = World::new(Crdt::Sealed);
    world.join(ANA);
    world.clear();
    for bad in [&b"garbage"[..], &[1], &span("1", 0, 5)[..20]] {
        let batch = world.send(ANA, bad);
        assert_eq!(world.acks(ANA), [(batch, Status::InvalidUpdate)]);
    }
    assert!(world.store.entries.is_empty());
}

#[test]
fn an_opaque_room_keeps_the_log_and_gives_everybody_all_of_it() {
    let mut world = World::with(Crdt::Loro, Keeping::Opaque, Limits::default());
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let ana = doc(1);
    let update = edit(&ana, "hi");
    for _ in 0..3 {
        let batch = world.send(ANA, &update);
        assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    }
    assert_eq!(world.updates(BEN), [&update[..]], "the same again is not passed on again");
    let mut damaged = update.clone();
    *damaged.last_mut().unwrap() ^= 1;
    let batch = world.send(ANA, &damaged);
    assert_eq!(world.acks(ANA), [(batch, Status::InvalidUpdate)]);

    let mut world = world.restarted(Keeping::Opaque, Limits::default());
    let (told, updates) = world.joined(EVE, &version(&ana));
    assert_eq!((told, updates), (Bytes::from_static(&[0]), vec![update.into()]));
}

#[test]
fn an_opaque_room_takes_what_would_break_a_document() {
    let mut world = World::with(Crdt::Loro, Keeping::Opaque, Limits::default());
    world.join(ANA);
    world.clear();
    // No document could read this, and its checksum is right.
    let mut update = [b"loro".as_slice(), &[0; 16], &[0, 4], b"nonsense"].concat();
    let checksum = xxhash_rust::xxh32::xxh32(&update[20..], u32::from_le_bytes(*b"LORO"));
    update[16..20].copy_from_slice(&checksum.to_le_bytes());
    let batch = world.send(ANA, &update);
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
}

#[test]
fn a_blind_room_relays_anything_and_keeps_the_newest_for_newcomers() {
    for crdt in [Crdt::Yjs, Crdt::YjsAwareness, Crdt::Flock] {
        let limits = Limits { backlog: 1000, ..Limits::default() };
        let mut world = World::with(crdt, Keeping::Imported, limits);
        [ANA, BEN].into_iter().for_each(|who| world.join(who));
        world.clear();
        for n in 0..100_u8 {
            let batch = world.send(ANA, &[n; 36]);
            assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
        }
        assert_eq!(world.updates(BEN).len(), 100);
        let (told, updates) = world.joined(EVE, &[]);
        let newest: Vec<Bytes> = (90..100).map(|n| vec![n; 36].into()).collect();
        assert_eq!((told, updates), (Bytes::new(), newest));
        assert!(world.store.entries.is_empty());
    }
}

#[test]
fn awareness_goes_with_its_author_and_documents_stay() {
    for (crdt, left) in [(Crdt::YjsAwareness, 0), (Crdt::Yjs, 1)] {
        let mut world = World::new(crdt);
        [ANA, BEN].into_iter().for_each(|who| world.join(who));
        world.send(ANA, b"ana");
        world.gone(ANA);
        assert_eq!(world.joined(EVE, &[]).1.len(), left);
    }
}
