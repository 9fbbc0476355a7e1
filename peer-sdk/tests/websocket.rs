//! Peers over real sockets: with the real relay, with each other's hubs, and with strangers.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peers;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use loro::LoroDoc;
use peer_sdk::adapter::memory::Memory;
use peer_sdk::adapter::websocket::Hub;
use peer_sdk::{Event, Peer, StartError};
use peers::{Relay, annotate, notes, until_noted, until_online, within};
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reviewer {
    line: Option<u32>,
}

const IDLE: Reviewer = Reviewer { line: None };

async fn peer(url: &str) -> (LoroDoc, Peer<Reviewer>) {
    let doc = LoroDoc::new();
    let peer = Peer::builder("plan").document(&doc).websocket(url).presence(IDLE).start().await.unwrap();
    (doc, peer)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_at_the_relay_have_the_same_document() {
    let relay = Relay::start().await;
    let (ana_doc, ana) = peer(&relay.url()).await;
    annotate(&ana_doc, "from ana");
    let (ben_doc, ben) = peer(&relay.url()).await;
    until_noted(&ben_doc, "from ana").await;
    annotate(&ben_doc, "from ben");
    until_noted(&ana_doc, "from ben").await;
    within("the ack", ben.wait_until(|status| status.acknowledged() && status.stored)).await;
    within("catching up", ana.caught_up()).await;
    ana.close().await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_shows_is_seen_and_who_closes_is_gone_at_once() {
    let relay = Relay::start().await;
    let (_, ana) = peer(&relay.url()).await;
    let (_, ben) = peer(&relay.url()).await;
    until_online(&ana, 1).await;
    ben.presence().set(Reviewer { line: Some(7) }).unwrap();
    let mut events = ana.events();
    let seen = async {
        while ana.presence().online()[0].sessions[0].shows != Some(Reviewer { line: Some(7) }) {
            events.recv().await.unwrap();
        }
    };
    within("the cursor", seen).await;
    ben.close().await;
    until_online(&ana, 0).await;
    ana.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_line_goes_dead_is_gone_for_all_within_five_seconds() {
    let line = Line::new().await;
    let entrance = line.address.to_string();
    let hub = Hub::builder().host(&entrance).bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).presence(IDLE).start().await.unwrap();
    let (_, ana) = peer(&hub.url()).await;
    let bound = hub.address().to_string();
    let dead = line.leads_to(bound.clone());
    let (_, ben) = peer(&hub.url().replace(&bound, &entrance)).await;
    for peer in [&agent, &ana, &ben] {
        until_online(peer, 2).await;
    }
    dead.send_replace(true);
    let begun = Instant::now();
    until_online(&ana, 1).await;
    until_online(&agent, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    drop(ben);
    ana.close().await;
    agent.close().await;
}

/// A line to somewhere, which may go dead without a word.
struct Line {
    listener: TcpListener,
    address: SocketAddr,
}

impl Line {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn leads_to(self, target: String) -> watch::Sender<bool> {
        let (dead, is_dead) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = self.listener.accept().await {
                let mut there = TcpStream::connect(&target).await.unwrap();
                let mut is_dead = is_dead.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut here, &mut there) => return,
                        _ = is_dead.wait_for(|dead| *dead) => {}
                    }
                    // Neither end hears that it is over.
                    std::future::pending::<()>().await;
                    drop((here, there));
                });
            }
        });
        dead
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_forgotten_everything_gets_it_from_the_peers() {
    let relay = Relay::start().await;
    let (ana_doc, ana) = peer(&relay.url()).await;
    annotate(&ana_doc, "before");
    within("the ack", ana.wait_until(|status| status.acknowledged() && status.stored)).await;
    let address = relay.end().await;
    within("noticing", ana.wait_until(|status| !status.links[0].up)).await;
    annotate(&ana_doc, "while it was away");
    let relay = Relay::at(address).await;
    let (ben_doc, ben) = peer(&relay.url()).await;
    ana.wake().await;
    until_noted(&ben_doc, "while it was away").await;
    assert_eq!(notes(&ben_doc), ["before", "while it was away"]);
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_of_a_hub_have_its_document_and_each_others_edits() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent_doc = LoroDoc::new();
    annotate(&agent_doc, "the plan");
    let agent = Peer::builder("plan")
        .document(&agent_doc)
        .hub(&hub)
        .user("agent")
        .presence(IDLE)
        .start()
        .await
        .unwrap();
    let (ana_doc, ana) = peer(&hub.url()).await;
    let (ben_doc, ben) = peer(&hub.url()).await;
    until_noted(&ana_doc, "the plan").await;
    annotate(&ana_doc, "from ana");
    until_noted(&ben_doc, "from ana").await;
    until_noted(&agent_doc, "from ana").await;
    annotate(&agent_doc, "from the agent");
    until_noted(&ben_doc, "from the agent").await;
    until_online(&ben, 2).await;
    assert!(ben.presence().online().iter().any(|user| user.name == "agent"));
    drop(ana);
    until_online(&ben, 1).await;
    until_online(&agent, 1).await;
    ben.close().await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_hands_each_room_to_its_own_peer_and_knows_no_others() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let serve = |room: &'static str| {
        let doc = LoroDoc::new();
        annotate(&doc, room);
        let builder = Peer::builder(room).document(&doc).hub(&hub);
        async move { builder.start().await }
    };
    let (one, two) = (serve("one").await.unwrap(), serve("two").await.unwrap());
    assert!(matches!(serve("one").await, Err(StartError::RoomTaken)));
    let guest = |room| Peer::builder(room).websocket(&hub.url()).start();
    let guest = guest("two").await.unwrap();
    until_noted(guest.document(), "two").await;
    assert_eq!(notes(guest.document()), ["two"]);
    let stranger = Peer::builder("three").websocket(&hub.url()).start().await.unwrap();
    let mut events = stranger.events();
    let refused = async { while !matches!(events.recv().await.unwrap(), Event::Ended(..)) {} };
    within("the refusal", refused).await;
    one.close().await;
    let again = serve("one").await.unwrap();
    drop(one);
    assert!(matches!(serve("one").await, Err(StartError::RoomTaken)), "who is gone takes nothing along");
    again.close().await;
    two.close().await;
}

