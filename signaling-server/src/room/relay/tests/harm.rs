//! Updates that are made to do harm.

use wire::sync::{Crdt, Message, RoomErrorCode, Status};

use super::world::*;
use crate::room::relay::{Event, Keeping, Limits, Logged, ONE, Seq};
use crate::room::replica::tests::{BROKEN_EXPORTS, POISON};

#[test]
fn an_update_that_breaks_the_document_puts_its_sender_out_and_the_room_recovers() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN, EVE].into_iter().for_each(|who| world.join(who));
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "one "));
    world.clear();
    let batch = world.send(EVE, POISON);
    let messages = world.read(EVE);
    assert_eq!(messages[0], Message::Ack { batch, status: Status::InvalidUpdate });
    assert!(matches!(messages[1..], [Message::RoomError { code: RoomErrorCode::Evicted, .. }]));
    assert_eq!(world.events, [Event::Quarantined]);
    assert_eq!(world.store.loads, 2);
    // Nobody else has heard it; they are told to join again, in case something is missing.
    for who in [ANA, BEN] {
        let messages = world.read(who);
        let [Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. }] = &messages[..] else {
            panic!("{messages:?}");
        };
    }
    let batch = world.send(ANA, &edit(&ana, "two"));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "one two");
    assert_eq!(world.store.entries.len(), 2, "what broke it is not in the log");
}

#[test]
fn what_waited_behind_a_poisoned_update_is_done_after_all() {
    let mut world = World::new(Crdt::Loro);
    [ANA, EVE].into_iter().for_each(|who| world.join(who));
    world.clear();
    world.slow_work = true;
    let ana = doc(1);
    let before = world.send(ANA, &edit(&ana, "before "));
    world.work();
    world.send(ANA, &edit(&ana, "first "));
    world.send(EVE, POISON);
    let after = world.send(ANA, &edit(&ana, "after"));
    world.join(BEN);
    world.slow_work = false;
    world.work();
    let ben = doc(2);
    let updates = world.updates(BEN);
    import(&ben, &updates);
    assert_eq!(text(&ben), "before first after");
    let acks = world.acks(ANA);
    assert!(acks.contains(&(before, Status::Ok)) && acks.contains(&(after, Status::Ok)), "{acks:?}");
}

#[test]
fn a_room_is_loaded_again_only_when_the_store_has_answered_for_everything() {
    let mut world = World::new(Crdt::Loro);
    [ANA, EVE].into_iter().for_each(|who| world.join(who));
    world.store.held = true;
    let batch = world.send(ANA, &edit(&doc(1), "in flight"));
    world.send(EVE, POISON);
    assert_eq!(world.store.loads, 1);
    world.clear();
    world.store.held = false;
    world.wait(ms(1));
    assert_eq!(world.store.loads, 2);
    assert!(world.acks(ANA).contains(&(batch, Status::Ok)));
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "in flight");
}

#[test]
fn a_log_with_poison_in_it_is_loaded_without_the_poison() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "one "));
    world.send(ANA, &edit(&ana, "two"));
    let poison = |seq| Logged { seq: Seq(seq), kind: ONE, payload: POISON.into() };
    world.store.stored.log.insert(1, poison(90));
    world.store.stored.log.push(poison(91));
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "one two");
    assert_eq!(world.events, [Event::SetAside(vec![Seq(90), Seq(91)])]);
}

#[test]
fn a_log_of_nothing_but_poison_is_given_up() {
    let mut world = World::new(Crdt::Loro);
    let poison = |seq| Logged { seq: Seq(seq), kind: ONE, payload: POISON.into() };
    world.store.stored.log = (1..40).map(poison).collect();
    world.join(ANA);
    assert!(matches!(world.read(ANA)[..], [Message::JoinError { .. }]));
    assert!(matches!(world.events[..], [Event::Quarantined, Event::Unreadable(_)]), "{:?}", world.events);
    assert_eq!(world.store.stored.log.len(), 39);
}

