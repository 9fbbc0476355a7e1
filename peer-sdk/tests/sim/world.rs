//! The world: peers, servers, and everything between them.

mod links;
mod signaling;
mod watching;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;
use peer_sdk::engine::{Input, LinkId, Output, StoreFailed, Ticket};
use serde_json::json;
use signaling_server::room::{self, ConnectionId};

use crate::network::{Agenda, Network, Node, Weather, ms};
use crate::peer::{Disk, Peer, Running, Target};
use crate::server::{Server, Wish, Writing};
use signaling::signaling_id;
pub(crate) use watching::Traffic;

/// How long it takes to notice that somebody is out of reach.
const DETECTION: Duration = Duration::from_secs(4);

enum Happening {
    Frame { conn: u64, to: usize, frame: Bytes },
    Drained { conn: u64, side: usize, bytes: usize },
    Down { conn: u64, side: usize },
    Dialled { peer: usize, life: u64, uplink: u16 },
    Disk { peer: usize, life: u64, ticket: Ticket, write: Write },
    ServerDisk { server: usize, life: u64, ticket: room::relay::Ticket, writing: Writing },
    Import { peer: usize, life: u64 },
    Local { peer: usize, life: u64, channel: u64, data: String },
    Opens { ends: [ChannelEnd; 2] },
    Publish { server: usize, from: usize, life: u64, message: String },
    Published { peer: usize, life: u64, message: Bytes },
    Subscribe { peer: usize, life: u64, server: usize },
}

/// Whose, in which of its lives, and which of its channels.
type ChannelEnd = (usize, u64, u64);

enum Write {
    Append(Bytes),
    Compact(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Peer { peer: usize, life: u64, link: LinkId },
    Server { server: usize, life: u64, who: ConnectionId },
}

struct Conn {
    sides: [Side; 2],
    /// Who still believes in it.
    up: [bool; 2],
    /// When the last message arrives at each.
    last: [Instant; 2],
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) start: Instant,
    seed: u64,
    pub(crate) network: Network,
    pub(crate) peers: Vec<Peer>,
    pub(crate) servers: Vec<Server>,
    /// Which servers are used for signaling.
    pub(crate) signaling: bool,
    agenda: Agenda<Happening>,
    timers: BTreeSet<(Instant, usize)>,
    timer_of: Vec<Option<Instant>>,
    conns: BTreeMap<u64, Conn>,
    by_link: BTreeMap<(usize, LinkId), u64>,
    by_connection: BTreeMap<(usize, ConnectionId), u64>,
    /// Connections that are being made: whom each has heard of.
    stubs: BTreeMap<(usize, u64), Option<ChannelEnd>>,
    minted: u64,
    /// Everything that some disk ever took.
    pub(crate) durable: VersionVector,
    pub(crate) traffic: Traffic,
    /// Whether peers show themselves.
    pub(crate) present: bool,
    /// How long an application takes to import what is new.
    pub(crate) imports_within: (Duration, Duration),
}

impl World {
    pub(crate) fn seeded(seed: u64, weather: Weather) -> Self {
        let start = Instant::now();
        Self {
            now: start,
            start,
            seed,
            network: Network::new(seed, weather),
            peers: Vec::new(),
            servers: Vec::new(),
            signaling: true,
            agenda: Agenda::new(),
            timers: BTreeSet::new(),
            timer_of: Vec::new(),
            conns: BTreeMap::new(),
            by_link: BTreeMap::new(),
            by_connection: BTreeMap::new(),
            stubs: BTreeMap::new(),
            minted: 0,
            durable: VersionVector::default(),
            traffic: Traffic::default(),
            present: true,
            imports_within: (ms(1), ms(20)),
        }
    }

    pub(crate) fn server(&mut self) -> usize {
        assert!(self.peers.is_empty(), "servers come first");
        self.servers.push(Server::new(Node(self.servers.len())));
        self.servers.len() - 1
    }

