//! Catch-up after edits made apart, against what the library itself takes for it.

use std::time::{Duration, Instant};

use loro::{ExportMode, LoroDoc};
use peer_sdk::Peer;
use serde_json::{Value, json};

use crate::server::TestServer;
use crate::{joined, millis, rtc};

const PATIENCE: Duration = Duration::from_secs(300);

/// Both are measured by turns, for what else this machine does changes.
const ROUNDS: usize = 5;

pub(crate) async fn measure(edits: u64) -> Value {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        bare.push(millis(exchange(&edited(edits, 1), &edited(edits, 2))));
        ours.push(millis(catch_up(edited(edits, 1), edited(edits, 2)).await));
    }
    json!({"caught_up_ms": median(ours), "bare_ms": median(bare)})
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// From the first exchange of versions over WebRTC until both have everything.
async fn catch_up(ana: LoroDoc, ben: LoroDoc) -> Duration {
    let server = TestServer::start().await;
    let ways = rtc(&[]);
    let one = Peer::builder("bench").document(&ana).webrtc(ways.clone()).start().await.unwrap();
    let other = Peer::builder("bench").document(&ben).webrtc(rtc(&[server.url()])).start().await.unwrap();
    one.stored().await.unwrap();
    other.stored().await.unwrap();
    let mut events = (one.events(), other.events());
    ways.set_servers([server.url()]).unwrap();
    tokio::select! {
        () = joined(&mut events.0) => {}
        () = joined(&mut events.1) => {}
    }
    let begun = Instant::now();
    let until = begun + PATIENCE;
    while ana.oplog_vv() != ben.oplog_vv() {
        assert!(Instant::now() < until, "they do not catch up");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = begun.elapsed();
    assert_eq!(ana.get_deep_value(), ben.get_deep_value());
    one.close().await;
    other.close().await;
    took
}

/// A document with so many edits, each a commit: every other one types into a text, the rest annotates.
fn edited(edits: u64, seed: u64) -> LoroDoc {
    let doc = LoroDoc::new();
    // Who wrote a concurrent text decides what merging it costs: it must be the same people each time.
    doc.set_peer_id(seed).expect("nothing is written yet");
    let (text, list) = (doc.get_text("text"), doc.get_list("annotations"));
    let mut random = seed;
    for number in 0..edits {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if number % 2 == 0 {
            text.insert((random >> 33) as usize % (text.len_unicode() + 1), "x").unwrap();
        } else {
            list.push(format!("remark {number} of {seed}")).unwrap();
        }
        doc.commit();
    }
    doc
}

/// How long it takes to give each what the other has, one after the other.
fn exchange(ana: &LoroDoc, ben: &LoroDoc) -> Duration {
    let begun = Instant::now();
    let from_ana = ana.export(ExportMode::updates(&ben.oplog_vv())).unwrap();
    let from_ben = ben.export(ExportMode::updates(&ana.oplog_vv())).unwrap();
    ben.import(&from_ana).unwrap();
    ana.import(&from_ben).unwrap();
    begun.elapsed()
}
