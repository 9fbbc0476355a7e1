//! What can be asked of `loadtest relay`.

use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::{ArgGroup, Args};

use crate::{
    client::Target,
    measure::process::Process,
    relay::{Mode, Protocol, Settings},
};

const EXAMPLES: &str = "\
Examples:
  5 rooms of 20, 200 edits a second, CPU of the server with it:
    loadtest relay ws://127.0.0.1:4444 --pid $(pidof signaling-server)

  The most that goes through, each writer with 4 edits under way:
    loadtest relay ws://127.0.0.1:4444 --saturate

  Does a keystroke cost more in a larger document?
    loadtest relay ws://127.0.0.1:4444 --grow 100B,100KB,20MB --pid PID

  Joining 20 MB while other rooms carry traffic:
    loadtest relay ws://127.0.0.1:4444 --join 20MB --duration 30s

  1,000 rooms that are stored; run again after a restart, they are read and compared:
    loadtest relay ws://127.0.0.1:4444 --stored 1000 --document 100KB --pid PID

What readers receive is imported at the end of a run, not during it, and no edit builds on somebody else's.
Servers that limit rates must have that lifted for the tester (signaling-server: --limits off).";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group = ArgGroup::new("relay-mode").args(["saturate", "grow", "join", "stored"]))]
pub(super) struct RelayArgs {
    /// Where the server listens: ws://host:port, with a path and a query if it wants them.
    url: String,
    /// What the server speaks: the present Loro Protocol, or the one before, without acks.
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Rooms.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rooms: u32,
    /// Clients in each room.
    #[arg(long, value_name = "N", default_value_t = 20)]
    clients: u32,
    /// How many clients of a room write [default: all].
    #[arg(long, value_name = "N")]
    writers: Option<u32>,
    /// Edits a second, all rooms together; with --grow keystrokes a second.
    #[arg(long, value_name = "N", default_value_t = 200.0)]
    rate: f64,
    /// Instead of a rate, keeps --window edits of every writer under way.
    #[arg(long)]
    saturate: bool,
    /// With --saturate: edits of one writer that have not reached all of its room yet.
    #[arg(long, value_name = "N", default_value_t = 4)]
    window: u32,
    /// Length of the value that an edit sets, in bytes. The update around it takes some 90 more.
    #[arg(long, value_name = "BYTES", default_value_t = 120)]
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
    /// Types into documents of these sizes, such as 100B,100KB,20MB.
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    grow: Vec<ByteSize>,
    /// With --grow: letters typed into each document.
    #[arg(long, value_name = "N", default_value_t = 500)]
    keystrokes: u32,
    /// Joins a document with that much text while the rooms carry traffic.
    #[arg(long, value_name = "SIZE")]
    join: Option<ByteSize>,
    /// With --join: how often, spread over the duration.
    #[arg(long, value_name = "N", default_value_t = 5)]
    joins: u32,
    /// Writes a document into each of N rooms, or compares what is there. The seed names the rooms.
    #[arg(long, value_name = "N")]
    stored: Option<u32>,
    /// With --stored: the text in each document.
    #[arg(long, value_name = "SIZE", default_value = "100KB")]
    document: ByteSize,
    /// Does not let a newcomer join each room at the end, for relays that cannot send a whole document.
    #[arg(long)]
    no_newcomer: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Repeats the order of an earlier run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

impl RelayArgs {
    pub(super) fn mode(&self) -> Mode {
        match (self.join, self.stored) {
            (Some(size), _) => Mode::Join { size, joins: self.joins.max(1) },
            (_, Some(rooms)) => Mode::Stored { rooms, size: self.document },
            _ if !self.grow.is_empty() => {
                Mode::Grow { sizes: self.grow.clone(), keystrokes: self.keystrokes.max(1) }
            }
            _ if self.saturate => Mode::Saturated { window: self.window.max(1) },
            _ => Mode::Fixed,
        }
    }

    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        anyhow::ensure!(self.rooms > 0, "--rooms is 0, at least 1 is needed");
        anyhow::ensure!(self.clients > 1, "--clients is {}, at least 2 are needed in a room", self.clients);
        let writers = self.writers.unwrap_or(self.clients);
        anyhow::ensure!(
            (1..=self.clients).contains(&writers),
            "--writers is {writers}, 1 to {} are possible",
            self.clients
        );
        let all = u64::from(self.rooms) * u64::from(self.clients);
        anyhow::ensure!(all <= 1_000_000, "{all} clients are asked for, at most 1,000,000 are possible");
        anyhow::ensure!(
            self.rate > 0.0 && self.rate <= 1e7,
            "--rate is {}, expected 0 to 10,000,000",
            self.rate
        );
        let process =
            self.pid.map(|pid| Process::watch(pid).with_context(|| format!("cannot watch process {pid}")));
        Ok(Settings {
            target: Target::resolve(&self.url)?,
            protocol: self.protocol,
            clients: self.clients,
            writers,
            rooms: self.rooms,
            rate: self.rate,
            payload: self.payload,
            duration: self.duration,
            warmup: self.warmup,
            server: process.transpose()?,
            newcomer: !self.no_newcomer && self.protocol == Protocol::V1,
            seed: self.seed,
        })
    }
}
