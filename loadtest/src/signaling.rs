//! Scenarios against a y-webrtc signaling server.

use std::{
    io,
    time::{Duration, Instant},
};

use crate::{
    client::{ClientError, Target, Upgraded},
    limits::nth_connection,
    measure::{process::Process, scrape::Scraper},
    ramp::Ramp,
    report::Report,
    swarm::{PING, Swarm},
    threshold::Known,
};

mod churn;
mod crew;
mod flood;
mod idle;
mod join;
mod peer;
mod stall;

/// What is done to the server.
#[derive(Debug, Clone, Copy)]
pub enum Mode {
    /// Publishes at a fixed rate, latencies corrected for coordinated omission.
    Fixed,
    /// As many publishes as go through with `window` of each client under way.
    Saturated {
        /// Publishes of one client that have not come back to it yet.
        window: u32,
    },
    /// Everybody joins one room at once.
    Join {
        /// ICE candidates that each side of a pair sends.
        candidates: u32,
        /// How long the room may take to settle.
        timeout: Duration,
    },
    /// Connections that do nothing.
    Idle {
        /// How many.
        connections: u32,
    },
    /// Connections that come and go.
    Churn {
        /// How many.
        cycles: u32,
        /// How many at a time.
        concurrency: usize,
    },
    /// One member of a flooded room never reads.
    Stall,
}

/// What all scenarios share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server.
    pub target: Target,
    /// Simulated users.
    pub clients: u32,
    /// Rooms they are spread over, in turn.
    pub rooms: u32,
    /// Publishes a second, all clients together, as they grow and shrink over warm-up and duration.
    pub rate: Ramp,
    /// Length of a published message in bytes.
    pub payload: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long the load runs before that.
    pub warmup: Duration,
    /// The server's process if it runs here.
    pub server: Option<Process>,
    /// Where the server tells its own figures.
    pub metrics: Option<Scraper>,
    /// Threads of the tester.
    pub threads: usize,
    /// Repeats the order of things.
    pub seed: u64,
}

impl Mode {
    /// What a run of it reports.
    #[must_use]
    pub fn figures(self) -> Known {
        Known::new(&[match self {
            Self::Fixed | Self::Saturated { .. } => flood::FIGURES,
            Self::Join { .. } => join::FIGURES,
            Self::Idle { .. } => idle::FIGURES,
            Self::Churn { .. } => churn::FIGURES,
            Self::Stall => stall::FIGURES,
        }])
    }
}

/// Runs one scenario to its end.
///
/// # Errors
/// When it could not be run at all; what the server did wrong is in the report instead.
pub fn run(settings: &Settings, mode: Mode) -> anyhow::Result<Report> {
    match mode {
        Mode::Fixed => flood::run(settings, flood::Pace::Fixed),
        Mode::Saturated { window } => flood::run(settings, flood::Pace::Saturated { window }),
        Mode::Join { candidates, timeout } => join::run(settings, candidates, timeout),
        Mode::Idle { connections } => idle::run(settings, connections),
        Mode::Churn { cycles, concurrency } => churn::run(settings, cycles, concurrency),
        Mode::Stall => stall::run(settings),
    }
}

/// The name of a room of this run. Runs never meet, even with the same seed.
fn room_name(run: u32, room: u32) -> String {
    format!("loadtest-{run:08x}-{room}")
}

/// The y-webrtc peer id of a client: a UUID that holds its number.
fn peer_id(run: u32, client: u32) -> String {
    format!("{run:08x}-10ad-4000-8000-{client:012x}")
}

/// Connects the clients with these numbers; returns those that got in. A failure is counted in the swarm.
fn connect_all(
    swarm: &mut Swarm,
    target: &Target,
    numbers: impl Iterator<Item = u32>,
) -> io::Result<Vec<u32>> {
    let mut connected = Vec::new();
    for number in numbers {
        match Upgraded::open(target, nth_connection(target, number)) {
            Ok(connection) => {
                swarm.add(connection)?;
                connected.push(number);
            }
            Err(error) => swarm.errors().add(&error),
        }
    }
    Ok(connected)
}

/// Subscribes each member to its topic and waits until the server has done so for all: there is no
/// acknowledgement, but a ping sent behind the subscribe is answered behind it. Who gets none is counted.
fn subscribe_all(swarm: &mut Swarm, topic: impl Fn(usize) -> String) -> io::Result<()> {
    for who in 0..swarm.len() {
        swarm.send(who, subscribe(&topic(who)).as_bytes());
        swarm.send(who, PING);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut ponged = vec![false; swarm.len()];
    let waits =
        |swarm: &Swarm, ponged: &[bool]| (0..ponged.len()).any(|who| !ponged[who] && swarm.is_open(who));
    while waits(swarm, &ponged) && Instant::now() < deadline {
        swarm.turn(deadline, |heard| ponged[heard.who] |= is_pong(heard.message))?;
    }
    for who in (0..ponged.len()).filter(|who| !ponged[*who]) {
        swarm.fail(who, ClientError::NoPong);
    }
    Ok(())
}

/// The message that subscribes to one topic.
fn subscribe(topic: &str) -> String {
    format!(r#"{{"type":"subscribe","topics":["{topic}"]}}"#)
}

/// Whether a message answers a ping.
fn is_pong(text: &[u8]) -> bool {
    text.starts_with(br#"{"type":"pong""#)
}
