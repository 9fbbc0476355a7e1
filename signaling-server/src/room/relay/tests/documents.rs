//! Joining, updates and acknowledgements.

use bytes::Bytes;
use wire::fragment::FRAGMENT;
use wire::sync::{self, Crdt, JoinError, MAX_FRAME, Message, Permission, Status};

use super::world::*;
use crate::room::relay::{Event, Input, Keeping, Limits};

#[test]
fn an_empty_room_says_that_its_version_is_empty_and_sends_nothing() {
    let mut world = World::new(Crdt::Loro);
    assert_eq!(world.joined(ANA, &[0]), (Bytes::from_static(&[0]), vec![]));
}

#[test]
fn a_newcomer_gets_exactly_what_it_lacks() {
    let mut world = World::new(Crdt::Loro);
    let ana = doc(1);
    world.join(ANA);
    world.send(ANA, &edit(&ana, "one"));
    let ben = doc(2);
    let (told, updates) = world.joined(BEN, &[0]);
    import(&ben, &updates);
    assert_eq!((text(&ben), told), ("one".to_owned(), version(&ana).into()));

    world.gone(BEN);
    let missed = edit(&ana, "two");
    world.send(ANA, &missed);
    let (_, updates) = world.joined(BEN, &version(&ben));
    assert_eq!(updates, [missed], "the difference and nothing else");
}

#[test]
fn one_that_is_up_to_date_gets_no_bytes() {
    let mut world = World::new(Crdt::Loro);
    let ana = doc(1);
    world.join(ANA);
    world.send(ANA, &edit(&ana, "one"));
    let (told, updates) = world.joined(BEN, &version(&ana));
    assert_eq!((told, updates.len()), (version(&ana).into(), 0));
    edit(&ana, "not sent yet");
    assert_eq!(world.joined(EVE, &version(&ana)).1.len(), 0, "one that has more needs nothing");
}

#[test]
fn a_version_that_makes_no_sense_gets_everything() {
    let mut world = World::new(Crdt::Loro);
    let ana = doc(1);
    world.join(ANA);
    world.send(ANA, &edit(&ana, "everything"));
    let negative = loro::VersionVector::from_iter([(1, -5), (7, i32::MIN)]).encode();
    for garbage in [&b"garbage"[..], b"", &[0xff; 40], &negative] {
        let ben = doc(2);
        import(&ben, &world.joined(BEN, garbage).1);
        assert_eq!(text(&ben), "everything");
    }
}

#[test]
fn a_large_document_arrives_in_fragments() {
    let mut world = World::new(Crdt::Loro);
    let ana = doc(1);
    world.join(ANA);
    let noise: String = (0..700_000_u32)
        .map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 25) as u8 % 90))
        .collect();
    let batch = world.send(ANA, &edit(&ana, &noise));
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    world.join(BEN);
    let frames = world.frames_of(BEN);
    assert!(frames.len() > 3 && frames.iter().all(|frame| frame.len() <= MAX_FRAME));
    let ben = doc(2);
    import(&ben, &world.joined(EVE, &[0]).1);
    assert_eq!(text(&ben), noise);
}

#[test]
fn an_update_reaches_the_others_as_the_frame_that_it_came_in() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN, EVE].into_iter().for_each(|who| world.join(who));
    world.clear();
    let (_, frames) = world.frames(&edit(&doc(1), "hi"));
    world.frame(ANA, &frames[0]);
    assert_eq!(world.frames_of(BEN), frames);
    assert_eq!(world.frames_of(EVE), frames);
    assert!(world.updates(ANA).is_empty());
}

#[test]
fn fragments_reach_the_others_once_they_are_complete_as_the_frames_that_they_came_in() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let update = edit(&doc(1), "hello");
    let room = world.relay.name().clone();
    let frames: Vec<_> = wire::fragment::Split::new(&room, 7.into(), &update, 20).collect();
    let (last, first) = frames.split_last().unwrap();
    assert!(first.len() > 3);
    first.iter().for_each(|frame| world.frame(ANA, frame));
    assert!(world.frames_of(BEN).is_empty());
    world.frame(ANA, last);
    assert_eq!(world.frames_of(BEN), frames);
    assert_eq!(world.acks(ANA), [(7.into(), Status::Ok)]);
}

