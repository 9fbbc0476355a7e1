//! `%EPH` and `%EPS`.

use bytes::Bytes;
use loro::awareness::EphemeralStore;
use wire::sync::{self, Crdt, Message, Status};

use super::world::*;
use crate::room::relay::{Input, Keeping, Limits};

/// Longer than any test: these stores do not expire what they are told.
const TIMEOUT: i64 = 1 << 60;

fn store() -> EphemeralStore {
    EphemeralStore::new(TIMEOUT)
}

fn set(store: &EphemeralStore, key: &str, value: &str) -> Vec<u8> {
    store.set(key, value);
    store.encode(key)
}

/// A store with what has come.
pub(super) fn seen(updates: &[Bytes]) -> EphemeralStore {
    let store = store();
    updates.iter().for_each(|update| store.apply(update).unwrap());
    store
}

pub(super) fn apply(world: &mut World, who: crate::room::ConnectionId, store: &EphemeralStore) {
    world.updates(who).iter().for_each(|update| store.apply(update).unwrap());
}

/// An update of one key, as a client whose clock shows this would send it.
pub(super) fn stamped(key: &str, stamp: u64) -> Vec<u8> {
    entry(key, &[1, 0], stamp)
}

pub(super) fn entry(key: &str, value: &[u8], stamp: u64) -> Vec<u8> {
    let mut out = vec![1, key.len() as u8];
    out.extend(key.as_bytes());
    out.extend(value);
    let mut rest = stamp << 1;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

#[test]
fn a_newcomer_gets_the_present_state_at_once_and_acks_need_no_store() {
    let mut world = World::new(Crdt::Ephemeral);
    world.join(ANA);
    let batch = world.send(ANA, &stamped("ana", 1000));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    world.send(ANA, &stamped("ana", 1001));
    let (version, updates) = world.joined(BEN, &[]);
    assert!(version.is_empty());
    assert_eq!(updates, [stamped("ana", 1001)], "the very bytes");
    assert!(world.store.entries.is_empty());
}

#[test]
fn presence_is_relayed_as_the_frame_that_it_came_in() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let (_, frames) = world.frames(&set(&store(), "ana", "here"));
    world.frame(ANA, &frames[0]);
    assert_eq!(world.frames_of(BEN), frames);
}

#[test]
fn what_a_connection_announced_leaves_as_it_ends() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    let ana = store();
    world.send(ANA, &set(&ana, "cursor", "3"));
    world.send(ANA, &set(&ana, "name", "Ana"));
    world.send(BEN, &set(&store(), "ben", "here"));
    let watching = store();
    apply(&mut world, BEN, &watching);
    assert_eq!(watching.keys().len(), 2);
    world.gone(ANA);
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty());
    let (_, updates) = world.joined(EVE, &[]);
    assert_eq!(seen(&updates).keys(), ["ben"], "no ghost for newcomers either");
    // One that was away meanwhile still has her, and is told.
    let away = store();
    away.apply(&ana.encode_all()).unwrap();
    updates.iter().for_each(|update| away.apply(update).unwrap());
    assert_eq!(away.keys(), ["ben"]);
}

#[test]
fn what_a_connection_announced_leaves_when_it_says_so() {
    let limits = Limits { grace: ms(5000), ..Limits::default() };
    let mut world = World::with(Crdt::Ephemeral, Keeping::Imported, limits);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &set(&store(), "ana", "here"));
    let watching = seen(&world.updates(BEN));
    let leave = sync::leave(world.relay.name());
    world.frame(ANA, &leave);
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty());
}

#[test]
fn a_key_that_another_connection_has_taken_over_stays() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN, EVE].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &stamped("user 1", 1000));
    world.send(EVE, &stamped("user 1", 2000));
    world.clear();
    world.gone(ANA);
    assert!(world.frames_of(BEN).is_empty());
    world.gone(EVE);
    assert_eq!(world.updates(BEN).len(), 1);
}

#[test]
fn repeating_what_somebody_else_announced_does_not_make_it_ones_own() {
    let mut world = World::new(Crdt::Ephemeral);
    world.join(ANA);
    let ana = store();
    world.send(ANA, &set(&ana, "ana", "here"));
    // As clients do when they join: everything that they have just heard goes back.
    let ben = seen(&world.joined(BEN, &[]).1);
    world.send(BEN, &ben.encode_all());
    world.gone(BEN);
    apply(&mut world, ANA, &ana);
    assert_eq!(ana.keys(), ["ana"], "she is still here");
    world.join(EVE);
    world.send(EVE, &ben.encode_all());
    world.gone(ANA);
    world.updates(EVE).iter().for_each(|update| ben.apply(update).unwrap());
    assert!(ben.keys().is_empty(), "and now she is not, though others have repeated her");
}

#[test]
fn after_a_restart_what_two_clients_remember_of_each_other_leaves_with_the_last_of_them() {
    let mut world = World::new(Crdt::Ephemeral);
    let both = store();
    set(&both, "ana", "here");
    set(&both, "ben", "here");
    for who in [ANA, BEN, EVE] {
        world.join(who);
    }
    world.send(ANA, &both.encode_all());
    world.send(BEN, &both.encode_all());
    world.clear();
    world.gone(ANA);
    assert!(world.frames_of(BEN).is_empty(), "nobody takes Ben away from himself");
    world.gone(BEN);
    assert_eq!(world.updates(EVE).len(), 1);
}

