//! What is counted on a day, and how it is told.

use std::{collections::BTreeMap, time::Duration};

use super::{Settings, verdict::Verdict};
use crate::{
    measure::Latencies,
    report::Report,
    stage::{Costs, Recent},
    swarm::Errors,
};

/// What is expected of a server on any day.
pub const USUAL: [&str; 4] = ["lost=0", "errors=0", "refused=0", "out_of_order=0"];

/// What is reported.
pub const FIGURES: &[&str] = &[
    "reviewers",
    "rooms",
    "seed",
    "measured_seconds",
    "present_at_the_end",
    "annotations",
    "annotations_acked",
    "annotations_found_kept",
    "annotations_brought_on_return",
    "cursor_moves",
    "deliveries",
    "presence_deliveries",
    "signaling_deliveries",
    "arrivals",
    "lost_their_network",
    "of_these_half_open",
    "asked_to_join_again",
    "repeated",
    "deliveries_per_second",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "latency_max_ms",
    "everybody_p50_ms",
    "everybody_p99_ms",
    "ack_p50_ms",
    "ack_p99_ms",
    "presence_p50_ms",
    "presence_p99_ms",
    "catch_up_p50_ms",
    "catch_up_p99_ms",
    "documents_compared",
    "documents_unequal",
    "lost",
    "acks_missing",
    "ghosts",
    "unseen",
    "stuck",
    "out_of_order",
    "refused",
    "reconnects",
    "server_cpu_us_per_delivery",
    "server_cpu_percent",
    "server_rss_peak_bytes",
    "server_queue_high_water_bytes",
    "tester_cpu_percent",
    "tester_cpu_percent_per_reviewer",
    "tester_bytes_per_reviewer",
    "tester_late_max_ms",
    "server_rss_slope_bytes_per_hour",
];

/// What is counted.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) annotations: u64,
    pub(super) moves: u64,
    /// Annotations that reached a reader as they were sent, each reader counted.
    pub(super) delivered: u64,
    /// The same of presence, and of what signaling brings.
    pub(super) sights: u64,
    pub(super) announces: u64,
    pub(super) acked: u64,
    /// Annotations that were not acknowledged when the connection broke, and were found kept on return.
    pub(super) found_kept: u64,
    /// Annotations that were written while away, or were sent again on return.
    pub(super) brought: u64,
    pub(super) refused: BTreeMap<&'static str, u64>,
    pub(super) arrivals: u64,
    pub(super) lost_network: u64,
    pub(super) half_open: u64,
    pub(super) came_back: u64,
    pub(super) rejoins: u64,
    pub(super) repeated: u64,
    pub(super) out_of_order: u64,
    pub(super) strayed: u64,
    pub(super) unreadable: u64,
    pub(super) room_errors: u64,
    pub(super) strange_acks: u64,
    /// From when an annotation was due until a reader had it.
    pub(super) deliveries: Latencies,
    /// And until the last reader had it.
    pub(super) everybody: Latencies,
    pub(super) acks: Latencies,
    /// From when a cursor was to move until a reader saw it.
    pub(super) presence: Latencies,
    /// From when somebody was to come until it had all that the server had.
    pub(super) catch_up: Latencies,
    /// Latencies of annotations that the stage has not had yet.
    pub(super) recent: Recent,
    /// How late the tester itself acted at worst.
    pub(super) late: Duration,
}

/// A day that is over.
pub(super) struct Day {
    pub(super) counts: Counts,
    pub(super) verdict: Verdict,
    pub(super) errors: Errors,
    /// How many were there when it ended.
    pub(super) present: u64,
    /// By how much the tester's memory grew until then.
    pub(super) tester_grown: Option<u64>,
}

impl Day {
    /// Adds the figures to `report`.
    pub(super) fn describe(&self, settings: &Settings, costs: &Costs, report: &mut Report) {
        let Self { counts, verdict, .. } = self;
        let seconds = costs.measured.as_secs_f64();
        report.count("reviewers", settings.count().into());
        report.count("rooms", settings.rooms.into());
        report.count("seed", settings.seed);
        report.number("measured_seconds", seconds);
        report.count("present_at_the_end", self.present);
        self.what_happened(report);
        let deliveries = counts.delivered + counts.sights + counts.announces;
        report.number("deliveries_per_second", deliveries as f64 / seconds);
        self.latencies(report);
        verdict.describe(report);
        report.count("out_of_order", counts.out_of_order);
        report.count("refused", counts.refused.values().sum());
        report.count("reconnects", counts.came_back);
        server(costs, deliveries, report);
        tester(settings, costs, self.tester_grown, report);
        report.milliseconds("tester_late_max_ms", Some(counts.late));
        report.timeline(&costs.timeline);
        report.curve(&counts.deliveries);
        report.count_errors(&self.errors);
    }

