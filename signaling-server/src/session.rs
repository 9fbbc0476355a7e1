//! What one connection says, and what that does: the y-webrtc dialect over the hub.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use wire::frame::{Dialect, Keepalive, Kind};
use wire::id::TopicName;
use wire::signal::{self, PONG, Publish, Signal, SignalError, Topics};

use crate::access::Grant;
use crate::frame::Frame;
use crate::hub::{Caller, Hub};
use crate::metrics::{Disconnect, MessageRefusal, Received, Sent};
use crate::outbox::Flush;

/// What a session may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Topics subscribed at once.
    pub topics: usize,
    /// Bytes of a topic's name.
    pub topic_name: usize,
    /// What a message's JSON may ask of us.
    pub json: signal::Limits,
}

/// One connection's subscriptions and rights.
#[derive(Debug)]
pub struct Session {
    hub: Arc<Hub>,
    caller: Arc<Caller>,
    grant: Grant,
    bounds: Bounds,
    topics: HashSet<TopicName>,
    /// What this connection published and has not flushed.
    flush: Flush,
}

impl Session {
    /// A session without subscriptions.
    #[must_use]
    pub fn new(hub: Arc<Hub>, caller: Arc<Caller>, grant: Grant, bounds: Bounds) -> Self {
        Self { hub, caller, grant, bounds, topics: HashSet::new(), flush: Flush::default() }
    }

    /// Acts on one message and says what it was. Junk is counted and ignored, as the reference server ignores it.
    pub fn handle(&mut self, kind: Kind, payload: &[u8], now: Instant) -> Received {
        let received = match Dialect::of(kind, payload) {
            Dialect::Signal => self.signal(kind, payload, now),
            Dialect::Keepalive(Keepalive::Ping) => {
                self.reply(b"pong");
                Received::Ping
            }
            Dialect::Keepalive(Keepalive::Pong) | Dialect::Loro => Received::Loro,
        };
        let metrics = self.hub.metrics();
        metrics.received.inc(received);
        metrics.received_bytes.add(received, payload.len() as u64);
        received
    }

    /// Sends the pong that keeps a y-webrtc client from giving up on us.
    pub fn pong(&self) {
        self.reply(PONG);
    }

    /// Writes what was published to the sockets of those it is for: some now, unless the server is busy, and some in
    /// the next turn, if this says so.
    pub(crate) fn flush(&mut self) -> bool {
        if !self.flush.wait_a_turn {
            self.flush.turn();
        }
        !self.flush.is_empty()
    }

    /// The next turn has come.
    pub(crate) fn next_turn(&mut self) {
        self.flush.wait_a_turn = false;
    }

    /// The connection has ended.
    pub fn end(self, why: Disconnect) {
        self.hub.disconnect(&self.caller, self.topics.iter(), why);
    }

    fn signal(&mut self, kind: Kind, payload: &[u8], now: Instant) -> Received {
        let repaired = match kind {
            Kind::Text => payload.into(),
            Kind::Binary => signal::repair(payload),
        };
        match Signal::parse(&repaired, self.bounds.json) {
            Ok(Signal::Publish(message)) => {
                self.publish(&message, now);
                Received::Publish
            }
            Ok(Signal::Subscribe(topics)) => {
                self.subscribe(topics);
                Received::Subscribe
            }
            Ok(Signal::Unsubscribe(topics)) => {
                self.unsubscribe(topics);
                Received::Unsubscribe
            }
            Ok(Signal::Ping) => {
                self.pong();
                Received::Ping
            }
            Ok(Signal::Pong | Signal::Ignored) => Received::Ignored,
            Err(SignalError::TooDeep { .. }) => Received::TooDeep,
            Err(SignalError::NotJson { .. } | SignalError::NotUtf8 { .. }) => Received::Malformed,
        }
    }

    fn subscribe(&mut self, topics: Topics<'_>) {
        for topic in topics.within(self.bounds.topic_name) {
            let outcome = match topic {
                Ok(topic) => self.subscribe_one(topic),
                Err(_) => Err(MessageRefusal::TopicTooLong),
            };
            if let Err(refusal) = outcome {
                self.hub.metrics().refused.inc(refusal);
            }
        }
    }

    fn subscribe_one(&mut self, topic: TopicName) -> Result<(), MessageRefusal> {
        if !self.grant.may_subscribe(topic.as_bytes()) {
            return Err(MessageRefusal::TopicNotAllowed);
        }
        if self.topics.len() >= self.bounds.topics && !self.topics.contains(&topic) {
            return Err(MessageRefusal::TooManyTopics);
        }
        // Also when it is in the set: an operator may have closed and reopened the room.
        self.hub.subscribe(&self.caller, &topic)?;
        self.topics.insert(topic);
        Ok(())
    }

    fn unsubscribe(&mut self, topics: Topics<'_>) {
        for topic in topics.within(self.bounds.topic_name).flatten() {
            if self.topics.remove(&topic) {
                self.hub.unsubscribe(&self.caller, &topic);
            }
        }
    }

    fn publish(&mut self, message: &Publish<'_>, now: Instant) {
        let topic = message.topic().as_bytes();
        if self.grant.may_publish(topic) {
            return self.hub.publish(&self.caller, message, now, &mut self.flush);
        }
        let refusal = match self.grant.may_subscribe(topic) {
            true => MessageRefusal::ReadOnly,
            false => MessageRefusal::TopicNotAllowed,
        };
        self.hub.metrics().refused.inc(refusal);
    }

    fn reply(&self, message: &[u8]) {
        let frame = Frame::text(message);
        let metrics = self.hub.metrics();
        metrics.sent.inc(Sent::Pong);
        metrics.sent_bytes.add(Sent::Pong, frame.len() as u64);
        // The connection writes it at the end of this turn. Closed: it is ending, and counted as such.
        let _ = self.caller.outbox.push(frame);
    }
}
