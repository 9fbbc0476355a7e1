//! `GET /ice` over real sockets: who is told of which servers, and who is not.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use signaling_server::config::{AccessMode, Config, Period, Secret};
use support::{TestServer, read_to_end};
use tokio::io::AsyncWriteExt;
use turn_config::credential::{SharedSecret, mint};

const SECRET: &str = "a-secret-that-only-tests-know";
const ANOTHER: &str = "another-secret-of-the-tests";

/// An HTTP answer.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        assert_eq!(
            (self.status, self.header("content-type")),
            (200, Some("application/json")),
            "{}",
            self.head
        );
        serde_json::from_str(&self.body).unwrap()
    }
}

async fn ask(server: &TestServer, method: &str, path: &str, headers: &[&str]) -> Answer {
    let mut stream = server.raw().await;
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    assert_eq!(answer.header("cache-control"), Some("no-store"), "{head}");
    answer
}

async fn get(server: &TestServer, headers: &[&str]) -> Answer {
    ask(server, "GET", "/ice", headers).await
}

fn with_turn(config: &mut Config) {
    config.ice.stun = vec!["stun:stun.test:3478".into()];
    config.ice.turn = vec!["turn:turn.test?transport=udp".into(), "turns:turn.test:443".into()];
    config.ice.secrets = vec![Secret::new(SECRET)];
}

/// Whether the entry's credential was minted with this secret, for as long as the answer says.
fn is_signed_with(server: &Value, secret: &str, ttl: u64) -> bool {
    let username = server["username"].as_str().unwrap();
    let (expiry, user) = username.split_once(':').unwrap();
    let minted_at = UNIX_EPOCH + Duration::from_secs(expiry.parse::<u64>().unwrap() - ttl);
    let age = SystemTime::now().duration_since(minted_at).unwrap();
    assert!(age < Duration::from_secs(60), "{username}");
    let ttl = format!("{ttl}s").parse().unwrap();
    let minted = mint(&SharedSecret::new(secret).unwrap(), minted_at, ttl, &user.parse().unwrap());
    server["credential"] == minted.password
}

#[tokio::test]
async fn a_client_gets_stun_and_turn_with_a_fresh_credential() {
    let server = TestServer::with(with_turn).await;
    let first = get(&server, &[]).await.json();
    assert_eq!(first["ttl"], 3600);
    assert_eq!(first["iceServers"][0], json!({"urls": ["stun:stun.test:3478"]}));
    let turn = &first["iceServers"][1];
    assert_eq!(turn["urls"], json!(["turn:turn.test?transport=udp", "turns:turn.test:443"]));
    assert!(is_signed_with(turn, SECRET, 3600));
    let second = get(&server, &[]).await.json();
    assert_ne!(second["iceServers"][1]["username"], turn["username"], "one id for two answers");
    assert_eq!(server.metric("signaling_ice_issued_total").await, 2.0);
}

#[tokio::test]
async fn servers_with_different_secrets_get_their_own_credentials() {
    let server = TestServer::with(|config| {
        with_turn(config);
        config.ice.secrets = vec![Secret::new(SECRET), Secret::new(ANOTHER)];
        config.ice.ttl = Period::seconds(600);
    })
    .await;
    let answer = get(&server, &[]).await.json();
    let servers = answer["iceServers"].as_array().unwrap();
    assert_eq!((servers.len(), &answer["ttl"]), (3, &json!(600)));
    assert!(is_signed_with(&servers[1], SECRET, 600) && !is_signed_with(&servers[1], ANOTHER, 600));
    assert!(is_signed_with(&servers[2], ANOTHER, 600));
}

#[tokio::test]
async fn a_secret_that_changes_on_disk_is_in_force_without_a_restart() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, SECRET).unwrap();
    let server = TestServer::with(|config| {
        with_turn(config);
        config.ice.secrets = Vec::new();
        config.ice.secret_files = vec![file.path().to_owned()];
        config.ice.reload_interval = Period::millis(5);
    })
    .await;
    assert!(is_signed_with(&get(&server, &[]).await.json()["iceServers"][1], SECRET, 3600));
    fs::write(&file, "short").unwrap();
    server.until_metric("signaling_reload_failures_total", |count| count >= 1.0).await;
    assert!(is_signed_with(&get(&server, &[]).await.json()["iceServers"][1], SECRET, 3600));
    fs::write(&file, ANOTHER).unwrap();
    server.until_metric("signaling_reloads_total", |count| count >= 1.0).await;
    assert!(is_signed_with(&get(&server, &[]).await.json()["iceServers"][1], ANOTHER, 3600));
}

