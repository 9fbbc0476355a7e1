//! Many connections that do nothing: what each costs the server in memory.

use std::{
    io,
    time::{Duration, Instant},
};

use super::{Settings, room_name, subscribe_all};
use crate::{
    client::Upgraded,
    limits::{self, nth_connection},
    live::Live,
    measure::process::Process,
    report::{Report, grouped},
    stop,
    swarm::{Dialect, Swarm},
};

/// Each is subscribed to a room of so many, as an open page is.
const PER_ROOM: usize = 50;
/// How long the server may tidy up before its memory is read.
const SETTLE: Duration = Duration::from_secs(2);

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "connections",
    "opened_after_seconds",
    "server_rss_before_bytes",
    "server_rss_open_bytes",
    "server_rss_after_close_bytes",
    "server_bytes_per_connection",
    "tester_bytes_per_connection",
];

/// Opens the connections, reads memory, closes them, reads it again.
pub(super) fn run(settings: &Settings, connections: u32) -> anyhow::Result<Report> {
    limits::check(&settings.target, connections.into())?;
    let resident = |process: Option<&Process>| process.and_then(|process| process.resident().ok());
    let (server, own) = (settings.server.as_ref(), Process::own().ok());
    let run = rand::random();
    let mut swarm = Swarm::new(Dialect::Signaling)?;
    let (before, own_before) = (resident(server), resident(own.as_ref()));
    let started = Instant::now();
    open(&mut swarm, settings, connections, started)?;
    subscribe_all(&mut swarm, |who| room_name(run, (who / PER_ROOM) as u32))?;
    let opened_after = started.elapsed();
    rest(&mut swarm)?;
    let (open, own_open) = (resident(server), resident(own.as_ref()));
    let held = swarm.open();
    for who in 0..swarm.len() {
        swarm.close(who);
    }
    rest(&mut swarm)?;
    let each = |now: Option<u64>, before: Option<u64>| Some((now? as f64 - before? as f64) / held as f64);
    let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
    let mut report = Report::new("signaling, idle");
    report.count("connections", held as u64);
    report.number("opened_after_seconds", opened_after.as_secs_f64());
    report.number("server_rss_before_bytes", bytes(before));
    report.number("server_rss_open_bytes", bytes(open));
    report.number("server_rss_after_close_bytes", bytes(resident(server)));
    report.number("server_bytes_per_connection", each(open, before));
    report.number("tester_bytes_per_connection", each(own_open, own_before));
    if held < connections as usize {
        report.fail(format!("{held} of {connections} connections were open at the end"));
    }
    report.errors(swarm.errors());
    Ok(report)
}

fn open(swarm: &mut Swarm, settings: &Settings, connections: u32, started: Instant) -> io::Result<()> {
    let live = Live::new(connections.into(), "connections");
    let mut line_at = started + Duration::from_secs(1);
    for number in (0..connections).take_while(|_| !stop::is_asked()) {
        match Upgraded::open(&settings.target, nth_connection(&settings.target, number)) {
            Ok(connection) => drop(swarm.add(connection)?),
            Err(error) => swarm.errors().add(&error),
        }
        if Instant::now() >= line_at {
            line_at += Duration::from_secs(1);
            live.show_line(number.into(), &format!("{:>9} open", grouped(swarm.open() as u64)));
            // Pings are answered while the rest is still being opened.
            swarm.turn(Instant::now(), |_| {})?;
        }
    }
    Ok(())
}

/// Keeps the connections alive for [`SETTLE`].
fn rest(swarm: &mut Swarm) -> io::Result<()> {
    let until = Instant::now() + SETTLE;
    while Instant::now() < until {
        swarm.turn(until, |_| {})?;
    }
    Ok(())
}
