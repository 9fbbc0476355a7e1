//! What can be asked for on the command line.

use std::{
    io::{self, Write},
    net::SocketAddr,
    time::Duration,
};

use anyhow::Context;
use clap::{ArgGroup, Args, Parser, Subcommand};

use crate::{
    client::Target,
    floor::Floor,
    measure::process::{Process, raise_open_files},
    report::Report,
    signaling::{self, Mode, Settings},
};

mod relay;

use relay::RelayArgs;

/// Load tests for signaling servers and relays, with a verdict.
///
/// Exit code 0: everything that was sent arrived. 1: deliveries were lost, connections failed, or the scenario's
/// own question was answered with no. 2: it could not be run.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loads a y-webrtc signaling server with many WebSocket clients.
    Signaling(Box<SignalingArgs>),
    /// Loads a relay of Loro documents with writers and readers.
    Relay(Box<RelayArgs>),
    /// Runs the bare loop that shows what a delivery costs in the kernel, to compare servers with.
    ///
    /// It checks nothing and limits nothing: never put it on a network.
    Floor {
        /// Where to listen; port 0 takes a free one. The address is printed.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

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
struct SignalingArgs {
    /// Where the server listens: ws://host:port, with a path and a query if it wants them.
    url: String,
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
    /// The server's process, for its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
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
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Repeats the order of an earlier run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl Cli {
    /// Does what was asked for; whether it passed.
    ///
    /// # Errors
    /// When it could not be run at all.
    pub fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Floor { listen } => run_floor(listen),
            Command::Signaling(args) => {
                let report = signaling::run(&args.settings()?, args.mode())?;
                print(&report, args.json)?;
                Ok(report.passed())
            }
            Command::Relay(args) => {
                let report = crate::relay::run(&args.settings()?, &args.mode())?;
                print(&report, args.json)?;
                Ok(report.passed())
            }
        }
    }
}

fn run_floor(listen: SocketAddr) -> anyhow::Result<bool> {
    let _ = raise_open_files();
    let floor = Floor::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on ws://{}", floor.local_addr()?);
    io::stdout().flush()?;
    floor.run()?;
    Ok(true)
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json { writeln!(out, "{:#}", report.to_json()) } else { writeln!(out, "{report}") }
}

impl SignalingArgs {
    fn mode(&self) -> Mode {
        match (self.idle, self.churn) {
            (Some(connections), _) => Mode::Idle { connections },
            (_, Some(cycles)) => Mode::Churn { cycles, concurrency: self.concurrency.max(1) },
            _ if self.join => Mode::Join { candidates: self.candidates, timeout: self.timeout },
            _ if self.stall => Mode::Stall,
            _ if self.saturate => Mode::Saturated { window: self.window.max(1) },
            _ => Mode::Fixed,
        }
    }

    fn settings(&self) -> anyhow::Result<Settings> {
        anyhow::ensure!(self.rooms > 0, "--rooms is 0, at least 1 is needed");
        anyhow::ensure!(
            self.rate > 0.0 && self.rate <= 1e7,
            "--rate is {}, expected 0 to 10,000,000",
            self.rate
        );
        let process =
            self.pid.map(|pid| Process::watch(pid).with_context(|| format!("cannot watch process {pid}")));
        let clients = self.clients.unwrap_or(if self.join {
            60
        } else if self.stall {
            50
        } else {
            500
        });
        anyhow::ensure!(clients > 0, "--clients is 0, at least 1 is needed");
        Ok(Settings {
            target: Target::resolve(&self.url)?,
            clients,
            rooms: if self.join || self.stall { 1 } else { self.rooms },
            rate: self.rate,
            payload: self.payload,
            duration: self.duration,
            warmup: self.warmup,
            server: process.transpose()?,
            threads: self.threads.max(1),
            seed: self.seed,
        })
    }
}