    fn what_happened(&self, report: &mut Report) {
        let counts = &self.counts;
        for (name, count) in [
            ("annotations", counts.annotations),
            ("annotations_acked", counts.acked),
            ("annotations_found_kept", counts.found_kept),
            ("annotations_brought_on_return", counts.brought),
            ("cursor_moves", counts.moves),
            ("deliveries", counts.delivered),
            ("presence_deliveries", counts.sights),
            ("signaling_deliveries", counts.announces),
            ("arrivals", counts.arrivals),
            ("lost_their_network", counts.lost_network),
            ("of_these_half_open", counts.half_open),
            ("asked_to_join_again", counts.rejoins),
            ("repeated", counts.repeated),
        ] {
            report.count(name, count);
        }
    }

    fn latencies(&self, report: &mut Report) {
        let counts = &self.counts;
        report.milliseconds("latency_p50_ms", counts.deliveries.at(0.5));
        report.milliseconds("latency_p90_ms", counts.deliveries.at(0.9));
        report.milliseconds("latency_p99_ms", counts.deliveries.at(0.99));
        report.milliseconds("latency_p999_ms", counts.deliveries.at(0.999));
        report.milliseconds("latency_max_ms", counts.deliveries.max());
        report.milliseconds("everybody_p50_ms", counts.everybody.at(0.5));
        report.milliseconds("everybody_p99_ms", counts.everybody.at(0.99));
        report.milliseconds("ack_p50_ms", counts.acks.at(0.5));
        report.milliseconds("ack_p99_ms", counts.acks.at(0.99));
        report.milliseconds("presence_p50_ms", counts.presence.at(0.5));
        report.milliseconds("presence_p99_ms", counts.presence.at(0.99));
        report.milliseconds("catch_up_p50_ms", counts.catch_up.at(0.5));
        report.milliseconds("catch_up_p99_ms", counts.catch_up.at(0.99));
    }

    /// Says in `report` what makes this a failed day, whatever its figures.
    pub(super) fn judge(&self, report: &mut Report) {
        let counts = &self.counts;
        for (count, what) in [
            (counts.strayed, "messages came to somebody who is not in the room"),
            (counts.unreadable, "messages could not be read"),
            (counts.room_errors, "room errors came"),
            (counts.strange_acks, "acks came for what was not sent, or twice"),
        ] {
            if count > 0 {
                report.fail(format!("{count} {what}"));
            }
        }
        for (status, count) in &counts.refused {
            report.note(format!("{count} updates were refused: {status}"));
        }
        self.verdict.judge(report);
    }
}

fn server(costs: &Costs, deliveries: u64, report: &mut Report) {
    let cpu = costs.server_cpu.map(|cpu| cpu.as_secs_f64());
    let length = costs.length.as_secs_f64();
    report.number("server_cpu_us_per_delivery", cpu.map(|cpu| cpu * 1e6 / deliveries as f64));
    report.number("server_cpu_percent", cpu.map(|cpu| cpu / length * 100.0));
    report.number("server_rss_peak_bytes", costs.rss_peak.map(|bytes| bytes as f64));
    report.number("server_queue_high_water_bytes", costs.queue_peak.map(|bytes| bytes as f64));
}

fn tester(settings: &Settings, costs: &Costs, grown: Option<u64>, report: &mut Report) {
    let count = f64::from(settings.count());
    let cpu = costs.tester_cpu.map(|cpu| cpu.as_secs_f64() / costs.length.as_secs_f64() * 100.0);
    report.number("tester_cpu_percent", cpu);
    report.number("tester_cpu_percent_per_reviewer", cpu.map(|cpu| cpu / count));
    report.number("tester_bytes_per_reviewer", grown.map(|bytes| bytes as f64 / count));
}
