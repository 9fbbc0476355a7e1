//! Readers that do not read.

use std::time::Duration;

use tokio::io::AsyncWriteExt;
use wire::sync::{Crdt, Message};

use super::peer::{Peer, room};
use super::process::Process;
use super::support::frame;

/// Resident memory in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

async fn metric(server: &Process, series: &str) -> f64 {
    let (_, text) = super::support::get(server.metrics.parse().unwrap(), "/metrics").await;
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series}")).parse().unwrap()
}

#[tokio::test]
async fn a_reader_that_stalls_while_90_megabytes_pass_is_closed_and_gets_what_it_missed_when_it_returns() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[("SIGNALING_RELAY_SYNC_INTERVAL", "1ms")]);
    let mut ana = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    ana.enter().await;
    let mut pointer = Peer::connect(&server.url(), room(Crdt::Ephemeral, "plan")).await;
    pointer.enter().await;

    // Joins both rooms, and reads no more.
    let mut stalled = tokio::net::TcpStream::connect(&server.address).await.unwrap();
    stalled.write_all(super::support::HANDSHAKE.as_bytes()).await.unwrap();
    super::support::read_head(&mut stalled).await;
    for crdt in [Crdt::Loro, Crdt::Ephemeral] {
        let join = Message::JoinRequest { auth: bytes::Bytes::new(), version: bytes::Bytes::new() };
        let join = join.encode(&room(crdt, "plan")).unwrap();
        stalled.write_all(&frame(2, &join)).await.unwrap();
    }
    let joined = r#"signaling_relay_joins_total{outcome="ok"}"#;
    while metric(&server, joined).await < 4.0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ana.edit_acked("first", "x").await;
    let before = resident(server.id());
    let mut peak = before;
    let store = loro::awareness::EphemeralStore::new(60_000);
    for n in 0..900_u32 {
        // 100 KB of presence, and 1 KB of document, of which all is kept.
        store.set("cursor", vec![n as u8; 100_000]);
        let batch = pointer.send(&store.encode("cursor")).await;
        ana.edit_acked("note", &n.to_string().repeat(1_000 / n.to_string().len())).await;
        assert_eq!(pointer.ack(batch).await, wire::sync::Status::Ok);
        peak = peak.max(resident(server.id()));
    }
    let slow = r#"signaling_connections_closed_total{reason="slow_consumer"}"#;
    assert_eq!(metric(&server, slow).await, 1.0, "closed with a reason");
    let grown = peak.saturating_sub(before);
    println!("90 MB passed a stalled reader: memory grew by {:.1} MiB", grown as f64 / f64::from(1 << 20));
    assert!(grown < 20 << 20, "grew by {grown} bytes");

    let mut returned = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    returned.enter().await;
    returned.until(|returned| returned.doc.oplog_vv() == ana.doc.oplog_vv()).await;
    assert_eq!(returned.doc.get_deep_value(), ana.doc.get_deep_value());
}
