//! Clients that lose their connection and come back with the presence that they had.

use bytes::Bytes;
use wire::sync::{Crdt, Status};

use super::presence::*;
use super::world::*;
use crate::room::ConnectionId;
use crate::room::relay::{Keeping, Limits};

/// An update that deletes a key, as a client whose clock shows this would send it.
fn deleted(key: &str, stamp: u64) -> Vec<u8> {
    entry(key, &[0], stamp)
}

/// The connections on which clients come back.
const BACK: [ConnectionId; 3] = [ConnectionId(11), ConnectionId(12), ConnectionId(13)];

#[test]
fn who_comes_back_with_the_store_it_had_is_seen_again_at_once_by_all_and_by_itself() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &stamped("ana", 1000));
    let (ana, watching) = (seen(&[stamped("ana", 1000).into()]), seen(&world.updates(BEN)));
    let mut before = ANA;
    for back in BACK {
        world.gone(before);
        apply(&mut world, BEN, &watching);
        assert!(watching.keys().is_empty());

        world.clear();
        world.join_again(back, ANA);
        assert_eq!(world.updates(back), [] as [Bytes; 0], "it is not told that it is gone");
        // Again what others have set is in it too.
        world.send(back, &ana.encode_all());
        apply(&mut world, BEN, &watching);
        assert_eq!(watching.keys(), ["ana"]);
        let told = world.updates(back);
        assert_eq!(told.len(), 1);
        told.iter().for_each(|update| ana.apply(update).unwrap());
        assert_eq!(ana.keys(), ["ana"]);
        world.join(EVE);
        assert_eq!(seen(&world.updates(EVE)).keys(), ["ana"], "newcomers see it too");
        before = back;
    }
    world.send(before, &stamped("ana", 2000));
    assert_eq!(world.updates(EVE), [stamped("ana", 2000)], "and what it sets then is newer");
    world.gone(before);
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty());
}

#[test]
fn who_is_gone_is_brought_back_by_nobody_else_and_not_for_ever() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    // As another tab of the same author would do that has just joined.
    world.join_again(EVE, ANA);
    world.send(ANA, &stamped("ana", 1000));
    let watching = seen(&world.updates(BEN));
    world.gone(ANA);
    world.send(EVE, &stamped("ana", 1000));
    world.gone(BEN);
    world.join(BEN);
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty(), "who was away is told");
    world.send(BEN, &stamped("ana", 1000));
    world.wait(ms(30_001));
    world.join_again(BACK[1], ANA);
    apply(&mut world, BACK[1], &watching);
    world.send(BACK[1], &stamped("ana", 1000));
    assert!(seen(&world.joined(BACK[2], &[]).1).keys().is_empty());
}

#[test]
fn what_its_author_has_deleted_or_set_anew_is_not_brought_back() {
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &stamped("ana", 1000));
    world.send(ANA, &deleted("ana", 1500));
    world.gone(ANA);
    world.join_again(BACK[0], ANA);
    world.send(BACK[0], &stamped("ana", 1000));
    assert!(seen(&world.joined(EVE, &[]).1).keys().is_empty());

    world.send(BEN, &stamped("ben", 2000));
    world.gone(BEN);
    world.join_again(BACK[1], BEN);
    world.send(BACK[1], &stamped("ben", 1000));
    assert!(seen(&world.joined(EVE, &[]).1).keys().is_empty(), "that was not what left");
}

#[test]
fn two_of_one_author_who_went_and_came_back_together_leave_with_the_last_of_them() {
    let mut world = World::new(Crdt::Ephemeral);
    world.join(BEN);
    [ANA, EVE].into_iter().for_each(|who| world.join_again(who, ANA));
    world.send(ANA, &stamped("ana", 1000));
    world.send(EVE, &stamped("eve", 1000));
    let both = seen(&[stamped("ana", 1000).into(), stamped("eve", 1000).into()]).encode_all();
    [ANA, EVE].into_iter().for_each(|who| world.gone(who));
    [BACK[0], BACK[1]].into_iter().for_each(|who| world.join_again(who, ANA));
    for back in [BACK[0], BACK[1]] {
        world.send(back, &both);
    }
    assert_eq!(seen(&world.updates(BEN)).keys().len(), 2);
    world.gone(BACK[0]);
    assert!(world.updates(BEN).is_empty(), "nobody takes Eve away from herself");
    world.send(BACK[1], &stamped("eve", 2000));
    world.gone(BACK[1]);
    assert!(seen(&world.joined(BACK[2], &[]).1).keys().is_empty());
}

#[test]
fn an_entry_at_the_end_of_time_leaves_and_is_told_of_by_everybody() {
    let latest = (1 << 53) - 2;
    let mut world = World::new(Crdt::Ephemeral);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(EVE, &stamped("eve", latest));
    world.join(EVE);
    world.send(EVE, &stamped("eve", latest));
    let ben = seen(&world.updates(BEN));
    world.gone(EVE);
    apply(&mut world, BEN, &ben);
    ben.set("ben", "here");
    // What Ben knows holds the deletion, and is still taken.
    let batch = world.send(BEN, &ben.encode_all());
    assert_eq!(world.acks(BEN), [(batch, Status::Ok)]);
    world.join_again(BACK[0], EVE);
    world.send(BACK[0], &stamped("eve", latest));
    assert_eq!(
        seen(&world.joined(ANA, &[]).1).keys(),
        ["ben"],
        "there is no later stamp to bring it back with"
    );
}

#[test]
fn who_joins_within_the_grace_and_speaks_after_it_is_seen_again() {
    let limits = Limits { grace: ms(2000), ..Limits::default() };
    let mut world = World::with(Crdt::Ephemeral, Keeping::Imported, limits);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.send(ANA, &stamped("ana", 1000));
    let watching = seen(&world.updates(BEN));
    world.gone(ANA);
    world.wait(ms(1999));
    world.join_again(BACK[0], ANA);
    world.wait(ms(1));
    apply(&mut world, BEN, &watching);
    assert!(watching.keys().is_empty());
    world.send(BACK[0], &stamped("ana", 1000));
    apply(&mut world, BEN, &watching);
    assert_eq!(watching.keys(), ["ana"]);
}
