//! Peers that find each other over a real signaling server and talk over real WebRTC, on loopback.
#![cfg(all(feature = "webrtc", feature = "websocket"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peers;
mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use loro::LoroDoc;
use peer_sdk::adapter::Path;
use peer_sdk::adapter::ice::IceServer;
use peer_sdk::adapter::webrtc::Mdns;
use peer_sdk::adapter::websocket::Hub;
use peer_sdk::engine::Reason;
use peer_sdk::{Event, Peer, PeerBuilder, WebRtc};
use peers::{Relay, annotate, notes, until_noted, until_online, within};
use serde::{Deserialize, Serialize};
use support::node::Node;
use support::server::TestServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Nobody is seen for longer after it is gone.
const GONE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reviewer {
    line: Option<u32>,
}

const IDLE: Reviewer = Reviewer { line: None };

/// Over loopback alone.
fn rtc(servers: &[&str]) -> WebRtc {
    WebRtc::signaling(servers.iter().copied()).connection(|connection| {
        connection.udp = vec!["127.0.0.1:0".parse().unwrap()];
        connection.mdns = Mdns::Off;
    })
}

fn named(name: &str) -> PeerBuilder<Reviewer> {
    Peer::builder("plan").user(name).presence(IDLE)
}

async fn peer(name: &str, server: &str) -> (LoroDoc, Peer<Reviewer>) {
    let peer = named(name).webrtc(rtc(&[server])).start().await.unwrap();
    (peer.document().clone(), peer)
}

