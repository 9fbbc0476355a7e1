//! What peers that annotated together have at the end, and whom they see.

use std::{collections::BTreeSet, time::Duration};

use super::{
    Settings,
    party::{Member, Party, name},
};
use crate::{relay::document::equal, report::Report, stage::Costs};

/// Nobody may be seen for longer after it has closed.
const GONE: Duration = Duration::from_secs(5);
/// Of each kind of fault, so many are told in full.
const TOLD: usize = 3;

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

impl Outcome {
    pub(super) async fn of(party: Party, settled: Option<Duration>, late: Duration) -> Self {
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
        report.count("lost_their_network", self.party.lost_network as u64);
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
            report.milliseconds("catch_up_p50_ms", heard.catch_up.at(0.5));
            report.milliseconds("catch_up_p99_ms", heard.catch_up.at(0.99));
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
