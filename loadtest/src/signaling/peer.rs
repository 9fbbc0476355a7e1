//! A y-webrtc client that sets up a full mesh: what it says when it hears something.
//!
//! The rules are those of `y-webrtc` 10.3.0. Who hears an announce of somebody new makes an offer. When both made
//! one, the larger token wins: its owner ignores the other offer, the other answers. Descriptions and candidates
//! are as long as those of browsers.

use std::fmt::Write;

use serde_json::Value;

const DESCRIPTION_LEN: usize = 2000;
const CANDIDATE_LEN: usize = 200;

/// One client and what it has with each other.
#[derive(Debug)]
pub(super) struct Peer {
    ids: Vec<String>,
    number: usize,
    topic: String,
    candidates: u32,
    others: Vec<Option<Connection>>,
}

/// A connection that is being set up.
#[derive(Debug)]
struct Connection {
    /// Set while an offer of ours stands.
    glare_token: Option<f64>,
    candidates_sent: bool,
}

/// What a client says, and what that tells about the mesh.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Messages for the server.
    pub(super) messages: Vec<String>,
    /// The pair that is set up now: the answer to an offer arrived.
    pub(super) settled: Option<(usize, usize)>,
}

impl Peer {
    /// The client `number` of those with these ids, on `topic`.
    pub(super) fn new(ids: &[String], number: usize, topic: &str, candidates: u32) -> Self {
        let others = ids.iter().map(|_| None).collect();
        Self { ids: ids.to_vec(), number, topic: topic.to_owned(), candidates, others }
    }

    /// Its id.
    pub(super) fn id(&self) -> &str {
        &self.ids[self.number]
    }

