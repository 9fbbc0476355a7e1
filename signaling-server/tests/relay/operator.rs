//! What operators see of documents.

use serde_json::{Value, json};
use wire::sync::Crdt;

use super::peer::{Peer, room};
use super::rooms::in_memory;
use super::support::{TestServer, get};

async fn list(server: &TestServer, path: &str) -> Value {
    let (status, body) = get(server.metrics, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn rooms_in_memory_are_listed_with_their_members() {
    let server = TestServer::with(in_memory).await;
    let mut members = Vec::new();
    for (crdt, id, count) in [(Crdt::Loro, "plan", 3), (Crdt::Ephemeral, "plan", 2), (Crdt::Sealed, "a/b", 1)]
    {
        for _ in 0..count {
            let mut peer = Peer::connect(&server.url(), room(crdt, id)).await;
            peer.enter().await;
            members.push(peer);
        }
    }
    let listed = list(&server, "/documents").await;
    let line = |room: &str, members: u64| json!({"room": room, "members": members, "presence_entries": 0, "stored_bytes": 0});
    assert_eq!(
        listed,
        json!({"total": 3, "offset": 0, "rooms": [line("%LOR/plan", 3), line("%EPH/plan", 2), line("%ELO/a/b", 1)]})
    );
    assert_eq!(list(&server, "/documents?offset=1&limit=1").await["rooms"], json!([line("%EPH/plan", 2)]));
    assert_eq!(server.metric("signaling_relay_rooms").await, 3.0);
    assert_eq!(server.metric(r#"signaling_relay_joins_total{outcome="ok"}"#).await, 6.0);
}

#[tokio::test]
async fn latencies_and_acks_are_measured() {
    let server = TestServer::with(in_memory).await;
    let (mut ana, _ben) = (Peer::joined(&server, "plan").await, Peer::joined(&server, "plan").await);
    for n in 0..3 {
        ana.edit_acked(&n.to_string(), "x").await;
    }
    for series in [
        r#"signaling_relay_acks_total{status="ok"}"#,
        "signaling_relay_ack_seconds_count",
        "signaling_relay_delivery_seconds_count",
        r#"signaling_messages_received_total{kind="update"}"#,
    ] {
        assert_eq!(server.metric(series).await, 3.0, "{series}");
    }
    assert!(server.metric("signaling_store_bytes").await > 0.0);
    let listed = list(&server, "/documents").await;
    assert_eq!(
        listed["rooms"][0]["stored_bytes"].as_f64(),
        Some(server.metric("signaling_store_bytes").await)
    );
}
