//! Connections under test, and what carries their signals.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

pub mod coturn;
pub mod node;
pub mod server;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use peer_sdk::adapter::webrtc::{
    CloseReason, Connection, Event, Events, Mdns, Path, Role, Settings, SignalError,
};
use serde_json::{Value, json};

/// No wait in a test is longer: what takes as long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Loopback alone.
pub fn local() -> Settings {
    Settings { udp: vec!["127.0.0.1:0".parse().unwrap()], mdns: Mdns::Off, ..Settings::default() }
}

/// One end of a connection, and what it has said.
pub struct End {
    pub connection: Connection,
    pub events: Events,
    pub label: String,
    pub largest: usize,
    /// Events that were passed over while something else was waited for.
    passed: VecDeque<Event>,
}

impl End {
    pub fn new(connection: Connection, events: Events) -> Self {
        Self { connection, events, label: String::new(), largest: 0, passed: VecDeque::new() }
    }

    pub fn start(role: Role, settings: Settings) -> Self {
        let (connection, events) = Connection::start(role, settings);
        Self::new(connection, events)
    }

    pub async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("an event in time");
        next.expect("an event before the end")
    }

    /// The first event that `is_wanted`; the others are kept.
    pub async fn until(&mut self, is_wanted: impl Fn(&Event) -> bool) -> Event {
        if let Some(at) = self.passed.iter().position(&is_wanted) {
            return self.passed.remove(at).unwrap();
        }
        loop {
            match self.next().await {
                event if is_wanted(&event) => return event,
                Event::Closed { reason } => panic!("closed early: {reason}"),
                event => self.passed.push_back(event),
            }
        }
    }

    pub async fn message(&mut self) -> Bytes {
        match self.until(|event| matches!(event, Event::Message(_))).await {
            Event::Message(message) => message,
            _ => unreachable!(),
        }
    }

    pub async fn path(&mut self) -> (Path, Option<Duration>) {
        match self.until(|event| matches!(event, Event::Path { .. })).await {
            Event::Path { path, round_trip } => (path, round_trip),
            _ => unreachable!(),
        }
    }

    pub async fn closed(&mut self) -> CloseReason {
        let closed = self.until(|event| matches!(event, Event::Closed { .. })).await;
        let Event::Closed { reason } = closed else { unreachable!() };
        assert_eq!(self.events.next().await, None, "it is the last event");
        reason
    }

    pub async fn into_closed(mut self) -> CloseReason {
        self.closed().await
    }

    fn opened(&mut self, event: &Event) -> bool {
        if let Event::Open { label, max_message_size } = event {
            self.label.clone_from(label);
            self.largest = *max_message_size;
        }
        !self.label.is_empty()
    }
}

/// Two ends with an open channel.
pub async fn pair(initiator: Settings, answerer: Settings) -> (End, End) {
    let mut ana = End::start(Role::Initiator, initiator);
    let mut ben = End::start(Role::Answerer, answerer);
    connect(&mut ana, &mut ben).await;
    (ana, ben)
}

/// Carries signals until both are open.
pub async fn connect(ana: &mut End, ben: &mut End) {
    let (mut is_ana, mut is_ben) = (false, false);
    while !(is_ana && is_ben) {
        let (from_ana, event) = either(ana, ben).await;
        let (from, to) = if from_ana { (&mut *ana, &mut *ben) } else { (&mut *ben, &mut *ana) };
        let is_open = from.opened(&event);
        carry(event, from, to).await;
        if from_ana { is_ana = is_open } else { is_ben = is_open }
    }
}

/// Carries signals until one is carried that `is_wanted`.
pub async fn relay_until(ana: &mut End, ben: &mut End, is_wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let (from_ana, event) = either(ana, ben).await;
        let (from, to) = if from_ana { (&mut *ana, &mut *ben) } else { (&mut *ben, &mut *ana) };
        if let Event::Signal(signal) = &event
            && is_wanted(signal)
        {
            let signal = signal.clone();
            carry(event, from, to).await;
            return signal;
        }
        carry(event, from, to).await;
    }
}

/// Carries signals until `to` has received so many messages.
pub async fn relay_messages(from: &mut End, to: &mut End, count: usize) -> Vec<Bytes> {
    let mut messages = Vec::new();
    loop {
        while let Some(at) = to.passed.iter().position(|event| matches!(event, Event::Message(_))) {
            if let Some(Event::Message(message)) = to.passed.remove(at) {
                messages.push(message);
            }
        }
        if messages.len() >= count {
            return messages;
        }
        let (is_from, event) = either(from, to).await;
        if is_from { carry(event, from, to).await } else { carry(event, to, from).await }
    }
}

async fn either(ana: &mut End, ben: &mut End) -> (bool, Event) {
    let next = async {
        tokio::select! {
            event = ana.events.next() => (true, event),
            event = ben.events.next() => (false, event),
        }
    };
    let (from_ana, event) = tokio::time::timeout(PATIENCE, next).await.expect("an event in time");
    (from_ana, event.expect("an event before the end"))
}

async fn carry(event: Event, from: &mut End, to: &mut End) {
    match event {
        Event::Signal(signal) => {
            // Behind a flood there is no room for a moment.
            while let Err(refused) = to.connection.signal(&signal) {
                assert!(matches!(refused, SignalError::Busy { .. }), "{refused}");
                tokio::task::yield_now().await;
            }
        }
        Event::Closed { reason } => panic!("closed early: {reason}"),
        event => from.passed.push_back(event),
    }
}

/// Things that strangers send as signals.
pub fn junk() -> Vec<Value> {
    let sdp = |rest: &str| {
        format!(
            "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n{rest}"
        )
    };
    let mut junk = vec![
        json!(null),
        json!([]),
        json!("offer"),
        json!({"type": "offer"}),
        json!({"type": "offer", "sdp": ""}),
        json!({"type": "offer", "sdp": "v=0"}),
        json!({"type": "offer", "sdp": "\u{0}\u{1}m=application "}),
        json!({"type": "offer", "sdp": sdp("")}),
        json!({"type": "answer", "sdp": sdp("")}),
        json!({"type": "offer", "sdp": sdp("a=mid:0\r\na=setup:x\r\na=ice-ufrag:\r\na=ice-pwd:\r\n")}),
        json!({"type": "offer", "sdp": sdp("a=fingerprint:sha-256 zz\r\na=ice-ufrag:a\r\na=ice-pwd:b\r\na=setup:actpass\r\n")}),
        json!({"type": "offer", "sdp": sdp(&"a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n".repeat(500))}),
        json!({"type": "offer", "sdp": sdp(&"a=x\r\n".repeat(100_000))}),
        json!({"type": "offer", "sdp": "m=application 0\r\n".repeat(3)}),
        json!({"type": "pranswer", "sdp": sdp("")}),
        json!({"transceiverRequest": {"kind": "video"}}),
        json!({"candidate": null}),
        json!({"candidate": {"candidate": "candidate:"}}),
        json!({"candidate": {"candidate": "candidate:1 1 udp x 192.0.2.1 y typ host"}}),
        json!({"candidate": {"candidate": "candidate:1 1 udp 1 name.local 9 typ host"}}),
        json!({"candidate": {"candidate": "x".repeat(100_000)}}),
        json!({"renegotiate": {"deep": true}}),
    ];
    for nth in 0..1000 {
        let line = format!("candidate:{nth} 1 udp 1 127.0.0.1 {} typ host", 1 + nth);
        junk.push(json!({"type": "candidate", "candidate": {"candidate": line, "sdpMLineIndex": 9999, "sdpMid": "zz"}}));
    }
    junk
}