#[test]
fn a_document_that_breaks_when_it_is_read_is_tried_again_and_then_given_up() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "x"));
    world.clear();
    BROKEN_EXPORTS.set(2);
    world.join(BEN);
    assert!(matches!(world.read(BEN)[..], [Message::JoinOk { .. }, Message::Update { .. }]));
    assert_eq!(world.store.loads, 3);
    BROKEN_EXPORTS.set(9);
    world.send(ANA, &edit(&ana, "y"));
    world.join(EVE);
    assert!(matches!(world.read(EVE)[..], [Message::JoinError { .. }]));
    assert!(world.relay.is_idle(), "everybody has been told");
    BROKEN_EXPORTS.set(0);
    world.join(EVE);
    assert!(matches!(world.read(EVE)[..], [Message::JoinOk { .. }, Message::Update { .. }]));
}

#[test]
fn an_update_that_unpacks_to_more_than_a_room_may_take_is_refused_before_it_does() {
    let limits = Limits { room: 1 << 20, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.clear();
    let packed = |peer, len: usize| {
        let doc = doc(peer);
        doc.get_map("m").insert("zeros", vec![0_u8; len]).unwrap();
        doc.commit();
        doc.export(loro::ExportMode::Snapshot).unwrap()
    };
    let bomb = packed(1, 4 << 20);
    assert!(bomb.len() < 100_000, "{}", bomb.len());
    let batch = world.send(ANA, &bomb);
    assert_eq!(world.acks(ANA), [(batch, Status::PayloadTooLarge)]);
    // Many that are not too large each are too much together.
    let statuses: Vec<_> = (2..40)
        .map(|peer| {
            world.send(ANA, &packed(peer, 200_000));
            world.acks(ANA)[0].1
        })
        .collect();
    let taken = statuses.iter().take_while(|status| **status == Status::Ok).count();
    assert!((5..15).contains(&taken), "{statuses:?}");
    assert!(statuses[taken..].iter().all(|status| *status == Status::PayloadTooLarge));
}

/// What an update is like whose checksum is right, though its sender has changed it.
fn sealed(mut update: Vec<u8>) -> Vec<u8> {
    let checksum = xxhash_rust::xxh32::xxh32(&update[20..], u32::from_le_bytes(*b"LORO"));
    update[16..20].copy_from_slice(&checksum.to_le_bytes());
    update
}

/// The next of a fixed row of numbers.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

/// A document with a bit of everything in it, as an update.
fn rich() -> Vec<u8> {
    let doc = doc(9);
    doc.get_text("t").insert(0, "some text").unwrap();
    doc.get_text("t").mark(0..4, "bold", true).unwrap();
    doc.get_map("m").insert("k", 1.5).unwrap();
    doc.get_movable_list("l").push("a").unwrap();
    doc.get_movable_list("l").push("b").unwrap();
    doc.get_movable_list("l").mov(0, 1).unwrap();
    let tree = doc.get_tree("tree");
    let root = tree.create(None).unwrap();
    tree.create(root).unwrap();
    doc.get_text("t").delete(2, 3).unwrap();
    doc.commit();
    doc.export(loro::ExportMode::all_updates()).unwrap()
}

#[test]
fn updates_that_are_changed_and_sealed_again_harm_nobody() {
    let mut world = World::new(Crdt::Loro);
    let (good, mut state) = (rich(), 7);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    for round in 0..3000 {
        let mut bad = good.clone();
        for _ in 0..=next(&mut state) % 3 {
            let at = 20 + next(&mut state) % (bad.len() - 20);
            bad[at] = next(&mut state) as u8;
        }
        world.join(EVE);
        world.clear();
        let batch = world.send(EVE, &sealed(bad));
        let acks = world.acks(EVE);
        assert_eq!(acks.len(), 1, "round {round}");
        assert_eq!(acks[0].0, batch);
    }
    let ana = doc(1);
    world.clear();
    let batch = world.send(ANA, &edit(&ana, "still here"));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    assert_eq!(world.updates(BEN).len(), 1);
}
