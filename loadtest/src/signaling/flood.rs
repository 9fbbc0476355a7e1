//! Publishing to whole rooms, at a fixed rate or as fast as it goes.

use std::{thread, time::Duration};

use anyhow::ensure;

use super::{
    Settings,
    crew::{Crew, Tally},
    peer_id, room_name,
};
use crate::{
    limits,
    measure::Latencies,
    report::Report,
    stage::{Costs, Stage, Window},
    stamp::Template,
    swarm::Errors,
};

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "clients",
    "rooms",
    "payload_bytes",
    "measured_seconds",
    "publishes",
    "deliveries",
    "deliveries_expected",
    "deliveries_per_second",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "latency_max_ms",
    "lost",
    "server_cpu_us_per_delivery",
    "server_cpu_percent",
    "server_rss_peak_bytes",
    "server_queue_high_water_bytes",
    "server_bytes_per_connection",
    "tester_cpu_percent",
    "tester_late_max_ms",
    "server_rss_slope_bytes_per_hour",
];

/// When the next message is published.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// When its time has come, whatever has become of those before.
    Fixed,
    /// When one of the client's own has come back.
    Saturated {
        /// How many of a client are under way.
        window: u32,
    },
}

/// What a flood found, all crews together.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) connected: usize,
    pub(super) published: u64,
    pub(super) expected: u64,
    pub(super) delivered: u64,
    pub(super) out_of_order: u64,
    pub(super) strayed: u64,
    pub(super) in_window: u64,
    pub(super) latencies: Latencies,
    pub(super) late: Duration,
    pub(super) errors: Errors,
    pub(super) costs: Costs,
    pub(super) rss_before: Option<u64>,
}

impl Outcome {
    fn add(&mut self, tally: &Tally) {
        self.connected += tally.connected;
        self.published += tally.published;
        self.expected += tally.accounts.expected;
        self.delivered += tally.accounts.delivered;
        self.out_of_order += tally.accounts.out_of_order;
        self.strayed += tally.accounts.strayed;
        self.in_window += tally.in_window;
        self.latencies.merge(&tally.latencies);
        self.late = self.late.max(tally.late);
        self.errors.merge(&tally.errors);
    }

    /// Says in `report` what of this makes a run a failed one.
    pub(super) fn judge(&self, report: &mut Report) {
        let lost = self.expected.saturating_sub(self.delivered);
        for (count, what) in [
            (lost, "were lost"),
            (self.out_of_order, "came twice or out of order"),
            (self.strayed, "came to somebody who is not in the room"),
        ] {
            if count > 0 {
                report.fail(format!("{count} deliveries {what}"));
            }
        }
        if self.delivered == 0 {
            report.fail("nothing was delivered".to_owned());
        }
        report.errors(&self.errors);
    }
}

/// Floods the rooms of `run` and reports.
pub(super) fn run(settings: &Settings, pace: Pace) -> anyhow::Result<Report> {
    let outcome = measure(settings, pace, rand::random())?;
    let mut report = Report::new(match pace {
        Pace::Fixed => "signaling, fixed rate",
        Pace::Saturated { .. } => "signaling, saturated",
    });
    report.count("clients", outcome.connected as u64);
    report.count("rooms", settings.rooms.into());
    report.count("payload_bytes", settings.payload as u64);
    describe(&outcome, &mut report);
    if matches!(pace, Pace::Saturated { .. }) {
        report
            .note("saturated: latency is the length of the queues, not what a quiet server takes".to_owned());
    }
    outcome.judge(&mut report);
    Ok(report)
}

fn describe(outcome: &Outcome, report: &mut Report) {
    let costs = &outcome.costs;
    let seconds = costs.measured.as_secs_f64();
    let share = |cpu: Option<Duration>| cpu.map(|cpu| cpu.as_secs_f64() / costs.length.as_secs_f64() * 100.0);
    report.number("measured_seconds", seconds);
    report.count("publishes", outcome.published);
    report.count("deliveries", outcome.delivered);
    report.count("deliveries_expected", outcome.expected);
    report.number("deliveries_per_second", outcome.in_window as f64 / seconds);
    report.milliseconds("latency_p50_ms", outcome.latencies.at(0.5));
    report.milliseconds("latency_p90_ms", outcome.latencies.at(0.9));
    report.milliseconds("latency_p99_ms", outcome.latencies.at(0.99));
    report.milliseconds("latency_p999_ms", outcome.latencies.at(0.999));
    report.milliseconds("latency_max_ms", outcome.latencies.max());
    report.count("lost", outcome.expected.saturating_sub(outcome.delivered));
    let cost = costs.server_cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / outcome.in_window as f64);
    report.number("server_cpu_us_per_delivery", cost);
    report.number("server_cpu_percent", share(costs.server_cpu));
    report.number("server_rss_peak_bytes", costs.rss_peak.map(|bytes| bytes as f64));
    report.number("server_queue_high_water_bytes", costs.queue_peak.map(|bytes| bytes as f64));
    let grown = costs.rss_connected.zip(outcome.rss_before).map(|(now, before)| now.saturating_sub(before));
    report.number("server_bytes_per_connection", grown.map(|bytes| bytes as f64 / outcome.connected as f64));
    report.number("tester_cpu_percent", share(costs.tester_cpu));
    report.milliseconds("tester_late_max_ms", Some(outcome.late));
    report.timeline(&costs.timeline);
    report.curve(&outcome.latencies);
}

/// Floods the rooms of `run`, named by [`room_name`].
pub(super) fn measure(settings: &Settings, pace: Pace, run: u32) -> anyhow::Result<Outcome> {
    limits::check(&settings.target, settings.clients.into())?;
    let smallest =
        Template::smallest(&room_name(run, settings.rooms - 1), &peer_id(run, settings.clients - 1));
    ensure!(
        settings.payload >= smallest,
        "--payload is {}, at least {smallest} are needed",
        settings.payload
    );
    let rss_before = settings.server.as_ref().and_then(|server| server.resident().ok());
    let stage = Stage::new(settings.threads);
    let Settings { warmup, duration, .. } = *settings;
    let window =
        Window { warmup, duration, server: settings.server.as_ref(), metrics: settings.metrics.as_ref() };
    let mut outcome = Outcome { rss_before, ..Outcome::default() };
    let crew = |nth| {
        let gathered = Crew::gather(settings, pace, run, nth);
        stage.wait_for_start();
        let _at_work = stage.enter();
        gathered.and_then(|crew| crew.publish(settings, &stage, nth))
    };
    let crew = &crew;
    thread::scope(|scope| -> anyhow::Result<()> {
        let crews: Vec<_> = (0..settings.threads).map(|nth| scope.spawn(move || crew(nth))).collect();
        outcome.costs = stage.conduct(&window);
        for crew in crews {
            outcome.add(&crew.join().expect("a crew does not panic")?);
        }
        Ok(())
    })?;
    Ok(outcome)
}
