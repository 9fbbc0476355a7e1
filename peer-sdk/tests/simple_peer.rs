//! Against simple-peer, which is what y-webrtc uses, over libwebrtc in Node, and in Chromium.
//!
//! The packages are those of `e2e/`: `npm ci` there first. Chromium gives out names in place of its addresses
//! (`….local`), which are looked up by multicast, so the machine has to have a network beside loopback.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "webrtc")]

mod support;

use bytes::Bytes;
use peer_sdk::adapter::webrtc::{CloseReason, Event, LABEL, MAX_MESSAGE, Role, SendError, Settings};
use serde_json::{Value, json};
use support::End;
use support::node::Node;

/// Where the simple-peer runs.
#[derive(Clone, Copy)]
enum Over {
    Wrtc,
    Chromium,
}

impl Over {
    fn script(self) -> &'static str {
        match self {
            Self::Wrtc => "simple_peer.mjs",
            Self::Chromium => "simple_peer_in_chromium.mjs",
        }
    }
}

/// A connection of ours, and a simple-peer that is connected to it.
struct Pair {
    end: End,
    node: Node,
    largest: usize,
    /// What the other side has said of its addresses.
    candidates: Vec<String>,
    /// The other side is not told of our addresses.
    is_hidden: bool,
}

impl Pair {
    /// Our side in `role`.
    async fn connect(over: Over, role: Role) -> Self {
        Self::start(over, role).await.connected().await
    }

    async fn start(over: Over, role: Role) -> Self {
        let theirs = if role == Role::Initiator { "answerer" } else { "initiator" };
        let mut node = Node::start(over.script(), &[theirs, LABEL]).await;
        let ready =
            tokio::time::timeout(support::PATIENCE * 2, node.line()).await.expect("it starts in time");
        assert_eq!(ready, json!({"event": "ready"}));
        let end = End::start(role, Settings::default());
        Self { end, node, largest: 0, candidates: Vec::new(), is_hidden: false }
    }

    async fn connected(mut self) -> Self {
        let pair = &mut self;
        let (mut is_open, mut is_connected) = (false, false);
        while !(is_open && is_connected) {
            match pair.step().await {
                Step::Ours(Event::Open { label, max_message_size }) => {
                    assert_eq!(label, LABEL);
                    pair.largest = max_message_size;
                    is_open = true;
                }
                Step::Ours(Event::Closed { reason }) => panic!("{reason}"),
                Step::Theirs(said) if said["event"] == "connect" => is_connected = true,
                Step::Theirs(said) if said["event"] == "error" => panic!("{said}"),
                _ => {}
            }
        }
        self
    }

    /// The next thing on either side. Signals are carried.
    async fn step(&mut self) -> Step {
        let next = async {
            tokio::select! {
                Some(event) = self.end.events.next() => Step::Ours(event),
                said = self.node.line() => Step::Theirs(said),
            }
        };
        let step = tokio::time::timeout(support::PATIENCE, next).await.expect("something in time");
        match &step {
            Step::Ours(Event::Signal(signal)) => {
                if let Some(signal) =
                    if self.is_hidden { without_addresses(signal) } else { Some(signal.clone()) }
                {
                    self.node.tell(json!({"do": "signal", "signal": signal})).await;
                }
            }
            Step::Theirs(said) if said["signal"].is_object() => {
                if let Some(candidate) = said["signal"]["candidate"]["candidate"].as_str() {
                    self.candidates.push(candidate.to_owned());
                }
                self.end.connection.signal(&said["signal"]).unwrap();
            }
            _ => {}
        }
        step
    }

    async fn theirs(&mut self, is_wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            match self.step().await {
                Step::Theirs(said) if is_wanted(&said) => return said,
                Step::Theirs(said) if said["event"] == "error" => panic!("{said}"),
                Step::Ours(Event::Closed { reason }) if reason != CloseReason::Local => panic!("{reason}"),
                _ => {}
            }
        }
    }

    async fn ours(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            match self.step().await {
                Step::Ours(event) if is_wanted(&event) => return event,
                Step::Theirs(said) if said["event"] == "error" => panic!("{said}"),
                _ => {}
            }
        }
    }

    /// A message each way.
    async fn talk(&mut self) {
        self.send(7, 100).await;
        self.node.tell(json!({"do": "text", "text": "hello"})).await;
        self.ours(|event| *event == Event::Text(Bytes::from_static(b"hello"))).await;
    }

    async fn send(&mut self, fill: u8, size: usize) {
        self.end.connection.send(Bytes::from(vec![fill; size])).unwrap();
        let said = self.theirs(|said| said["event"] == "data").await;
        assert_eq!(
            (&said["size"], &said["same"], &said["first"]),
            (&json!(size), &json!(true), &json!(fill))
        );
    }
}

/// A signal that tells nothing of where we are; `None` if nothing is left of it.
fn without_addresses(signal: &Value) -> Option<Value> {
    let sdp = signal["sdp"].as_str()?;
    let lines = sdp.split_inclusive("\r\n").filter(|line| !line.starts_with("a=candidate"));
    Some(json!({"type": signal["type"], "sdp": lines.collect::<String>()}))
}

#[derive(Debug)]
enum Step {
    Ours(Event),
    Theirs(Value),
}

async fn both_directions_connect(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        pair.talk().await;
        assert!(!pair.candidates.is_empty(), "it trickles");
        pair.node.end().await;
    }
}

