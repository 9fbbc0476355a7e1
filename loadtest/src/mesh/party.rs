//! Peers that annotate together.

use std::{
    collections::BTreeSet,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::Context;
use loro::{LoroDoc, Subscription};
use peer_sdk::{Peer, WebRtc, adapter::webrtc::Mdns};
use serde::{Deserialize, Serialize};
use tokio::time::{sleep, sleep_until};

use super::{Settings, hearing::Ear};
use crate::{
    relay::document::equal,
    report::Report,
    stage::{Costs, Stage},
    stamp::Stamp,
};

const MAP: &str = "annotations";
/// How often is looked whether everybody is where they should be.
const LOOK: Duration = Duration::from_millis(50);
/// Nobody may be seen for longer after it has closed.
const GONE: Duration = Duration::from_secs(5);
/// Of each kind of fault, so many are told in full.
const TOLD: usize = 3;

/// What a peer shows to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Shows {
    /// How many annotations it has written.
    written: u32,
}

struct Member {
    peer: Peer<Shows>,
    room: u32,
    written: u32,
    _listening: Subscription,
}

/// All peers of a run.
pub(super) struct Party {
    members: Vec<Member>,
    ear: Ear,
    /// How long it took until everybody saw everybody; `None` when they did not.
    gathered: Option<Duration>,
}

/// What was found.
pub(super) struct Outcome {
    party: Party,
    connections: usize,
    settled: Option<Duration>,
    lost: u64,
    unequal: u64,
    unseen: u64,
    ghosts: u64,
    late: Duration,
    told: Vec<String>,
}

impl Member {
    fn document(&self) -> &LoroDoc {
        self.peer.document()
    }

    /// The names of those it sees.
    fn sees(&self) -> BTreeSet<String> {
        self.peer.presence().online().into_iter().map(|user| user.name).collect()
    }

    fn shows(&self, author: usize, sequence: u32) -> bool {
        self.document().get_map(MAP).get(&key(author, sequence)).is_some()
    }
}

fn key(author: usize, sequence: u32) -> String {
    format!("{author}-{sequence}")
}

fn name(who: usize) -> String {
    format!("peer-{who}")
}

impl Party {
    /// Starts the peers and waits until all of a room see each other.
    pub(super) async fn gather(settings: &Settings) -> anyhow::Result<Self> {
        let (run, ear) = (rand::random::<u32>(), Ear::new());
        let mut party = Self { members: Vec::new(), ear, gathered: None };
        let started = Instant::now();
        for who in 0..settings.count as usize {
            let room = who as u32 % settings.rooms;
            let builder = Peer::builder(&format!("loadtest-{run:08x}-{room}")).webrtc(way(settings));
            let peer = builder.user(&name(who)).presence(Shows { written: 0 }).start().await;
            let peer = peer.with_context(|| format!("peer {who} does not start"))?;
            let listening = party.ear.listen(peer.document());
            party.members.push(Member { peer, room, written: 0, _listening: listening });
        }
        party.gathered =
            party.until(settings.timeout, Self::everybody_sees_everybody).await.map(|at| at - started);
        Ok(party)
    }

    /// Annotates at the rate, one peer after the other, then waits until everything is everywhere.
    pub(super) async fn live(mut self, settings: &Settings, stage: &Stage) -> Outcome {
        let (origin, mut late) = (stage.origin(), Duration::ZERO);
        self.ear.with(|heard| heard.origin = origin);
        stage.present.store(self.members.len() as u64, Relaxed);
        for (nth, at) in settings.rate.times().enumerate() {
            sleep_until((origin + at).into()).await;
            late = late.max((origin + at).elapsed());
            let who = nth % self.members.len();
            self.annotate(who, at, settings.payload);
            self.tell(stage);
        }
        let ended = Instant::now();
        let settled = self.until(settings.timeout, Self::is_settled).await.map(|at| at - ended);
        self.tell(stage);
        Outcome::of(self, settled, late).await
    }

