//! The product's own day: reviewers open a plan, read it, annotate it, lose their network and come back.
//!
//! Each reviewer is one connection that carries what a page of the product does: a signaling topic, a Loro document
//! and presence. Annotations are real Loro updates. What a reviewer receives is recognised by its bytes, once for a
//! room, and kept as a number; so a reviewer at rest costs a socket and a few kilobytes. At the end the documents of
//! everybody present are made from what each of them received, and all of a room must be the same, must contain every
//! annotation that was acknowledged, and must be what a newcomer gets.

use std::{thread, time::Duration};

use anyhow::ensure;

use crate::{
    client::Target,
    limits,
    measure::{process::Process, scrape::Scraper},
    ramp::Ramp,
    report::Report,
    stage::{Stage, Window},
    stamp::Stamp,
};

mod agenda;
mod author;
mod crowd;
mod figures;
mod hearing;
mod holds;
mod person;
mod presence;
mod room;
mod scene;
mod verdict;

use crowd::Crowd;
pub use figures::{FIGURES, USUAL};

/// What all reviewers of a run share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the run is called.
    pub scenario: &'static str,
    /// The server.
    pub target: Target,
    /// How many reviewers are there over time.
    pub ramp: Ramp,
    /// The rooms they are spread over, in turn.
    pub rooms: u32,
    /// The text of the plan that each room starts with, in bytes.
    pub document: usize,
    /// Length of an annotation in bytes.
    pub payload: usize,
    /// What they do.
    pub habits: Habits,
    /// The server's process if it runs here.
    pub server: Option<Process>,
    /// Where the server tells its own figures.
    pub metrics: Option<Scraper>,
    /// Repeats everybody's day.
    pub seed: u64,
}

/// What a reviewer does, on average. `None`: never.
#[derive(Debug, Clone, Copy)]
pub struct Habits {
    /// How often it moves its cursor.
    pub cursor_every: Option<Duration>,
    /// How often it annotates, also while it is away.
    pub annotate_every: Option<Duration>,
    /// How often it loses its network.
    pub lose_every: Option<Duration>,
    /// How long it is away then.
    pub away: Duration,
    /// The share of losses of which the server is not told: the connection is there, and nobody is.
    pub half_open: f64,
    /// How often everybody loses the connection at once, and comes back as the published clients do.
    pub storm_every: Option<Duration>,
}

impl Settings {
    /// How many reviewers there are at most.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.ramp.top().ceil() as u32
    }

    fn check(&self) -> anyhow::Result<()> {
        let (count, rooms) = (self.count(), self.rooms);
        ensure!(count > 0, "there are no reviewers, at least 1 is needed");
        ensure!((1..=count).contains(&rooms), "--rooms is {rooms}, 1 to {count} are possible");
        let smallest = Stamp::SMALLEST_TEXT;
        let fits = (smallest..=64 * 1024).contains(&self.payload);
        ensure!(fits, "--payload is {}, {smallest} to 65,536 are possible", self.payload);
        let share = self.habits.half_open;
        ensure!((0.0..=1.0).contains(&share), "--half-open is {share}, 0 to 1 is possible");
        // A half-open connection is held beside the one that its reviewer comes back on.
        limits::check(&self.target, (f64::from(count) * (1.0 + share)) as u64 + u64::from(rooms))
    }
}

/// Lets the reviewers have their day.
///
/// # Errors
/// When it could not be run at all; what the server did wrong is in the report instead.
pub fn run(settings: &Settings) -> anyhow::Result<Report> {
    settings.check()?;
    let stage = Stage::new(1);
    let window = Window {
        warmup: Duration::ZERO,
        duration: settings.ramp.length(),
        server: settings.server.as_ref(),
        metrics: settings.metrics.as_ref(),
    };
    let crowd = Crowd::gather(settings, &stage)?;
    let (costs, day) = thread::scope(|scope| {
        let crowd = scope.spawn(|| {
            stage.wait_for_start();
            let _at_work = stage.enter();
            crowd.live()
        });
        let costs = stage.conduct(&window);
        (costs, crowd.join().expect("a crowd does not panic"))
    });
    let day = day?;
    let mut report = Report::new(settings.scenario);
    day.describe(settings, &costs, &mut report);
    day.judge(&mut report);
    Ok(report)
}
