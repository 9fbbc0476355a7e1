//! Signaling, over the server's real topics.

use bytes::Bytes;
use peer_sdk::engine::{Input, SignalKind};
use serde_json::{Value, json};
use signaling_server::room::{self, ConnectionId};
use wire::id::PeerId;
use wire::signal::{Limits, Signal};

use super::{Happening, World};
use crate::network::ms;

impl World {
    pub(super) fn publish(&mut self, peer: usize, data: &Value) {
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

    pub(super) fn published_at(&mut self, server: usize, from: usize, life: u64, message: &str) {
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

    pub(super) fn signalled(&mut self, peer: usize, message: &[u8]) {
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

    /// A connection has heard something from its other end over signaling.
    pub(super) fn deliver(&mut self, peer: usize, channel: u64, data: &str) {
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
}

pub(super) fn signaling_id(peer: usize, life: u64) -> ConnectionId {
    ConnectionId::from((peer as u64) << 16 | life)
}
