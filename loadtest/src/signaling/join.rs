//! Everybody joins one room at once and sets up a full mesh: the worst moment in a signaling server's day.

use std::{
    collections::HashSet,
    io,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use memchr::memmem;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Settings, connect_all, is_pong, peer::Peer, peer_id, room_name, subscribe};
use crate::{
    limits,
    live::Live,
    measure::process::{Cpu, Process},
    report::{Report, grouped},
    stop,
    swarm::{Dialect, Heard, Swarm},
};

/// Once everything has arrived, what still comes within this time belongs to the storm.
const QUIET: Duration = Duration::from_secs(1);

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "clients",
    "pairs",
    "pairs_settled",
    "settle_ms",
    "last_delivery_ms",
    "announces",
    "directed_messages",
    "deliveries",
    "deliveries_per_announce",
    "deliveries_per_directed_message",
    "server_cpu_ms",
    "server_cpu_us_per_delivery",
    "server_rss_peak_bytes",
    "lost",
];

/// Joins, waits for the mesh, reports.
pub(super) fn run(settings: &Settings, candidates: u32, timeout: Duration) -> anyhow::Result<Report> {
    limits::check(&settings.target, settings.clients.into())?;
    let run = rand::random();
    let mut swarm = Swarm::new(Dialect::Signaling)?;
    let numbers = connect_all(&mut swarm, &settings.target, 0..settings.clients)?;
    let mut storm = Storm::new(settings, &numbers, &room_name(run, 0), run, candidates);
    let before = cpu(settings.server.as_ref());
    storm.run(&mut swarm, timeout, settings.server.as_ref())?;
    let used = before.and_then(|before| Some(cpu(settings.server.as_ref())?.since(&before)));
    let mut report = Report::new("signaling, join");
    storm.describe(&mut report, used);
    storm.judge(&mut report, timeout);
    report.errors(swarm.errors());
    Ok(report)
}

fn cpu(server: Option<&Process>) -> Option<Cpu> {
    server?.cpu().ok()
}

struct Storm {
    peers: Vec<Peer>,
    topic: String,
    random: StdRng,
    settled: HashSet<(usize, usize)>,
    directed_sent: u64,
    /// Directed messages that reached whom they name.
    directed_arrived: u64,
    directed_deliveries: u64,
    announce_deliveries: u64,
    started: Instant,
    settled_after: Option<Duration>,
    last_delivery: Instant,
    rss_peak: Option<u64>,
}

impl Storm {
    fn new(settings: &Settings, numbers: &[u32], topic: &str, run: u32, candidates: u32) -> Self {
        let ids: Vec<_> = numbers.iter().map(|number| peer_id(run, *number)).collect();
        let peers = (0..ids.len()).map(|number| Peer::new(&ids, number, topic, candidates));
        let now = Instant::now();
        Self {
            peers: peers.collect(),
            topic: topic.to_owned(),
            random: StdRng::seed_from_u64(settings.seed),
            settled: HashSet::new(),
            directed_sent: 0,
            directed_arrived: 0,
            directed_deliveries: 0,
            announce_deliveries: 0,
            started: now,
            settled_after: None,
            last_delivery: now,
            rss_peak: None,
        }
    }

    fn run(&mut self, swarm: &mut Swarm, timeout: Duration, server: Option<&Process>) -> io::Result<()> {
        self.started = Instant::now();
        let deadline = self.started + timeout;
        for (who, peer) in self.peers.iter().enumerate() {
            swarm.send(who, subscribe(&self.topic).as_bytes());
            swarm.send(who, peer.announce().as_bytes());
        }
        let live = Live::new(self.pairs() as u64, "pairs");
        let mut line_at = self.started + Duration::from_secs(1);
        while Instant::now() < deadline && !self.is_over() && !stop::is_asked() {
            let wake = line_at.min(self.last_delivery + QUIET).max(Instant::now() + Duration::from_millis(1));
            swarm.turn(stop::soon(wake.min(deadline)), |heard| self.heard(heard))?;
            if Instant::now() >= line_at {
                line_at += Duration::from_secs(1);
                self.rss_peak = self.rss_peak.max(server.and_then(|server| server.resident().ok()));
                self.show(&live);
            }
        }
        self.rss_peak = self.rss_peak.max(server.and_then(|server| server.resident().ok()));
        Ok(())
    }

