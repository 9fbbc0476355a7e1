//! What can be asked of `loadtest signaling`.

use std::time::Duration;

use clap::{ArgGroup, Args};

use super::common::{Common, rate};
use crate::{
    ramp::Leg,
    signaling::{Mode, Settings},
};

const EXAMPLES: &str = "\
Examples:
  500 clients in 10 rooms, 500 publishes a second, CPU of the server with it:
    loadtest signaling ws://127.0.0.1:4444 --pid $(pidof signaling-server)

  The most that goes through, each client with 4 publishes under way:
    loadtest signaling ws://127.0.0.1:4444 --saturate

  60 browsers open the same room at once, offers, answers and candidates included:
    loadtest signaling ws://127.0.0.1:4444 --join --clients 60

  Memory of 10,000 idle connections, and of 100,000 that come and go:
    loadtest signaling ws://127.0.0.1:4444 --idle 10000 --pid PID
    loadtest signaling ws://127.0.0.1:4444 --churn 100000 --pid PID

  One reader that never reads, in a room of 50 that others flood:
    loadtest signaling ws://127.0.0.1:4444 --stall --rate 500 --payload 8192 --duration 15s --pid PID

Servers that limit rates or connections per address must have that lifted for the tester
(signaling-server: --limits off).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("mode").args(["saturate", "join", "idle", "churn", "stall"]))]
pub(super) struct SignalingArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Clients [default: 500; with --join 60, with --stall 50].
    #[arg(long, value_name = "N")]
    clients: Option<u32>,
    /// Rooms the clients are spread over; --join and --stall use one.
    #[arg(long, value_name = "N", default_value_t = 10)]
    rooms: u32,
    /// Publishes a second, all clients together.
    #[arg(long, value_name = "N", default_value_t = 500.0)]
    rate: f64,
    /// Instead of a rate, keeps --window publishes of every client under way.
    #[arg(long)]
    saturate: bool,
    /// With --saturate: publishes of one client that have not come back to it yet.
    #[arg(long, value_name = "N", default_value_t = 4)]
    window: u32,
    /// Length of a published message in bytes, its envelope included.
    #[arg(long, value_name = "BYTES", default_value_t = 600)]
    payload: usize,
    /// How long is measured.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long the load runs before anything is measured.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    warmup: Duration,
    /// Instead of a rate: within a time, evenly to so many publishes a second, such as 30s:500. May be given again.
    #[arg(long, value_name = "TIME:RATE")]
    stage: Vec<Leg>,
    /// Threads of the tester; one reads about half a million deliveries a second.
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: usize,
    /// All clients join one room at once and set up a full mesh, as y-webrtc does.
    #[arg(long)]
    join: bool,
    /// With --join: ICE candidates that each side of a pair sends.
    #[arg(long, value_name = "N", default_value_t = 8)]
    candidates: u32,
    /// With --join: how long the room may take to settle.
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Opens N connections and leaves them alone.
    #[arg(long, value_name = "N")]
    idle: Option<u32>,
    /// Connects, subscribes and disconnects N times.
    #[arg(long, value_name = "N")]
    churn: Option<u32>,
    /// With --churn: connections open at a time.
    #[arg(long, value_name = "N", default_value_t = 32)]
    concurrency: usize,
    /// One client of a room never reads while the others flood it.
    #[arg(long)]
    stall: bool,
}

impl SignalingArgs {
    pub(super) fn mode(&self) -> Mode {
        match (self.idle, self.churn) {
            (Some(connections), _) => Mode::Idle { connections },
            (_, Some(cycles)) => Mode::Churn { cycles, concurrency: self.concurrency.max(1) },
            _ if self.join => Mode::Join { candidates: self.candidates, timeout: self.timeout },
            _ if self.stall => Mode::Stall,
            _ if self.saturate => Mode::Saturated { window: self.window.max(1) },
            _ => Mode::Fixed,
        }
    }

    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        anyhow::ensure!(self.rooms > 0, "--rooms is 0, at least 1 is needed");
        let (rate, duration) = rate(&self.stage, self.rate, self.warmup, self.duration)?;
        let clients = self.clients.unwrap_or(if self.join {
            60
        } else if self.stall {
            50
        } else {
            500
        });
        anyhow::ensure!(clients > 0, "--clients is 0, at least 1 is needed");
        Ok(Settings {
            target: self.common.target()?,
            clients,
            rooms: if self.join || self.stall { 1 } else { self.rooms },
            rate,
            payload: self.payload,
            duration,
            warmup: self.warmup,
            server: self.common.server()?,
            metrics: self.common.metrics()?,
            threads: self.threads.max(1),
            seed: self.common.seed,
        })
    }
}
