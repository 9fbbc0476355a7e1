//! Somebody joins a large document while other rooms carry traffic.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytesize::ByteSize;
use loro::{ExportMode, LoroDoc};
use wire::sync::Room;

use super::{
    Settings,
    document::{Grown, equal},
    flood::{Pace, check, describe, measure},
    grow::wait_for_rest,
    room,
    visitor::Visitor,
};
use crate::{report::Report, stop};

/// What is reported besides what a flood reports.
pub(super) const FIGURES: &[&str] = &[
    "document_text_bytes",
    "document_update_bytes",
    "joins",
    "join_ms",
    "join_max_ms",
    "in_process_ms",
    "in_process_snapshot_ms",
    "join_to_in_process",
    "join_to_in_process_snapshot",
];

/// Joins a document with `size` of text so often, spread over the measured window, while the other rooms carry
/// traffic at the fixed rate.
pub(super) fn run(settings: &Settings, size: ByteSize, joins: u32) -> anyhow::Result<Report> {
    ensure!(settings.protocol.acknowledges(), "--join needs a relay that acknowledges: --protocol v1");
    check(settings)?;
    let bytes = usize::try_from(size.as_u64()).context("too large for this machine")?;
    let run = rand::random();
    let room = room(run, "large");
    let grown = Grown::new(bytes, settings.seed);
    let mut author = Visitor::open(&settings.target, settings.protocol, room.clone())?;
    author.join(&LoroDoc::new())?;
    author.write(&grown.updates)?;
    author.close();
    let alone = Alone::measure(&grown.doc, joins)?;
    wait_for_rest(settings.server.as_ref())?;
    let (outcome, took) =
        measure(settings, Pace::Fixed, run, |origin| join_often(settings, &room, &grown.doc, origin, joins))?;
    let mut took = took?;
    took.sort_unstable();
    let mut report = Report::new("relay, joining a large document");
    report.count("document_text_bytes", size.as_u64());
    report.count("document_update_bytes", alone.bytes as u64);
    report.count("joins", joins.into());
    report.milliseconds("join_ms", median(&took));
    report.milliseconds("join_max_ms", took.last().copied());
    report.milliseconds("in_process_ms", Some(alone.updates));
    report.milliseconds("in_process_snapshot_ms", Some(alone.snapshot));
    let ratio = |to: Duration| median(&took).map(|took| took.as_secs_f64() / to.as_secs_f64());
    report.number("join_to_in_process", ratio(alone.updates));
    report.number("join_to_in_process_snapshot", ratio(alone.snapshot));
    describe(&outcome, settings, &mut report);
    outcome.judge(&mut report);
    Ok(report)
}

fn join_often(
    settings: &Settings,
    room: &Room,
    expected: &LoroDoc,
    origin: Instant,
    joins: u32,
) -> anyhow::Result<Vec<Duration>> {
    let mut took = Vec::new();
    for nth in 0..joins {
        let at = origin + settings.warmup + settings.duration * nth / joins;
        if !stop::sleep_until(at) {
            break;
        }
        let document = LoroDoc::new();
        let mut visitor = Visitor::open(&settings.target, settings.protocol, room.clone())?;
        let started = Instant::now();
        visitor.join(&document)?;
        took.push(started.elapsed());
        ensure!(equal(&document, expected), "a joiner got another document than was written");
        visitor.close();
    }
    Ok(took)
}

/// The same in one process, without any relay: export, one copy, import into a new document.
struct Alone {
    bytes: usize,
    updates: Duration,
    snapshot: Duration,
}

impl Alone {
    fn measure(document: &LoroDoc, times: u32) -> anyhow::Result<Self> {
        let mut bytes = 0;
        let mut often = |mode: fn() -> ExportMode<'static>| -> anyhow::Result<Duration> {
            let mut took = Vec::new();
            for _ in 0..times {
                let started = Instant::now();
                let exported = document.export(mode())?;
                let copied = exported.to_vec();
                let read = LoroDoc::new();
                read.import(&copied)?;
                took.push(started.elapsed());
                bytes = copied.len();
                ensure!(equal(document, &read), "an export is not what was exported");
            }
            took.sort_unstable();
            median(&took).context("--joins is 0")
        };
        let snapshot = often(|| ExportMode::Snapshot)?;
        let updates = often(ExportMode::all_updates)?;
        Ok(Self { bytes, updates, snapshot })
    }
}

fn median(sorted: &[Duration]) -> Option<Duration> {
    sorted.get(sorted.len() / 2).copied()
}
