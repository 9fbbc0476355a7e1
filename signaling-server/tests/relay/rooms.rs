//! What members of a room can rely on.

use std::time::Duration;

use loro::VersionVector;
use signaling_server::config::{Config, Period, RelayMode};
use wire::fragment::FRAGMENT;
use wire::id::BatchId;
use wire::sync::{Crdt, FragmentHeader, JoinError, Message, Permission, RoomErrorCode, Status};

use super::peer::{Peer, room};
use super::support::{Client, TestServer};

pub(crate) fn in_memory(config: &mut Config) {
    config.relay.mode = RelayMode::Memory;
}

#[tokio::test]
async fn an_edit_reaches_the_others_and_is_acknowledged_to_its_author() {
    let server = TestServer::with(in_memory).await;
    let (mut ana, mut ben) = (Peer::joined(&server, "plan").await, Peer::joined(&server, "plan").await);
    ana.edit_acked("title", "from ana").await;
    ben.until(|ben| ben.note("title").as_deref() == Some("from ana")).await;
    ben.edit_acked("title", "from ben").await;
    ana.until(|ana| ana.note("title").as_deref() == Some("from ben")).await;
    ana.settle().await;
    assert_eq!(ana.updates.len(), 1, "nobody hears what they said themselves");
}

#[tokio::test]
async fn a_joiner_gets_exactly_what_it_lacks() {
    let server = TestServer::with(in_memory).await;
    let mut ana = Peer::joined(&server, "plan").await;
    ana.edit_acked("a", &"x".repeat(5_000)).await;
    let mut ben = Peer::joined(&server, "plan").await;
    ben.until(|ben| ben.note("a").is_some()).await;
    assert!(ben.received > 5_000);
    ana.edit_acked("b", "y").await;
    let mut eve = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    eve.doc.import(&ben.doc.export(loro::ExportMode::all_updates()).unwrap()).unwrap();
    drop(ana);
    eve.enter().await;
    eve.until(|eve| eve.note("b").is_some()).await;
    assert!(eve.received < 500, "{}", eve.received);
    let before = eve.received;
    let Message::JoinOk { version, .. } = eve.join(b"").await else { panic!() };
    assert_eq!(VersionVector::decode(&version).unwrap(), eve.doc.oplog_vv());
    eve.settle().await;
    assert_eq!(eve.updates.len(), 1, "up to date means no update");
    assert!(eve.received - before < 100);
}

#[tokio::test]
async fn the_same_name_under_another_type_is_another_room_on_the_same_connection_as_topics() {
    let server = TestServer::with(in_memory).await;
    let mut ana = Peer::joined(&server, "plan").await;
    let mut flock = Peer::connect(&server.url(), room(Crdt::Yjs, "plan")).await;
    flock.enter().await;
    ana.edit_acked("a", "b").await;
    let batch = flock.send(b"blind bytes").await;
    assert_eq!(flock.ack(batch).await, Status::Ok);
    ana.settle().await;
    assert!(ana.updates.is_empty());
    // A topic of that name is a third room; binary JSON and Loro frames mix on one socket.
    let mut guest = Client::connect(&server.url()).await;
    guest.subscribe("plan").await;
    guest.publish("plan", serde_json::json!("hello")).await;
    assert_eq!(guest.next().await["data"], "hello");
}

#[tokio::test]
async fn who_is_no_member_is_told_so_and_nobody_hears_it() {
    let server = TestServer::with(in_memory).await;
    let mut ana = Peer::joined(&server, "plan").await;
    let mut eve = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    let batch = eve.edit("a", "not a member yet").await;
    assert_eq!(eve.ack(batch).await, Status::PermissionDenied);
    eve.enter().await;
    eve.say(&Message::Leave).await;
    for _ in 0..2 {
        let batch = eve.edit("a", "no member any more").await;
        assert_eq!(eve.ack(batch).await, Status::PermissionDenied);
    }
    let header = FragmentHeader { batch: BatchId::from(7), fragments: 3, len: 3 * FRAGMENT as u64 };
    eve.say(&Message::FragmentHeader(header)).await;
    assert_eq!(eve.ack(BatchId::from(7)).await, Status::PermissionDenied);
    ana.settle().await;
    assert!(ana.updates.is_empty());
}

