//! Tokens, with or without one in the upgrade.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use serde_json::json;
use signaling_server::access::{Claims, SigningKey};
use signaling_server::config::{AccessMode, Config, Secret};
use tokio_tungstenite::tungstenite::Message as Ws;
use wire::fragment::FRAGMENT;
use wire::id::BatchId;
use wire::sync::{Crdt, FragmentHeader, JoinError, Message, Permission, Status};

use super::command::Files;
use super::peer::{Peer, room};
use super::rooms::in_memory;
use super::support::{Client, TestServer, upgrade_status};

fn guarded(config: &mut Config) {
    in_memory(config);
    config.access.mode = AccessMode::Tokens;
    config.access.tokens = vec![Secret::new("s3cret")];
}

#[tokio::test]
async fn a_socket_without_a_token_may_bring_one_when_it_joins() {
    let server = TestServer::with(guarded).await;
    let mut ana = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    for wrong in [&b""[..], b"wrong", b"\xff"] {
        let answer = ana.join(wrong).await;
        assert!(matches!(answer, Message::JoinError { error: JoinError::AuthFailed, .. }), "{answer:?}");
    }
    let answer = ana.join(b"s3cret").await;
    assert!(matches!(answer, Message::JoinOk { permission: Permission::Write, .. }), "{answer:?}");
    ana.edit_acked("a", "b").await;
    assert_eq!(server.metric(r#"signaling_relay_joins_total{outcome="auth_failed"}"#).await, 3.0);
    // A token that is wrong in the upgrade never gets that far, and neither does none where nothing is relayed.
    assert_eq!(upgrade_status(&format!("{}?token=wrong", server.url()), &[]).await, 401);
    let signaling_alone = TestServer::with(|config| {
        guarded(config);
        config.relay = signaling_server::config::RelayConfig::default();
    })
    .await;
    assert_eq!(upgrade_status(&signaling_alone.url(), &[]).await, 401);
}

#[tokio::test]
async fn topics_are_mute_until_a_token_is_shown_and_then_they_are_not() {
    let server = TestServer::with(guarded).await;
    let mut guest = Client::connect(&server.url()).await;
    guest.subscribe("t").await;
    guest.publish("t", json!("too early")).await;
    assert!(guest.settle().await.is_empty());
    let refused = r#"signaling_messages_refused_total{reason="no_token"}"#;
    assert_eq!(server.metric(refused).await, 2.0);
    let join =
        Message::JoinRequest { auth: bytes::Bytes::from_static(b"s3cret"), version: bytes::Bytes::new() };
    let frame = join.encode(&room(Crdt::Loro, "plan")).unwrap();
    let accepted = r#"signaling_relay_joins_total{outcome="ok"}"#;
    guest.0.send(Ws::Binary(frame)).await.unwrap();
    server.until_metric(accepted, |joins| joins == 1.0).await;
    guest.subscribe("t").await;
    guest.publish("t", json!("now")).await;
    assert_eq!(guest.next().await["data"], "now");
}

#[tokio::test]
async fn who_shows_no_token_is_sent_away_after_half_a_minute() {
    let server = TestServer::with(guarded).await;
    let begun = Instant::now();
    let mut guest = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    // It may try in vain meanwhile.
    guest.join(b"wrong").await;
    let ended = tokio::time::timeout(Duration::from_secs(45), guest.ended()).await;
    assert_eq!(ended.expect("a close in time"), Some(4401));
    assert!(begun.elapsed() >= Duration::from_secs(29), "{:?}", begun.elapsed());
    assert_eq!(server.metric(r#"signaling_connections_closed_total{reason="no_token"}"#).await, 1.0);
}

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
            in_memory(config);
            config.access.mode = AccessMode::Signed;
            config.access.keys_file = Some(self.files.path("secret"));
            config.access.leeway = signaling_server::config::Period::seconds(0);
        })
        .await
    }

    fn token(&self, role: &'static str, ttl: u64) -> &'static [u8] {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let rooms = vec!["plan".to_owned()];
        let claims =
            Claims { exp: now + ttl, rooms, role, sub: Some("ana".to_owned()), aud: None, iss: None };
        Vec::leak(self.key.sign(&claims).unwrap().into_bytes())
    }
}

#[tokio::test]
async fn who_may_only_read_reads_and_can_be_allowed_to_write() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let mut writer = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    writer.join(issuer.token("write", 3600)).await;
    let mut reader = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    let answer = reader.join(issuer.token("read", 3600)).await;
    assert!(matches!(answer, Message::JoinOk { permission: Permission::Read, .. }), "{answer:?}");
    let batch = reader.edit("a", "not allowed").await;
    assert_eq!(reader.ack(batch).await, Status::PermissionDenied);
    let header = FragmentHeader { batch: BatchId::from(77), fragments: 2, len: FRAGMENT as u64 + 1 };
    reader.say(&Message::FragmentHeader(header)).await;
    assert_eq!(reader.ack(BatchId::from(77)).await, Status::PermissionDenied);
    writer.edit_acked("b", "allowed").await;
    reader.until(|reader| reader.note("b").is_some()).await;
    writer.settle().await;
    assert!(writer.updates.is_empty(), "nobody sees it");

    let answer = reader.join(issuer.token("write", 3600)).await;
    assert!(matches!(answer, Message::JoinOk { permission: Permission::Write, .. }), "{answer:?}");
    let everything = reader.doc.export(loro::ExportMode::all_updates()).unwrap();
    let batch = reader.send(&everything).await;
    assert_eq!(reader.ack(batch).await, Status::Ok);
    writer.until(|writer| writer.note("a").is_some()).await;
    // Another room is closed to the token, and the connection stays.
    reader.room = room(Crdt::Loro, "other");
    let answer = reader.join(issuer.token("write", 3600)).await;
    assert!(matches!(answer, Message::JoinError { error: JoinError::AuthFailed, .. }), "{answer:?}");
}

#[tokio::test]
async fn access_that_has_ended_closes_the_connection_for_good() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let mut ana = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    let answer = ana.join(issuer.token("write", 2)).await;
    assert!(matches!(answer, Message::JoinOk { .. }), "{answer:?}");
    assert_eq!(ana.closed().await, Some(4401));
}

#[tokio::test]
async fn a_token_of_a_room_goes_before_that_of_the_connection_until_the_room_is_left() {
    let issuer = Issuer::new();
    let server = issuer.server().await;
    let own = std::str::from_utf8(issuer.token("read", 3600)).unwrap();
    let mut ana = Peer::connect(&format!("{}?token={own}", server.url()), room(Crdt::Loro, "plan")).await;
    let permission = |answer| match answer {
        Message::JoinOk { permission, .. } => permission,
        answer => panic!("{answer:?}"),
    };
    assert_eq!(permission(ana.join(b"").await), Permission::Read);
    assert_eq!(permission(ana.join(issuer.token("write", 3600)).await), Permission::Write);
    assert_eq!(permission(ana.join(b"").await), Permission::Write);
    ana.say(&Message::Leave).await;
    assert_eq!(permission(ana.join(b"").await), Permission::Read);
}