    fn annotate(&mut self, who: usize, due: Duration, len: usize) {
        let member = &mut self.members[who];
        let (sender, sequence) = (who as u32, member.written);
        let stamp = Stamp { sender, sequence, due: u64::try_from(due.as_nanos()).unwrap_or(u64::MAX) };
        let map = member.document().get_map(MAP);
        map.insert(&key(who, sequence), stamp.text(len)).expect("a map of an attached document takes a text");
        member.document().commit();
        member.written += 1;
        // A peer that has closed shows nothing, and is missed at the end.
        let _ = member.peer.presence().set(Shows { written: member.written });
    }

    fn tell(&self, stage: &Stage) {
        stage.published.store(self.written(), Relaxed);
        self.ear.with(|heard| {
            stage.delivered.store(heard.delivered, Relaxed);
            stage.take_in(&mut heard.recent, 0);
        });
    }

    fn written(&self) -> u64 {
        self.members.iter().map(|member| u64::from(member.written)).sum()
    }

    /// The others in somebody's room.
    fn others(&self, who: usize) -> impl Iterator<Item = (usize, &Member)> {
        let room = self.members[who].room;
        self.members.iter().enumerate().filter(move |(other, member)| *other != who && member.room == room)
    }

    fn everybody_sees_everybody(&self) -> bool {
        self.wrong_sights().next().is_none()
    }

    /// Who is wrong about whom, and whether it sees it.
    fn wrong_sights(&self) -> impl Iterator<Item = (usize, String, bool)> + '_ {
        (0..self.members.len()).flat_map(|who| {
            let there: BTreeSet<_> = self.others(who).map(|(other, _)| name(other)).collect();
            let seen = self.members[who].sees();
            let wrong: Vec<_> = there.symmetric_difference(&seen).cloned().collect();
            wrong.into_iter().map(move |name| {
                let sees = seen.contains(&name);
                (who, name, sees)
            })
        })
    }

    fn is_settled(&self) -> bool {
        let version = |member: &Member| member.document().oplog_vv();
        let same = |who: usize| {
            let own = version(&self.members[who]);
            self.others(who).next().is_none_or(|(_, other)| version(other) == own)
        };
        (0..self.members.len()).all(same) && self.everybody_sees_everybody()
    }

    /// Waits until something is so; when that was.
    async fn until(&self, patience: Duration, so: impl Fn(&Self) -> bool) -> Option<Instant> {
        let give_up = Instant::now() + patience;
        loop {
            if so(self) {
                return Some(Instant::now());
            }
            if Instant::now() >= give_up {
                return None;
            }
            sleep(LOOK).await;
        }
    }
}

impl Outcome {
    async fn of(party: Party, settled: Option<Duration>, late: Duration) -> Self {
        let links = |member: &Member| member.peer.status().links.iter().filter(|link| link.up).count();
        let connections = party.members.iter().map(links).sum();
        let (lost, unequal, unseen, ghosts) = (0, 0, 0, 0);
        let told = Vec::new();
        let mut outcome = Self { party, connections, settled, lost, unequal, unseen, ghosts, late, told };
        outcome.compare();
        outcome.look_around();
        outcome.farewell().await;
        outcome
    }

    /// Whether everybody has everything, and the same.
    fn compare(&mut self) {
        let party = &self.party;
        let mut told = Vec::new();
        for (who, member) in party.members.iter().enumerate() {
            let all = party
                .others(who)
                .flat_map(|(author, other)| (0..other.written).map(move |nth| (author, nth)));
            let missing = all.filter(|(author, nth)| !member.shows(*author, *nth)).count() as u64;
            if missing > 0 {
                told.push(format!("room {}: {} lacks {missing} annotations", member.room, name(who)));
            }
            self.lost += missing;
            let differs = party
                .others(who)
                .next()
                .is_some_and(|(_, other)| !equal(member.document(), other.document()));
            self.unequal += u64::from(differs);
        }
        self.told.extend(told.into_iter().take(TOLD));
    }