#[tokio::test]
async fn where_nothing_is_configured_the_answer_is_empty() {
    let server = TestServer::start().await;
    let answer = get(&server, &["Origin: https://app.test"]).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(server.metric("signaling_ice_issued_total").await, 0.0);
}

#[tokio::test]
async fn who_may_not_connect_is_not_told() {
    let server = TestServer::with(|config| {
        with_turn(config);
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("sesame")];
    })
    .await;
    let without = get(&server, &["Origin: https://app.test"]).await;
    assert_eq!((without.status, without.header("www-authenticate")), (401, Some("Bearer")));
    assert_eq!(without.header("access-control-allow-origin"), Some("*"), "a page can not read why");
    assert_eq!(get(&server, &["Authorization: Bearer open"]).await.status, 401);
    for told in [
        get(&server, &["Authorization: Bearer sesame"]).await,
        get(&server, &["Cookie: signaling_token=sesame"]).await,
        ask(&server, "GET", "/ice?token=sesame", &[]).await,
    ] {
        assert!(is_signed_with(&told.json()["iceServers"][1], SECRET, 3600));
    }
    assert_eq!(server.metric("signaling_ice_refused_total{reason=\"missing_token\"}").await, 1.0);
    assert_eq!(server.metric("signaling_ice_refused_total{reason=\"wrong_token\"}").await, 1.0);
    assert_eq!(server.metric("signaling_ice_issued_total").await, 3.0);
}

#[tokio::test]
async fn an_address_that_asks_too_often_waits() {
    let server = TestServer::with(|config| {
        with_turn(config);
        config.limits.ice_per_minute = 3;
        config.proxy.trusted = vec!["127.0.0.1".parse::<std::net::IpAddr>().unwrap().into()];
    })
    .await;
    let ana = ["X-Forwarded-For: 192.0.2.1"];
    for _ in 0..3 {
        assert_eq!(get(&server, &ana).await.status, 200);
    }
    let refused = get(&server, &ana).await;
    assert_eq!(refused.status, 429);
    assert!(refused.header("retry-after").is_some());
    assert_eq!(get(&server, &["X-Forwarded-For: 192.0.2.2"]).await.status, 200, "somebody else pays for it");
    assert_eq!(server.metric("signaling_ice_refused_total{reason=\"rate\"}").await, 1.0);
    assert_eq!(server.metric("signaling_ice_issued_total").await, 4.0);
}

#[tokio::test]
async fn only_pages_of_listed_origins_are_told() {
    let server = TestServer::with(|config| {
        with_turn(config);
        config.access.origins = vec!["https://*.app.test".into()];
    })
    .await;
    let listed = get(&server, &["Origin: https://plans.app.test"]).await;
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://plans.app.test"));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(listed.header("vary"), Some("Origin"));
    listed.json();

    let other = get(&server, &["Origin: https://evil.test"]).await;
    assert_eq!((other.status, other.header("access-control-allow-origin")), (403, None));
    assert!(!other.body.contains("iceServers"));
    assert_eq!(server.metric("signaling_ice_refused_total{reason=\"origin_not_allowed\"}").await, 1.0);

    get(&server, &[]).await.json();
}

#[tokio::test]
async fn a_browser_may_send_its_token_in_a_header() {
    let server = TestServer::with(|config| {
        with_turn(config);
        config.access.origins = vec!["https://app.test".into()];
    })
    .await;
    let headers = ["Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization"];
    let asked = ask(&server, "OPTIONS", "/ice", &["Origin: https://app.test", headers[0], headers[1]]).await;
    assert_eq!(asked.status, 204);
    assert_eq!(asked.header("access-control-allow-origin"), Some("https://app.test"));
    assert_eq!(asked.header("access-control-allow-headers"), Some("authorization"));
    assert_eq!(asked.header("access-control-allow-methods"), Some("GET, OPTIONS"));
    let refused =
        ask(&server, "OPTIONS", "/ice", &["Origin: https://evil.test", headers[0], headers[1]]).await;
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (403, None));
    assert_eq!(ask(&server, "POST", "/ice", &[]).await.status, 405);
}
