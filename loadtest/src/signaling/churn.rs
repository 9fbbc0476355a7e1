//! Connections that come and go: does the server forget them?

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{Settings, is_pong, room_name, subscribe};
use crate::{
    client::{ClientError, Options, Target, Upgraded},
    frame::Opcode,
    limits,
    live::Live,
    report::{Report, grouped},
    stop,
    swarm::{Errors, PING},
};

/// Memory is looked at after each so-many-th part of the cycles.
const PARTS: u32 = 10;
/// A server that keeps what left runs out of sockets, and every further cycle waits its full time in vain.
const GIVE_UP_AFTER: u32 = 100;
/// How long the server may take to notice the last ones that left.
const SETTLE: Duration = Duration::from_secs(5);

/// What is reported.
pub(super) const FIGURES: &[&str] = &[
    "cycles",
    "cycles_per_second",
    "server_rss_before_bytes",
    "server_rss_after_first_tenth_bytes",
    "server_rss_peak_bytes",
    "server_rss_end_bytes",
    "server_growth_bytes_per_cycle",
    "ghost_subscribers",
];

/// Connects, subscribes and disconnects `cycles` times, every second one without a goodbye.
pub(super) fn run(settings: &Settings, cycles: u32, concurrency: usize) -> anyhow::Result<Report> {
    limits::check(&settings.target, concurrency as u64)?;
    let churn = Churn {
        settings,
        topic: room_name(rand::random(), 0),
        cycles,
        begun: AtomicU32::new(0),
        done: AtomicU32::new(0),
        failed: AtomicU32::new(0),
        errors: Mutex::default(),
    };
    let before = churn.resident();
    let started = Instant::now();
    let mut parts = Vec::new();
    thread::scope(|scope| {
        for _ in 0..concurrency {
            scope.spawn(|| churn.work());
        }
        parts = churn.watch(started);
    });
    let elapsed = started.elapsed();
    let (done, failed) = (churn.done.load(Relaxed), churn.failed.load(Relaxed));
    let ghosts = churn.ghosts(SETTLE);
    let mut report = Report::new("signaling, churn");
    churn.describe(&mut report, elapsed, before, &parts);
    if done + failed < cycles {
        report.fail(format!("given up after {done} of {cycles} cycles"));
    }
    report.number("ghost_subscribers", ghosts.map(|ghosts| ghosts as f64));
    if let Some(ghosts) = ghosts.filter(|ghosts| *ghosts > 0) {
        report.fail(format!("{ghosts} of those that left are still subscribed"));
    }
    report.errors(&churn.errors.into_inner().expect("no worker panics"));
    Ok(report)
}

struct Churn<'a> {
    settings: &'a Settings,
    topic: String,
    cycles: u32,
    begun: AtomicU32,
    done: AtomicU32,
    failed: AtomicU32,
    errors: Mutex<Errors>,
}

impl Churn<'_> {
    /// Visits until there have been enough, of whichever kind.
    fn work(&self) {
        while self.failed.load(Relaxed) < GIVE_UP_AFTER && !stop::is_asked() {
            let nth = self.begun.fetch_add(1, Relaxed);
            if nth >= self.cycles {
                return;
            }
            match cycle(&self.settings.target, &self.topic, nth.is_multiple_of(2)) {
                Ok(()) => self.done.fetch_add(1, Relaxed),
                Err(error) => {
                    self.errors.lock().expect("no worker panics").add(&error);
                    self.failed.fetch_add(1, Relaxed)
                }
            };
        }
    }

    fn is_over(&self) -> bool {
        let failed = self.failed.load(Relaxed);
        stop::is_asked() || failed >= GIVE_UP_AFTER || self.done.load(Relaxed) + failed >= self.cycles
    }

    /// The server's memory after each part of the cycles.
    fn watch(&self, started: Instant) -> Vec<Option<u64>> {
        let live = Live::new(self.cycles.into(), "cycles");
        let mut parts = Vec::new();
        let mut line_at = started + Duration::from_secs(1);
        loop {
            let done = self.done.load(Relaxed);
            while parts.len() < (u64::from(done) * u64::from(PARTS) / u64::from(self.cycles.max(1))) as usize
            {
                parts.push(self.resident());
            }
            if self.is_over() {
                return parts;
            }
            if Instant::now() >= line_at {
                line_at += Duration::from_secs(1);
                let memory = self
                    .resident()
                    .map_or(String::new(), |bytes| format!("  server {} KiB", grouped(bytes / 1024)));
                live.show_line(done.into(), &format!("{:>9} cycles{memory}", grouped(done.into())));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn resident(&self) -> Option<u64> {
        self.settings.server.as_ref()?.resident().ok()
    }

    /// How many the server still counts in the room besides the one who asks; `None` when it does not tell.
    fn ghosts(&self, patience: Duration) -> Option<u64> {
        let give_up = Instant::now() + patience;
        let mut asking = Upgraded::open(&self.settings.target, Options::default()).ok()?;
        asking.send(Opcode::Text, subscribe(&self.topic).as_bytes()).ok()?;
        loop {
            let others = count_in_room(&mut asking, &self.topic).ok()??.saturating_sub(1);
            if others == 0 || Instant::now() >= give_up {
                return Some(others);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn describe(&self, report: &mut Report, elapsed: Duration, before: Option<u64>, parts: &[Option<u64>]) {
        let bytes = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let (first, last) = (parts.first().copied().flatten(), self.resident());
        report.count("cycles", self.done.load(Relaxed).into());
        report.number("cycles_per_second", f64::from(self.done.load(Relaxed)) / elapsed.as_secs_f64());
        report.number("server_rss_before_bytes", bytes(before));
        report.number("server_rss_after_first_tenth_bytes", bytes(first));
        report.number("server_rss_peak_bytes", bytes(parts.iter().copied().flatten().max()));
        report.number("server_rss_end_bytes", bytes(last));
        let grown = first.zip(last).map(|(first, last)| last as f64 - first as f64);
        let later = f64::from(self.done.load(Relaxed)) - f64::from(self.cycles) * 0.1;
        report.number("server_growth_bytes_per_cycle", grown.map(|grown| grown / later));
        let kib: Vec<_> = parts.iter().flatten().map(|bytes| grouped(bytes / 1024)).collect();
        if !kib.is_empty() {
            report.note(format!("server KiB after each tenth: {}", kib.join(" ")));
        }
    }
}

/// One visit. With a goodbye the server is left to close the connection, else it just goes.
fn cycle(target: &Target, topic: &str, goodbye: bool) -> Result<(), ClientError> {
    let mut connection = Upgraded::open(target, Options::default())?;
    connection.send(Opcode::Text, subscribe(topic).as_bytes())?;
    connection.send(Opcode::Text, PING)?;
    while !is_pong(&connection.next_text()?) {}
    if !goodbye {
        return Ok(());
    }
    connection.send(Opcode::Close, &1000_u16.to_be_bytes())?;
    match connection.next_text() {
        Err(ClientError::Closed(_) | ClientError::Eof) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// What the server says is the number of subscribers of a room, the asking one included.
fn count_in_room(asking: &mut Upgraded, topic: &str) -> Result<Option<u64>, ClientError> {
    let publish = format!(r#"{{"type":"publish","topic":"{topic}","data":{{"type":"count"}}}}"#);
    asking.send(Opcode::Text, publish.as_bytes())?;
    let echo: Value = serde_json::from_slice(&asking.next_text()?).unwrap_or_default();
    Ok(echo["clients"].as_u64())
}
