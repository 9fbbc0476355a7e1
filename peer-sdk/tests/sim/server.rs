//! A simulated server: the real rooms of the signaling server, and a disk.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;
use loro::VersionVector;
use signaling_server::room::relay::{
    Author, Generation, Input, Keeping, Limits, Logged, Output, Relay, Seq, Stored, Ticket, WriteError,
    Written,
};
use signaling_server::room::{ConnectionId, Delivery, Room, Rules};
use wire::fragment::{FragmentLimits, Reassembly};
use wire::id::RoomId;
use wire::sync::{Crdt, Frame, Message, Permission, Room as RoomName};

use crate::network::Node;

/// What a server wants done.
pub(crate) enum Wish {
    Send(ConnectionId, Bytes),
    /// The document's room wants this written.
    Write(Ticket, Writing),
}

pub(crate) enum Writing {
    Append(u8, Bytes),
    Compact(Seq, Bytes),
}

pub(crate) struct Server {
    pub(crate) node: Node,
    pub(crate) up: bool,
    pub(crate) life: u64,
    pub(crate) slow_disk: bool,
    pub(crate) broken_disk: bool,
    pub(crate) topic: Room,
    document: Relay,
    presence: Relay,
    fragments: HashMap<ConnectionId, Reassembly>,
    stored: Stored,
    seq: u32,
}

fn relay(crdt: Crdt) -> Relay {
    let name = RoomName { crdt, id: RoomId::try_from("plan").unwrap() };
    Relay::new(name, Keeping::Imported, Limits::default())
}

fn topic() -> Room {
    Room::new(Rules { delivery: Delivery::Directed, echo: true, capacity: 0, learned_ids: 4 })
}

impl Server {
    pub(crate) fn new(node: Node) -> Self {
        Self {
            node,
            up: true,
            life: 1,
            slow_disk: false,
            broken_disk: false,
            topic: topic(),
            document: relay(Crdt::Loro),
            presence: relay(Crdt::Ephemeral),
            fragments: HashMap::new(),
            stored: Stored::default(),
            seq: 0,
        }
    }

    /// Starts again with what its disk has.
    pub(crate) fn restart(&mut self) {
        self.life += 1;
        self.up = true;
        self.topic = topic();
        self.document = relay(Crdt::Loro);
        self.presence = relay(Crdt::Ephemeral);
        self.fragments.clear();
    }

    pub(crate) fn frame(&mut self, now: Instant, from: ConnectionId, frame: &Bytes) -> Vec<Wish> {
        let Ok(Frame { room, message }) = Frame::decode(frame) else {
            panic!("engines send what can be read")
        };
        let mut fragments =
            self.fragments.remove(&from).unwrap_or_else(|| Reassembly::new(FragmentLimits::default()));
        let crdt = room.crdt;
        let input = match message {
            Message::JoinRequest { version, .. } => {
                let author = Author("someone".into());
                Input::Join { who: from, permission: Permission::Write, version, author }
            }
            message => Input::Frame { from, message, frame, fragments: &mut fragments },
        };
        let wishes = self.tell(now, crdt, input);
        self.fragments.insert(from, fragments);
        wishes
    }

    pub(crate) fn gone(&mut self, now: Instant, who: ConnectionId) -> Vec<Wish> {
        self.fragments.remove(&who);
        let mut wishes = self.tell(now, Crdt::Loro, Input::Gone { who });
        wishes.extend(self.tell(now, Crdt::Ephemeral, Input::Gone { who }));
        wishes
    }

    pub(crate) fn tick(&mut self, now: Instant) -> Vec<Wish> {
        let mut wishes = Vec::new();
        let due = |relay: &Relay| relay.deadline().is_some_and(|at| at <= now);
        if due(&self.document) {
            wishes.extend(self.tell(now, Crdt::Loro, Input::Tick));
        }
        if due(&self.presence) {
            wishes.extend(self.tell(now, Crdt::Ephemeral, Input::Tick));
        }
        let mut late = Vec::new();
        for (from, fragments) in &mut self.fragments {
            late.extend(std::iter::from_fn(|| fragments.expired(now)).map(|(_, batch)| (*from, batch)));
        }
        late.sort();
        for (from, batch) in late {
            wishes.extend(self.tell(now, Crdt::Loro, Input::FragmentTimeout { from, batch }));
        }
        wishes
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        let rooms = [self.document.deadline(), self.presence.deadline()];
        let fragments = self.fragments.values().filter_map(Reassembly::deadline);
        rooms.into_iter().flatten().chain(fragments).min().filter(|_| self.up)
    }

