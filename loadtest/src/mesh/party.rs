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

use super::{Settings, absence::Absences, hearing::Ear, machine::Machine, outcome::Outcome};
use crate::{stage::Stage, stamp::Stamp, stop};

const MAP: &str = "annotations";
/// How often is looked whether everybody is where they should be.
const LOOK: Duration = Duration::from_millis(50);

/// What a peer shows to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Shows {
    /// How many annotations it has written.
    written: u32,
}

/// A peer, and the machine that it runs on.
pub(super) struct Member {
    pub(super) peer: Peer<Shows>,
    pub(super) room: u32,
    pub(super) written: u32,
    machine: Machine,
    _listening: Subscription,
}

/// All peers of a run.
pub(super) struct Party {
    pub(super) members: Vec<Member>,
    pub(super) ear: Ear,
    /// How long it took until everybody saw everybody; `None` when they did not.
    pub(super) gathered: Option<Duration>,
    absences: Absences,
    /// How many of these have begun.
    pub(super) lost_network: usize,
}

impl Member {
    pub(super) fn document(&self) -> &LoroDoc {
        self.peer.document()
    }

    /// The names of those it sees.
    pub(super) fn sees(&self) -> BTreeSet<String> {
        self.peer.presence().online().into_iter().map(|user| user.name).collect()
    }

    pub(super) fn shows(&self, author: usize, sequence: u32) -> bool {
        self.document().get_map(MAP).get(&key(author, sequence)).is_some()
    }
}

fn key(author: usize, sequence: u32) -> String {
    format!("{author}-{sequence}")
}

pub(super) fn name(who: usize) -> String {
    format!("peer-{who}")
}

impl Party {
    /// Starts the peers and waits until all of a room see each other.
    pub(super) async fn gather(settings: &Settings) -> anyhow::Result<Self> {
        let (run, absences) = (rand::random::<u32>(), Absences::draw(settings));
        let ear = Ear::new(absences.clone());
        let mut party = Self { members: Vec::new(), ear, gathered: None, absences, lost_network: 0 };
        let started = Instant::now();
        for who in 0..settings.count as usize {
            let room = who as u32 % settings.rooms;
            let builder = Peer::builder(&format!("loadtest-{run:08x}-{room}")).webrtc(way(settings));
            let builder = builder.user(&name(who)).presence(Shows { written: 0 });
            let machine = Machine::start().with_context(|| format!("no thread for peer {who}"))?;
            let peer = machine.run(builder.start()).await.context("a peer panicked")?;
            let peer = peer.with_context(|| format!("peer {who} does not start"))?;
            let listening = party.ear.listen(who, peer.document());
            party.members.push(Member { peer, room, written: 0, machine, _listening: listening });
        }
        party.gathered =
            party.until(settings.timeout, Self::everybody_sees_everybody).await.map(|at| at - started);
        Ok(party)
    }

    /// Annotates at the rate, one peer after the other, while now and then one is cut off; then waits until everybody is
    /// back and everything is everywhere.
    pub(super) async fn live(mut self, settings: &Settings, stage: &Stage) -> Outcome {
        let (origin, mut late) = (stage.origin(), Duration::ZERO);
        self.ear.with(|heard| heard.origin = origin);
        for (nth, at) in settings.rate.times().enumerate() {
            self.cut_off_by(origin, at).await;
            if !pause_until(origin + at).await {
                break;
            }
            late = late.max((origin + at).elapsed());
            let who = nth % self.members.len();
            self.annotate(who, at, settings.payload);
            self.tell(stage, at);
        }
        self.cut_off_by(origin, settings.rate.length()).await;
        pause_until(origin + settings.rate.length()).await;
        sleep_until((origin + self.absences.back_by(self.lost_network)).into()).await;
        let ended = Instant::now();
        let settled = self.until(settings.timeout, Self::is_settled).await.map(|at| at - ended);
        self.tell(stage, settings.rate.length());
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

    /// Cuts off who is to be by then, each when it is due.
    async fn cut_off_by(&mut self, origin: Instant, then: Duration) {
        while let Some(from) = self.absences.next(self.lost_network).filter(|from| *from <= then) {
            if !pause_until(origin + from).await {
                break;
            }
            for absence in self.absences.begun(self.lost_network, from) {
                self.members[absence.who].machine.cut_off(origin + absence.until);
            }
            self.lost_network = self.absences.begun(0, from).count();
        }
    }

    fn tell(&self, stage: &Stage, now: Duration) {
        let (away, came_back) = self.absences.at(now);
        stage.present.store((self.members.len() as u64).saturating_sub(away), Relaxed);
        stage.reconnects.store(came_back, Relaxed);
        stage.published.store(self.written(), Relaxed);
        self.ear.with(|heard| {
            stage.delivered.store(heard.delivered, Relaxed);
            stage.take_in(&mut heard.recent, 0);
        });
    }

    pub(super) fn written(&self) -> u64 {
        self.members.iter().map(|member| u64::from(member.written)).sum()
    }

    /// The others in somebody's room.
    pub(super) fn others(&self, who: usize) -> impl Iterator<Item = (usize, &Member)> {
        let room = self.members[who].room;
        self.members.iter().enumerate().filter(move |(other, member)| *other != who && member.room == room)
    }

    fn everybody_sees_everybody(&self) -> bool {
        self.wrong_sights().next().is_none()
    }

    /// Who is wrong about whom, and whether it sees it.
    pub(super) fn wrong_sights(&self) -> impl Iterator<Item = (usize, String, bool)> + '_ {
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
    pub(super) async fn until(&self, patience: Duration, so: impl Fn(&Self) -> bool) -> Option<Instant> {
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

/// Sleeps; false when an early end was asked for before that.
async fn pause_until(at: Instant) -> bool {
    while !stop::is_asked() && Instant::now() < at {
        sleep_until(stop::soon(at).into()).await;
    }
    !stop::is_asked()
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