    /// What it says after it has subscribed.
    pub(super) fn announce(&self) -> String {
        let (topic, id) = (&self.topic, self.id());
        format!(r#"{{"type":"publish","topic":"{topic}","data":{{"type":"announce","from":"{id}"}}}}"#)
    }

    /// What it says to a message of its room; `token` is for an offer or answer, should it make one.
    pub(super) fn heard(&mut self, message: &Value, token: f64) -> Said {
        let data = &message["data"];
        let from = data["from"].as_str().and_then(|from| self.ids.iter().position(|id| id == from));
        let Some(from) = from.filter(|from| *from != self.number) else { return Said::default() };
        match (data["type"].as_str(), data["signal"]["type"].as_str()) {
            (Some("announce"), _) => self.heard_announce(from, token),
            (Some("signal"), Some("offer")) => self.heard_offer(from, data["token"].as_f64(), token),
            (Some("signal"), Some("answer")) => self.heard_answer(from),
            _ => Said::default(),
        }
    }

    fn heard_announce(&mut self, from: usize, token: f64) -> Said {
        if self.others[from].is_some() {
            return Said::default();
        }
        self.others[from] = Some(Connection { glare_token: Some(token), candidates_sent: true });
        let mut messages = vec![self.description(from, "offer", token)];
        self.push_candidates(from, token, &mut messages);
        Said { messages, settled: None }
    }

    fn heard_offer(&mut self, from: usize, theirs: Option<f64>, token: f64) -> Said {
        let known = self.others[from].get_or_insert(Connection { glare_token: None, candidates_sent: false });
        if known.glare_token.is_some_and(|ours| theirs.is_some_and(|theirs| ours > theirs)) {
            return Said::default();
        }
        known.glare_token = None;
        let first = !std::mem::replace(&mut known.candidates_sent, true);
        let mut messages = vec![self.description(from, "answer", token)];
        if first {
            self.push_candidates(from, token, &mut messages);
        }
        Said { messages, settled: None }
    }

    fn heard_answer(&mut self, from: usize) -> Said {
        if let Some(connection) = &mut self.others[from] {
            connection.glare_token = None;
        }
        let pair = (self.number.min(from), self.number.max(from));
        Said { messages: Vec::new(), settled: Some(pair) }
    }

    fn description(&self, to: usize, kind: &str, token: f64) -> String {
        let sdp = line("v=0\\r\\no=- 4611731400430051336 2 IN IP4 127.0.0.1\\r\\n", DESCRIPTION_LEN);
        self.signal(to, token, &format!(r#"{{"type":"{kind}","sdp":"{sdp}"}}"#))
    }

    fn push_candidates(&self, to: usize, token: f64, messages: &mut Vec<String>) {
        for nth in 0..self.candidates {
            let head = format!("candidate:{nth} 1 udp 2113937151 192.0.2.7 5{nth:04} typ host generation 0 ");
            let candidate = line(&head, CANDIDATE_LEN);
            let signal = format!(
                r#"{{"type":"candidate","candidate":{{"candidate":"{candidate}","sdpMLineIndex":0,"sdpMid":"0"}}}}"#
            );
            messages.push(self.signal(to, token, &signal));
        }
    }

    fn signal(&self, to: usize, token: f64, signal: &str) -> String {
        let (topic, id, to) = (&self.topic, self.id(), &self.ids[to]);
        let mut text = String::with_capacity(signal.len() + 256);
        let _ = write!(
            text,
            r#"{{"type":"publish","topic":"{topic}","data":{{"to":"{to}","from":"{id}","type":"signal","token":{token},"signal":{signal}}}}}"#
        );
        text
    }
}

/// `head`, padded to `len` characters.
fn line(head: &str, len: usize) -> String {
    let padding = "0123456789abcdef".chars().cycle().take(len.saturating_sub(head.len()));
    head.chars().chain(padding).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    fn mesh(clients: usize, candidates: u32) -> (usize, usize, Vec<(usize, usize)>) {
        let ids: Vec<_> = (0..clients).map(|client| format!("peer-{client}")).collect();
        let mut peers: Vec<_> =
            (0..clients).map(|number| Peer::new(&ids, number, "room", candidates)).collect();
        let mut wire: VecDeque<_> = peers.iter().map(Peer::announce).collect();
        let (mut offers, mut directed, mut settled, mut token) = (0, 0, Vec::new(), 0.0);
        while let Some(message) = wire.pop_front() {
            let message: Value = serde_json::from_str(&message).unwrap();
            offers += usize::from(message["data"]["signal"]["type"] == "offer");
            directed += usize::from(message["data"]["to"].is_string());
            for peer in &mut peers {
                if message["data"]["to"].as_str().is_none_or(|to| to == peer.id()) {
                    token += 0.5;
                    let said = peer.heard(&message, token);
                    wire.extend(said.messages);
                    settled.extend(said.settled);
                }
            }
        }
        settled.sort_unstable();
        (offers, directed, settled)
    }

    #[test]
    fn two_who_offer_at_once_settle_on_one_answer() {
        let (offers, directed, settled) = mesh(2, 3);
        assert_eq!(offers, 2);
        assert_eq!(settled, [(0, 1)]);
        // Two offers and one answer, and candidates once from each side.
        assert_eq!(directed, 3 + 2 * 3);
    }

    #[test]
    fn everybody_settles_with_everybody_once() {
        let (_, _, settled) = mesh(6, 0);
        let pairs: Vec<_> = (0..6).flat_map(|a| (a + 1..6).map(move |b| (a, b))).collect();
        assert_eq!(settled, pairs);
    }

    #[test]
    fn messages_are_as_long_as_those_of_browsers() {
        let ids = ["a".to_owned(), "b".to_owned()];
        let said = Peer::new(&ids, 0, "room", 1).heard_announce(1, 1.5);
        let [offer, candidate] = said.messages.as_slice() else { panic!("an offer and a candidate") };
        assert!((2000..2300).contains(&offer.len()), "{}", offer.len());
        assert!((200..500).contains(&candidate.len()), "{}", candidate.len());
        assert_eq!(serde_json::from_str::<Value>(offer).unwrap()["data"]["token"], 1.5);
    }
}
