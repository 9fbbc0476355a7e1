//! A simulated peer: a real engine, an application's document, a disk and a clock.

use std::time::Instant;

use bytes::Bytes;
use loro::{LoroDoc, LoroValue, VersionVector};
use peer_sdk::document::difference;
use peer_sdk::engine::{Config, Engine};
use rand::Rng;
use rand::rngs::StdRng;
use wire::id::{PeerId, RoomId};

use crate::network::Node;

/// Whom somebody dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Server(usize),
    /// The hub of another peer.
    Peer(usize),
}

/// What survives a crash.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    pub(crate) updates: Vec<Bytes>,
    pub(crate) broken: bool,
    pub(crate) slow: bool,
}

pub(crate) struct Peer {
    pub(crate) node: Node,
    pub(crate) targets: Vec<Target>,
    pub(crate) channels: usize,
    /// How wrong its clock is, in milliseconds.
    pub(crate) skew: i64,
    pub(crate) disk: Disk,
    /// Counts its lives. What was under way for an earlier one is void.
    pub(crate) life: u64,
    pub(crate) up: Option<Running>,
    /// The application takes its time to import.
    pub(crate) importing: bool,
    pub(crate) joined_signaling: bool,
}

pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) doc: LoroDoc,
    pub(crate) session: PeerId,
    pub(crate) guests: u64,
}

impl Peer {
    pub(crate) fn start(&mut self, now: Instant, start: Instant, seed: u64) {
        self.life += 1;
        let session = format!("session-{}-{}", self.node.0, self.life);
        let doc = LoroDoc::new();
        doc.set_peer_id(self.node.0 as u64 * 1000 + self.life).unwrap();
        for update in &self.disk.updates {
            doc.import(update).unwrap();
        }
        let millis = 1_800_000_000_000_i64 + self.skew + now.duration_since(start).as_millis() as i64;
        let config = Config {
            room: RoomId::try_from("plan").unwrap(),
            session: PeerId::from(session.as_str()),
            seed: seed ^ (self.node.0 as u64) << 32 ^ self.life,
            wall: millis as u64,
            uplinks: self.targets.iter().map(|_| Bytes::new()).collect(),
            by_author: Vec::new(),
            channels: self.channels,
        };
        let engine = Engine::new(now, config, &self.disk.updates).unwrap();
        self.importing = false;
        self.joined_signaling = false;
        self.up = Some(Running { engine, doc, session: PeerId::from(session.as_str()), guests: 0 });
    }

    pub(crate) fn name(&self) -> LoroValue {
        LoroValue::from(format!("peer {}", self.node.0))
    }
}

impl Running {
    /// What the application has and the engine has not.
    pub(crate) fn edits(&self) -> Option<Bytes> {
        difference(&self.doc, self.engine.version())
    }

    /// The application imports what the engine has.
    pub(crate) fn import(&mut self) {
        if let Some(update) = self.engine.updates_since(&self.doc.oplog_vv()) {
            self.doc.import(&update).unwrap();
        }
    }

    /// One edit of the kinds that applications make.
    pub(crate) fn edit(&mut self, dice: &mut StdRng) {
        let text = self.doc.get_text("text");
        let len = text.len_unicode();
        match dice.random_range(0..10) {
            0..5 => text.insert(dice.random_range(0..=len), "word ").unwrap(),
            5 if len > 4 => text.delete(dice.random_range(0..len - 3), 3).unwrap(),
            6 | 7 => {
                let key = format!("key {}", dice.random_range(0..5));
                self.doc.get_map("map").insert(&key, dice.random_range(0..1000)).unwrap();
            }
            _ => self.doc.get_list("notes").push(format!("note {}", dice.random_range(0..1000))).unwrap(),
        }
        self.doc.commit();
    }

    pub(crate) fn version(&self) -> VersionVector {
        self.engine.version().clone()
    }
}