#[tokio::test]
async fn a_five_megabyte_update_goes_up_and_down_in_fragments() {
    let server = TestServer::with(in_memory).await;
    let (mut ana, mut ben) = (Peer::joined(&server, "plan").await, Peer::joined(&server, "plan").await);
    let text: String =
        (0..5_000_000).map(|n: u32| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 28) as u8)).collect();
    ana.edit_acked("big", &text).await;
    ben.until(|ben| ben.note("big").is_some()).await;
    ben.edit_acked("small", "still here").await;
    let mut late = Peer::joined(&server, "plan").await;
    late.until(|late| late.note("small").is_some()).await;
    assert_eq!(late.note("big"), Some(text));
}

#[tokio::test]
async fn fragments_that_stop_coming_are_given_up_and_their_sender_is_told_to_join_again() {
    let server = TestServer::with(in_memory).await;
    let mut ana = Peer::joined(&server, "plan").await;
    let header = FragmentHeader { batch: BatchId::from(9), fragments: 2, len: FRAGMENT as u64 + 1 };
    ana.say(&Message::FragmentHeader(header)).await;
    let begun = std::time::Instant::now();
    assert_eq!(ana.ack(BatchId::from(9)).await, Status::FragmentTimeout);
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    let told = ana.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    assert!(matches!(told, Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. }), "{told:?}");
    assert_eq!(server.metric(r#"signaling_relay_acks_total{status="fragment_timeout"}"#).await, 1.0);
}

#[tokio::test]
async fn who_is_too_fast_is_refused_and_brings_it_all_when_it_joins_again() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.relay.updates_per_second = 1;
        config.relay.updates_burst = 3;
    })
    .await;
    let (mut ana, mut ben) = (Peer::joined(&server, "plan").await, Peer::joined(&server, "plan").await);
    let mut statuses = Vec::new();
    for n in 0..5 {
        let batch = ana.edit(&n.to_string(), "x").await;
        statuses.push(ana.ack(batch).await);
    }
    assert_eq!(statuses[..3], [Status::Ok; 3]);
    assert_eq!(statuses[3..], [Status::RateLimited; 2]);
    let told = ana.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    assert!(matches!(told, Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. }), "{told:?}");
    // As the published clients do.
    let Message::JoinOk { version, .. } = ana.join(b"").await else { panic!("not in") };
    let missing = loro::ExportMode::updates_owned(VersionVector::decode(&version).unwrap());
    let update = ana.doc.export(missing).unwrap();
    loop {
        let batch = ana.send(&update).await;
        match ana.ack(batch).await {
            Status::Ok => break,
            status => assert_eq!(status, Status::RateLimited),
        }
    }
    ben.until(|ben| (0..5).all(|n| ben.note(&n.to_string()).is_some())).await;
}

#[tokio::test]
async fn presence_leaves_with_its_connection_and_a_newcomer_sees_who_is_there() {
    use loro::awareness::EphemeralStore;
    let server = TestServer::with(in_memory).await;
    let present = |peer: &Peer| {
        let store = EphemeralStore::new(60_000);
        peer.updates.iter().for_each(|update| store.apply(update).unwrap());
        let mut keys: Vec<String> = store.keys().iter().map(ToString::to_string).collect();
        keys.sort();
        keys
    };
    let mut peers = Vec::new();
    for name in ["ana", "ben", "eve"] {
        let mut peer = Peer::connect(&server.url(), room(Crdt::Ephemeral, "plan")).await;
        peer.enter().await;
        if name != "eve" {
            let store = EphemeralStore::new(60_000);
            store.set(name, name);
            let batch = peer.send(&store.encode(name)).await;
            assert_eq!(peer.ack(batch).await, Status::Ok);
        }
        peers.push(peer);
    }
    let mut eve = peers.pop().unwrap();
    eve.until(|eve| present(eve) == ["ana", "ben"]).await;
    assert_eq!(server.metric("signaling_relay_presence_entries").await, 2.0);
    drop(peers.pop());
    eve.until(|eve| present(eve) == ["ana"]).await;
}

#[tokio::test]
async fn without_a_relay_who_asks_to_join_is_told_so() {
    let server = TestServer::start().await;
    let mut ana = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    let Message::JoinError { error: JoinError::App { code }, message } = ana.join(b"").await else {
        panic!()
    };
    assert_eq!((code.as_deref(), &*message), (Some("relay_off"), "this server does not relay documents"));
    ana.settle().await;
}

