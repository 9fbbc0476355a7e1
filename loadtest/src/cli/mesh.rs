//! What can be asked of `loadtest mesh`.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use super::common::{Common, rate};
use crate::{mesh::Settings, ramp::Leg};

const EXAMPLES: &str = "\
Examples:
  24 peers in three rooms of eight, each with up to eight connections:
    loadtest mesh ws://127.0.0.1:4444 --count 24 --rooms 3

  What becomes of connections that break, as they do after 15 seconds without a network:
    loadtest mesh ws://127.0.0.1:4444 --duration 2m --lose-every 40s --away 20s

  With the STUN and TURN servers that the server hands out:
    loadtest mesh wss://collab.example.com --ice https://collab.example.com/ice

Each peer is a real one: expect about a percent of a core and some megabytes for each. A token belongs into the query of
the address, as these peers have no other place for it: wss://host/?token=...";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct MeshArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Peers.
    #[arg(long, value_name = "N", default_value_t = 12)]
    count: u32,
    /// Rooms they are spread over.
    #[arg(long, value_name = "N", default_value_t = 2)]
    rooms: u32,
    /// Connections that a peer has at most.
    #[arg(long, value_name = "N", default_value_t = 8)]
    connections: usize,
    /// Annotations a second, all peers together.
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    rate: f64,
    /// How long they annotate.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Instead of these two: within a time, evenly to so many annotations a second. May be given again.
    #[arg(long, value_name = "TIME:RATE")]
    stage: Vec<Leg>,
    /// Length of an annotation in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 160)]
    payload: usize,
    /// How often each loses its network; 0s means never.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    lose_every: Duration,
    /// How long it is away then. Connections outlive 15 seconds of it.
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    away: Duration,
    /// How long everybody may take to see everybody, and everything to be everywhere.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Where to ask for STUN and TURN servers: http:// or https://.
    #[arg(long, value_name = "URL")]
    ice: Option<String>,
}

impl MeshArgs {
    pub(super) fn settings(&self) -> anyhow::Result<Settings> {
        let target = self.common.target()?;
        ensure!(!self.common.has_own_trust(), "mesh knows neither --token nor --ca: see --help");
        let (rate, _) = rate(&self.stage, self.rate, Duration::ZERO, self.duration)?;
        Ok(Settings {
            url: self.common.url().to_owned(),
            ice: self.ice.clone(),
            loopback: target.is_ipv4_loopback(),
            count: self.count,
            rooms: self.rooms,
            connections: self.connections,
            rate,
            payload: self.payload,
            lose_every: Some(self.lose_every).filter(|every| !every.is_zero()),
            away: self.away,
            seed: self.common.seed,
            timeout: self.timeout,
            server: self.common.server()?,
            metrics: self.common.metrics()?,
        })
    }
}
