//! What a connection may do, by the tokens it has shown.

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use wire::sync::Room;

use crate::access::Grant;
use crate::metrics::MessageRefusal;

/// How long a connection without a token may stay: by then it has joined a room with one.
const TOKENLESS: Duration = Duration::from_secs(30);

/// The grant that a connection came with, and those of tokens that it joined rooms with. A room's own grant goes
/// before the connection's, there and nowhere else; a topic is open by any of them.
pub(super) struct Rights {
    own: Option<Grant>,
    /// No more than the rooms that it is in.
    rooms: HashMap<Room, Grant>,
    /// When the first of them ends, or the patience with who has none.
    expires: Option<Instant>,
}

impl Rights {
    pub(super) fn new(own: Option<Grant>, now: Instant) -> Self {
        let mut rights = Self { own, rooms: HashMap::new(), expires: None };
        rights.reckon(now);
        rights
    }

    /// What holds in a room without a token for it.
    pub(super) fn of(&self, room: &Room) -> Option<&Grant> {
        self.rooms.get(room).or(self.own.as_ref())
    }

    /// From now on this grant holds in this room; when it ends, so does the connection.
    pub(super) fn show(&mut self, room: &Room, grant: Grant, now: Instant) {
        self.rooms.insert(room.clone(), grant);
        self.reckon(now);
    }

    /// The room has been left.
    pub(super) fn give_back(&mut self, room: &Room, now: Instant) {
        if self.rooms.remove(room).is_some() {
            self.reckon(now);
        }
    }

    pub(super) fn may_subscribe(&self, topic: &[u8]) -> Result<(), MessageRefusal> {
        self.any(|grant| grant.may_subscribe(topic), MessageRefusal::TopicNotAllowed)
    }

    pub(super) fn may_publish(&self, topic: &[u8]) -> Result<(), MessageRefusal> {
        self.any(|grant| grant.may_publish(topic), MessageRefusal::ReadOnly)
            .map_err(|refusal| self.may_subscribe(topic).err().unwrap_or(refusal))
    }

    /// No token has been shown, or none is left.
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_none() && self.rooms.is_empty()
    }

    /// When the connection has to end.
    pub(super) fn expires(&self) -> Option<Instant> {
        self.expires
    }

    fn any(&self, allows: impl Fn(&Grant) -> bool, refusal: MessageRefusal) -> Result<(), MessageRefusal> {
        if self.own.iter().chain(self.rooms.values()).any(allows) {
            return Ok(());
        }
        Err(if self.is_empty() { MessageRefusal::NoToken } else { refusal })
    }

    fn reckon(&mut self, now: Instant) {
        if self.is_empty() {
            self.expires = now.checked_add(TOKENLESS);
            return;
        }
        let first = self.own.iter().chain(self.rooms.values()).filter_map(Grant::expires).min();
        let left = first.map(|at| at.duration_since(SystemTime::now()).unwrap_or_default());
        self.expires = left.and_then(|left| now.checked_add(left));
    }
}