#[tokio::test]
async fn two_senders_may_use_one_batch_id() {
    let server = TestServer::with(in_memory).await;
    let mut reader = Peer::joined(&server, "plan").await;
    let mut senders = [Peer::joined(&server, "plan").await, Peer::joined(&server, "plan").await];
    let texts = ["a".repeat(300_000), "b".repeat(300_000)];
    // Fragment by fragment in turn, under one id.
    let mut frames = Vec::new();
    for (sender, text) in senders.iter_mut().zip(&texts) {
        sender.doc.get_text("t").insert(0, text).unwrap();
        let update = sender.unsent();
        assert_eq!(sender.batch(), BatchId::from(1));
        frames.push(super::split(&sender.room, &update));
    }
    assert!(frames.iter().all(|frames| frames.len() > 2), "a header and some fragments");
    for nth in 0..frames.iter().map(Vec::len).max().unwrap() {
        for (sender, frames) in senders.iter_mut().zip(&frames) {
            if let Some(frame) = frames.get(nth) {
                sender.say_raw(frame.clone()).await;
            }
        }
    }
    for sender in &mut senders {
        assert_eq!(sender.ack(BatchId::from(1)).await, Status::Ok);
    }
    reader.until(|reader| reader.doc.get_text("t").len_unicode() == 600_000).await;
}

#[tokio::test]
async fn a_room_that_nobody_is_in_leaves_memory_and_comes_back_when_somebody_joins() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.relay.idle_after = Period::seconds(0);
    })
    .await;
    let mut ana = Peer::joined(&server, "plan").await;
    ana.edit_acked("a", "kept").await;
    assert_eq!(server.metric("signaling_relay_rooms").await, 1.0);
    drop(ana);
    server.until_metric("signaling_relay_rooms", |rooms| rooms == 0.0).await;
    assert_eq!(server.metric("signaling_relay_evictions_total").await, 1.0);
    assert_eq!(server.metric("signaling_store_rooms").await, 1.0);
    let mut ben = Peer::joined(&server, "plan").await;
    ben.until(|ben| ben.note("a").as_deref() == Some("kept")).await;
}

#[tokio::test]
async fn a_room_beyond_those_that_may_be_stored_is_refused_and_leaves_memory_all_the_same() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.relay.idle_after = Period::seconds(0);
        config.relay.rooms = 1;
    })
    .await;
    let mut ana = Peer::joined(&server, "first").await;
    ana.edit_acked("a", "kept").await;
    let mut eve = Peer::joined(&server, "second").await;
    let batch = eve.edit("a", "too many").await;
    assert_eq!(eve.ack(batch).await, Status::PayloadTooLarge);
    drop(eve);
    server.until_metric("signaling_relay_rooms", |rooms| rooms == 1.0).await;
    ana.edit_acked("b", "kept too").await;
}

#[tokio::test]
async fn a_room_that_was_abandoned_for_long_enough_is_forgotten() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.relay.idle_after = Period::seconds(0);
        config.relay.abandoned_after = Period::seconds(1);
    })
    .await;
    let mut ana = Peer::joined(&server, "plan").await;
    ana.edit_acked("a", "not for ever").await;
    let mut ben = Peer::joined(&server, "in use").await;
    ben.edit_acked("b", "kept").await;
    drop(ana);
    server.until_metric("signaling_store_rooms", |rooms| rooms == 1.0).await;
    let mut eve = Peer::joined(&server, "plan").await;
    eve.settle().await;
    assert_eq!(eve.note("a"), None);
    let mut eve = Peer::joined(&server, "in use").await;
    eve.until(|eve| eve.note("b").is_some()).await;
}

#[tokio::test]
async fn an_opaque_room_gives_each_newcomer_all_of_it() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.relay.opaque = vec!["sealed-*".to_owned()];
    })
    .await;
    let mut ana = Peer::joined(&server, "sealed-plan").await;
    ana.edit_acked("a", "b").await;
    // Whatever it has already: the server does not know what is in there.
    let mut ben = Peer::joined(&server, "sealed-plan").await;
    ben.until(|ben| ben.note("a").is_some()).await;
    let Message::JoinOk { permission: Permission::Write, version, .. } = ben.join(b"").await else {
        panic!()
    };
    assert_eq!(version, [0][..]);
    ben.until(|ben| ben.updates.len() == 2).await;
}
