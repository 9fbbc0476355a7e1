//! From `start()` to the first message over a data channel, where somebody is in the room already.

use std::time::Instant;

use peer_sdk::Peer;
use serde_json::{Value, json};

use crate::server::TestServer;
use crate::{joined, millis, percentiles, rtc};

pub(crate) async fn measure(rounds: u64) -> Value {
    let server = TestServer::start().await;
    let servers = [server.url()];
    let mut times = Vec::new();
    for round in 0..rounds {
        let room = format!("bench-{round}");
        let ben = Peer::builder(&room).webrtc(rtc(&servers)).start().await.unwrap();
        ben.wait_until(|status| status.signaling.iter().any(|server| server.up)).await;
        let begun = Instant::now();
        let ana = Peer::builder(&room).webrtc(rtc(&servers)).start().await.unwrap();
        joined(&mut ana.events()).await;
        times.push(millis(begun.elapsed()));
        ana.close().await;
        ben.close().await;
    }
    json!({"first": percentiles(times)})
}
