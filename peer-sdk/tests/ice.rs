//! ICE servers from the real signaling server, from servers that misbehave, and over a real relay.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "webrtc")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use peer_sdk::adapter::ice::{IceError, IceServer, IceSource, MAX_ANSWER};
use peer_sdk::adapter::signaling::UrlError;
use peer_sdk::adapter::webrtc::{Path, Policy, Settings};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use signaling_server::config::{AccessMode, Secret};
use support::coturn::{Coturn, SECRET};
use support::server::TestServer;
use support::{local, pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[tokio::test]
async fn servers_come_from_the_signaling_server_and_are_kept_for_a_while() {
    let server = TestServer::with(|config| {
        config.ice.stun = vec!["stun:stun.test:3478".into()];
        config.ice.turn = vec!["turn:turn.test?transport=udp".into()];
        config.ice.secrets = vec![Secret::new(SECRET)];
    })
    .await;
    let source = IceSource::new(&format!("http://{}/ice", server.address)).unwrap();
    let servers = source.servers().await.unwrap();
    assert_eq!(servers[0], IceServer::stun("stun:stun.test:3478"));
    assert_eq!(servers[1].urls, ["turn:turn.test?transport=udp"]);
    assert!(servers[1].username.is_some() && servers[1].credential.is_some());
    // Each answer of the server has another user name, so this is the first one.
    assert_eq!(source.clone().servers().await.unwrap(), servers);
    server.stop().await;
    assert_eq!(source.servers().await.unwrap(), servers);
}

#[tokio::test]
async fn a_server_that_has_none_or_refuses_says_so() {
    let none = TestServer::start().await;
    let source = IceSource::new(&format!("http://{}/ice", none.address)).unwrap();
    assert_eq!(source.servers().await.unwrap(), []);
    let closed = TestServer::with(|config| {
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("token")];
    })
    .await;
    let ask = async |query: &str| {
        IceSource::new(&format!("http://{}/ice{query}", closed.address)).unwrap().servers().await
    };
    assert!(matches!(ask("").await, Err(IceError::Status(401 | 403))));
    assert_eq!(ask("?token=token").await.unwrap(), []);
}

#[tokio::test]
async fn over_tls_only_a_trusted_server_is_asked() {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    std::fs::write(&cert, certified.cert.pem()).unwrap();
    std::fs::write(&key, certified.signing_key.serialize_pem()).unwrap();
    let server = TestServer::with(|config| {
        config.tls.cert = Some(cert);
        config.tls.key = Some(key);
        config.ice.stun = vec!["stun:stun.test:3478".into()];
    })
    .await;
    let source = IceSource::new(&format!("https://localhost:{}/ice", server.address.port())).unwrap();
    assert!(matches!(source.servers().await, Err(IceError::Dial(_))));
    let source = source.with_tls(trusting(certified.cert.der().clone()));
    assert_eq!(source.servers().await.unwrap(), [IceServer::stun("stun:stun.test:3478")]);
}

fn trusting(certificate: CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

/// A server that answers every request with these bytes.
async fn odd_server(answer: Vec<u8>) -> IceSource {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ice", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(&answer).await;
        }
    });
    IceSource::new(&url).unwrap()
}

#[tokio::test]
async fn what_is_no_answer_is_refused_with_the_reason() {
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes();
    let large = ok(&" ".repeat(MAX_ANSWER + 1));
    assert!(matches!(odd_server(large).await.servers().await, Err(IceError::TooLarge)));
    assert!(matches!(odd_server(ok("no JSON")).await.servers().await, Err(IceError::Malformed(_))));
    assert!(matches!(
        odd_server(b"no HTTP\r\n\r\n".to_vec()).await.servers().await,
        Err(IceError::Broken(_))
    ));
    assert!(matches!(odd_server(Vec::new()).await.servers().await, Err(IceError::Broken(_))));
    let elsewhere =
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n".to_vec();
    assert!(matches!(odd_server(elsewhere).await.servers().await, Err(IceError::Status(302))));
    assert_eq!(
        IceSource::new("ftp://h/ice").unwrap_err(),
        UrlError::Malformed { plain: "http", secure: "https" }
    );
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_late() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ice", listener.local_addr().unwrap());
    assert!(matches!(IceSource::new(&url).unwrap().servers().await, Err(IceError::Late)));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_talk_through_a_relay_alone_and_say_so() {
    let coturn = Coturn::start();
    let server = TestServer::with(|config| {
        config.ice.turn = vec![coturn.url()];
        config.ice.secrets = vec![Secret::new(SECRET)];
    })
    .await;
    let source = IceSource::new(&format!("http://{}/ice", server.address)).unwrap();
    let settings = Settings { ice: source.servers().await.unwrap(), policy: Policy::RelayOnly, ..local() };
    let begun = std::time::Instant::now();
    let (mut ana, mut ben) = pair(settings.clone(), settings).await;
    println!("open through a relay after {:?}", begun.elapsed());
    assert_eq!(ana.path().await.0, Path::Relayed);
    assert_eq!(ben.path().await.0, Path::Relayed);
    let begun = std::time::Instant::now();
    let message = Bytes::from(vec![7; 200_000]);
    for _ in 0..10 {
        ana.connection.send(message.clone()).unwrap();
        assert!(ben.message().await == message);
        ben.connection.send(Bytes::from_static(b"taken")).unwrap();
        assert_eq!(ana.message().await, "taken");
    }
    // Left to the crate's own timers, each way takes 200 ms for each packet.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}