/// Waits for an event; what it says is what `wanted` makes of it.
async fn until<T>(peer: &Peer<Reviewer>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let mut events = peer.events();
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    within("the event", found).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_find_each_other_and_edits_flow_both_ways() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    annotate(&ana_doc, "from before");
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_noted(&ben_doc, "from before").await;
    annotate(&ben_doc, "from ben");
    until_noted(&ana_doc, "from ben").await;
    until_online(&ana, 1).await;
    until_online(&ben, 1).await;
    let measured = ana.wait_until(|status| status.links.iter().any(|link| link.round_trip.is_some()));
    within("the round trip", measured).await;
    let session = &ana.presence().online()[0].sessions[0];
    assert_eq!(session.path, Path::Direct);
    assert!(session.round_trip.is_some_and(|time| time < Duration::from_secs(1)), "{session:?}");
    assert!(ana.status().signaling.first().is_some_and(|server| server.up));
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_is_gone_at_once() {
    let server = Relay::start().await;
    let (_, ana) = peer("ana", &server.url()).await;
    let (_, ben) = peer("ben", &server.url()).await;
    until_online(&ana, 1).await;
    until_online(&ben, 1).await;
    let begun = Instant::now();
    let seen = async {
        until_online(&ana, 0).await;
        begun.elapsed()
    };
    let (seen, ()) = tokio::join!(seen, ben.close());
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    ana.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_peers_have_one_document_and_see_each_other() {
    let server = Relay::start().await;
    let mut room = Vec::new();
    for name in ["ana", "ben", "cem", "dana", "eve"] {
        room.push((name, peer(name, &server.url()).await));
    }
    for (name, (doc, _)) in &room {
        annotate(doc, name);
    }
    for (_, (doc, peer)) in &room {
        for (name, _) in &room {
            until_noted(doc, name).await;
        }
        until_online(peer, 4).await;
    }
    for (_, (_, peer)) in &room {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_is_not_missed_and_catches_up_when_it_is_back() {
    let server = Relay::start().await;
    let agent_doc = LoroDoc::new();
    annotate(&agent_doc, "the plan");
    let hub = Hub::builder().token("t").bind("127.0.0.1:0").await.unwrap();
    let (address, url) = (hub.address().to_string(), hub.url());
    let agent = named("agent").document(&agent_doc).hub(&hub).start().await.unwrap();
    let ana = named("ana").websocket(&url).webrtc(rtc(&[&server.url()])).start().await.unwrap();
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_noted(&ben_doc, "the plan").await;
    until_online(&ben, 2).await;
    annotate(&agent_doc, "through ana");
    until_noted(&ben_doc, "through ana").await;

    hub.close().await;
    drop(agent);
    within("noticing", ana.wait_until(|status| !status.links[0].up)).await;
    until_online(&ben, 1).await;
    annotate(&ben_doc, "without the hub");
    until_noted(ana.document(), "without the hub").await;
    annotate(ana.document(), "an answer");
    until_noted(&ben_doc, "an answer").await;

    let hub = Hub::builder().token("t").bind(&address).await.unwrap();
    let again = LoroDoc::new();
    let agent = named("agent").document(&again).hub(&hub).start().await.unwrap();
    ana.wake().await;
    until_noted(&again, "an answer").await;
    assert_eq!(notes(&again), notes(&ben_doc));
    until_online(&ben, 2).await;
    for peer in [agent, ana, ben] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_signaling_server_edits_flow_and_with_it_again_others_join() {
    let server = TestServer::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_online(&ana, 1).await;
    let address = server.address;
    server.stop().await;
    within("noticing", ana.wait_until(|status| status.signaling.first().is_some_and(|server| !server.up)))
        .await;
    annotate(&ana_doc, "in the dark");
    until_noted(&ben_doc, "in the dark").await;
    let server = TestServer::with(|config| config.server.listen = address).await;
    let (cem_doc, cem) = peer("cem", &server.url()).await;
    ana.wake().await;
    until_noted(&cem_doc, "in the dark").await;
    annotate(&cem_doc, "from cem");
    until_noted(&ben_doc, "from cem").await;
    for peer in [ana, ben, cem] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_that_is_dead_does_not_matter_and_the_list_changes_at_run_time() {
    let (server, dead) = (Relay::start().await, "ws://127.0.0.1:9/");
    let ways = rtc(&[dead]);
    let ana = named("ana").webrtc(ways.clone()).start().await.unwrap();
    let ben = named("ben").webrtc(rtc(&[dead, &server.url()])).start().await.unwrap();
    within("ben", ben.wait_until(|status| status.signaling.iter().any(|server| server.up))).await;
    assert!(ways.set_servers(["http://wrong"]).is_err());
    ways.set_servers([dead.to_owned(), server.url()]).unwrap();
    until_online(&ana, 1).await;
    within("both servers", ana.wait_until(|status| status.signaling.len() == 2)).await;
    ways.set_servers([dead]).unwrap();
    within("the change", ana.wait_until(|status| status.signaling.len() == 1)).await;
    annotate(ben.document(), "still here");
    until_noted(ana.document(), "still here").await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_through_two_servers_is_heard_once() {
    let (one, two) = (Relay::start().await, Relay::start().await);
    let urls = [one.url(), two.url()];
    let urls: Vec<&str> = urls.iter().map(String::as_str).collect();
    let ana = named("ana").webrtc(rtc(&urls)).start().await.unwrap();
    let ben = named("ben").webrtc(rtc(&urls)).start().await.unwrap();
    annotate(ana.document(), "hello");
    until_noted(ben.document(), "hello").await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_password_peers_find_each_other_and_a_wrong_one_is_told() {
    let server = Relay::start().await;
    let with = |name: &'static str, password: &'static str| {
        named(name).webrtc(rtc(&[&server.url()]).password(password)).start()
    };
    let ana = with("ana", "right").await.unwrap();
    let ben = with("ben", "right").await.unwrap();
    until_online(&ana, 1).await;
    let told = until(&ana, |event| (event == Event::WrongPassword).then_some(()));
    let eve = async {
        let eve = with("eve", "wrong").await.unwrap();
        until(&eve, |event| (event == Event::WrongPassword).then_some(())).await;
        eve
    };
    let ((), eve) = tokio::join!(told, eve);
    assert!(eve.presence().online().is_empty());
    assert_eq!(ana.presence().online().len(), 1);
    for peer in [ana, ben, eve] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_in_the_room_is_let_go_and_left_alone() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut events = ana.events();
    let mut yjs = Node::start("y_webrtc.mjs", &[&server.url(), "plan"]).await;
    assert_eq!(yjs.line().await["event"], "started");
    let mut foreign = 0;
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    annotate(&ana_doc, "among ourselves");
    until_noted(&ben_doc, "among ourselves").await;
    // It announces itself whenever it has lost somebody, so it has had its chances by then.
    let over = tokio::time::Instant::now() + Duration::from_secs(10);
    while let Ok(event) = tokio::time::timeout_at(over, events.recv()).await {
        foreign += usize::from(matches!(event, Ok(Event::Ended(_, Reason::Foreign))));
    }
    assert_eq!(foreign, 1);
    until_online(&ana, 1).await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_server_that_cannot_be_used_is_named() {
    let server = Relay::start().await;
    let url = "turn:turn.example:443?transport=tcp";
    let ways = || rtc(&[&server.url()]).ice_servers([IceServer::turn(url, "u", "c")]);
    let ana = named("ana").webrtc(ways()).start().await.unwrap();
    let ben = named("ben").webrtc(ways()).start().await.unwrap();
    within("the status", ana.wait_until(|status| status.unsupported == [url])).await;
    until_online(&ben, 1).await;
    ana.close().await;
    ben.close().await;
}

/// A peer in a process of its own, which is told what to do a line at a time and says what happens.
struct Process {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// The signaling server of a [`Process`], and its name.
const CHILD: &str = "PEER_SDK_TEST_MESH";

impl Process {
    fn start(name: &str, server: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, format!("{name} {server}"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, child }
    }

    async fn annotate(&mut self, note: &str) {
        self.input.write_all(format!("{note}\n").as_bytes()).await.unwrap();
    }

    /// Waits until it has this note.
    async fn until_noted(&mut self, note: &str) {
        let said =
            async { while self.output.next_line().await.unwrap().unwrap() != format!("noted {note}") {} };
        within("the other process", said).await;
    }

    async fn signal(&self, signal: &str) {
        let pid = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (name, server) = told.split_once(' ').unwrap();
    let (doc, peer) = peer(name, server).await;
    let (noted, mut news) = tokio::sync::watch::channel(());
    let _subscription = doc.subscribe_root(std::sync::Arc::new(move |_| noted.send_replace(())));
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    let mut said = Vec::new();
    loop {
        tokio::select! {
            Ok(Some(line)) = input.next_line() => annotate(&doc, &line),
            Ok(()) = news.changed() => {}
            else => break,
        }
        for note in notes(&doc) {
            if !said.contains(&note) {
                println!("noted {note}");
                said.push(note);
            }
        }
    }
    peer.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_processes_have_one_document() {
    let server = Relay::start().await;
    let names = ["ana", "ben", "cem", "dana", "eve"];
    let mut room: Vec<_> = names.iter().map(|name| Process::start(name, &server.url())).collect();
    for (name, process) in names.iter().zip(&mut room) {
        process.annotate(name).await;
    }
    let all = room.iter_mut().map(async |process| {
        let missing = async {
            let mut missing = names.to_vec();
            while !missing.is_empty() {
                let line = process.output.next_line().await.unwrap().unwrap();
                missing.retain(|name| line != format!("noted {name}"));
            }
        };
        within("all notes", missing).await;
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_is_gone_within_five_seconds() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut ben = Process::start("ben", &server.url());
    let (_, cem) = peer("cem", &server.url()).await;
    annotate(&ana_doc, "hello");
    ben.until_noted("hello").await;
    until_online(&ana, 2).await;
    until_online(&cem, 2).await;
    let begun = Instant::now();
    ben.signal("-KILL").await;
    until_online(&ana, 1).await;
    until_online(&cem, 1).await;
    assert!(begun.elapsed() < GONE, "{:?}", begun.elapsed());
    ana.close().await;
    cem.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_falls_asleep_is_gone_and_comes_back_once() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut ben = Process::start("ben", &server.url());
    annotate(&ana_doc, "hello");
    ben.until_noted("hello").await;
    until_online(&ana, 1).await;
    let begun = Instant::now();
    ben.signal("-STOP").await;
    until_online(&ana, 0).await;
    assert!(begun.elapsed() < GONE, "{:?}", begun.elapsed());
    annotate(&ana_doc, "while you slept");
    ben.signal("-CONT").await;
    ben.until_noted("while you slept").await;
    until_online(&ana, 1).await;
    assert_eq!(ana.presence().online()[0].sessions.len(), 1);
    ana.close().await;
}
