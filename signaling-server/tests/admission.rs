//! Tokens on real connections: each topic is checked for itself, and a token's end is the connection's.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/command.rs"]
mod command;

use std::time::{Duration, SystemTime};

use command::Files;
use serde_json::json;
use signaling_server::access::{Claims, SigningKey};
use signaling_server::config::{AccessMode, Config, Period};
use support::{Client, TestServer, upgrade_status};

struct Issuer {
    key: SigningKey,
    files: Files,
}

impl Issuer {
    fn new() -> Self {
        let files = Files::new();
        let path = files.write("secret", "a secret of at least thirty-two bytes");
        Self { key: SigningKey::from_file(&path).unwrap(), files }
    }

    async fn server(&self) -> TestServer {
        TestServer::with(|config: &mut Config| {
            config.access.mode = AccessMode::Signed;
            config.access.keys_file = Some(self.files.path("secret"));
            config.access.leeway = Period::seconds(0);
        })
        .await
    }

    fn token(&self, rooms: &[&str], role: &'static str, ttl: Duration) -> String {
        let end = SystemTime::now() + ttl;
        let exp = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let rooms = rooms.iter().map(|room| (*room).to_owned()).collect();
        self.key.sign(&Claims { exp, rooms, role, sub: None, aud: None, iss: None }).unwrap()
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn refused(reason: &str) -> String {
    format!(r#"signaling_messages_refused_total{{reason="{reason}"}}"#)
}

#[tokio::test]
async fn a_token_comes_in_the_query_a_header_or_a_cookie() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let token = issuer.token(&["*"], "write", HOUR);
    let url = server.url();
    assert_eq!(upgrade_status(&url, &[]).await, 401);
    assert_eq!(upgrade_status(&format!("{url}?token={token}"), &[]).await, 101);
    assert_eq!(upgrade_status(&format!("{url}?token={token}x"), &[]).await, 401);
    assert_eq!(upgrade_status(&url, &[("authorization", &format!("Bearer {token}"))]).await, 101);
    assert_eq!(upgrade_status(&url, &[("cookie", &format!("a=b; signaling_token={token}"))]).await, 101);
    let missing = r#"signaling_upgrades_refused_total{reason="missing_token"}"#;
    assert_eq!(server.metric(missing).await, 1.0);
}

#[tokio::test]
async fn a_topic_that_the_token_does_not_open_is_ignored_and_counted() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let writer = issuer.token(&["plan-*", "lobby"], "write", HOUR);
    let mut ana = Client::connect(&format!("{}?token={writer}", server.url())).await;
    ana.send(&json!({"type": "subscribe", "topics": ["plan-1", "other", "lobby"]})).await;
    for topic in ["plan-1", "other", "lobby"] {
        ana.publish(topic, json!(topic)).await;
    }
    let heard: Vec<_> = ana.settle().await.iter().map(|message| message["data"].clone()).collect();
    assert_eq!(heard, ["plan-1", "lobby"]);
    assert_eq!(server.metric(&refused("topic_not_allowed")).await, 2.0);
}

#[tokio::test]
async fn who_may_only_read_hears_and_is_not_heard() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let url = |role| format!("{}?token={}", server.url(), issuer.token(&["t"], role, HOUR));
    let mut reader = Client::connect(&url("read")).await;
    let mut writer = Client::connect(&url("write")).await;
    for client in [&mut reader, &mut writer] {
        client.subscribe("t").await;
        client.settle().await;
    }
    reader.publish("t", json!("from the reader")).await;
    reader.settle().await;
    assert!(writer.settle().await.is_empty());
    writer.publish("t", json!("from the writer")).await;
    assert_eq!(reader.next().await["data"], "from the writer");
    assert_eq!(server.metric(&refused("read_only")).await, 1.0);
}

#[tokio::test]
async fn a_connection_ends_when_its_token_does() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let token = issuer.token(&["*"], "write", Duration::from_secs(2));
    let mut ana = Client::connect(&format!("{}?token={token}", server.url())).await;
    assert_eq!(u16::from(ana.closed().await.unwrap().code), 4401);
    assert_eq!(upgrade_status(&format!("{}?token={token}", server.url()), &[]).await, 401);
}