#[test]
fn a_server_that_stops_takes_nobody_away_from_the_others() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &set(&store(), "ana", "here"));
    world.clear();
    world.tell(Input::Drained { who: ANA });
    assert!(world.frames_of(BEN).is_empty());
    assert_eq!(world.relay.members(), 1);
}

#[test]
fn with_a_grace_period_a_client_that_comes_back_in_time_was_never_away() {
    let limits = Limits { grace: ms(5000), ..Limits::default() };
    let mut world = World::with(Crdt::Ephemeral, Keeping::Imported, limits);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    let ana = store();
    world.send(ANA, &set(&ana, "ana", "here"));
    let watching = seen(&world.updates(BEN));

    world.gone(ANA);
    assert_eq!(world.relay.deadline(), Some(world.now + ms(5000)));
    world.wait(ms(3000));
    let back = crate::room::ConnectionId(11);
    world.join(back);
    world.send(back, &ana.encode_all());
    world.wait(ms(3000));
    apply(&mut world, BEN, &watching);
    assert_eq!(watching.keys(), ["ana"]);

    world.gone(back);
    world.wait(ms(4999));
    assert!(world.updates(BEN).is_empty());
    assert!(seen(&world.joined(EVE, &[]).1).keys().is_empty(), "who comes now does not take her up");
    world.wait(ms(1));
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty());
    assert_eq!(world.relay.deadline(), None);
}

#[test]
fn a_client_whose_clock_is_slow_is_seen_by_members_and_newcomers_alike() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(BEN, &set(&store(), "ben", "here"));
    world.clear();
    let long_ago = 1_000_000;
    world.send(ANA, &stamped("slow", long_ago));
    assert_eq!(world.updates(BEN), [stamped("slow", long_ago)]);
    let mut keys = seen(&world.joined(EVE, &[]).1).keys();
    keys.sort();
    assert_eq!(keys, ["ben", "slow"]);
}

#[test]
fn an_older_entry_never_takes_the_place_of_a_newer_one() {
    let mut world = World::new(Crdt::Ephemeral);
    world.join(ANA);
    world.send(ANA, &stamped("k", 2000));
    world.send(ANA, &stamped("k", 1999));
    assert_eq!(world.joined(BEN, &[]).1, [stamped("k", 2000)]);
}

#[test]
fn what_is_no_presence_is_refused_and_reaches_nobody() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let batch = world.send(ANA, b"garbage");
    assert_eq!(world.acks(ANA), [(batch, Status::InvalidUpdate)]);
    // Nothing is fine, and not worth telling anybody.
    for nothing in [&[][..], &[0]] {
        let batch = world.send(ANA, nothing);
        assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    }
    assert!(world.frames_of(BEN).is_empty());
}

#[test]
fn oversized_presence_is_refused_and_room_is_made_from_deleted_keys() {
    let limits = Limits { presence: 2000, ..Limits::default() };
    let mut world = World::with(Crdt::Ephemeral, Keeping::Imported, limits);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let ana = store();
    let batch = world.send(ANA, &set(&ana, "large", &"x".repeat(2000)));
    assert_eq!(world.acks(ANA), [(batch, Status::PayloadTooLarge)]);
    assert!(world.frames_of(BEN).is_empty());
    for key in 0..20 {
        world.send(ANA, &stamped(&format!("key {key}"), 1000));
    }
    let refused = world.acks(ANA).iter().filter(|(_, status)| *status == Status::PayloadTooLarge).count();
    assert!(refused > 0);
    world.gone(ANA);
    world.clear();
    let batch = world.send(BEN, &set(&store(), "ben", &"x".repeat(1500)));
    assert_eq!(world.acks(BEN), [(batch, Status::Ok)]);
}

#[test]
fn persisted_presence_is_acked_once_stored_outlives_its_author_and_a_restart() {
    let limits = Limits { compact_after: 200, ..Limits::default() };
    let mut world = World::with(Crdt::PersistedEphemeral, Keeping::Imported, limits);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let ana = store();
    world.store.held = true;
    let batch = world.send(ANA, &set(&ana, "ana", "here"));
    assert!(world.acks(ANA).is_empty());
    assert_eq!(world.updates(BEN).len(), 1);
    world.store.held = false;
    world.tell(Input::Tick);
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    world.gone(ANA);
    assert!(world.frames_of(BEN).is_empty());
    for n in 0..50 {
        world.send(BEN, &stamped("ben", 1000 + n));
    }
    assert!(world.store.snapshots > 0 && world.store.stored.log.len() < 20);

    let mut world = world.restarted(Keeping::Imported, limits);
    let mut keys = seen(&world.joined(EVE, &[]).1).keys();
    keys.sort();
    assert_eq!(keys, ["ana", "ben"]);
}

#[test]
fn a_reader_may_not_announce_itself() {
    let mut world = World::new(Crdt::Ephemeral);
    world.join_as(EVE, sync::Permission::Read, &[]);
    world.clear();
    let batch = world.send(EVE, &stamped("eve", 1));
    assert_eq!(world.read(EVE), [Message::Ack { batch, status: Status::PermissionDenied }]);
}
