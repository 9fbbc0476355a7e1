//! Writing into rooms, at a fixed rate or as fast as it goes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::ensure;

use super::{
    Settings,
    books::{Counts, name_of},
    crew::Crew,
    verdict::Verdict,
};
use crate::{
    accounts::Accounts,
    limits,
    report::Report,
    stage::{Costs, Stage, Window},
    stamp::Stamp,
    swarm::Errors,
};
use wire::sync::{MAX_FRAME, Status};

/// When the next edit is made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When its time has come, whatever has become of those before.
    Fixed,
    /// When one of the writer's own has reached everybody.
    Saturated {
        /// How many of a writer are under way.
        window: u32,
    },
}

/// What a flood found.
pub(super) struct Outcome {
    pub(super) counts: Counts,
    pub(super) accounts: Accounts,
    connected: usize,
    acks_missing: u64,
    errors: Errors,
    costs: Costs,
    verdict: Verdict,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.accounts.expected.saturating_sub(self.accounts.delivered)
    }

    /// Says in `report` what of this makes a run a failed one.
    pub(super) fn judge(&self, report: &mut Report) {
        let Self { accounts, counts, verdict, .. } = self;
        for (count, what) in [
            (self.lost(), "deliveries were lost"),
            (accounts.delivered.saturating_sub(accounts.expected), "deliveries too many came"),
            (accounts.out_of_order, "deliveries came twice or out of order"),
            (accounts.strayed, "messages came to somebody who is not in the room"),
            (self.acks_missing, "updates were never acknowledged"),
            (counts.strange_acks, "acks came for what was not sent, or twice"),
            (counts.room_errors, "room errors came"),
            (counts.unreadable, "frames could not be read"),
        ] {
            if count > 0 {
                report.fail(format!("{count} {what}"));
            }
        }
        for (status, count) in refused(counts) {
            report.fail(format!("{count} updates were refused: {status}"));
        }
        if accounts.delivered == 0 {
            report.fail("nothing was delivered".to_owned());
        }
        verdict.judge(report);
        report.errors(&self.errors);
    }
}

fn refused(counts: &Counts) -> impl Iterator<Item = (&'static str, u64)> + '_ {
    let all = counts.statuses.iter().map(|(status, count)| (*status, *count));
    all.filter(|(status, _)| *status != name_of(Status::Ok))
}

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "clients",
    "writers",
    "rooms",
    "payload_bytes",
    "measured_seconds",
    "updates",
    "deliveries",
    "deliveries_expected",
    "deliveries_per_second",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "latency_max_ms",
    "ack_p50_ms",
    "ack_p99_ms",
    "ack_max_ms",
    "acks_*",
    "acks_missing",
    "lost",
    "documents_compared",
    "documents_unequal",
    "acked_edits_missing",
    "server_cpu_us_per_delivery",
    "server_cpu_percent",
    "server_rss_peak_bytes",
    "server_queue_high_water_bytes",
    "tester_cpu_percent",
    "tester_late_max_ms",
    "server_rss_slope_bytes_per_hour",
];

/// Floods the rooms of `run` and reports.
pub(super) fn run(settings: &Settings, pace: Pace) -> anyhow::Result<Report> {
    let outcome = measure(settings, pace, rand::random(), |_| ())?.0;
    let mut report = Report::new(match pace {
        Pace::Fixed => "relay, fixed rate",
        Pace::Saturated { .. } => "relay, saturated",
    });
    describe(&outcome, settings, &mut report);
    if matches!(pace, Pace::Saturated { .. }) {
        report
            .note("saturated: latency is the length of the queues, not what a quiet relay takes".to_owned());
    }
    if !settings.protocol.acknowledges() {
        report.note("version 0 of the protocol has no acks: what counts is what was sent".to_owned());
    }
    outcome.judge(&mut report);
    Ok(report)
}