#[test]
fn two_senders_may_use_one_batch_id() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN, EVE].into_iter().for_each(|who| world.join(who));
    world.clear();
    let room = world.relay.name().clone();
    let updates = [edit(&doc(1), "from ana"), edit(&doc(2), "from ben")];
    let [ana, ben] =
        updates.map(|update| wire::fragment::Split::new(&room, 7.into(), &update, 20).collect::<Vec<_>>());
    for at in 0..ana.len().max(ben.len()) {
        ana.get(at).into_iter().for_each(|frame| world.frame(ANA, frame));
        ben.get(at).into_iter().for_each(|frame| world.frame(BEN, frame));
    }
    let eve = doc(3);
    import(&eve, &world.updates(EVE));
    assert!(text(&eve).contains("from ana") && text(&eve).contains("from ben"));
    assert_eq!(world.acks(ANA), [(7.into(), Status::Ok)]);
    assert_eq!(world.acks(BEN), [(7.into(), Status::Ok)]);
}

#[test]
fn a_reader_hears_everything_and_says_nothing() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.join_as(EVE, Permission::Read, &[0]);
    let ok = world.read(EVE);
    assert!(matches!(ok[..], [Message::JoinOk { permission: Permission::Read, .. }]), "{ok:?}");
    world.clear();
    world.send(ANA, &edit(&doc(1), "news"));
    assert_eq!(world.updates(EVE).len(), 1);

    let small = world.send(EVE, &edit(&doc(3), "no"));
    let large = world.send(EVE, &vec![0; 3 * FRAGMENT]);
    let denied = Status::PermissionDenied;
    assert_eq!(world.acks(EVE), [(small, denied), (large, denied)]);
    assert!(world.updates(ANA).is_empty());
    assert_eq!(world.store.entries.len(), 1);
}

#[test]
fn joining_again_changes_what_one_may_do() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let ana = doc(1);
    let (batch, frames) = world.frames(&vec![0; 2 * FRAGMENT]);
    frames[..2].iter().for_each(|frame| world.frame(ANA, frame));
    world.clear();
    world.join_as(ANA, Permission::Read, &[0]);
    world.frame(ANA, &frames[2]);
    let refused = world.send(ANA, &edit(&ana, "no"));
    assert_eq!(world.acks(ANA), [(batch, Status::PermissionDenied), (refused, Status::PermissionDenied)]);
    world.join(ANA);
    let taken = world.send(ANA, &edit(&ana, "yes"));
    assert_eq!(world.acks(ANA), [(taken, Status::Ok)]);
}

#[test]
fn what_is_malformed_is_refused_and_reaches_nobody() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let good = edit(&doc(1), "good");
    let mut damaged = good.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for bad in [&b"garbage"[..], b"", &damaged, &good[..good.len() - 1]] {
        let batch = world.send(ANA, bad);
        assert_eq!(world.acks(ANA), [(batch, Status::InvalidUpdate)]);
    }
    assert!(world.frames_of(BEN).is_empty());
    assert!(world.store.entries.is_empty());
    assert_eq!(world.suggestions(ANA), 0, "it would only send it again");
}

#[test]
fn of_a_batch_with_a_bad_update_what_comes_before_it_is_kept_and_passed_on() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    let good = edit(&doc(1), "good");
    let batch = world.send_all(ANA, &[good.clone(), b"bad".to_vec(), good.clone()]);
    assert_eq!(world.acks(ANA), [(batch, Status::InvalidUpdate)]);
    assert_eq!(world.updates(BEN), [&good[..]]);
    assert_eq!(world.store.entries.len(), 1);
    assert_eq!(world.store.entries[0].payload, good);
}

#[test]
fn a_batch_of_several_updates_is_stored_as_one_and_comes_back() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.clear();
    let ana = doc(1);
    let batch = world.send_all(ANA, &[edit(&ana, "one "), edit(&ana, "two")]);
    assert_eq!(world.acks(ANA), [(batch, Status::Ok)]);
    assert_eq!(world.store.entries.len(), 1);
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "one two");
}

#[test]
fn a_batch_of_nothing_is_acknowledged_and_one_of_too_many_is_not() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.clear();
    let none = world.send_all(ANA, &[]);
    let many = world.send_all(ANA, &vec![vec![]; 5000]);
    assert_eq!(world.acks(ANA), [(none, Status::Ok), (many, Status::PayloadTooLarge)]);
}

