//! One member of a flooded room never reads: do the others notice, and does the server's memory?

use std::{
    io::{ErrorKind, Read},
    time::{Duration, Instant},
};

use anyhow::Context;

use super::{
    Settings,
    flood::{Outcome, Pace, measure},
    is_pong, room_name, subscribe,
};
use crate::{
    client::{ClientError, Options, Upgraded},
    frame::Opcode,
    report::{Report, grouped},
    swarm::PING,
};

/// A small window, so that what waits for this reader waits in the server and not in the kernel.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// When it reads at last: how long nothing may come before it counts as still connected.
const SILENCE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(20);

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "clients",
    "bytes_published",
    "latency_p99_alone_ms",
    "latency_p99_beside_ms",
    "latency_p99_ratio",
    "latency_max_beside_ms",
    "server_rss_peak_alone_bytes",
    "server_rss_peak_beside_bytes",
    "stalled_disconnected",
    "stalled_bytes_in_flight",
    "lost",
];

/// Floods a room twice with all but one client: alone, and beside one that never reads.
pub(super) fn run(settings: &Settings) -> anyhow::Result<Report> {
    let others = Settings { clients: settings.clients.saturating_sub(1).max(1), ..settings.clone() };
    let alone = measure(&others, Pace::Fixed, rand::random())?;
    let run = rand::random();
    let stalled = join(settings, &room_name(run, 0)).context("the one that never reads cannot join")?;
    let beside = measure(&others, Pace::Fixed, run)?;
    let end = read_to_the_end(stalled);
    let mut report = Report::new("signaling, stall");
    describe(&mut report, &others, &alone, &beside, &end);
    alone.judge(&mut report);
    beside.judge(&mut report);
    if !end.disconnected {
        let held = grouped(end.bytes);
        report.fail(format!("the one that never read was still connected, {held} bytes were kept for it"));
    }
    Ok(report)
}

fn join(settings: &Settings, topic: &str) -> Result<Upgraded, ClientError> {
    let options = Options { from: None, receive_buffer: Some(RECEIVE_BUFFER) };
    let mut connection = Upgraded::open(&settings.target, options)?;
    connection.send(Opcode::Text, subscribe(topic).as_bytes())?;
    connection.send(Opcode::Text, PING)?;
    while !is_pong(&connection.next_text()?) {}
    Ok(connection)
}

/// How it went for the one that never read.
struct End {
    disconnected: bool,
    /// What was still on its way to it.
    bytes: u64,
}

fn read_to_the_end(mut connection: Upgraded) -> End {
    let give_up = Instant::now() + PATIENCE;
    let mut end = End { disconnected: false, bytes: connection.leftover.len() as u64 };
    let mut chunk = vec![0; 64 * 1024];
    if connection.stream.set_read_timeout(Some(SILENCE)).is_err() {
        return end;
    }
    while Instant::now() < give_up {
        match connection.stream.read(&mut chunk) {
            Ok(0) => return End { disconnected: true, ..end },
            Ok(count) => end.bytes += count as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return end,
            Err(_) => return End { disconnected: true, ..end },
        }
    }
    end
}

fn describe(report: &mut Report, others: &Settings, alone: &Outcome, beside: &Outcome, end: &End) {
    let p99 = |outcome: &Outcome| outcome.latencies.at(0.99);
    let ratio = p99(beside).zip(p99(alone)).map(|(beside, alone)| beside.as_secs_f64() / alone.as_secs_f64());
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let flood = others.rate.top() * others.payload as f64 * (others.warmup + others.duration).as_secs_f64();
    report.count("clients", others.clients.into());
    report.count("bytes_published", flood as u64);
    report.milliseconds("latency_p99_alone_ms", p99(alone));
    report.milliseconds("latency_p99_beside_ms", p99(beside));
    report.number("latency_p99_ratio", ratio);
    report.milliseconds("latency_max_beside_ms", beside.latencies.max());
    report.number("server_rss_peak_alone_bytes", bytes(alone.costs.rss_peak));
    report.number("server_rss_peak_beside_bytes", bytes(beside.costs.rss_peak));
    report.flag("stalled_disconnected", Some(end.disconnected));
    report.count("stalled_bytes_in_flight", end.bytes);
    report.count("lost", beside.expected.saturating_sub(beside.delivered));
}
