//! Peers that find each other over a real signaling server and talk over real WebRTC, on loopback.
#![cfg(all(feature = "webrtc", feature = "websocket"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../peers/mod.rs"]
mod peers;
mod processes;
mod rooms;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod ways;

use std::process::Stdio;
use std::time::{Duration, Instant};

use loro::LoroDoc;
use peer_sdk::adapter::Path;
use peer_sdk::adapter::ice::IceServer;
use peer_sdk::adapter::webrtc::Mdns;
use peer_sdk::adapter::websocket::Hub;
use peer_sdk::engine::Reason;
use peer_sdk::{Event, Peer, PeerBuilder, WebRtc};
use peers::{Relay, annotate, notes, until_noted, until_online, within};
use serde::{Deserialize, Serialize};
use support::node::Node;
use support::server::TestServer;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Nobody is seen for longer after it is gone.
const GONE: Duration = Duration::from_secs(5);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Reviewer {
    line: Option<u32>,
}

const IDLE: Reviewer = Reviewer { line: None };

/// Over loopback alone.
fn rtc(servers: &[&str]) -> WebRtc {
    WebRtc::signaling(servers.iter().copied()).connection(|connection| {
        connection.udp = vec!["127.0.0.1:0".parse().unwrap()];
        connection.mdns = Mdns::Off;
    })
}

fn named(name: &str) -> PeerBuilder<Reviewer> {
    Peer::builder("plan").user(name).presence(IDLE)
}

async fn peer(name: &str, server: &str) -> (LoroDoc, Peer<Reviewer>) {
    let peer = named(name).webrtc(rtc(&[server])).start().await.unwrap();
    (peer.document().clone(), peer)
}

/// Waits for an event; what it says is what `wanted` makes of it.
async fn until<T>(peer: &Peer<Reviewer>, mut wanted: impl FnMut(Event) -> Option<T>) -> T {
    let mut events = peer.events();
    let found = async {
        loop {
            if let Some(found) = wanted(events.recv().await.unwrap()) {
                return found;
            }
        }
    };
    within("the event", found).await
}