    /// A new peer, not started yet.
    pub(crate) fn peer(&mut self, targets: &[Target], channels: usize) -> usize {
        let node = Node(self.servers.len() + self.peers.len());
        self.peers.push(Peer {
            node,
            targets: targets.to_vec(),
            channels,
            skew: 0,
            disk: Disk::default(),
            life: 0,
            up: None,
            importing: false,
            joined_signaling: false,
        });
        self.timer_of.push(None);
        self.peers.len() - 1
    }

    pub(crate) fn start(&mut self, peer: usize) {
        let (now, start, seed) = (self.now, self.start, self.seed);
        self.peers[peer].start(now, start, seed);
        let name = self.peers[peer].name();
        self.tell(peer, Input::Present(self.present.then_some(name)));
        let life = self.peers[peer].life;
        for server in 0..self.servers.len() {
            let at = self.now + self.network.latency() * 2;
            self.agenda.add(at, Happening::Subscribe { peer, life, server });
        }
    }

    /// The process dies.
    pub(crate) fn crash(&mut self, peer: usize) {
        if let Some(at) = self.timer_of[peer].take() {
            self.timers.remove(&(at, peer));
        }
        self.peers[peer].up = None;
        self.stubs.retain(|(owner, _), _| *owner != peer);
        let links: Vec<_> = self
            .by_link
            .range((peer, LinkId::Uplink(0))..)
            .take_while(|((p, _), _)| *p == peer)
            .map(|((_, link), _)| *link)
            .collect();
        links.into_iter().for_each(|link| self.hang_up(peer, link));
        for server in 0..self.servers.len() {
            let input = room::Input::Unsubscribe { who: signaling_id(peer, self.peers[peer].life) };
            self.servers[server].topic.handle(self.now, input);
        }
    }

    pub(crate) fn stop_server(&mut self, server: usize) {
        self.servers[server].up = false;
        let conns: Vec<_> = self
            .by_connection
            .range((server, ConnectionId::from(0))..)
            .take_while(|((s, _), _)| *s == server)
            .map(|(_, conn)| *conn)
            .collect();
        conns.into_iter().for_each(|conn| self.end(conn, None));
        let is_left = self.servers.iter().any(|server| server.up);
        for peer in &mut self.peers {
            peer.joined_signaling &= is_left;
        }
    }

    pub(crate) fn start_server(&mut self, server: usize) {
        self.servers[server].restart();
        for peer in 0..self.peers.len() {
            let at = self.now + self.network.between((ms(100), ms(3000)));
            self.agenda.add(at, Happening::Subscribe { peer, life: self.peers[peer].life, server });
        }
    }

