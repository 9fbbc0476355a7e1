//! Two connections in one process, over loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "webrtc")]

mod support;

use std::time::{Duration, Instant};

use bytes::Bytes;
use peer_sdk::adapter::webrtc::{
    CloseReason, Connection, Event, LABEL, MAX_MESSAGE, Mdns, Path, Role, SendError, Settings, SignalError,
};
use serde_json::{Value, json};
use support::{End, PATIENCE, local, pair};

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_open_a_channel_and_know_the_way() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    for end in [&mut ana, &mut ben] {
        assert_eq!(end.label, LABEL);
        assert_eq!(end.largest, MAX_MESSAGE);
    }
    let (path, round_trip) = ana.path().await;
    assert_eq!(path, Path::Direct);
    assert!(round_trip.is_none_or(|time| time < Duration::from_secs(1)), "{round_trip:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_256_kib_go_both_ways_in_order() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    exchange(&mut ana, &mut ben).await;
    exchange(&mut ben, &mut ana).await;
}

async fn exchange(from: &mut End, to: &mut End) {
    let sizes = [0, 1, 64, 65_535, 65_536, 65_537, MAX_MESSAGE - 1, MAX_MESSAGE];
    for (nth, size) in sizes.into_iter().enumerate() {
        let sent = Bytes::from(vec![nth as u8; size]);
        from.connection.send(sent.clone()).unwrap();
        assert!(to.message().await == sent, "message of {size} bytes");
    }
    let refused = from.connection.send(Bytes::from(vec![0; MAX_MESSAGE + 1]));
    assert_eq!(refused, Err(SendError::TooLarge { len: MAX_MESSAGE + 1, limit: MAX_MESSAGE }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_outbox_refuses_and_says_when_it_has_room_again() {
    let outbox = 512 * 1024;
    let (mut ana, mut ben) = pair(Settings { outbox, ..local() }, local()).await;
    let message = Bytes::from(vec![7; 64 * 1024]);
    let mut sent = 0;
    // The other side does not read, so everything between fills up.
    let full = loop {
        match ana.connection.send(message.clone()) {
            Ok(buffered) => {
                assert!(buffered <= outbox + message.len());
                sent += 1;
            }
            Err(full) => break full,
        }
        assert!(sent < 10_000, "it never fills up");
        tokio::task::yield_now().await;
    };
    assert!(matches!(full, SendError::Full { buffered } if buffered <= outbox), "{full:?}");
    let reading = async {
        for _ in 0..sent {
            assert_eq!(ben.message().await.len(), message.len());
        }
    };
    let ((), _) = tokio::join!(reading, ana.until(|event| *event == Event::Drained));
    assert!(ana.connection.buffered() <= outbox / 2);
    ana.connection.send(message).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_is_slow_loses_nothing() {
    let (ana, mut ben) =
        pair(Settings { outbox: 64 << 20, ..local() }, Settings { inbox: 0, ..local() }).await;
    let count = 400_u32;
    for nth in 0..count {
        let mut message = nth.to_be_bytes().to_vec();
        message.resize(16 * 1024, 0);
        ana.connection.send(message.into()).unwrap();
    }
    for nth in 0..count {
        let message = ben.message().await;
        assert_eq!(message[..4], nth.to_be_bytes());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_sends_what_waits_and_the_other_side_sees_a_close() {
    for closes_first in [0, 1] {
        let (ana, ben) = pair(local(), local()).await;
        let (one, mut other) = if closes_first == 0 { (ana, ben) } else { (ben, ana) };
        let message = Bytes::from(vec![1; 100_000]);
        for _ in 0..8 {
            one.connection.send(message.clone()).unwrap();
        }
        one.connection.close();
        one.connection.close();
        assert_eq!(one.connection.send(message), Err(SendError::NotOpen));
        for _ in 0..8 {
            assert_eq!(other.message().await.len(), 100_000);
        }
        assert_eq!(other.closed().await, CloseReason::Remote);
        assert_eq!(one.into_closed().await, CloseReason::Local);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_handle_closes_and_the_other_side_notices_at_once() {
    let (ana, mut ben) = pair(local(), local()).await;
    let begun = Instant::now();
    drop(ana);
    assert_eq!(ben.closed().await, CloseReason::Remote);
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());

    let (ana, mut ben) = pair(local(), local()).await;
    // The events alone keep nothing alive.
    let End { connection, events, .. } = ana;
    drop(events);
    connection.ended().await;
    assert_eq!(ben.closed().await, CloseReason::Remote);
}

#[tokio::test(flavor = "multi_thread")]
async fn closed_connections_give_their_sockets_back() {
    let open = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let (ana, ben) = pair(local(), local()).await;
    let before = open();
    drop((ana, ben));
    for _ in 0..5 {
        let (ana, ben) = pair(local(), local()).await;
        let (one, two) = (ana.connection, ben.connection);
        one.close();
        two.close();
        one.ended().await;
        two.ended().await;
    }
    assert!(open() <= before, "{} open files, {before} before", open());
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_can_negotiate_again() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    for asked in [0, 1] {
        let asker = if asked == 0 { &ana } else { &ben };
        asker.connection.renegotiate().unwrap();
        let answer = support::relay_until(&mut ana, &mut ben, |signal| signal["type"] == "answer").await;
        assert!(answer["sdp"].is_string());
        exchange_word(&mut ana, &mut ben).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_can_restart_ice_and_nothing_is_lost() {
    for restarts in [0, 1] {
        let (mut ana, mut ben) = pair(local(), local()).await;
        let message = Bytes::from(vec![9; 64 * 1024]);
        for _ in 0..10 {
            ana.connection.send(message.clone()).unwrap();
        }
        let (one, other) = if restarts == 0 { (&mut ana, &mut ben) } else { (&mut ben, &mut ana) };
        one.connection.restart_ice(None).unwrap();
        let answer = support::relay_until(one, other, |signal| signal["type"] == "answer").await;
        assert_eq!(answer["type"], "answer");
        let received = support::relay_messages(&mut ana, &mut ben, 10).await;
        assert!(received.iter().all(|received| *received == message));
        exchange_word(&mut ana, &mut ben).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_restart_ice_at_once_they_still_agree() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    ana.connection.restart_ice(None).unwrap();
    ben.connection.restart_ice(None).unwrap();
    support::relay_until(&mut ana, &mut ben, |signal| signal["type"] == "answer").await;
    exchange_word(&mut ana, &mut ben).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_was_lost_is_said_again_to_who_offers_too() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    ana.connection.restart_ice(None).unwrap();
    let is_signal = |event: &Event| matches!(event, Event::Signal(_));
    let Event::Signal(lost) = ana.until(is_signal).await else { unreachable!() };
    assert_eq!(lost["type"], "offer");
    // Its candidates are lost, too.
    while !matches!(ana.until(is_signal).await, Event::Signal(signal) if signal["type"] == "candidate") {}
    ben.connection.restart_ice(None).unwrap();
    support::relay_until(&mut ana, &mut ben, |signal| signal["type"] == "answer").await;
    exchange_word(&mut ana, &mut ben).await;
}

async fn exchange_word(ana: &mut End, ben: &mut End) {
    for nth in 0..2 {
        let (from, to) = if nth == 0 { (&mut *ana, &mut *ben) } else { (&mut *ben, &mut *ana) };
        from.connection.send(Bytes::from_static(b"word")).unwrap();
        assert_eq!(support::relay_messages(from, to, 1).await, ["word"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_that_come_before_the_offer_are_kept() {
    let (ana, mut anas) = Connection::start(Role::Initiator, local());
    let (ben, mut bens) = Connection::start(Role::Answerer, local());
    // The offer is held back until there are candidates, and comes last.
    let Some(Event::Signal(offer)) = anas.next().await else { panic!("an offer") };
    let Some(Event::Signal(candidate)) = anas.next().await else { panic!("a candidate") };
    assert_eq!(offer["type"], "offer");
    assert_eq!(candidate["type"], "candidate");
    assert_eq!(candidate["candidate"]["sdpMid"], "0");
    ben.signal(&candidate).unwrap();
    ben.signal(&offer).unwrap();
    // Of the other side's signals only the answer arrives, so that nothing but the early candidate leads there.
    let opened = async {
        loop {
            tokio::select! {
                event = anas.next() => if matches!(event, Some(Event::Open { .. })) { return },
                event = bens.next() => match event {
                    Some(Event::Signal(signal)) if signal["type"] == "answer" => ana.signal(&signal).unwrap(),
                    Some(Event::Closed { reason }) => panic!("{reason}"),
                    _ => {}
                },
            }
        }
    };
    tokio::time::timeout(PATIENCE, opened).await.expect("a channel in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_unreachable_after_the_deadline() {
    let within = Duration::from_millis(300);
    let settings = Settings { connect_within: within, ..local() };
    for role in [Role::Initiator, Role::Answerer] {
        let (connection, events) = Connection::start(role, settings.clone());
        assert_eq!(connection.send(Bytes::new()), Err(SendError::NotOpen));
        let end = End::new(connection, events);
        assert_eq!(end.into_closed().await, CloseReason::Unreachable { within });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_vanishes_is_told_as_interrupted_and_then_lost() {
    let settings = Settings {
        interrupted_after: Duration::from_millis(600),
        lost_after: Duration::from_millis(600),
        keepalive: Duration::from_millis(100),
        ..local()
    };
    for vanishing in [Role::Initiator, Role::Answerer] {
        // Of its own runtime nothing is left, not even a goodbye.
        let elsewhere = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let start = |role| {
            let _entered = (role == vanishing).then(|| elsewhere.enter());
            End::start(role, settings.clone())
        };
        let (mut ana, mut ben) = (start(Role::Initiator), start(Role::Answerer));
        support::connect(&mut ana, &mut ben).await;
        elsewhere.shutdown_background();
        let mut left = if vanishing == Role::Initiator { ben } else { ana };
        left.until(|event| *event == Event::Interrupted).await;
        assert_eq!(left.closed().await, CloseReason::Lost);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_with_a_new_connection_is_not_waited_for_on_the_old_one() {
    let settings = Settings {
        interrupted_after: Duration::from_millis(600),
        lost_after: 2 * PATIENCE,
        keepalive: Duration::from_millis(100),
        ..local()
    };
    let elsewhere = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut ana = End::start(Role::Initiator, settings.clone());
    let mut ben = {
        let _entered = elsewhere.enter();
        End::start(Role::Answerer, settings.clone())
    };
    support::connect(&mut ana, &mut ben).await;
    elsewhere.shutdown_background();
    ana.until(|event| *event == Event::Interrupted).await;
    let mut returned = End::start(Role::Initiator, settings);
    let offer = |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] == "offer");
    let Event::Signal(offer) = returned.until(offer).await else { unreachable!() };
    ana.connection.signal(&offer).unwrap();
    assert_eq!(ana.closed().await, CloseReason::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_looked_for_another_way_may_come_back_with_a_new_connection() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    ben.connection.restart_ice(None).unwrap();
    support::relay_until(&mut ana, &mut ben, |signal| signal["type"] == "answer").await;
    let mut returned = End::start(Role::Initiator, local());
    let offer = |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] == "offer");
    let Event::Signal(offer) = returned.until(offer).await else { unreachable!() };
    ana.connection.signal(&offer).unwrap();
    assert_eq!(ana.closed().await, CloseReason::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_signals_change_nothing() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    for junk in support::junk() {
        // Refused here or ignored later; never more.
        let _ = ana.connection.signal(&junk);
        let _ = ben.connection.signal(&junk);
    }
    exchange_word(&mut ana, &mut ben).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_in_the_name_of_a_connected_peer_is_not_answered() {
    let (mut ana, mut ben) = pair(local(), local()).await;
    let mut eve = End::start(Role::Initiator, local());
    let Event::Signal(forged) = eve.next().await else { panic!("an offer") };
    assert_eq!(forged["type"], "offer");
    ben.connection.signal(&forged).unwrap();
    // Behind it comes what we ask for ourselves, so that this would come after an answer.
    ben.connection.renegotiate().unwrap();
    let of_ben = |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] != "candidate");
    let Event::Signal(signal) = ben.until(of_ben).await else { unreachable!() };
    assert_eq!(signal["type"], "renegotiate");
    exchange_word(&mut ana, &mut ben).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_signals_before_the_first_offer_do_not_keep_peers_apart() {
    let (ana, anas) = Connection::start(Role::Initiator, local());
    let (ben, bens) = Connection::start(Role::Answerer, local());
    let (mut ana, mut ben) = (End::new(ana, anas), End::new(ben, bens));
    for junk in support::junk().into_iter().filter(|junk| junk["type"] != "offer" && junk["type"] != "answer")
    {
        let _ = ana.connection.signal(&junk);
        let _ = ben.connection.signal(&junk);
    }
    support::connect(&mut ana, &mut ben).await;
    exchange_word(&mut ana, &mut ben).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_signals_is_refused_above_the_limit() {
    // The current task does not yield in between, but the connection's may run beside it.
    let (connection, _events) = Connection::start(Role::Answerer, local());
    let candidate = json!({"candidate": {"candidate": "candidate:1 1 udp 1 192.0.2.1 9 typ host"}});
    let results: Vec<_> = (0..100_000).map(|_| connection.signal(&candidate)).collect();
    assert!(results.contains(&Err(SignalError::Busy { limit: 512 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_can_not_be_used_are_named_first() {
    use peer_sdk::adapter::ice::IceServer;
    let turns = "turns:turn.example:443?transport=tcp";
    let ice = vec![IceServer::turn(turns, "u", "c"), IceServer::stun("no url at all")];
    let (_connection, mut events) = Connection::start(Role::Initiator, Settings { ice, ..local() });
    let unsupported = Event::Unsupported { urls: vec![turns.to_owned(), "no url at all".to_owned()] };
    assert_eq!(events.next().await, Some(unsupported));
    assert!(matches!(events.next().await, Some(Event::Signal(Value::Object(_)))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_multicast_still_connects() {
    // Where there is multicast, this is the ordinary way.
    let settings = || Settings { mdns: Mdns::Resolve, ..local() };
    let (mut ana, mut ben) = pair(settings(), settings()).await;
    exchange_word(&mut ana, &mut ben).await;
}
