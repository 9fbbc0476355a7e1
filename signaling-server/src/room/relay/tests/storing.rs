//! The store: what is acknowledged when, and what happens when it fails.

use bytes::Bytes;
use wire::sync::{Crdt, JoinError, Message, Status};

use super::world::*;
use crate::room::relay::{
    Event, Generation, Input, Keeping, Limits, Logged, ONE, Seq, Stored, WriteError, parcel,
};

fn three() -> World {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN, EVE].into_iter().for_each(|who| world.join(who));
    world.clear();
    world
}

#[test]
fn a_room_is_loaded_when_the_first_one_joins_and_once() {
    let mut world = World::new(Crdt::Loro);
    world.tell(Input::Tick);
    assert_eq!(world.store.loads, 0);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    assert_eq!(world.store.loads, 1);
}

#[test]
fn an_update_is_relayed_before_and_acked_after_it_is_stored() {
    let mut world = three();
    world.store.held = true;
    let batch = world.send(ANA, &edit(&doc(1), "hi"));
    assert_eq!(world.updates(BEN).len(), 1);
    assert!(world.acks(ANA).is_empty());
    world.store.held = false;
    world.tell(Input::Tick);
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
}

#[test]
fn the_log_knows_who_sent_what() {
    let mut world = three();
    let update = edit(&doc(2), "hi");
    let batch = world.send(BEN, &update);
    let entry = &world.store.entries[0];
    assert_eq!((&*entry.author.0, entry.batch, &entry.payload[..]), ("user 2", batch, &update[..]));
}

#[test]
fn after_a_restart_everything_acknowledged_is_there() {
    let mut world = three();
    let ana = doc(1);
    for word in ["one ", "two ", "three"] {
        world.send(ANA, &edit(&ana, word));
    }
    assert_eq!(world.acks(ANA).len(), 3);
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let ben = doc(2);
    let (told, updates) = world.joined(BEN, &[0]);
    import(&ben, &updates);
    assert_eq!((text(&ben).as_str(), told), ("one two three", version(&ana).into()));
}

#[test]
fn after_a_failed_append_nothing_is_acknowledged_until_a_whole_snapshot_is_stored() {
    let mut world = three();
    let ana = doc(1);
    world.store.held = true;
    let lost = world.send(ANA, &edit(&ana, "lost "));
    let after = world.send(ANA, &edit(&ana, "built on it "));
    world.store.broken = Some(WriteError::Failed);
    world.store.held = false;
    world.tell(Input::Tick);
    assert_eq!(world.acks(ANA), [(lost, Status::Unknown), (after, Status::Unknown)]);
    assert_eq!(world.events, [Event::GapOpened]);

    // Whatever comes now is refused, and nobody hears it.
    world.clear();
    let refused = world.send(BEN, &edit(&doc(2), "no "));
    assert_eq!(world.read(BEN), [Message::Ack { batch: refused, status: Status::Unknown }]);
    assert!(world.frames_of(EVE).is_empty());

    // The disk works again, but the log lacks something: only a snapshot helps.
    world.store.broken = None;
    assert_eq!(world.relay.deadline(), Some(world.now + ms(1000)));
    world.wait(ms(1000));
    assert_eq!(world.store.snapshots, 1);
    assert_eq!(world.events, [Event::GapOpened, Event::GapClosed]);
    assert_eq!((world.suggestions(ANA), world.suggestions(BEN), world.suggestions(EVE)), (1, 1, 0));

    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let eve = doc(3);
    import(&eve, &world.joined(EVE, &[0]).1);
    assert_eq!(text(&eve), "lost built on it ");
}

#[test]
fn a_batch_that_is_stored_behind_one_that_is_not_waits_for_the_snapshot() {
    let mut world = three();
    let ana = doc(1);
    world.store.held = true;
    let lost = world.send(ANA, &edit(&ana, "lost "));
    let stored = world.send(ANA, &edit(&ana, "stored"));
    world.store.broken = Some(WriteError::Full);
    world.store.held = false;
    // The first is refused and the second is not.
    world.store.fail_once = true;
    world.tell(Input::Tick);
    assert_eq!(world.acks(ANA), [(lost, Status::PayloadTooLarge)]);
    world.wait(ms(1000));
    assert_eq!(world.acks(ANA), [(stored, Status::Ok)]);
}

