//! What operators see, and can do, on the listener of their own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::{Value, json};
use signaling_server::config::{Period, Size};
use signaling_server::metrics::Metrics;
use support::{TestServer, get, request};

async fn get_json(server: &TestServer, path: &str) -> Value {
    let (status, body) = get(server.metrics, path).await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

#[tokio::test]
async fn the_largest_and_the_busiest_rooms_are_listed() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("large").await;
    let _ben = server.subscriber("large").await;
    ana.subscribe("busy").await;
    for n in 0..5 {
        ana.publish("busy", json!(n)).await;
    }
    ana.settle().await;
    let list = get_json(&server, "/rooms").await;
    assert_eq!((&list["total"], &list["rooms"][0]["topic"]), (&json!(2), &json!("large")));
    assert_eq!(list["rooms"][0]["subscribers"], 2);
    let list = get_json(&server, "/rooms?sort=busiest&limit=1").await;
    assert_eq!(list["rooms"].as_array().unwrap().len(), 1);
    assert_eq!((&list["rooms"][0]["topic"], &list["rooms"][0]["published"]), (&json!("busy"), &json!(5)));
    let list = get_json(&server, "/rooms?offset=1").await;
    assert_eq!(list["rooms"][0]["topic"], "busy");
    assert_eq!(get(server.metrics, "/rooms?limit=x").await.0, 400);
}

#[tokio::test]
async fn an_operator_can_close_a_room_for_a_time() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("bad room/ä").await;
    let path = "/rooms/bad%20room%2F%C3%A4";
    let (status, body) = request(server.metrics, "DELETE", &format!("{path}?seconds=60"), "").await;
    assert_eq!((status, body.as_str()), (200, r#"{"unsubscribed":1}"#));
    ana.subscribe("bad room/ä").await;
    ana.publish("bad room/ä", json!(1)).await;
    assert!(ana.settle().await.is_empty(), "nobody gets back in, and the connection is still open");
    assert_eq!(server.metric(r#"signaling_messages_refused_total{reason="room_closed"}"#).await, 2.0);
    assert!(get_json(&server, path).await["closed_for_seconds"].as_u64().unwrap() > 50);
    request(server.metrics, "DELETE", &format!("{path}?seconds=0"), "").await;
    ana.subscribe("bad room/ä").await;
    ana.publish("bad room/ä", json!(1)).await;
    assert_eq!(ana.next().await["clients"], 1, "open again");
}

#[tokio::test]
async fn an_operator_can_close_a_connection() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let room = get_json(&server, "/rooms/t").await;
    let id = room["connections"][0]["id"].as_u64().unwrap();
    assert_eq!(room["connections"][0]["address"], "127.0.0.1");
    assert_eq!(request(server.metrics, "DELETE", &format!("/connections/{id}"), "").await.0, 204);
    assert_eq!(u16::from(ana.closed().await.unwrap().code), 1008);
    server.until_metric("signaling_connections", |open| open == 0.0).await;
    assert_eq!(request(server.metrics, "DELETE", &format!("/connections/{id}"), "").await.0, 404);
    assert_eq!(get(server.metrics, "/rooms/t").await.0, 404);
}

#[tokio::test]
async fn a_web_page_that_the_operator_visits_can_do_nothing() {
    let server = TestServer::start().await;
    let _ana = server.subscriber("t").await;
    let headers = "Origin: https://evil.example\r\n";
    assert_eq!(request(server.metrics, "DELETE", "/rooms/t", headers).await.0, 403);
    assert_eq!(request(server.metrics, "GET", "/rooms", "Sec-Fetch-Site: cross-site\r\n").await.0, 403);
    assert_eq!(server.metric("signaling_rooms").await, 1.0);
}

#[tokio::test]
async fn the_status_says_what_is_going_on_and_what_was_refused_and_why() {
    let server = TestServer::with(|config| config.limits.topic_name = Size::bytes(4)).await;
    let mut ana = server.subscriber("t").await;
    ana.subscribe("too long").await;
    ana.publish("t", json!(1)).await;
    ana.settle().await;
    let status = get_json(&server, "/status.json").await;
    assert_eq!(
        (&status["stage"], &status["connections"], &status["rooms"]),
        (&json!("ready"), &json!(1), &json!(1))
    );
    assert_eq!(status["refused_total"], json!({ "message: topic_too_long": 1 }));
    assert!(
        status["received_total"].as_u64() >= Some(3) && status["sent_total"].as_u64() >= Some(1),
        "{status}"
    );
    let (code, page) = get(server.metrics, "/").await;
    assert_eq!(code, 200);
    for elsewhere in ["http:", "https:", "//"] {
        assert!(!page.replace("<!doctype", "").contains(elsewhere), "the page loads nothing from elsewhere");
    }
}

#[tokio::test]
async fn the_operators_routes_are_not_on_the_public_side() {
    let server = TestServer::start().await;
    assert_eq!(get(server.address, "/metrics").await, (200, "okay".into()));
    assert_eq!(get(server.address, "/rooms").await, (200, "okay".into()));
}

#[tokio::test]
async fn messages_and_bytes_are_counted_by_kind() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    ana.publish("t", json!(1)).await;
    ana.send_text("junk").await;
    ana.settle().await;
    for (series, value) in [
        (r#"signaling_messages_received_total{kind="subscribe"}"#, 1.0),
        (r#"signaling_messages_received_total{kind="publish"}"#, 1.0),
        (r#"signaling_messages_received_total{kind="malformed"}"#, 1.0),
        (r#"signaling_received_bytes_total{kind="malformed"}"#, 4.0),
        (r#"signaling_messages_sent_total{kind="broadcast"}"#, 1.0),
        ("signaling_connections", 1.0),
        ("signaling_connections_opened_total", 1.0),
        (r#"signaling_room_subscribers_bucket{le="1"}"#, 1.0),
        ("signaling_fanout_count", 1.0),
    ] {
        assert_eq!(server.metric(series).await, value, "{series}");
    }
}

#[tokio::test]
async fn the_round_trips_of_pings_are_measured() {
    let server = TestServer::with(|config| config.signaling.ping_interval = Period::millis(20)).await;
    let mut ana = server.client().await;
    // Her library answers pings while it reads.
    tokio::select! {
        text = ana.next_text() => panic!("nobody said {text}"),
        () = server.until_metric("signaling_ping_seconds_count", |count| count >= 3.0) => {}
    }
    assert!(server.metric("signaling_ping_seconds_sum").await > 0.0);
}

/// Run with `UPDATE_METRICS_MD=1` to write the file anew.
#[test]
fn metrics_md_has_every_series_by_its_doc_line() {
    let mut expected = String::from(
        "# Metrics\n\nEvery series of the signaling server, at `/metrics` on its operator listener. The names of rooms, peers and users are\nnever labels. Series named `process_…` are those of every Prometheus client.\n\n| series | type | labels | what it says |\n|---|---|---|---|\n",
    );
    for line in Metrics::new().documentation() {
        expected.push_str(&line);
        expected.push('\n');
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
    if std::env::var_os("UPDATE_METRICS_MD").is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        expected,
        "UPDATE_METRICS_MD=1 writes it anew"
    );
}
