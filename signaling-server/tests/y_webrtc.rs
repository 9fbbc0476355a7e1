//! What y-webrtc clients rely on, as the reference server does it, and directed delivery.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use serde_json::json;
use signaling_server::config::Delivery;
use support::{Client, TestServer, get, request, upgrade_status};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

#[tokio::test]
async fn any_method_and_path_is_answered_with_okay() {
    let server = TestServer::start().await;
    for (method, path) in [("GET", "/"), ("GET", "/any/path?q=1"), ("POST", "/"), ("DELETE", "/x")] {
        assert_eq!(request(server.address, method, path, "").await, (200, "okay".into()), "{method} {path}");
    }
}

#[tokio::test]
async fn health_is_told_from_readiness() {
    let server = TestServer::start().await;
    for address in [server.address, server.metrics] {
        assert_eq!(get(address, "/healthz").await.0, 200);
        assert_eq!(get(address, "/readyz").await.0, 200);
    }
}

#[tokio::test]
async fn all_paths_share_one_topic_space() {
    let server = TestServer::start().await;
    let mut ana = Client::connect(&format!("ws://{}/some/path?x=1", server.address)).await;
    ana.subscribe("t").await;
    ana.settle().await;
    let mut ben = Client::connect(&format!("ws://{}/healthz", server.address)).await;
    ben.publish("t", json!(1)).await;
    assert_eq!(ana.next().await["data"], 1);
}

#[tokio::test]
async fn the_first_subprotocol_offered_is_taken() {
    let server = TestServer::start().await;
    let mut request = server.url().into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", "first, second".parse().unwrap());
    let (_, response) = tokio_tungstenite::connect_async(request).await.unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "first");
    assert!(!response.headers().contains_key("sec-websocket-extensions"), "no compression, as the reference");
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_a_bad_request() {
    let server = TestServer::start().await;
    let headers = "Upgrade: h2c\r\nConnection: Upgrade\r\n";
    assert_eq!(request(server.address, "GET", "/", headers).await.0, 400);
    assert_eq!(upgrade_status(&server.url(), &[("sec-websocket-version", "12")]).await, 400);
    assert_eq!(upgrade_status(&server.url(), &[("sec-websocket-key", "short")]).await, 400);
}

#[tokio::test]
async fn a_publish_reaches_every_subscriber_and_its_sender_with_their_number() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let mut ben = server.subscriber("t").await;
    let sent =
        json!({"type": "publish", "topic": "t", "clients": 99, "data": {"clients": 7}, "extra": [1, {}]});
    ana.send(&sent).await;
    let mut expected = sent;
    expected["clients"] = 2.into();
    assert_eq!(ben.next().await, expected);
    assert_eq!(ana.next().await, expected, "the sender hears it too");
}

#[tokio::test]
async fn a_payload_survives_bit_for_bit() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let payload = r#" "data" : {"token":1745678901234.5678901,"s":"\ud800\u00e9\/","n":1e400, "clients":-0}"#;
    ana.send_text(&format!(r#"{{"topic":"t","type":"publish",{payload}}}"#)).await;
    assert_eq!(ana.next_text().await, format!(r#"{{"topic":"t","type":"publish",{payload},"clients":1}}"#));
}

#[tokio::test]
async fn a_publisher_need_not_be_subscribed() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let mut ben = server.client().await;
    ben.publish("t", json!("hi")).await;
    assert_eq!(ana.next().await["clients"], 1);
    assert!(ben.settle().await.is_empty());
}

#[tokio::test]
async fn binary_comes_in_and_text_goes_out() {
    use futures_util::SinkExt;
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let json = b"{\"type\":\"publish\",\"topic\":\"t\",\"data\":\"\xff\"}".to_vec();
    ana.0.send(Message::binary(json)).await.unwrap();
    assert_eq!(ana.next().await["data"], "\u{fffd}", "as Node reads it");
}

#[tokio::test]
async fn subscribing_and_publishing_on_one_socket_needs_no_pause() {
    let server = TestServer::start().await;
    let mut ana = server.client().await;
    ana.subscribe("t").await;
    ana.publish("t", json!("announce")).await;
    assert_eq!(ana.next().await["clients"], 1);
}

#[tokio::test]
async fn ping_is_answered_with_a_bare_pong() {
    let server = TestServer::start().await;
    let mut ana = server.client().await;
    ana.send(&json!({"type": "ping", "extra": 1})).await;
    assert_eq!(ana.next_text().await, r#"{"type":"pong"}"#);
    ana.send_text("ping").await;
    assert_eq!(ana.next_text().await, "pong", "the Loro keepalive");
}

#[tokio::test]
async fn junk_is_ignored() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    for junk in [
        "null",
        "7",
        "\"text\"",
        "[]",
        "{}",
        "true",
        r#"{"type":""}"#,
        r#"{"type":5}"#,
        r#"{"type":"unknown"}"#,
        r#"{"type":"publish"}"#,
        r#"{"type":"publish","topic":7}"#,
        r#"{"type":"pong"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","topics":[]}"#,
        r#"{"type":"subscribe","topics":"abc"}"#,
        r#"{"type":"subscribe","topics":{"0":"a"}}"#,
        r#"{"type":"subscribe","topics":[1,null,{},["x"]]}"#,
        r#"{"type":"unsubscribe","topics":["never"]}"#,
    ] {
        ana.send_text(junk).await;
    }
    assert!(ana.settle().await.is_empty());
}

#[tokio::test]
async fn unsubscribing_ends_what_is_received() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let mut ben = server.subscriber("t").await;
    ana.send(&json!({"type": "unsubscribe", "topics": ["t"]})).await;
    ana.settle().await;
    ben.publish("t", json!(1)).await;
    assert_eq!(ben.next().await["clients"], 1);
    assert!(ana.settle().await.is_empty());
}

#[tokio::test]
async fn subscribing_twice_counts_once() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    ana.send(&json!({"type": "subscribe", "topics": ["t", "t"]})).await;
    ana.publish("t", json!(1)).await;
    let received = ana.settle().await;
    assert_eq!(received.len(), 1);
    assert_eq!(received[0]["clients"], 1);
}