    pub(crate) fn cut(&mut self, a: Node, b: Node) {
        self.network.cut(a, b);
        let broken: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| {
                conn.sides.map(|side| self.node(side)) == [a, b]
                    || conn.sides.map(|side| self.node(side)) == [b, a]
            })
            .map(|(id, _)| *id)
            .collect();
        for conn in broken {
            for side in 0..2 {
                let at = self.now + self.network.between((DETECTION / 2, DETECTION));
                self.agenda.add(at, Happening::Down { conn, side });
            }
        }
    }

    /// Cuts a peer off from everybody.
    pub(crate) fn isolate(&mut self, peer: usize) {
        let node = self.peers[peer].node;
        for other in 0..self.servers.len() + self.peers.len() {
            if Node(other) != node {
                self.cut(node, Node(other));
            }
        }
    }

    pub(crate) fn heal(&mut self) {
        self.network.heal();
    }

    fn node(&self, side: Side) -> Node {
        match side {
            Side::Peer { peer, .. } => self.peers[peer].node,
            Side::Server { server, .. } => self.servers[server].node,
        }
    }

    /// The peer's application changes the document.
    pub(crate) fn edit(&mut self, peer: usize) {
        let Some(running) = &mut self.peers[peer].up else { return };
        running.edit(&mut self.network.dice);
        self.ring(peer);
    }

    /// The peer's application adds a note.
    pub(crate) fn annotate(&mut self, peer: usize, note: &str) {
        let doc = &self.peers[peer].up.as_ref().unwrap().doc;
        doc.get_list("notes").push(note).unwrap();
        doc.commit();
        self.ring(peer);
    }

    fn ring(&mut self, peer: usize) {
        let edits = self.peers[peer].up.as_ref().and_then(Running::edits);
        if let Some(update) = edits {
            self.tell(peer, Input::Edited(update));
        }
    }

    pub(crate) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.step(until) {}
        self.now = until;
    }

    /// Does the next thing that is due before `until`.
    fn step(&mut self, until: Instant) -> bool {
        let timer = self.timers.first().copied();
        let server = self.servers.iter().filter_map(Server::deadline).min();
        let happening = self.agenda.next_at();
        let Some(at) = [timer.map(|(at, _)| at), server, happening].into_iter().flatten().min() else {
            return false;
        };
        if at > until {
            return false;
        }
        self.now = self.now.max(at);
        if happening == Some(at) {
            let what = self.agenda.pop().unwrap();
            self.happen(what);
        } else if server == Some(at) {
            for server in 0..self.servers.len() {
                let wishes = self.servers[server].tick(self.now);
                self.perform_for_server(server, wishes);
            }
        } else if let Some((_, peer)) = timer {
            self.tell(peer, Input::Tick);
        }
        true
    }

    pub(crate) fn tell(&mut self, peer: usize, input: Input) {
        let Some(running) = &mut self.peers[peer].up else { return };
        running.engine.handle(self.now, input);
        let outputs: Vec<_> = std::iter::from_fn(|| running.engine.poll()).collect();
        let deadline = running.engine.deadline();
        for output in outputs {
            self.perform(peer, output);
        }
        if let Some(before) = std::mem::replace(&mut self.timer_of[peer], deadline) {
            self.timers.remove(&(before, peer));
        }
        if let Some(at) = deadline.filter(|_| self.peers[peer].up.is_some()) {
            self.timers.insert((at, peer));
        }
    }

    fn perform(&mut self, peer: usize, output: Output) {
        let life = self.peers[peer].life;
        self.trace(peer, &output);
        match output {
            Output::Dial { uplink } => {
                let at = self.now + self.network.latency() * 2;
                self.agenda.add(at, Happening::Dialled { peer, life, uplink });
            }
            Output::Send { link, frame } => self.send(peer, link, &frame),
            Output::Cut { link, .. } => {
                if let LinkId::Channel(channel) = link {
                    self.stubs.remove(&(peer, channel));
                }
                self.hang_up(peer, link);
            }
            Output::Append { ticket, update } => self.write(peer, ticket, Write::Append(update)),
            Output::Compact { ticket, snapshot } => self.write(peer, ticket, Write::Compact(snapshot)),
            Output::Announce => {
                let from = self.session(peer);
                self.publish(peer, &json!({"type": "announce", "from": from}));
            }
            Output::Signal { to, token, data } => {
                let signal = std::str::from_utf8(&data).unwrap();
                let (from, to) = (self.session(peer), to.to_string_lossy().into_owned());
                let data =
                    json!({"type": "signal", "from": from, "to": to, "token": token, "signal": signal});
                self.publish(peer, &data);
            }
            Output::Connect { channel, initiator, .. } => {
                self.stubs.insert((peer, channel), None);
                if initiator {
                    let data = format!("offer {peer} {life} {channel}");
                    self.agenda.add(self.now + ms(5), Happening::Local { peer, life, channel, data });
                }
            }
            Output::Deliver { channel, data } => {
                self.deliver(peer, channel, std::str::from_utf8(&data).unwrap());
            }
            Output::Changed => {
                if !std::mem::replace(&mut self.peers[peer].importing, true) {
                    let at = self.now + self.network.between(self.imports_within);
                    self.agenda.add(at, Happening::Import { peer, life });
                }
            }
            Output::Restore => panic!("nobody sends poison here"),
            Output::Event(_) => {}
        }
    }

    fn session(&self, peer: usize) -> String {
        self.peers[peer].up.as_ref().unwrap().session.to_string_lossy().into_owned()
    }

    fn write(&mut self, peer: usize, ticket: Ticket, write: Write) {
        let time = if self.peers[peer].disk.slow { (ms(100), ms(4000)) } else { (ms(1), ms(10)) };
        let at = self.now + self.network.between(time);
        self.agenda.add(at, Happening::Disk { peer, life: self.peers[peer].life, ticket, write });
    }

    fn perform_for_server(&mut self, server: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send(to, frame) => {
                    if let Some(&conn) = self.by_connection.get(&(server, to)) {
                        self.transmit(conn, 1, &frame);
                    }
                }
                Wish::Write(ticket, writing) => {
                    let time =
                        if self.servers[server].slow_disk { (ms(500), ms(5000)) } else { (ms(1), ms(20)) };
                    let at = self.now + self.network.between(time);
                    let life = self.servers[server].life;
                    self.agenda.add(at, Happening::ServerDisk { server, life, ticket, writing });
                }
            }
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Frame { conn, to, frame } => self.arrive(conn, to, frame),
            Happening::Drained { conn, side, bytes } => {
                let Some(conn) = self.conns.get(&conn).filter(|conn| conn.up[side]) else { return };
                if let Side::Peer { peer, link, .. } = conn.sides[side] {
                    self.tell(peer, Input::Drained { link, bytes });
                }
            }
            Happening::Down { conn, side } => self.down(conn, side),
            Happening::Dialled { peer, life, uplink } if self.lives(peer, life) => self.dialled(peer, uplink),
            Happening::Disk { peer, life, ticket, write } if self.lives(peer, life) => {
                self.disk(peer, ticket, write);
            }
            Happening::ServerDisk { server, life, ticket, writing }
                if self.servers[server].life == life && self.servers[server].up =>
            {
                let now = self.now;
                let wishes = self.servers[server].written(now, ticket, writing);
                self.perform_for_server(server, wishes);
            }
            Happening::Import { peer, life } if self.lives(peer, life) => {
                self.peers[peer].importing = false;
                self.peers[peer].up.as_mut().unwrap().import();
            }
            Happening::Local { peer, life, channel, data } if self.lives(peer, life) => {
                self.tell(peer, Input::Local { channel, data: data.into_bytes().into() });
            }
            Happening::Opens { ends } => self.opens(ends),
            Happening::Publish { server, from, life, message } => {
                self.published_at(server, from, life, &message);
            }
            Happening::Published { peer, life, message } if self.lives(peer, life) => {
                self.signalled(peer, &message);
            }
            Happening::Subscribe { peer, life, server }
                if self.lives(peer, life) && self.servers[server].up =>
            {
                let who = signaling_id(peer, life);
                self.servers[server].topic.handle(self.now, room::Input::Subscribe { who });
                // One more server that is up is no news.
                if !std::mem::replace(&mut self.peers[peer].joined_signaling, true) {
                    self.tell(peer, Input::SignalingUp);
                }
            }
            _ => {}
        }
    }

    fn lives(&self, peer: usize, life: u64) -> bool {
        self.peers[peer].life == life && self.peers[peer].up.is_some()
    }

    fn disk(&mut self, peer: usize, ticket: Ticket, write: Write) {
        let disk = &mut self.peers[peer].disk;
        let result = if disk.broken { Err(StoreFailed) } else { Ok(()) };
        if result.is_ok() {
            let update = match write {
                Write::Append(update) => update,
                Write::Compact(snapshot) => {
                    disk.updates.clear();
                    snapshot
                }
            };
            let meta = loro::LoroDoc::decode_import_blob_meta(&update, true).unwrap();
            disk.updates.push(update);
            self.durable.merge(&meta.partial_end_vv);
        }
        self.tell(peer, Input::Stored { ticket, result });
    }
}