#[test]
fn an_update_that_is_too_large_is_refused_at_its_header() {
    let limits = Limits { update: 1000, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.clear();
    let (batch, frames) = world.frames(&vec![0; 2 * FRAGMENT]);
    world.frame(ANA, &frames[0]);
    assert_eq!(world.acks(ANA), [(batch, Status::PayloadTooLarge)]);
    frames[1..].iter().for_each(|frame| world.frame(ANA, frame));
    assert!(world.acks(ANA).is_empty(), "that has been said");
    let batch = world.send(ANA, &[0; 1001]);
    assert_eq!(world.acks(ANA), [(batch, Status::PayloadTooLarge)]);
}

#[test]
fn fragments_that_do_not_come_are_given_up_and_their_sender_is_told_to_join_again() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let (batch, frames) = world.frames(&vec![0; 2 * FRAGMENT]);
    world.frame(ANA, &frames[0]);
    world.frame(ANA, &frames[1]);
    world.clear();
    world.wait(ms(9_999));
    assert!(world.frames_of(ANA).is_empty());
    world.wait(ms(1));
    let messages = world.read(ANA);
    let [Message::Ack { batch: late, status: Status::FragmentTimeout }, Message::RoomError { .. }] =
        &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!(*late, batch);
    world.frame(ANA, &frames[2]);
    assert!(world.frames_of(ANA).is_empty());
}

#[test]
fn a_client_that_did_not_get_all_fragments_in_time_is_told_to_join_again() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.clear();
    let ack = sync::ack(world.relay.name(), 1.into(), Status::FragmentTimeout);
    world.frame(ANA, &ack);
    world.frame(EVE, &ack);
    assert_eq!((world.suggestions(ANA), world.frames_of(EVE).len()), (1, 0));
}

#[test]
fn who_is_not_in_the_room_is_refused_and_hears_nothing() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let outside = world.send(EVE, &edit(&doc(3), "hi"));
    assert_eq!(world.acks(EVE), [(outside, Status::PermissionDenied)]);

    [BEN, EVE].into_iter().for_each(|who| world.join(who));
    let leave = sync::leave(world.relay.name());
    world.frame(EVE, &leave);
    world.gone(BEN);
    world.clear();
    world.send(ANA, &edit(&doc(1), "hi"));
    assert!(world.frames_of(EVE).is_empty() && world.frames_of(BEN).is_empty());
    let late = world.send(EVE, &edit(&doc(3), "hi"));
    assert_eq!(world.acks(EVE), [(late, Status::PermissionDenied)]);
    assert_eq!(world.relay.members(), 1);
}

#[test]
fn an_update_that_waits_for_others_is_kept_relayed_and_counted() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    let ana = doc(1);
    let first = edit(&ana, "first ");
    let second = edit(&ana, "second");
    world.clear();
    let batch = world.send(ANA, &second);
    let messages = world.read(ANA);
    assert!(messages.contains(&Message::Ack { batch, status: Status::Ok }));
    assert!(
        messages.iter().any(|message| matches!(message, Message::RoomError { .. })),
        "it has what is missing"
    );
    assert_eq!(world.updates(BEN), [&second[..]]);
    assert_eq!(world.events, [Event::Pending]);
    assert_eq!(world.store.entries.len(), 1);

    // It is in no version, and yet nobody who joins before the rest has come may miss it.
    let eve = doc(3);
    let (told, updates) = world.joined(EVE, &[0]);
    assert_eq!(told, [0][..]);
    import(&eve, &updates);
    world.send(ANA, &first);
    import(&eve, &world.updates(EVE));
    assert_eq!(text(&eve), "first second");

    // Nor does it get lost in the log.
    let mut world = world.restarted(Keeping::Imported, Limits::default());
    let ben = doc(2);
    import(&ben, &world.joined(BEN, &[0]).1);
    assert_eq!(text(&ben), "first second");
}