async fn large_messages_go_both_ways(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        assert_eq!(pair.largest, MAX_MESSAGE);
        for (fill, size) in [(1, 65_536), (2, MAX_MESSAGE)] {
            pair.send(fill, size).await;
            pair.node.tell(json!({"do": "send", "size": size, "fill": fill})).await;
            pair.ours(|event| *event == Event::Message(Bytes::from(vec![fill; size]))).await;
        }
        let too_large = pair.end.connection.send(Bytes::from(vec![0; MAX_MESSAGE + 1]));
        assert!(matches!(too_large, Err(SendError::TooLarge { .. })));
        pair.node.end().await;
    }
}

async fn either_side_negotiates(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        pair.node.tell(json!({"do": "negotiate"})).await;
        let answered =
            |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] != "candidate");
        // An offer if it is ours to make, and the answer to theirs otherwise.
        let Event::Signal(signal) = pair.ours(answered).await else { unreachable!() };
        assert_eq!(signal["type"], if role == Role::Initiator { "offer" } else { "answer" });
        pair.talk().await;

        pair.end.connection.renegotiate().unwrap();
        if role == Role::Initiator {
            pair.theirs(|said| said["signal"]["type"] == "answer").await;
        } else {
            pair.theirs(|said| said["signal"]["type"] == "offer").await;
            pair.ours(answered).await;
        }
        pair.talk().await;
        pair.node.end().await;
    }
}

async fn either_side_restarts(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        pair.end.connection.restart_ice(None).unwrap();
        pair.theirs(|said| said["signal"]["type"] == "answer").await;
        pair.talk().await;

        pair.node.tell(json!({"do": "restart"})).await;
        let answered = |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] == "answer");
        pair.ours(answered).await;
        pair.talk().await;
        pair.node.end().await;
    }
}

async fn our_close_is_a_close_there(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        pair.end.connection.close();
        // An error would end the test.
        pair.theirs(|said| said["event"] == "close").await;
        pair.node.end().await;
    }
}

async fn their_close_is_a_close_here(over: Over) {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(over, role).await;
        pair.node.tell(json!({"do": "destroy"})).await;
        let closed = pair.ours(|event| matches!(event, Event::Closed { .. })).await;
        assert_eq!(closed, Event::Closed { reason: CloseReason::Remote });
        pair.node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_initiation_connect_and_talk() {
    both_directions_connect(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_256_kib_go_both_ways() {
    large_messages_go_both_ways(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_negotiates_again() {
    either_side_negotiates(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_restarts_ice() {
    either_side_restarts(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_close_is_a_close_there_and_no_error() {
    our_close_is_a_close_there(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_handle_is_a_close_there_and_no_error() {
    let Pair { end, mut node, .. } = Pair::connect(Over::Wrtc, Role::Initiator).await;
    drop(end);
    loop {
        let said = tokio::time::timeout(support::PATIENCE, node.line()).await.expect("a close in time");
        assert_ne!(said["event"], "error", "{said}");
        if said["event"] == "close" {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn their_close_is_a_close() {
    their_close_is_a_close_here(Over::Wrtc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_connects_in_both_directions_of_initiation() {
    both_directions_connect(Over::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_takes_and_sends_messages_of_256_kib() {
    large_messages_go_both_ways(Over::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_negotiates_again_from_either_side() {
    either_side_negotiates(Over::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_restarts_ice_from_either_side() {
    either_side_restarts(Over::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_sees_our_close_as_a_close_and_we_see_its() {
    our_close_is_a_close_there(Over::Chromium).await;
    their_close_is_a_close_here(Over::Chromium).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chromium_is_found_by_the_name_that_it_gives_for_its_address() {
    for role in [Role::Initiator, Role::Answerer] {
        let pair = Pair::start(Over::Chromium, role).await;
        // It cannot reach us by itself.
        let mut pair = Pair { is_hidden: true, ..pair }.connected().await;
        pair.talk().await;
        assert!(!pair.candidates.is_empty());
        for candidate in &pair.candidates {
            assert!(
                candidate.split(' ').nth(4).is_some_and(|address| address.ends_with(".local")),
                "{candidate}"
            );
        }
        pair.node.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_interrupted_and_then_lost() {
    let mut pair = Pair::connect(Over::Wrtc, Role::Initiator).await;
    pair.node.tell(json!({"do": "vanish"})).await;
    let end = &mut pair.end;
    end.until(|event| *event == Event::Interrupted).await;
    assert_eq!(end.closed().await, CloseReason::Lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_another_kind_is_let_go_with_the_name_of_its_channel() {
    let mut end = End::start(Role::Answerer, Settings::default());
    let mut node = Node::start("simple_peer.mjs", &["initiator"]).await;
    let closed = loop {
        tokio::select! {
            event = end.next() => match event {
                Event::Signal(signal) => node.tell(json!({"do": "signal", "signal": signal})).await,
                Event::Closed { reason } => break reason,
                Event::Open { .. } => panic!("a channel that is not ours"),
                _ => {}
            },
            said = node.line() => if said["signal"].is_object() {
                // It may be gone already.
                let _ = end.connection.signal(&said["signal"]);
            },
        }
    };
    let CloseReason::Foreign { label } = closed else { panic!("{closed}") };
    assert!(label.len() == 40 && label.chars().all(|c| c.is_ascii_hexdigit()), "{label}");
}