#[test]
fn the_store_is_tried_again_ever_more_slowly() {
    let mut world = three();
    world.store.broken = Some(WriteError::Failed);
    world.send(ANA, &edit(&doc(1), "x"));
    let mut delays = Vec::new();
    for _ in 0..8 {
        let deadline = world.relay.deadline().unwrap();
        delays.push((deadline - world.now).as_secs());
        world.wait(deadline - world.now);
    }
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 30]);
}

#[test]
fn a_long_log_becomes_a_snapshot_with_what_waits_in_it() {
    let limits = Limits { compact_after: 2000, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    let (ana, ben) = (doc(1), doc(2));
    let missing = edit(&ben, "first ");
    world.send(ANA, &edit(&ben, "second "));
    while world.store.snapshots == 0 {
        world.send(ANA, &edit(&ana, "word "));
    }
    assert!(world.store.stored.log.len() <= 1, "{}", world.store.stored.log.len());
    let mut world = world.restarted(Keeping::Imported, limits);
    world.join(ANA);
    world.send(ANA, &missing);
    let eve = doc(3);
    import(&eve, &world.joined(EVE, &[0]).1);
    ana.import(&ben.export(loro::ExportMode::all_updates()).unwrap()).unwrap();
    assert_eq!(text(&eve), text(&ana));
}

#[test]
fn a_snapshot_that_cannot_be_stored_costs_nothing_and_is_not_tried_at_every_update() {
    let limits = Limits { compact_after: 1000, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.clear();
    world.store.no_snapshots = true;
    let ana = doc(1);
    let mut sent = 0;
    while world.store.stored.sizes().1 < 20_000 {
        world.send(ANA, &edit(&ana, "word "));
        sent += 1;
    }
    assert_eq!(world.acks(ANA).iter().filter(|(_, status)| *status == Status::Ok).count(), sent);
    assert!((2..8).contains(&world.store.refused), "{}", world.store.refused);
    assert!(world.events.is_empty());
}

#[test]
fn a_room_that_cannot_be_loaded_says_why_writes_nothing_and_can_be_tried_again() {
    let mut world = three();
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "precious"));
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let stored = world.store.stored.clone();
    world.store.unreadable = Some("a row is damaged".to_owned());
    world.join(ANA);
    let messages = world.read(ANA);
    let [Message::JoinError { error: JoinError::App { .. }, message }] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(message, "a row is damaged");
    assert_eq!(world.events, [Event::Unreadable("a row is damaged".to_owned())]);
    let outside = world.send(ANA, &edit(&ana, "x"));
    assert_eq!(world.acks(ANA), [(outside, Status::PermissionDenied)]);
    assert_eq!(world.store.stored, stored);
    assert!(world.relay.is_idle());

    world.store.unreadable = None;
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "precious");
}

#[test]
fn a_log_or_snapshot_that_cannot_be_imported_is_not_loaded() {
    let mut world = three();
    world.send(ANA, &edit(&doc(1), "precious"));
    let good = world.restarted(Keeping::Imported, Limits::default());
    let mut damaged = good.store.stored.clone();
    damaged.log[0].payload = b"damaged".as_slice().into();
    let mut kind = good.store.stored.clone();
    kind.log[0].kind = 9;
    let mut snapshot = good.store.stored.clone();
    snapshot.snapshot = Some(b"damaged".as_slice().into());
    for stored in [damaged, kind, snapshot] {
        let mut world = World::new(Crdt::Loro);
        world.store.stored = stored.clone();
        world.join(ANA);
        assert!(matches!(world.read(ANA)[..], [Message::JoinError { .. }]));
        assert!(matches!(world.events[..], [Event::Unreadable(_)]));
        assert_eq!(world.store.stored, stored);
    }
}

