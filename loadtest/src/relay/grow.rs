//! What a keystroke costs the relay, in documents of different sizes.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytesize::ByteSize;
use loro::LoroDoc;

use super::{
    Settings,
    document::{Grown, equal},
    room,
    visitor::Visitor,
};
use crate::{
    measure::{Latencies, process::Process},
    report::Report,
    stop,
};

/// A server is at rest when it uses less than this share of a core, ...
const AT_REST: f64 = 0.02;
/// ... looked at over such a time, ...
const LOOK: Duration = Duration::from_millis(300);
/// ... twice in a row; that long is waited for it.
const RESTING: Duration = Duration::from_secs(120);

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "keystrokes",
    "server_cpu_us_per_keystroke_*",
    "latency_p50_ms_*",
    "latency_p99_ms_*",
    "server_cpu_last_to_first",
];

/// What typing into one document showed.
struct Typed {
    cpu: Option<Duration>,
    latencies: Latencies,
    equal: bool,
}

/// Types `keystrokes` letters into a document of each size, with one reader, and compares what they cost.
pub(super) fn run(settings: &Settings, sizes: &[ByteSize], keystrokes: u32) -> anyhow::Result<Report> {
    ensure!(settings.protocol.acknowledges(), "--grow needs a relay that acknowledges: --protocol v1");
    let run = rand::random();
    let mut report = Report::new("relay, keystrokes");
    report.count("keystrokes", keystrokes.into());
    let mut costs = Vec::new();
    for size in sizes {
        if stop::is_asked() {
            break;
        }
        eprintln!("a document of {size}");
        let typed = type_into(settings, run, *size, keystrokes)
            .with_context(|| format!("typing into a document of {size}"))?;
        let cost = typed.cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / f64::from(keystrokes));
        let bytes = size.as_u64();
        report.number(format!("server_cpu_us_per_keystroke_{bytes}"), cost);
        report.milliseconds(format!("latency_p50_ms_{bytes}"), typed.latencies.at(0.5));
        report.milliseconds(format!("latency_p99_ms_{bytes}"), typed.latencies.at(0.99));
        if !typed.equal {
            report.fail(format!(
                "in the document of {size}, reader or newcomer have something else than the author"
            ));
        }
        costs.push(cost);
    }
    let growth = costs.last().copied().flatten().zip(costs.first().copied().flatten());
    report.number("server_cpu_last_to_first", growth.map(|(last, first)| last / first));
    Ok(report)
}

fn type_into(settings: &Settings, run: u32, size: ByteSize, keystrokes: u32) -> anyhow::Result<Typed> {
    let bytes = usize::try_from(size.as_u64()).context("too large for this machine")?;
    let room = room(run, size.as_u64());
    let grown = Grown::new(bytes, settings.seed);
    let mut author = Visitor::open(&settings.target, settings.protocol, room.clone())?;
    author.join(&LoroDoc::new())?;
    author.write(&grown.updates)?;
    let read = LoroDoc::new();
    let mut reader = Visitor::open(&settings.target, settings.protocol, room.clone())?;
    reader.join(&read)?;
    wait_for_rest(settings.server.as_ref())?;
    let cpu = || settings.server.as_ref().map(Process::cpu).transpose();
    let before = cpu()?;
    let latencies = type_letters(settings, keystrokes, &grown, &mut author, (&mut reader, &read))?;
    let used = cpu()?.zip(before).map(|(after, before)| after.since(&before));
    let late = LoroDoc::new();
    let mut newcomer = Visitor::open(&settings.target, settings.protocol, room)?;
    newcomer.join(&late)?;
    [author, reader, newcomer].into_iter().for_each(Visitor::close);
    Ok(Typed { cpu: used, latencies, equal: equal(&grown.doc, &read) && equal(&grown.doc, &late) })
}

/// One letter after the other at `--rate`, each once the reader has the one before. The acks are waited for at the
/// end, so that they are part of what it costs and not of how long it takes.
fn type_letters(
    settings: &Settings,
    keystrokes: u32,
    grown: &Grown,
    author: &mut Visitor,
    (reader, read): (&mut Visitor, &LoroDoc),
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::default();
    let mut batches = Vec::new();
    let interval = Duration::from_secs_f64(1.0 / settings.rate.top());
    let start = Instant::now();
    for nth in 0..keystrokes {
        if !stop::sleep_until(start + interval * nth) {
            break;
        }
        let update = grown.keystroke(nth as usize);
        let sent = Instant::now();
        batches.push(author.send(&update)?);
        let heard = reader.update()?;
        latencies.record(u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX));
        read.import(&heard).context("a keystroke cannot be imported")?;
    }
    batches.into_iter().try_for_each(|batch| author.acked(batch))?;
    Ok(latencies)
}

/// Waits until the server has nothing left to do, such as to write a snapshot of what has just been sent to it.
pub(super) fn wait_for_rest(server: Option<&Process>) -> anyhow::Result<()> {
    let Some(server) = server else { return Ok(()) };
    let give_up = Instant::now() + RESTING;
    let mut restful = 0;
    while restful < 2 {
        ensure!(Instant::now() < give_up, "the server was not at rest within {} s", RESTING.as_secs());
        let before = server.cpu()?;
        thread::sleep(LOOK);
        let busy = server.cpu()?.since(&before).as_secs_f64() / LOOK.as_secs_f64();
        restful = if busy < AT_REST { restful + 1 } else { 0 };
    }
    Ok(())
}