async fn knock(url: &str, headers: &[(&'static str, &str)]) -> u16 {
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok(_) => 101,
        Err(Error::Http(response)) => response.status().as_u16(),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_lets_in_who_has_its_token_and_comes_from_no_strange_page() {
    let hub = Hub::builder().origin("https://plans.example").bind("127.0.0.1:0").await.unwrap();
    let bare = format!("ws://{}/", hub.address());
    assert_eq!(knock(&hub.url(), &[]).await, 101);
    assert_eq!(knock(&bare, &[]).await, 401);
    assert_eq!(knock(&format!("{bare}?token=guess"), &[]).await, 401);
    assert_eq!(knock(&hub.url(), &[("origin", "https://plans.example")]).await, 101);
    for origin in ["https://evil.example", "null", "https://plans.example.evil.example", ""] {
        assert_eq!(knock(&hub.url(), &[("origin", origin)]).await, 403, "{origin:?}");
    }
    assert_eq!(knock(&hub.url(), &[("host", "evil.example")]).await, 403, "a name that leads to localhost");
    let worded = Hub::builder().token("two words & 100 %").bind("127.0.0.1:0").await.unwrap();
    assert_eq!(knock(&worded.url(), &[]).await, 101);
    let bare = format!("ws://{}/", worded.address());
    assert_eq!(knock(&format!("{bare}?token=two%20words%20%26%20100%20%25"), &[]).await, 101);
    assert_eq!(knock(&format!("{bare}?token=two%20words"), &[]).await, 401);

    let open = Hub::builder().without_token().bind("127.0.0.1:0").await.unwrap();
    assert_eq!(knock(&open.url(), &[]).await, 101);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_is_not_tried_again_and_says_so() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/?token=wrong", hub.address());
    let ana = Peer::builder("plan").websocket(&url).start().await.unwrap();
    within("the refusal", ana.wait_until(|status| status.links[0].trouble.is_some())).await;
    let trouble = ana.status().links[0].trouble.clone().unwrap();
    assert!(trouble.contains("401"), "{trouble}");
    within("catching up", ana.caught_up()).await;
    ana.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_frames_end_that_connection_alone() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).start().await.unwrap();
    let (ana_doc, ana) = peer(&hub.url()).await;
    within("joining", ana.wait_until(|status| status.links[0].joined)).await;
    let frames: [&[u8]; 6] = [
        b"",
        b"%LOR",
        b"%XXX\x04plan\x00\x00\x00",
        b"%LOR\x04plan\xff",
        b"%LOR\x04plan\x03\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"no protocol at all",
    ];
    for frame in frames {
        let (mut socket, _) = tokio_tungstenite::connect_async(hub.url()).await.unwrap();
        use futures_util::{SinkExt, StreamExt};
        // More than are put up with; the connection may end at the first.
        for _ in 0..40 {
            if socket.send(Message::binary(frame.to_vec())).await.is_err() {
                break;
            }
        }
        let ended = async { while let Some(Ok(_)) = socket.next().await {} };
        within("ending", ended).await;
    }
    annotate(&ana_doc, "still here");
    until_noted(agent.document(), "still here").await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_starts_again_has_what_it_had_and_brings_it() {
    let relay = Relay::start().await;
    let memory = Memory::new();
    for run in 0..3 {
        let offline = Peer::builder("plan").storage(memory.clone()).start().await.unwrap();
        annotate(offline.document(), &format!("run {run}"));
        offline.close().await;
    }
    let ana = Peer::builder("plan").storage(memory).websocket(&relay.url()).start().await.unwrap();
    assert_eq!(notes(ana.document()), ["run 0", "run 1", "run 2"]);
    let (ben_doc, ben) = peer(&relay.url()).await;
    until_noted(&ben_doc, "run 2").await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_document_arrives_whole() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).start().await.unwrap();
    let noise: String =
        (0..3_000_000_u32).map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 26) as u8)).collect();
    agent.document().get_text("body").insert(0, &noise).unwrap();
    annotate(agent.document(), "last");
    let (ana_doc, ana) = peer(&hub.url()).await;
    until_noted(&ana_doc, "last").await;
    assert_eq!(ana_doc.get_text("body").to_string(), noise);
    annotate(&ana_doc, "and back");
    until_noted(agent.document(), "and back").await;
    ana.close().await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_fit_into_no_frame_are_refused_at_the_start() {
    let builder = Peer::builder("plan").websocket_with("ws://127.0.0.1:9/", vec![7; 100_000]);
    let refused = builder.start().await;
    assert!(matches!(refused, Err(StartError::AuthTooLong { len: 100_000, .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_edits_alone_has_caught_up_and_whoever_is_closed_waits_for_nothing() {
    let alone = Peer::builder("plan").start().await.unwrap();
    annotate(alone.document(), "to myself");
    within("catching up", alone.caught_up()).await;
    assert!(within("storing", alone.stored()).await.is_ok());
    assert!(alone.status().version.includes_vv(&alone.document().oplog_vv()));
    alone.close().await;
    annotate(alone.document(), "too late");
    within("catching up", alone.caught_up()).await;
    assert!(within("storing", alone.stored()).await.is_err());
    assert!(!within("what never comes", alone.wait_until(|status| status.garbage > 0)).await);
}
