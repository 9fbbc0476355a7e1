//! What `bench/peer` measures: one subcommand for each figure, which it prints as a line of JSON.
#![allow(clippy::unwrap_used, reason = "what cannot be measured fails by panicking")]

mod annotations;
mod apart;
mod bare;
mod first;
mod idle;
#[path = "../../tests/support/server.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod server;

use std::time::Duration;

use peer_sdk::adapter::webrtc::Mdns;
use peer_sdk::{Event, Peer, WebRtc};
use serde_json::Value;
use server::TestServer;

const USAGE: &str = "\
annotations SECONDS   from commit on one peer to event on the other, at 50 a second
apart EDITS           catch-up after so many edits on both sides, and the bare export and import
idle PEERS SECONDS    CPU and memory of a mesh at rest
bare ENDS SECONDS     the same for bare connections of the crate, so many ends
first ROUNDS          from start() to the first message over a data channel
serve                 a signaling server, until stdin ends";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let number =
        |at: usize, default: u64| arguments.get(at).map_or(default, |text| text.parse().expect("a number"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let figures = match arguments.first().map(String::as_str) {
        Some("annotations") => runtime.block_on(annotations::measure(number(1, 20))),
        Some("apart") => runtime.block_on(apart::measure(number(1, 10_000))),
        Some("idle") => runtime.block_on(idle::measure(number(1, 13), number(2, 20))),
        Some("bare") => runtime.block_on(bare::measure(number(1, 50), number(2, 20))),
        Some("first") => runtime.block_on(first::measure(number(1, 10))),
        Some("serve") => return runtime.block_on(serve()),
        _ => return println!("{USAGE}"),
    };
    println!("{figures}");
}

async fn serve() {
    let server = TestServer::start().await;
    println!("{}", server.url());
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()))
        .await
        .unwrap()
        .unwrap();
}

/// Over loopback alone.
fn rtc(servers: &[String]) -> WebRtc {
    WebRtc::signaling(servers.iter().cloned()).connection(|connection| {
        connection.udp = vec!["127.0.0.1:0".parse().unwrap()];
        connection.mdns = Mdns::Off;
    })
}

/// Waits until versions have been exchanged over a link.
async fn joined(events: &mut tokio::sync::broadcast::Receiver<Event>) {
    let joined = async { while !matches!(events.recv().await, Ok(Event::Joined(_))) {} };
    tokio::time::timeout(Duration::from_secs(60), joined).await.expect("a link within a minute");
}

/// Two peers that are connected.
async fn pair(server: &TestServer) -> (Peer, Peer) {
    let servers = [server.url()];
    let ana = Peer::builder("bench").webrtc(rtc(&servers)).start().await.unwrap();
    let mut events = ana.events();
    let ben = Peer::builder("bench").webrtc(rtc(&servers)).start().await.unwrap();
    joined(&mut events).await;
    (ana, ben)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Percentiles, in milliseconds.
fn percentiles(mut times: Vec<f64>) -> Value {
    times.sort_by(f64::total_cmp);
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
    serde_json::json!({"count": times.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)})
}
