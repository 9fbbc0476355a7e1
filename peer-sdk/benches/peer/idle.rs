//! A mesh at rest: what its connections cost.

use std::time::{Duration, Instant};

use peer_sdk::engine::LinkId;
use peer_sdk::{Peer, Status};
use serde_json::{Value, json};

use crate::rtc;
use crate::server::TestServer;

/// How long everything is left alone before it is measured.
pub(crate) const SETTLE: Duration = Duration::from_secs(15);

pub(crate) async fn measure(peers: u64, seconds: u64) -> Value {
    let server = TestServer::start().await;
    let ways = rtc(&[]);
    let mut room: Vec<Peer> = Vec::new();
    for _ in 0..peers {
        room.push(Peer::builder("bench").webrtc(ways.clone()).presence(()).start().await.unwrap());
    }
    tokio::time::sleep(SETTLE / 5).await;
    // The connections are what is measured, so the peers are there already.
    let before = resident();
    ways.set_servers([server.url()]).unwrap();
    tokio::time::sleep(SETTLE).await;
    let ends = || room.iter().map(|peer| channels(&peer.status())).sum::<usize>();
    let at_first = ends();
    let figures = rest(before, seconds).await;
    // On a busy machine the last of them may be late.
    let at_last = ends();
    assert!(
        at_last.abs_diff(at_first) * 10 <= at_last,
        "connections come and go: {at_first}, then {at_last}"
    );
    with_ends(figures, at_last)
}

fn channels(status: &Status) -> usize {
    status.links.iter().filter(|link| matches!(link.link, LinkId::Channel(_)) && link.joined).count()
}

/// CPU from now on, and memory beyond what there was before.
pub(crate) async fn rest(before: u64, seconds: u64) -> (f64, u64) {
    let (cpu, begun) = (cpu(), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let share = (self::cpu() - cpu) / begun.elapsed().as_secs_f64();
    (share, resident().saturating_sub(before))
}

/// What one end costs.
pub(crate) fn with_ends((share, bytes): (f64, u64), ends: usize) -> Value {
    let each = ends.max(1) as f64;
    json!({"ends": ends, "cpu_percent_of_50": share * 100.0 * 50.0 / each, "kib_each": bytes as f64 / 1024.0 / each})
}

/// Seconds of CPU that this process has used.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = [11, 12].iter().map(|at: &usize| fields[*at].parse::<u64>().unwrap()).sum();
    // The kernel counts in hundredths of a second for all programs.
    ticks as f64 / 100.0
}

pub(crate) fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