/// Adds the figures of a flood to `report`.
pub(super) fn describe(outcome: &Outcome, settings: &Settings, report: &mut Report) {
    let Outcome { counts, accounts, costs, .. } = outcome;
    report.count("clients", outcome.connected as u64);
    report.count("writers", (settings.writers * settings.rooms).into());
    report.count("rooms", settings.rooms.into());
    report.count("payload_bytes", settings.payload as u64);
    report.number("measured_seconds", costs.measured.as_secs_f64());
    report.count("updates", counts.published);
    report.count("deliveries", accounts.delivered);
    report.count("deliveries_expected", accounts.expected);
    report.number("deliveries_per_second", counts.in_window as f64 / costs.measured.as_secs_f64());
    report.milliseconds("latency_p50_ms", counts.deliveries.at(0.5));
    report.milliseconds("latency_p90_ms", counts.deliveries.at(0.9));
    report.milliseconds("latency_p99_ms", counts.deliveries.at(0.99));
    report.milliseconds("latency_p999_ms", counts.deliveries.at(0.999));
    report.milliseconds("latency_max_ms", counts.deliveries.max());
    report.milliseconds("ack_p50_ms", counts.acks.at(0.5));
    report.milliseconds("ack_p99_ms", counts.acks.at(0.99));
    report.milliseconds("ack_max_ms", counts.acks.max());
    for (status, count) in &counts.statuses {
        report.count(format!("acks_{status}"), *count);
    }
    report.count("acks_missing", outcome.acks_missing);
    report.count("lost", outcome.lost());
    outcome.verdict.describe(report);
    describe_costs(costs, counts, report);
    report.timeline(&costs.timeline);
    report.curve(&counts.deliveries);
}

fn describe_costs(costs: &Costs, counts: &Counts, report: &mut Report) {
    let share = |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64() / costs.length.as_secs_f64() * 100.0);
    let cost = costs.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / counts.in_window as f64);
    report.number("server_cpu_us_per_delivery", cost);
    report.number("server_cpu_percent", share(costs.server_cpu));
    report.number("server_rss_peak_bytes", costs.rss_peak.map(|bytes| bytes as f64));
    report.number("server_queue_high_water_bytes", costs.queue_peak.map(|bytes| bytes as f64));
    report.number("tester_cpu_percent", share(costs.tester_cpu));
    report.milliseconds("tester_late_max_ms", Some(counts.late));
}

/// Floods the rooms of `run`, and does something `beside` it from the moment the load starts.
pub(super) fn measure<T: Send>(
    settings: &Settings,
    pace: Pace,
    run: u32,
    beside: impl FnOnce(Instant) -> T + Send,
) -> anyhow::Result<(Outcome, T)> {
    check(settings)?;
    let Settings { warmup, duration, .. } = *settings;
    let stage = Stage::new(2);
    let crew = || {
        let gathered = Crew::gather(settings, pace, run);
        stage.wait_for_start();
        let _at_work = stage.enter();
        gathered.and_then(|crew| Ok(crew.write(settings, pace, &stage)?))
    };
    let aside = || {
        stage.wait_for_start();
        let _at_work = stage.enter();
        beside(stage.origin())
    };
    let (costs, tally, found) = thread::scope(|scope| {
        let (crew, aside) = (scope.spawn(crew), scope.spawn(aside));
        let costs = stage.conduct(&Window {
            warmup,
            duration,
            server: settings.server.as_ref(),
            metrics: settings.metrics.as_ref(),
        });
        (costs, crew.join().expect("a crew does not panic"), aside.join().expect("nor who works beside it"))
    });
    let tally = tally?;
    let verdict = Verdict::of(settings, &tally.books, &tally.open);
    let acks_missing = tally.books.acks_missing();
    let (counts, accounts) = (tally.books.counts, tally.books.accounts);
    let (connected, errors) = (tally.connected, tally.errors);
    Ok((Outcome { counts, accounts, connected, acks_missing, errors, costs, verdict }, found))
}

pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    let (smallest, largest) = (Stamp::SMALLEST_TEXT, MAX_FRAME / 2);
    ensure!(
        (smallest..=largest).contains(&settings.payload),
        "--payload is {}, {smallest} to {largest} are possible",
        settings.payload
    );
    let clients = u64::from(settings.clients) * u64::from(settings.rooms);
    limits::check(&settings.target, clients)
}
