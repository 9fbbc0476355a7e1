//! Against simple-peer, which is what y-webrtc uses, over libwebrtc in Node.
//!
//! The packages are those of `e2e/`: `npm ci` there first.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "webrtc")]

mod support;

use bytes::Bytes;
use peer_sdk::adapter::webrtc::{CloseReason, Event, LABEL, MAX_MESSAGE, Role, SendError, Settings};
use serde_json::{Value, json};
use support::End;
use support::node::Node;

/// A connection of ours, and a simple-peer that is connected to it.
struct Pair {
    end: End,
    node: Node,
    largest: usize,
}

impl Pair {
    /// Our side in `role`.
    async fn connect(role: Role) -> Self {
        let theirs = if role == Role::Initiator { "answerer" } else { "initiator" };
        let mut pair = Self {
            end: End::start(role, Settings::default()),
            node: Node::start("simple_peer.mjs", &[theirs, LABEL]).await,
            largest: 0,
        };
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
        pair
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
                self.node.tell(json!({"do": "signal", "signal": signal})).await;
            }
            Step::Theirs(said) if said["signal"].is_object() => {
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

#[derive(Debug)]
enum Step {
    Ours(Event),
    Theirs(Value),
}

#[tokio::test(flavor = "multi_thread")]
async fn both_directions_of_initiation_connect_and_talk() {
    for role in [Role::Initiator, Role::Answerer] {
        Pair::connect(role).await.talk().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_256_kib_go_both_ways() {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(role).await;
        assert_eq!(pair.largest, MAX_MESSAGE);
        for (fill, size) in [(1, 65_536), (2, MAX_MESSAGE)] {
            pair.send(fill, size).await;
            pair.node.tell(json!({"do": "send", "size": size, "fill": fill})).await;
            pair.ours(|event| *event == Event::Message(Bytes::from(vec![fill; size]))).await;
        }
        let too_large = pair.end.connection.send(Bytes::from(vec![0; MAX_MESSAGE + 1]));
        assert!(matches!(too_large, Err(SendError::TooLarge { .. })));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_negotiates_again() {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(role).await;
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
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn either_side_restarts_ice() {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(role).await;
        pair.end.connection.restart_ice(None).unwrap();
        pair.theirs(|said| said["signal"]["type"] == "answer").await;
        pair.talk().await;

        pair.node.tell(json!({"do": "restart"})).await;
        let answered = |event: &Event| matches!(event, Event::Signal(signal) if signal["type"] == "answer");
        pair.ours(answered).await;
        pair.talk().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_close_is_a_close_there_and_no_error() {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(role).await;
        pair.end.connection.close();
        // An error would end the test.
        pair.theirs(|said| said["event"] == "close").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_handle_is_a_close_there_and_no_error() {
    let Pair { end, mut node, .. } = Pair::connect(Role::Initiator).await;
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
async fn their_close_is_a_close_here() {
    for role in [Role::Initiator, Role::Answerer] {
        let mut pair = Pair::connect(role).await;
        pair.node.tell(json!({"do": "destroy"})).await;
        let closed = pair.ours(|event| matches!(event, Event::Closed { .. })).await;
        assert_eq!(closed, Event::Closed { reason: CloseReason::Remote });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_peer_is_interrupted_and_then_lost() {
    let mut pair = Pair::connect(Role::Initiator).await;
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