    /// The disk has done it, or not.
    pub(crate) fn written(&mut self, now: Instant, ticket: Ticket, writing: Writing) -> Vec<Wish> {
        let compacts = matches!(writing, Writing::Compact(..));
        let result = if self.broken_disk { Err(WriteError::Failed) } else { Ok(self.write(writing)) };
        let input = match compacts {
            true => Input::Compacted { ticket, result },
            false => Input::Appended { ticket, result },
        };
        self.tell(now, Crdt::Loro, input)
    }

    fn write(&mut self, writing: Writing) -> Written {
        let generation = *self.stored.generation.get_or_insert(Generation(1));
        match writing {
            Writing::Append(kind, payload) => {
                self.seq += 1;
                self.stored.log.push(Logged { seq: Seq(self.seq), kind, payload });
            }
            Writing::Compact(through, snapshot) => {
                self.stored.log.retain(|logged| logged.seq > through);
                self.stored.snapshot = Some(snapshot);
            }
        }
        let snapshot = self.stored.snapshot.as_ref().map_or(0, Bytes::len) as u64;
        let log = self.stored.log.iter().map(|logged| logged.payload.len()).sum::<usize>() as u64;
        Written { seq: Seq(self.seq), generation, snapshot, log }
    }

    fn tell(&mut self, now: Instant, crdt: Crdt, input: Input<'_>) -> Vec<Wish> {
        let relay = match crdt {
            Crdt::Loro => &mut self.document,
            Crdt::Ephemeral => &mut self.presence,
            other => panic!("engines do not speak of {other:?}"),
        };
        let mut wishes = Vec::new();
        relay.handle(now, input);
        loop {
            let mut answers = Vec::new();
            while let Some(output) = relay.poll() {
                match output {
                    Output::Reply { to, frame, .. } => wishes.push(Wish::Send(to, frame)),
                    Output::Relay { frames, to, .. } => {
                        let mut to: Vec<_> = to.iter().collect();
                        to.sort();
                        for who in to {
                            wishes.extend(frames.iter().map(|frame| Wish::Send(who, frame.clone())));
                        }
                    }
                    Output::Backfill { to, backfill } => {
                        wishes.extend(backfill.map(|frame| Wish::Send(to, frame)));
                    }
                    Output::Work(work) => answers.push(Input::Done(work.run())),
                    Output::Load => answers.push(Input::Loaded(Ok(self.stored.clone()))),
                    Output::Append { ticket, entry } => {
                        wishes.push(Wish::Write(ticket, Writing::Append(entry.kind, entry.payload)));
                    }
                    Output::Compact { ticket, through, snapshot, .. } => {
                        wishes.push(Wish::Write(ticket, Writing::Compact(through, snapshot)));
                    }
                    Output::Event(_) => {}
                }
            }
            let Some(answer) = answers.pop() else { return wishes };
            assert!(answers.is_empty());
            relay.handle(now, answer);
        }
    }

    /// What its room would show to a newcomer.
    pub(crate) fn version(&mut self, now: Instant) -> VersionVector {
        let who = ConnectionId::from(u64::MAX);
        let join = Input::Join {
            who,
            permission: Permission::Read,
            version: Bytes::from_static(&[0]),
            author: Author("visitor".into()),
        };
        let wishes = self.tell(now, Crdt::Loro, join);
        self.gone(now, who);
        let mut version = VersionVector::default();
        for wish in wishes {
            if let Wish::Send(_, frame) = wish
                && let Ok(Frame { message: Message::JoinOk { version: shown, .. }, .. }) =
                    Frame::decode(&frame)
            {
                version = VersionVector::decode(&shown).unwrap();
            }
        }
        version
    }

    /// Whether it keeps an update whose forerunners are lost, as its author died before they were anywhere else: it
    /// brings that to whoever joins.
    pub(crate) fn waits_for_what_is_lost(&self, all: &VersionVector) -> bool {
        let covers =
            |update: &[u8]| loro::LoroDoc::decode_import_blob_meta(update, false).unwrap().partial_end_vv;
        let mut updates = self.stored.log.iter().filter(|logged| logged.kind == 0);
        updates.any(|logged| !all.includes_vv(&covers(&logged.payload)))
    }

    /// What a server would show that starts with this one's disk.
    pub(crate) fn stored(&self, now: Instant) -> VersionVector {
        let mut again = Self::new(self.node);
        again.stored = self.stored.clone();
        again.version(now)
    }
}