#[tokio::test]
async fn names_are_only_names() {
    let server = TestServer::start().await;
    let mut ana = server.client().await;
    let long = "x".repeat(512);
    for topic in ["__proto__", "constructor", "nul \0", "emoji 🦀", "quote \" slash / \\", "\u{feff}", &long]
    {
        ana.subscribe(topic).await;
        ana.publish(topic, json!(topic)).await;
        assert_eq!(ana.next().await["data"], topic);
    }
    ana.subscribe("").await;
    ana.publish("", json!(1)).await;
    assert!(ana.settle().await.is_empty(), "nobody can publish to the empty topic");
}

#[tokio::test]
async fn a_name_is_the_same_however_it_is_escaped() {
    let server = TestServer::start().await;
    let mut ana = server.client().await;
    ana.send_text(r#"{"type":"subscribe","topics":["\u0061b\/"]}"#).await;
    ana.publish("ab/", json!(1)).await;
    assert_eq!(ana.next().await["data"], 1);
}

#[tokio::test]
async fn an_abrupt_end_lowers_the_count() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let ben = server.subscriber("t").await;
    drop(ben);
    server.until_metric("signaling_connections", |open| open == 1.0).await;
    ana.publish("t", json!(1)).await;
    assert_eq!(ana.next().await["clients"], 1);
}

#[tokio::test]
async fn a_signal_for_one_peer_reaches_that_peer_alone() {
    let server = TestServer::start().await;
    let mut ana = server.subscriber("t").await;
    let mut ben = server.subscriber("t").await;
    let mut eve = server.subscriber("t").await;
    for (client, from) in [(&mut ana, "a"), (&mut ben, "b"), (&mut eve, "e")] {
        client.publish("t", json!({"type": "announce", "from": from})).await;
        client.settle().await;
    }
    ana.settle().await;
    ben.settle().await;
    ben.publish("t", json!({"type": "signal", "from": "b", "to": "a", "signal": {}})).await;
    assert_eq!(ben.settle().await.len(), 1, "the sender hears its echo");
    assert_eq!(ana.next().await["data"]["from"], "b");
    assert!(eve.settle().await.is_empty());
    assert_eq!(server.metric(r#"signaling_messages_sent_total{kind="directed"}"#).await, 2.0);
}

#[tokio::test]
async fn broadcast_delivery_is_the_references() {
    let server = TestServer::with(|config| config.signaling.delivery = Delivery::Broadcast).await;
    let mut ana = server.subscriber("t").await;
    let mut eve = server.subscriber("t").await;
    ana.publish("t", json!({"type": "announce", "from": "a"})).await;
    assert_eq!(eve.next().await["data"]["type"], "announce");
    ana.publish("t", json!({"type": "signal", "from": "a", "to": "a"})).await;
    assert_eq!(eve.next().await["data"]["to"], "a");
}

#[tokio::test]
async fn echo_can_be_off() {
    let server = TestServer::with(|config| config.signaling.echo = false).await;
    let mut ana = server.subscriber("t").await;
    let mut ben = server.subscriber("t").await;
    ana.publish("t", json!(1)).await;
    assert_eq!(ben.next().await["clients"], 2);
    assert!(ana.settle().await.is_empty());
}
