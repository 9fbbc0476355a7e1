//! Connections: made, broken, and what crosses them.

use bytes::Bytes;
use peer_sdk::engine::{End, Input, LinkId};
use rand::Rng;
use signaling_server::room::ConnectionId;
use wire::sync::{Crdt, Frame, Message, Room, Updates};

use super::{ChannelEnd, Conn, DETECTION, Happening, Side, World};
use crate::network::ms;
use crate::peer::Target;

impl World {
    pub(super) fn opens(&mut self, ends: [ChannelEnd; 2]) {
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

    pub(super) fn connect(&mut self, sides: [Side; 2]) -> u64 {
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

    pub(super) fn dialled(&mut self, peer: usize, uplink: u16) {
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

    pub(super) fn send(&mut self, peer: usize, link: LinkId, frame: &Bytes) {
        let Some(&conn) = self.by_link.get(&(peer, link)) else { return };
        let side = usize::from(
            !matches!(self.conns[&conn].sides[0], Side::Peer { peer: p, link: l, .. } if p == peer && l == link),
        );
        self.transmit(conn, side, frame);
    }

    pub(super) fn transmit(&mut self, id: u64, side: usize, frame: &Bytes) {
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
    pub(super) fn hang_up(&mut self, peer: usize, link: LinkId) {
        let Some(&id) = self.by_link.get(&(peer, link)) else { return };
        let conn = &self.conns[&id];
        let side = usize::from(
            !matches!(conn.sides[0], Side::Peer { peer: p, link: l, .. } if p == peer && l == link),
        );
        self.end(id, Some(side));
    }

    /// A connection ends; `by` knows already, or nobody does.
    pub(super) fn end(&mut self, id: u64, by: Option<usize>) {
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
    pub(super) fn forget(&mut self, id: u64, side: usize) {
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

    pub(super) fn down(&mut self, id: u64, side: usize) {
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

    pub(super) fn arrive(&mut self, id: u64, to: usize, frame: Bytes) {
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
}