    fn look_around(&mut self) {
        let wrong: Vec<_> = self.party.wrong_sights().collect();
        for (who, other, sees) in &wrong {
            *if *sees { &mut self.ghosts } else { &mut self.unseen } += 1;
            if self.told.len() < 2 * TOLD {
                let what = if *sees { "sees" } else { "does not see" };
                self.told.push(format!(
                    "room {}: {} {what} {other}",
                    self.party.members[*who].room,
                    name(*who)
                ));
            }
        }
    }

    /// One of each room closes, and the others must notice. Then all do.
    async fn farewell(&mut self) {
        let mut gone = BTreeSet::new();
        let mut rooms = BTreeSet::new();
        for (who, member) in self.party.members.iter().enumerate() {
            if rooms.insert(member.room) {
                member.peer.close().await;
                gone.insert(name(who));
            }
        }
        let still = |party: &Party| {
            let left = party.members.iter().enumerate().filter(|(who, _)| !gone.contains(&name(*who)));
            left.map(|(_, member)| member.sees().intersection(&gone).count() as u64).sum::<u64>()
        };
        if self.party.until(GONE, |party| still(party) == 0).await.is_none() {
            let count = still(&self.party);
            self.ghosts += count;
            self.told.push(format!("{count} times somebody is seen who closed {} s ago", GONE.as_secs()));
        }
        for member in &self.party.members {
            member.peer.close().await;
        }
    }

    /// Adds the figures to `report`, and what makes it a failed run.
    pub(super) fn describe(&self, settings: &Settings, costs: &Costs, report: &mut Report) {
        let count = f64::from(settings.count);
        report.count("peers", settings.count.into());
        report.count("rooms", settings.rooms.into());
        report.number("measured_seconds", costs.measured.as_secs_f64());
        report.milliseconds("gathered_after_ms", self.party.gathered);
        report.milliseconds("settled_after_ms", self.settled);
        report.number("connections_per_peer", self.connections as f64 / count);
        report.count("annotations", self.party.written());
        self.party.ear.with(|heard| {
            report.count("deliveries", heard.delivered);
            for (figure, quantile) in [
                ("latency_p50_ms", 0.5),
                ("latency_p90_ms", 0.9),
                ("latency_p99_ms", 0.99),
                ("latency_p999_ms", 0.999),
            ] {
                report.milliseconds(figure, heard.latencies.at(quantile));
            }
            report.milliseconds("latency_max_ms", heard.latencies.max());
            report.curve(&heard.latencies);
        });
        report.count("documents_unequal", self.unequal);
        report.count("lost", self.lost);
        report.count("ghosts", self.ghosts);
        report.count("unseen", self.unseen);
        let cpu = costs.tester_cpu.map(|cpu| cpu.as_secs_f64() / costs.length.as_secs_f64() * 100.0);
        report.number("tester_cpu_percent", cpu);
        report.number("tester_cpu_percent_per_peer", cpu.map(|cpu| cpu / count));
        report.number("server_rss_peak_bytes", costs.rss_peak.map(|bytes| bytes as f64));
        report.milliseconds("tester_late_max_ms", Some(self.late));
        report.timeline(&costs.timeline);
        self.judge(report);
    }

    fn judge(&self, report: &mut Report) {
        if self.party.gathered.is_none() {
            report.fail("not everybody saw everybody before the start".to_owned());
        }
        if self.unequal > 0 {
            report.fail(format!("{} documents differ from the others of their room", self.unequal));
        }
        self.told.iter().for_each(|fault| report.fail(fault.clone()));
    }
}

/// How peers find and reach each other.
fn way(settings: &Settings) -> WebRtc {
    let mut way = WebRtc::signaling([settings.url.as_str()]).max_connections(settings.connections);
    if let Some(ice) = &settings.ice {
        way = way.ice_from(ice);
    }
    way.connection(|connection| {
        connection.mdns = Mdns::Off;
        if settings.loopback {
            connection.udp = vec![([127, 0, 0, 1], 0).into()];
        }
    })
}