#[test]
fn a_member_is_told_to_join_again_at_most_once_a_second_and_not_forgotten() {
    let mut world = World::new(Crdt::Loro);
    [ANA, BEN].into_iter().for_each(|who| world.join(who));
    world.clear();
    for batch in 0..100 {
        world.tell(Input::TooFast { from: ANA, batch: batch.into() });
    }
    let messages = world.read(ANA);
    let errors = messages.iter().filter(|message| matches!(message, Message::RoomError { .. })).count();
    assert_eq!((messages.len(), errors), (101, 1));
    assert_eq!(world.relay.deadline(), Some(world.now + ms(1000)));
    world.wait(ms(999));
    assert_eq!(world.suggestions(ANA), 0);
    world.wait(ms(1));
    assert_eq!(world.suggestions(ANA), 1);
    world.wait(ms(5000));
    assert_eq!(world.suggestions(ANA), 0, "once is enough");
    world.tell(Input::TooFast { from: BEN, batch: 1.into() });
    assert_eq!(world.suggestions(BEN), 1, "each member by itself");
    assert_eq!(world.relay.deadline(), None);
}

#[test]
fn while_the_document_is_away_joins_and_updates_wait_their_turn() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.slow_work = true;
    world.clear();
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "one "));
    world.join(BEN);
    world.send(ANA, &edit(&ana, "two"));
    assert!(world.frames_of(BEN).is_empty());
    world.work();
    let ben = doc(2);
    let messages = world.read(BEN);
    assert!(matches!(messages[0], Message::JoinOk { .. }));
    for message in &messages[1..] {
        let Message::Update { updates, .. } = message else { panic!("{message:?}") };
        import(&ben, &updates.iter().collect::<Vec<_>>());
    }
    assert_eq!((messages.len(), text(&ben).as_str()), (3, "one two"));
}

#[test]
fn who_asks_again_and_again_while_it_waits_is_answered_once() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "one "));
    world.slow_work = true;
    world.send(ANA, &edit(&ana, "two"));
    for _ in 0..5000 {
        world.join(BEN);
    }
    world.join_as(BEN, Permission::Write, &version(&ana));
    world.slow_work = false;
    world.work();
    let messages = world.read(BEN);
    assert!(matches!(messages[..], [Message::JoinOk { .. }]), "{messages:?}");
}

#[test]
fn what_waits_for_the_room_is_bounded() {
    let limits = Limits { queue: 3, queued: 1000, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.slow_work = true;
    world.clear();
    let ana = doc(1);
    world.send(ANA, &edit(&ana, "away with the document"));
    let wide = world.send(ANA, &[0; 1001]);
    assert_eq!(world.acks(ANA), [(wide, Status::RateLimited)]);
    let fits: Vec<_> = (0..3).map(|_| world.send(ANA, &edit(&ana, "x"))).collect();
    let long = world.send(ANA, &edit(&ana, "x"));
    assert_eq!(world.acks(ANA), [(long, Status::RateLimited)]);
    world.join(BEN);
    let turned_away = world.read(BEN);
    let [Message::JoinError { error: JoinError::App { code: Some(code) }, .. }] = &turned_away[..] else {
        panic!("{turned_away:?}");
    };
    assert_eq!(code, "room_busy");
    world.work();
    world.work();
    let acks: Vec<_> = world.acks(ANA).into_iter().map(|(batch, _)| batch).collect();
    assert!(fits.iter().all(|batch| acks.contains(batch)));
    world.wait(ms(2000));
    world.slow_work = false;
    world.clear();
    let after = world.send(ANA, &edit(&ana, "x"));
    assert_eq!(world.acks(ANA), [(after, Status::Ok)], "room is made again");
}

#[test]
fn a_full_room_turns_the_next_one_away() {
    let limits = Limits { members: 1, ..Limits::default() };
    let mut world = World::with(Crdt::Loro, Keeping::Imported, limits);
    world.join(ANA);
    world.join(BEN);
    assert!(matches!(world.read(BEN)[..], [Message::JoinError { .. }]));
    world.clear();
    world.join(ANA);
    assert!(matches!(world.read(ANA)[..], [Message::JoinOk { .. }]), "who is in stays in");
}

#[test]
fn a_room_may_be_dropped_once_nobody_is_in_it_and_nothing_is_under_way() {
    let mut world = World::new(Crdt::Loro);
    world.join(ANA);
    world.store.held = true;
    world.send(ANA, &edit(&doc(1), "x"));
    world.gone(ANA);
    assert!(!world.relay.is_idle());
    world.store.held = false;
    world.tell(Input::Tick);
    assert!(world.relay.is_idle());
}
