//! What one connection says, and what that does: the y-webrtc dialect over the hub, the Loro Protocol over the relay.

mod documents;
mod rights;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use wire::frame::{Dialect, Keepalive, Kind};
use wire::id::TopicName;
use wire::signal::{self, PONG, Publish, Signal, SignalError, Topics};

use crate::access::{Access, Grant};
use crate::frame::Frame;
use crate::hub::{Caller, Hub};
use crate::limits::Rate;
use crate::metrics::{Disconnect, MessageRefusal, Received, Sent};
use crate::outbox::Flush;
use crate::relay::Relays;

use documents::Documents;
use rights::Rights;

/// What a session may hold.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Topics subscribed at once.
    pub topics: usize,
    /// Bytes of a topic's name.
    pub topic_name: usize,
    /// What a message's JSON may ask of us.
    pub json: signal::Limits,
    /// Bytes of a message of the y-webrtc dialect.
    pub signal: usize,
    /// Updates of the Loro Protocol. More are refused.
    pub updates: Rate,
}

/// One connection's subscriptions and rights.
pub struct Session {
    hub: Arc<Hub>,
    relays: Option<Arc<Relays>>,
    access: Arc<Access>,
    caller: Arc<Caller>,
    rights: Rights,
    bounds: Bounds,
    topics: HashSet<TopicName>,
    documents: Option<Box<Documents>>,
    /// What this connection published and has not flushed.
    flush: Flush,
}

/// What all sessions share.
#[derive(Clone, Debug)]
pub(crate) struct Common {
    pub(crate) hub: Arc<Hub>,
    pub(crate) relays: Option<Arc<Relays>>,
    pub(crate) access: Arc<Access>,
    pub(crate) bounds: Bounds,
}

impl Session {
    /// A session without subscriptions. Without a grant it has to show a token within 30 s.
    pub(crate) fn new(common: Common, caller: Arc<Caller>, grant: Option<Grant>, now: Instant) -> Self {
        let Common { hub, relays, access, bounds } = common;
        Self {
            hub,
            relays,
            access,
            caller,
            rights: Rights::new(grant, now),
            bounds,
            topics: HashSet::new(),
            documents: None,
            flush: Flush::default(),
        }
    }

    /// Acts on one message and says what it was. Junk is counted and ignored, as the reference server ignores it; an
    /// error ends the connection.
    pub fn handle(&mut self, kind: Kind, payload: &Bytes, now: Instant) -> Result<Received, Disconnect> {
        let received = match Dialect::of(kind, payload) {
            Dialect::Signal if payload.len() > self.bounds.signal => return Err(Disconnect::TooLarge),
            Dialect::Signal => self.signal(kind, payload, now),
            Dialect::Keepalive(Keepalive::Ping) => {
                self.reply(b"pong");
                Received::Ping
            }
            Dialect::Keepalive(Keepalive::Pong) => Received::Loro,
            Dialect::Loro => self.loro(payload, now)?,
        };
        let metrics = self.hub.metrics();
        metrics.received.inc(received);
        metrics.received_bytes.add(received, payload.len() as u64);
        Ok(received)
    }

    /// When to [`check_clock`](Self::check_clock) at the latest.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let fragments = self.documents.as_ref().and_then(|documents| documents.deadline());
        [self.rights.expires(), fragments].into_iter().flatten().min()
    }

    /// Does what is due; an error ends the connection.
    pub(crate) fn check_clock(&mut self, now: Instant) -> Result<(), Disconnect> {
        if self.rights.expires().is_some_and(|expires| now >= expires) {
            return Err(if self.rights.is_empty() { Disconnect::NoToken } else { Disconnect::TokenExpired });
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            self.expire_fragments(now);
        }
        Ok(())
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
    pub fn end(mut self, why: Disconnect) {
        self.leave_all(why, Instant::now());
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
        self.rights.may_subscribe(topic.as_bytes())?;
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
        match self.rights.may_publish(message.topic().as_bytes()) {
            Ok(()) => self.hub.publish(&self.caller, message, now, &mut self.flush),
            Err(refusal) => self.hub.metrics().refused.inc(refusal),
        }
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

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("caller", &self.caller.id).finish_non_exhaustive()
    }
}