    fn pairs(&self) -> usize {
        self.peers.len() * self.peers.len().saturating_sub(1) / 2
    }

    fn is_over(&self) -> bool {
        let arrived = self.settled.len() >= self.pairs() && self.directed_arrived >= self.directed_sent;
        arrived && self.last_delivery.elapsed() >= QUIET
    }

    fn heard(&mut self, heard: Heard<'_>) {
        let Heard { who, at, message: text, link, .. } = heard;
        if is_pong(text) {
            return;
        }
        self.last_delivery = at;
        let Some(peer) = self.peers.get_mut(who) else { return };
        match receiver(text) {
            Some(to) => {
                self.directed_deliveries += 1;
                if to != peer.id().as_bytes() {
                    return;
                }
                self.directed_arrived += 1;
            }
            None => self.announce_deliveries += 1,
        }
        let Ok(message) = serde_json::from_slice(text) else { return };
        let said = peer.heard(&message, token(&mut self.random));
        for message in &said.messages {
            link.send(message.as_bytes());
        }
        self.directed_sent += said.messages.len() as u64;
        self.settled.extend(said.settled);
        if self.settled_after.is_none() && self.settled.len() == self.pairs() {
            self.settled_after = Some(at.duration_since(self.started));
        }
    }

    fn show(&self, live: &Live) {
        let deliveries = grouped(self.directed_deliveries + self.announce_deliveries);
        let (settled, pairs) = (grouped(self.settled.len() as u64), grouped(self.pairs() as u64));
        let line = format!("{settled:>7} of {pairs} pairs  {deliveries:>11} deliveries");
        live.show_line(self.settled.len() as u64, &line);
    }

    fn describe(&self, report: &mut Report, used: Option<Duration>) {
        let deliveries = self.directed_deliveries + self.announce_deliveries;
        let announces = self.peers.len() as u64;
        report.count("clients", announces);
        report.count("pairs", self.pairs() as u64);
        report.count("pairs_settled", self.settled.len() as u64);
        report.milliseconds("settle_ms", self.settled_after);
        report.milliseconds("last_delivery_ms", Some(self.last_delivery.duration_since(self.started)));
        report.count("announces", announces);
        report.count("directed_messages", self.directed_sent);
        report.count("deliveries", deliveries);
        report.number("deliveries_per_announce", self.announce_deliveries as f64 / announces as f64);
        report.number(
            "deliveries_per_directed_message",
            self.directed_deliveries as f64 / self.directed_sent as f64,
        );
        report.milliseconds("server_cpu_ms", used);
        report.number(
            "server_cpu_us_per_delivery",
            used.map(|used| used.as_secs_f64() * 1e6 / deliveries as f64),
        );
        report.number("server_rss_peak_bytes", self.rss_peak.map(|bytes| bytes as f64));
        report.count("lost", self.lost());
    }

    fn lost(&self) -> u64 {
        self.directed_sent.saturating_sub(self.directed_arrived)
    }

    fn judge(&self, report: &mut Report, timeout: Duration) {
        if self.peers.len() < 2 {
            report.fail(format!("{} clients got in, a mesh needs 2", self.peers.len()));
        }
        if self.settled.len() < self.pairs() {
            let (settled, pairs) = (self.settled.len(), self.pairs());
            report.fail(format!("{settled} of {pairs} pairs settled within {} s", timeout.as_secs()));
        }
        if self.lost() > 0 {
            report.fail(format!("{} directed messages did not reach whom they name", self.lost()));
        }
        if self.directed_arrived > self.directed_sent {
            report
                .fail(format!("{} directed messages came twice", self.directed_arrived - self.directed_sent));
        }
    }
}

/// Whom a message names, `None` for an announce. Found without parsing: most are for others.
fn receiver(text: &[u8]) -> Option<&[u8]> {
    const MARKER: &[u8] = b"\"to\":\"";
    let rest = text.get(memmem::find(text, MARKER)? + MARKER.len()..)?;
    rest.get(..memchr::memchr(b'"', rest)?)
}

/// As y-webrtc makes them: the time in milliseconds and something random behind the point.
fn token(random: &mut StdRng) -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_millis() as f64 + random.random::<f64>()
}
