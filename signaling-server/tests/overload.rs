//! Every limit holds, says what it refused, and leaves the others alone.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use signaling_server::config::{ConnectionCap, Period, Size};
use support::{Client, TestServer, frame, upgrade_status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

fn refused(reason: &str) -> String {
    format!(r#"signaling_messages_refused_total{{reason="{reason}"}}"#)
}

/// Requests count as those of a client elsewhere, which is not exempt as loopback is.
fn from_elsewhere(config: &mut signaling_server::config::Config) {
    config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
}

#[tokio::test]
async fn topics_are_limited_in_number_and_length() {
    let server = TestServer::with(|config| config.limits.topics_per_connection = 2).await;
    let mut client = server.client().await;
    for topic in ["a", "b", "c", &"x".repeat(513)] {
        client.subscribe(topic).await;
    }
    client.settle().await;
    assert_eq!(server.metric("signaling_rooms").await, 2.0);
    assert_eq!(server.metric(&refused("too_many_topics")).await, 1.0);
    assert_eq!(server.metric(&refused("topic_too_long")).await, 1.0);
    client.send(&json!({"type": "unsubscribe", "topics": ["a"]})).await;
    client.subscribe("c").await;
    client.publish("c", json!(1)).await;
    assert_eq!(client.settle().await.len(), 1, "a topic given up makes room for another");
}

#[tokio::test]
async fn subscribers_of_a_room_are_limited() {
    let server = TestServer::with(|config| config.limits.subscribers_per_room = 1).await;
    let mut first = server.subscriber("t").await;
    let mut second = server.subscriber("t").await;
    second.publish("t", json!(1)).await;
    assert!(second.settle().await.is_empty());
    assert_eq!(first.next().await["clients"], 1);
    assert_eq!(server.metric(&refused("room_full")).await, 1.0);
}

#[tokio::test]
async fn a_message_over_the_limit_ends_its_connection() {
    let server = TestServer::with(|config| config.limits.max_message = Size::kib(1)).await;
    let mut client = server.client().await;
    client.send_text(&" ".repeat(1024)).await;
    client.settle().await;
    client.send_text(&" ".repeat(1025)).await;
    assert_eq!(u16::from(client.closed().await.unwrap().code), 1009);
}

#[tokio::test]
async fn connections_of_one_address_are_limited_before_the_upgrade() {
    let server = TestServer::with(|config| {
        from_elsewhere(config);
        config.limits.connections_per_address = 1;
    })
    .await;
    let url = server.url();
    let from = |address| [("x-forwarded-for", address)];
    let mut request = url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", "2001:db8::1".parse().unwrap());
    let (held, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(upgrade_status(&url, &from("2001:db8::2")).await, 429, "the same /64");
    assert_eq!(upgrade_status(&url, &from("2001:db8:0:1::1")).await, 101);
    assert_eq!(server.metric(r#"signaling_upgrades_refused_total{reason="address_full"}"#).await, 1.0);
    drop(held);
    server.until_metric("signaling_connections", |open| open == 0.0).await;
    assert_eq!(upgrade_status(&url, &from("2001:db8::2")).await, 101);
}

#[tokio::test]
async fn loopback_is_exempt_from_limits_per_address() {
    let server = TestServer::with(|config| config.limits.connections_per_address = 1).await;
    let _first = server.client().await;
    let _second = server.client().await;
}

#[tokio::test]
async fn upgrades_of_one_address_have_a_rate() {
    let server = TestServer::with(|config| {
        from_elsewhere(config);
        (config.limits.upgrades_per_second, config.limits.upgrades_burst) = (1, 3);
    })
    .await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(upgrade_status(&server.url(), &[("x-forwarded-for", "192.0.2.1")]).await);
    }
    assert_eq!(answers, [101, 101, 101, 429]);
}

#[tokio::test]
async fn a_full_server_says_so_in_http() {
    let server = TestServer::with(|config| config.limits.connections = ConnectionCap::At(1)).await;
    let held = server.client().await;
    assert_eq!(upgrade_status(&server.url(), &[]).await, 503);
    drop(held);
    server.until_metric("signaling_connections", |open| open == 0.0).await;
    assert_eq!(upgrade_status(&server.url(), &[]).await, 101);
}

#[tokio::test]
async fn too_many_messages_are_delayed_and_none_is_lost() {
    let server = TestServer::with(|config| {
        (config.limits.messages_per_second, config.limits.messages_burst) = (100, 10);
    })
    .await;
    let mut client = server.subscriber("t").await;
    let start = Instant::now();
    for n in 0..60 {
        client.publish("t", json!(n)).await;
    }
    for n in 0..60 {
        assert_eq!(client.next().await["data"], n);
    }
    assert!(start.elapsed() >= Duration::from_millis(400), "50 messages over the burst take half a second");
    assert!(server.metric("signaling_throttled_total").await >= 40.0);
}

#[tokio::test]
async fn too_many_bytes_are_delayed() {
    let server = TestServer::with(|config| {
        (config.limits.bytes_per_second, config.limits.bytes_burst) = (Size::kib(100), Size::kib(1));
        config.limits.max_message = Size::kib(1);
    })
    .await;
    let mut client = server.subscriber("t").await;
    let start = Instant::now();
    for _ in 0..40 {
        client.publish("t", json!("x".repeat(950))).await;
    }
    for _ in 0..40 {
        client.next().await;
    }
    assert!(start.elapsed() >= Duration::from_millis(200), "40 KB at 100 KB a second");
}

#[tokio::test]
async fn keepalives_are_not_charged() {
    let server = TestServer::with(|config| {
        (config.limits.messages_per_second, config.limits.messages_burst) = (1, 1);
    })
    .await;
    let mut client = server.subscriber("t").await;
    for _ in 0..10 {
        client.settle().await;
    }
    assert_eq!(server.metric("signaling_throttled_total").await, 0.0);
}

#[tokio::test]
async fn a_client_whose_messages_are_delayed_hears_a_pong_before_it_gives_up() {
    let server = TestServer::with(|config| {
        (config.limits.messages_per_second, config.limits.messages_burst) = (2, 1);
    })
    .await;
    let mut client = server.client().await;
    for n in 0..60 {
        client.publish("nobody", json!(n)).await;
    }
    let start = Instant::now();
    assert_eq!(client.next_text().await, r#"{"type":"pong"}"#);
    // Stock clients give up after 30 s of silence; the messages alone take as long.
    assert!(start.elapsed() < Duration::from_secs(15));
}

#[tokio::test]
async fn limits_off_lifts_rates_and_not_the_bounds_on_memory() {
    let server = TestServer::with(|config| {
        config.limits.enabled = false;
        (config.limits.messages_per_second, config.limits.messages_burst) = (1, 1);
        config.limits.topics_per_connection = 2;
        config.limits.max_message = Size::kib(1);
    })
    .await;
    let mut client = server.client().await;
    for topic in ["a", "b", "c"] {
        client.subscribe(topic).await;
    }
    client.settle().await;
    assert_eq!(server.metric("signaling_throttled_total").await, 0.0);
    assert_eq!(server.metric("signaling_rooms").await, 2.0);
    client.send_text(&" ".repeat(1025)).await;
    assert_eq!(u16::from(client.closed().await.unwrap().code), 1009);
}

#[tokio::test]
async fn a_reader_that_stalls_is_cut_off_and_nobody_else_notices() {
    let server = TestServer::with(|config| {
        config.limits.enabled = false;
        config.limits.outbound_queue = Size::kib(256);
    })
    .await;
    let mut stalled = server.raw_websocket().await;
    stalled.write_all(&frame(1, br#"{"type":"subscribe","topics":["t"]}"#)).await.unwrap();
    let mut reader = server.subscriber("t").await;
    server.until_metric("signaling_rooms", |rooms| rooms == 1.0).await;
    let mut writer = server.client().await;
    let payload = json!("x".repeat(8 << 10));
    let mut sent = 0;
    let slow = r#"signaling_connections_closed_total{reason="slow_consumer"}"#;
    while server.metric(slow).await == 0.0 {
        for _ in 0..16 {
            writer.publish("t", payload.clone()).await;
            sent += 1;
        }
        writer.settle().await;
        for _ in 0..16 {
            reader.next().await;
        }
        assert!(sent < 10_000, "80 MB are more than any socket holds");
    }
    assert!(server.metric("signaling_outbox_high_water_bytes").await <= 256.0 * 1024.0);
    writer.publish("t", json!("last")).await;
    let last = reader.next().await;
    assert_eq!((&last["data"], &last["clients"]), (&json!("last"), &json!(1)), "and it is out of the room");
}

/// A server with a short write deadline, and a subscriber for whom more waits there than the sockets' buffers hold.
async fn behind(deadline: Duration) -> (TestServer, TcpStream) {
    let server = TestServer::with(|config| {
        config.limits.enabled = false;
        config.limits.outbound_queue = Size::kib(64 << 10);
        config.limits.outbound_frames = 1 << 20;
        config.limits.write_deadline = Period::millis(deadline.as_millis() as u64);
    })
    .await;
    let mut behind = server.raw_websocket().await;
    behind.write_all(&frame(1, br#"{"type":"subscribe","topics":["t"]}"#)).await.unwrap();
    server.until_metric("signaling_rooms", |rooms| rooms == 1.0).await;
    let mut writer = server.client().await;
    let message = json!({"type": "publish", "topic": "t", "data": "x".repeat(8 << 10)}).to_string();
    for _ in 0..2000 {
        writer.0.feed(Message::text(message.clone())).await.unwrap();
    }
    writer.0.flush().await.unwrap();
    (server, behind)
}

const LATE: &str = r#"signaling_connections_closed_total{reason="write_deadline"}"#;

#[tokio::test]
async fn a_write_that_makes_no_progress_has_a_deadline() {
    let (server, _stalled) = behind(Duration::from_millis(300)).await;
    server.until_metric(LATE, |count| count == 1.0).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_reader_that_is_slow_but_reads_gets_all() {
    let deadline = Duration::from_millis(600);
    let (server, mut slow) = behind(deadline).await;
    let (mut read, started) = (0, Instant::now());
    let mut buffer = vec![0; 1 << 20];
    while read < 2000 * (8 << 10) {
        let more =
            tokio::time::timeout(Duration::from_secs(5), slow.read(&mut buffer)).await.unwrap().unwrap();
        assert_ne!(more, 0, "the server has closed");
        read += more;
        // As slowly as it may, for several times the deadline.
        tokio::time::sleep(deadline / 6).await;
    }
    assert!(started.elapsed() > 2 * deadline);
    assert_eq!(server.metric(LATE).await, 0.0);
}

#[tokio::test]
async fn an_idle_stranger_does_not_hold_up_the_handshakes_of_others() {
    let server = TestServer::start().await;
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(server.raw().await);
    }
    let _client = Client::connect(&server.url()).await;
}
