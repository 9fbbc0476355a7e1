//! A room: everybody who subscribed one topic, and who hears what is published there.
//!
//! A core, in the project's one contract: [`Room::handle`] takes one thing that happened, [`Room::poll`] says what to
//! do about it and is drained before the next input. Nothing here awaits, locks, reads a clock or draws a random number.

mod topic;

pub mod document;
pub mod relay;

mod content;

mod blind;
mod presence;
mod replica;
mod sealed;

use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use rustc_hash::FxBuildHasher;
use wire::signal::Publish;

use topic::Topic;

/// One WebSocket connection. Minted by the hub when the socket is upgraded, never used twice in one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(crate) u64);

/// Something for each of some connections. Every delivery looks its receiver up, and nobody outside chooses the ids: so
/// they need no hash that withstands an attack.
pub(crate) type ByConnection<T> = HashMap<ConnectionId, T, FxBuildHasher>;

impl From<u64> for ConnectionId {
    /// For whoever drives rooms without a hub, and so mints ids itself.
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How a room spreads what is published in it.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Whether a message that names its receiver goes to that receiver alone.
    pub delivery: Delivery,
    /// Whether a subscribed publisher hears its own message, as the reference server does.
    pub echo: bool,
    /// Most subscribers of one room; 0 means no limit.
    pub capacity: usize,
    /// Most peer ids remembered for one subscriber. One that shows more is sent every directed message instead, so
    /// that the bound never costs anybody a message.
    pub learned_ids: usize,
}

/// Who receives a message that names its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The subscribers that have been seen publishing under that peer id; when there are none, everybody.
    Directed,
    /// Everybody, always: what the reference server does.
    Broadcast,
}

/// One thing that happened.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A connection wants to hear the topic. Repeating it changes nothing.
    Subscribe {
        /// Who.
        who: ConnectionId,
    },
    /// A connection no longer wants to, or is gone.
    Unsubscribe {
        /// Who.
        who: ConnectionId,
    },
    /// A connection, subscribed or not, publishes.
    Publish {
        /// Who published; hears the echo when subscribed.
        from: ConnectionId,
        /// What.
        message: &'a Publish<'a>,
    },
}

/// What to do about it.
#[derive(Debug, PartialEq, Eq)]
pub enum Output {
    /// Send one text message to each of these connections, in this order.
    Deliver {
        /// The message, `clients` set; shared by all receivers.
        message: Bytes,
        /// The subscribers that receive it.
        to: Vec<ConnectionId>,
        /// Whether the room knew whom the message was for.
        route: Route,
    },
    /// The room is full: this connection was not subscribed.
    Full {
        /// Who was turned away.
        who: ConnectionId,
    },
}

/// How a message found its receivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// It named a receiver that the room knows.
    Directed,
    /// It went to the whole room.
    Broadcast,
}

/// One topic's subscribers, and the messages of theirs that wait to be sent.
#[derive(Debug)]
pub struct Room {
    topic: Topic,
    output: Option<Output>,
}

impl Room {
    /// An empty room.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { topic: Topic::new(rules), output: None }
    }

    /// Takes one thing that happened at `now`. Drain [`poll`](Self::poll) before the next.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        debug_assert!(self.output.is_none(), "outputs are drained before the next input");
        self.output = match input {
            Input::Subscribe { who } => self.topic.subscribe(who),
            Input::Unsubscribe { who } => {
                self.topic.unsubscribe(who);
                None
            }
            Input::Publish { from, message } => self.topic.publish(now, from, message),
        };
    }

    /// The next thing to do, `None` when there is nothing left.
    pub fn poll(&mut self) -> Option<Output> {
        self.output.take()
    }

    /// When to call [`handle`](Self::handle) at the latest. A room of subscribers never waits for anything.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        None
    }

    /// Who is subscribed, in no particular order.
    pub fn subscribers(&self) -> impl ExactSizeIterator<Item = ConnectionId> + '_ {
        self.topic.subscribers()
    }

    /// Whether nobody is subscribed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topic.subscribers().len() == 0
    }

    /// Messages published here since the room opened.
    #[must_use]
    pub fn published(&self) -> u64 {
        self.topic.published()
    }

    /// Messages published here in about the last minute.
    #[must_use]
    pub fn per_minute(&self, now: Instant) -> f64 {
        self.topic.per_minute(now)
    }
}
