//! Real peers of the SDK that find each other over signaling and keep their documents in step over WebRTC.
//!
//! Nothing here is simulated: each peer has its document, its sockets and its encryption, so a machine carries dozens and
//! not hundreds. All run in this process, and what they cost is the tester's cost. The server only introduces them.

use std::{net::IpAddr, thread, time::Duration};

use anyhow::{Context, ensure};
use rtc::shared::ifaces::ifaces;
use tokio::runtime::Builder;

use crate::{
    limits,
    measure::{process::Process, scrape::Scraper},
    ramp::Ramp,
    report::Report,
    stage::{Stage, Window},
    stamp::Stamp,
};

mod absence;
mod hearing;
mod machine;
mod outcome;
mod party;

use machine::Machine;
use party::Party;

/// What is expected of peers, whatever becomes of their networks meanwhile.
pub const USUAL: [&str; 3] = ["lost=0", "ghosts=0", "unseen=0"];

/// What is reported.
pub const FIGURES: &[&str] = &[
    "peers",
    "rooms",
    "measured_seconds",
    "gathered_after_ms",
    "settled_after_ms",
    "connections_per_peer",
    "annotations",
    "lost_their_network",
    "deliveries",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "latency_max_ms",
    "catch_up_p50_ms",
    "catch_up_p99_ms",
    "documents_unequal",
    "lost",
    "ghosts",
    "unseen",
    "tester_cpu_percent",
    "tester_cpu_percent_per_peer",
    "server_rss_peak_bytes",
    "tester_late_max_ms",
    "server_rss_slope_bytes_per_hour",
];

/// The shortest time in which a peer may lose its network again.
const OFTENEST: Duration = Duration::from_millis(100);

/// How peers are loaded.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The signaling server, with a token in its query if it wants one.
    pub url: String,
    /// Where to ask for STUN and TURN servers.
    pub ice: Option<String>,
    /// Whether peers use the loopback address and nothing else.
    pub loopback: bool,
    /// Peers.
    pub count: u32,
    /// The rooms they are spread over, in turn.
    pub rooms: u32,
    /// Connections that a peer has at most.
    pub connections: usize,
    /// Annotations a second, all peers together.
    pub rate: Ramp,
    /// Length of an annotation in bytes.
    pub payload: usize,
    /// How often each loses its network, on average. Nobody is told: its machine stands still, and it finds its connections
    /// as they were or, after long, gone. `None`: never.
    pub lose_every: Option<Duration>,
    /// How long it is away then, on average.
    pub away: Duration,
    /// Repeats who is away and when.
    pub seed: u64,
    /// How long is waited for everybody to see everybody, and at the end for everything to be everywhere.
    pub timeout: Duration,
    /// The server's process if it runs here.
    pub server: Option<Process>,
    /// Where the server tells its own figures.
    pub metrics: Option<Scraper>,
}

impl Settings {
    /// Connections that one peer has at most.
    fn links(&self) -> u64 {
        u64::from(self.count.div_ceil(self.rooms) - 1).min(self.connections as u64)
    }

    /// Files that one peer has open: those of its machine, and a socket of each connection for every address.
    fn files(&self) -> u64 {
        Machine::FILES + self.links() * if self.loopback { 1 } else { addresses() }
    }

    fn check(&self) -> anyhow::Result<()> {
        let (count, rooms) = (self.count, self.rooms);
        ensure!((2..=1000).contains(&count), "--count is {count}, 2 to 1000 are possible");
        ensure!(rooms > 0 && count / rooms >= 2, "--rooms is {rooms}, 1 to {} are possible", count / 2);
        let smallest = Stamp::SMALLEST_TEXT;
        let fits = (smallest..=64 * 1024).contains(&self.payload);
        ensure!(fits, "--payload is {}, {smallest} to 65,536 are possible", self.payload);
        ensure!(self.connections > 0, "--connections is 0, at least 1 is needed");
        limits::check_peers(count.into(), self.files(), self.links())?;
        let often = self.lose_every.is_none_or(|every| every >= OFTENEST);
        ensure!(
            often,
            "--lose-every is {:?}, {OFTENEST:?} is the least",
            self.lose_every.unwrap_or_default()
        );
        Ok(())
    }
}

/// Addresses of this machine at which a peer can be reached, at least one.
fn addresses() -> u64 {
    let interfaces = ifaces().unwrap_or_default();
    let all = interfaces.iter().filter_map(|interface| interface.addr).map(|address| address.ip());
    let usable = all.filter(|ip| match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local(),
    });
    (usable.count() as u64).max(1)
}

/// Connects the peers, lets them annotate, and compares.
///
/// # Errors
/// When it could not be run at all; that peers did not find each other is in the report instead.
pub fn run(settings: &Settings) -> anyhow::Result<Report> {
    settings.check()?;
    let runtime = Builder::new_current_thread().enable_all().build().context("no runtime")?;
    let stage = Stage::new(1);
    let window = Window {
        warmup: Duration::ZERO,
        duration: settings.rate.length(),
        server: settings.server.as_ref(),
        metrics: settings.metrics.as_ref(),
    };
    let (costs, outcome) = thread::scope(|scope| {
        let party = scope.spawn(|| {
            let gathered = runtime.block_on(Party::gather(settings));
            stage.wait_for_start();
            let _at_work = stage.enter();
            gathered.map(|party| runtime.block_on(party.live(settings, &stage)))
        });
        let costs = stage.conduct(&window);
        (costs, party.join().expect("a party does not panic"))
    });
    let mut report = Report::new("mesh");
    outcome?.describe(settings, &costs, &mut report);
    Ok(report)
}
