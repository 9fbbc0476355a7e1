//! The world: peers, servers, and everything between them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;
use peer_sdk::engine::{End, Engine, Input, LinkId, Output, SignalKind, StoreFailed, Ticket};
use rand::Rng;
use serde_json::{Value, json};
use signaling_server::room::{self, ConnectionId};
use wire::id::PeerId;
use wire::signal::{Limits, Signal};
use wire::sync::{Crdt, Frame, Message, Room, Updates};

use crate::network::{Agenda, Network, Node, Weather, ms};
use crate::peer::{Disk, Peer, Target};
use crate::server::{Server, Wish, Writing};

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
    Opens { ends: [(usize, u64, u64); 2] },
    Publish { server: usize, from: usize, life: u64, message: String },
    Published { peer: usize, life: u64, message: Bytes },
    Subscribe { peer: usize, life: u64, server: usize },
}

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

/// What has crossed the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) frames: u64,
    /// Messages with updates of the document, and their bytes.
    pub(crate) updates: u64,
    pub(crate) bytes: u64,
    pub(crate) signals: u64,
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
    stubs: BTreeMap<(usize, u64), Option<(usize, u64, u64)>>,
    minted: u64,
    /// Everything that some disk ever took.
    pub(crate) durable: VersionVector,
    pub(crate) traffic: Traffic,
    /// When the application of each peer last had news.
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
        self.tell(peer, Input::Present(Some(name)));
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
        for peer in &mut self.peers {
            peer.joined_signaling = false;
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

    pub(crate) fn engine(&self, peer: usize) -> &Engine {
        &self.peers[peer].up.as_ref().unwrap().engine
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

    pub(crate) fn notes(&self, peer: usize) -> Vec<String> {
        let notes = self.peers[peer].up.as_ref().unwrap().doc.get_list("notes").to_vec();
        notes.iter().map(|note| note.as_string().unwrap().to_string()).collect()
    }

    fn ring(&mut self, peer: usize) {
        let edits = self.peers[peer].up.as_ref().and_then(|running| running.edits());
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
            Output::Send { link, frame } => self.send(peer, link, frame),
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
                self.deliver(peer, channel, std::str::from_utf8(&data).unwrap())
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

    /// A connection has heard something from its other end over signaling.
    fn deliver(&mut self, peer: usize, channel: u64, data: &str) {
        let words: Vec<&str> = data.split(' ').collect();
        let number = |at: usize| words[at].parse::<u64>().unwrap();
        let other = (number(1) as usize, number(2), number(3));
        let life = self.peers[peer].life;
        let Some(stub) = self.stubs.get_mut(&(peer, channel)) else { return };
        if words[0] == "offer" {
            *stub = Some(other);
            let data = format!("answer {peer} {life} {channel} {}", number(3));
            self.agenda.add(self.now + ms(5), Happening::Local { peer, life, channel, data });
        } else if number(4) == channel {
            *stub = Some(other);
            let at = self.now + self.network.latency() * 4;
            self.agenda.add(at, Happening::Opens { ends: [(peer, life, channel), other] });
        }
    }

    fn opens(&mut self, ends: [(usize, u64, u64); 2]) {
        let [(a, life_a, channel_a), (b, life_b, channel_b)] = ends;
        let there = |world: &Self, peer: usize, life: u64, channel: u64| {
            world.peers[peer].life == life
                && world.peers[peer].up.is_some()
                && world.stubs.contains_key(&(peer, channel))
        };
        let reaches = self.network.reaches(self.peers[a].node, self.peers[b].node);
        if !reaches || !there(self, a, life_a, channel_a) || !there(self, b, life_b, channel_b) {
            return;
        }
        let (link_a, link_b) = (LinkId::Channel(channel_a), LinkId::Channel(channel_b));
        if self.by_link.contains_key(&(a, link_a)) || self.by_link.contains_key(&(b, link_b)) {
            return;
        }
        self.connect([
            Side::Peer { peer: a, life: life_a, link: link_a },
            Side::Peer { peer: b, life: life_b, link: link_b },
        ]);
        self.tell(b, Input::Up { link: link_b, frame: 64 << 10 });
        self.tell(a, Input::Up { link: link_a, frame: 64 << 10 });
    }

    fn connect(&mut self, sides: [Side; 2]) -> u64 {
        self.minted += 1;
        for side in sides {
            match side {
                Side::Peer { peer, link, .. } => self.by_link.insert((peer, link), self.minted),
                Side::Server { server, who, .. } => self.by_connection.insert((server, who), self.minted),
            };
        }
        self.conns.insert(self.minted, Conn { sides, up: [true; 2], last: [self.now; 2] });
        self.minted
    }

    fn dialled(&mut self, peer: usize, uplink: u16) {
        let life = self.peers[peer].life;
        let link = LinkId::Uplink(uplink);
        let here = Side::Peer { peer, life, link };
        let node = self.peers[peer].node;
        match self.peers[peer].targets[usize::from(uplink)] {
            Target::Server(server)
                if self.servers[server].up && self.network.reaches(node, self.servers[server].node) =>
            {
                let who = ConnectionId::from(self.minted + 1);
                let life = self.servers[server].life;
                self.connect([here, Side::Server { server, life, who }]);
                self.tell(peer, Input::Up { link, frame: 256 << 10 });
            }
            Target::Peer(hub)
                if self.peers[hub].up.is_some() && self.network.reaches(node, self.peers[hub].node) =>
            {
                let running = self.peers[hub].up.as_mut().unwrap();
                running.guests += 1;
                let guest = LinkId::Guest(running.guests);
                let there = Side::Peer { peer: hub, life: self.peers[hub].life, link: guest };
                self.connect([here, there]);
                self.tell(hub, Input::Up { link: guest, frame: 256 << 10 });
                self.tell(peer, Input::Up { link, frame: 256 << 10 });
            }
            _ => self.tell(peer, Input::Down { link, end: End::Lost }),
        }
    }

    fn send(&mut self, peer: usize, link: LinkId, frame: Bytes) {
        let Some(&conn) = self.by_link.get(&(peer, link)) else { return };
        let side = usize::from(
            !matches!(self.conns[&conn].sides[0], Side::Peer { peer: p, link: l, .. } if p == peer && l == link),
        );
        self.transmit(conn, side, frame);
    }

    fn transmit(&mut self, id: u64, side: usize, frame: Bytes) {
        let bytes = frame.len();
        self.agenda.add(self.now + ms(1), Happening::Drained { conn: id, side, bytes });
        let to = 1 - side;
        let sides = self.conns[&id].sides;
        let weather = self.network.weather;
        if !self.network.reaches(self.node(sides[0]), self.node(sides[1]))
            || self.network.chance(weather.lost)
        {
            return;
        }
        let copies = 1 + usize::from(self.network.chance(weather.doubled));
        for _ in 0..copies {
            let mut at = self.now + self.network.latency();
            let conn = self.conns.get_mut(&id).unwrap();
            if self.network.dice.random_range(0..1000) >= weather.overtaken {
                at = at.max(conn.last[to]);
                conn.last[to] = at;
            }
            self.agenda.add(at, Happening::Frame { conn: id, to, frame: frame.clone() });
        }
    }

    /// A peer ends a link: the other end hears of it.
    fn hang_up(&mut self, peer: usize, link: LinkId) {
        let Some(&id) = self.by_link.get(&(peer, link)) else { return };
        let conn = &self.conns[&id];
        let side = usize::from(
            !matches!(conn.sides[0], Side::Peer { peer: p, link: l, .. } if p == peer && l == link),
        );
        self.end(id, Some(side));
    }

    /// A connection ends; `by` knows already, or nobody does.
    fn end(&mut self, id: u64, by: Option<usize>) {
        for side in 0..2 {
            if Some(side) == by {
                self.forget(id, side);
            } else {
                let reaches = self.conns.get(&id).is_none_or(|conn| {
                    self.network.reaches(self.node(conn.sides[0]), self.node(conn.sides[1]))
                });
                let time = if reaches { self.network.latency() } else { DETECTION };
                self.agenda.add(self.now + time, Happening::Down { conn: id, side });
            }
        }
    }

    /// One end no longer believes in a connection.
    fn forget(&mut self, id: u64, side: usize) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        conn.up[side] = false;
        match conn.sides[side] {
            Side::Peer { peer, link, .. } => self.by_link.remove(&(peer, link)),
            Side::Server { server, who, .. } => self.by_connection.remove(&(server, who)),
        };
        if conn.up == [false; 2] {
            self.conns.remove(&id);
        }
    }

    fn down(&mut self, id: u64, side: usize) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.up[side]) else { return };
        let (there, other) = (conn.sides[side], 1 - side);
        if conn.up[other] {
            self.agenda.add(self.now + DETECTION, Happening::Down { conn: id, side: other });
        }
        self.forget(id, side);
        match there {
            Side::Peer { peer, life, link } if self.peers[peer].life == life => {
                if let LinkId::Channel(channel) = link {
                    self.stubs.remove(&(peer, channel));
                }
                self.tell(peer, Input::Down { link, end: End::Lost });
            }
            Side::Server { server, life, who }
                if self.servers[server].life == life && self.servers[server].up =>
            {
                let wishes = self.servers[server].gone(self.now, who);
                self.perform_for_server(server, wishes);
            }
            _ => {}
        }
    }

    fn perform_for_server(&mut self, server: usize, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Send(to, frame) => {
                    if let Some(&conn) = self.by_connection.get(&(server, to)) {
                        self.transmit(conn, 1, frame);
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

    fn publish(&mut self, peer: usize, data: &Value) {
        let message = json!({"type": "publish", "topic": "plan", "data": data}).to_string();
        let life = self.peers[peer].life;
        for server in 0..self.servers.len() {
            let reaches = self.network.reaches(self.peers[peer].node, self.servers[server].node);
            let lost = self.network.chance(self.network.weather.signals_lost);
            if self.signaling && reaches && !lost {
                let at = self.now + self.network.latency();
                self.agenda
                    .add(at, Happening::Publish { server, from: peer, life, message: message.clone() });
            }
        }
    }

    fn published_at(&mut self, server: usize, from: usize, life: u64, message: &str) {
        if !self.servers[server].up {
            return;
        }
        let Ok(Signal::Publish(publish)) = Signal::parse(message.as_bytes(), Limits::default()) else {
            panic!()
        };
        let input = room::Input::Publish { from: signaling_id(from, life), message: &publish };
        let topic = &mut self.servers[server].topic;
        topic.handle(self.now, input);
        let Some(room::Output::Deliver { message, mut to, .. }) = topic.poll() else { return };
        to.sort();
        for who in to {
            let Some(peer) =
                (0..self.peers.len()).find(|peer| signaling_id(*peer, self.peers[*peer].life) == who)
            else {
                continue;
            };
            self.traffic.signals += 1;
            if self.network.reaches(self.peers[peer].node, self.servers[server].node) {
                let at = self.now + self.network.latency();
                let life = self.peers[peer].life;
                self.agenda.add(at, Happening::Published { peer, life, message: message.clone() });
            }
        }
    }

    fn signalled(&mut self, peer: usize, message: &[u8]) {
        let message: Value = serde_json::from_slice(message).unwrap();
        let data = &message["data"];
        let from = PeerId::from(data["from"].as_str().unwrap());
        if data["type"] == "announce" {
            return self.tell(peer, Input::Announced { from });
        }
        if data["to"].as_str().unwrap() != self.session(peer) {
            return;
        }
        let signal = data["signal"].as_str().unwrap();
        let kind = match signal.split(' ').next() {
            Some("offer") => SignalKind::Offer,
            Some("answer") => SignalKind::Answer,
            _ => SignalKind::Other,
        };
        let data_bytes = Bytes::copy_from_slice(signal.as_bytes());
        self.tell(peer, Input::Signalled { from, kind, token: data["token"].as_f64(), data: data_bytes });
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
                self.published_at(server, from, life, &message)
            }
            Happening::Published { peer, life, message } if self.lives(peer, life) => {
                self.signalled(peer, &message)
            }
            Happening::Subscribe { peer, life, server }
                if self.lives(peer, life) && self.servers[server].up =>
            {
                let who = signaling_id(peer, life);
                self.servers[server].topic.handle(self.now, room::Input::Subscribe { who });
                self.tell(peer, Input::SignalingUp);
            }
            _ => {}
        }
    }

    /// Shows what is done when `SIM_TRACE` is set, for whoever looks into a seed.
    fn trace(&self, peer: usize, output: &Output) {
        if std::env::var_os("SIM_TRACE").is_none() {
            return;
        }
        let at = self.now.duration_since(self.start).as_secs_f64();
        match output {
            Output::Send { link, frame } => {
                eprintln!(
                    "{at:8.3} {peer} {link}: {} bytes, {:?}",
                    frame.len(),
                    Frame::decode(frame).map(|f| f.message)
                );
            }
            Output::Append { .. } | Output::Compact { .. } => {}
            other => eprintln!("{at:8.3} {peer} {other:?}"),
        }
    }

    /// How many links there are.
    pub(crate) fn links(&self) -> usize {
        self.conns.len()
    }

    /// The peers at the other ends of a peer's data channels.
    pub(crate) fn neighbours(&self, peer: usize) -> Vec<usize> {
        let channels = self
            .by_link
            .iter()
            .filter(|((owner, link), _)| *owner == peer && matches!(link, LinkId::Channel(_)));
        let mut others: Vec<_> = channels
            .flat_map(|(_, conn)| self.conns[conn].sides)
            .filter_map(|side| match side {
                Side::Peer { peer: other, .. } if other != peer => Some(other),
                _ => None,
            })
            .collect();
        others.sort_unstable();
        others
    }

    fn lives(&self, peer: usize, life: u64) -> bool {
        self.peers[peer].life == life && self.peers[peer].up.is_some()
    }

    fn arrive(&mut self, id: u64, to: usize, frame: Bytes) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.up[to]) else { return };
        self.traffic.frames += 1;
        if let Ok(Frame { room: Room { crdt: Crdt::Loro, .. }, message }) = Frame::decode(&frame) {
            let len = match &message {
                Message::Update { updates, .. } => Updates::total_len(updates),
                Message::Fragment(fragment) => fragment.bytes.len(),
                _ => 0,
            };
            self.traffic.updates += u64::from(len > 0);
            self.traffic.bytes += len as u64;
        }
        match conn.sides[to] {
            Side::Peer { peer, life, link } if self.lives(peer, life) => {
                self.tell(peer, Input::Frame { link, frame });
            }
            Side::Server { server, life, who }
                if self.servers[server].life == life && self.servers[server].up =>
            {
                let wishes = self.servers[server].frame(self.now, who, &frame);
                self.perform_for_server(server, wishes);
            }
            _ => {}
        }
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

fn signaling_id(peer: usize, life: u64) -> ConnectionId {
    ConnectionId::from((peer as u64) << 16 | life)
}