#[test]
fn when_somebody_else_has_changed_what_is_stored_the_room_loads_it_again() {
    let mut world = three();
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "one "));
    world.store.stored.generation = Some(Generation(2));
    world.store.stored.log.clear();
    world.clear();
    let batch = world.send(ANA, &edit(&ana, "two "));
    let messages = world.read(ANA);
    assert!(messages.contains(&Message::Ack { batch, status: Status::Ok }), "it is in the new log");
    assert_eq!(world.store.loads, 2);
    assert_eq!(world.suggestions(BEN), 1);
    let (told, _) = world.joined(ANA, &version(&ana));
    assert_eq!(told, [0][..], "the first word is gone, so the second one waits for it");
}

#[test]
fn what_somebody_else_has_stored_of_a_room_that_was_empty_is_not_lost() {
    let ana = doc(1);
    edit(&ana, "imported ");
    let update = Bytes::from(ana.export(loro::ExportMode::all_updates()).unwrap());
    let whole = Stored { snapshot: Some(parcel::pack(std::slice::from_ref(&update))), ..Stored::default() };
    let logged = Logged { seq: Seq(1), kind: ONE, payload: update };
    let log = Stored { log: vec![logged], ..Stored::default() };
    for stored in [whole, log] {
        let mut world = three();
        assert_eq!(world.store.loads, 1);
        world.store.put(Stored { generation: Some(Generation(7)), ..stored });
        let ben = doc(2);
        let batch = world.send(BEN, &edit(&ben, "new"));
        assert_eq!((world.acks(BEN), world.store.loads), (vec![(batch, Status::Ok)], 2));
        let eve = doc(3);
        import(&eve, &world.joined(EVE, &[0]).1);
        ben.import(&ana.export(loro::ExportMode::all_updates()).unwrap()).unwrap();
        assert_eq!(text(&eve), text(&ben));
    }
}

#[test]
fn a_room_that_could_not_be_read_keeps_nothing_of_what_it_has_read() {
    let mut world = three();
    world.send(ANA, &edit(&doc(1), "deleted since"));
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let damaged = Logged { seq: Seq(2), kind: ONE, payload: b"damaged".as_slice().into() };
    world.store.stored.log.push(damaged);
    world.join(ANA);
    assert!(matches!(world.read(ANA)[..], [Message::JoinError { .. }]));
    world.store.put(Stored::default());
    assert_eq!(world.joined(ANA, &[0]), (vec![0].into(), vec![]));
}

#[test]
fn a_room_that_nobody_is_in_leaves_memory_although_the_store_does_not_keep_it() {
    let mut world = three();
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "kept"));
    world.store.broken = Some(WriteError::Full);
    world.store.held = true;
    world.send(ANA, &edit(&ana, "refused"));
    [ANA, BEN, EVE].into_iter().for_each(|who| world.gone(who));
    assert!(!world.relay.is_idle(), "the store has not answered");
    world.store.held = false;
    world.tell(Input::Tick);
    assert!(world.relay.is_idle());
    world.join(BEN);
    assert!(!world.relay.is_idle());
}

#[test]
fn a_room_that_is_almost_full_of_small_updates_becomes_a_snapshot_in_time() {
    let limits = Limits { room: 20_000, compact_after: 500, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    let ana = doc(1);
    let noise: Vec<u8> = (0..12_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    ana.get_map("m").insert("blob", noise).unwrap();
    ana.commit();
    world.send(ANA, &ana.export(loro::ExportMode::all_updates()).unwrap());
    for _ in 0..400 {
        world.send(ANA, &edit(&ana, "word "));
    }
    assert!(world.acks(ANA).iter().all(|(_, status)| *status == Status::Ok));
    assert!((3..40).contains(&world.store.snapshots), "{}", world.store.snapshots);
}

#[test]
fn a_room_that_is_full_takes_no_more() {
    let limits = Limits { room: 500, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.clear();
    let ana = doc(1);
    let sizes = |world: &World| world.store.stored.sizes().1;
    let statuses: Vec<_> = (0..20)
        .map(|_| {
            world.send(ANA, &edit(&ana, "x"));
            world.acks(ANA)[0].1
        })
        .collect();
    let taken = statuses.iter().take_while(|status| **status == Status::Ok).count();
    assert!(taken > 0 && statuses[taken..].iter().all(|status| *status == Status::PayloadTooLarge));
    assert!(sizes(&world) <= 500);
}
