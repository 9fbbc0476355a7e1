//! Over which way, and how much goes over it.

use signaling_server::config::{AccessMode, Secret};
use support::coturn::{Coturn, SECRET};

use peer_sdk::StartError;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_server_that_cannot_be_used_is_named() {
    let server = Relay::start().await;
    let url = "turn:turn.example:443?transport=tcp";
    let ways = || rtc(&[&server.url()]).ice_servers([IceServer::turn(url, "u", "c")]);
    let ana = named("ana").webrtc(ways()).start().await.unwrap();
    let ben = named("ben").webrtc(ways()).start().await.unwrap();
    within("the status", ana.wait_until(|status| status.unsupported == [url])).await;
    until_online(&ben, 1).await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn through_a_relay_the_path_is_shown_as_one() {
    let coturn = Coturn::start();
    let server = TestServer::with(|config| {
        config.ice.turn = vec![coturn.url()];
        config.ice.secrets = vec![Secret::new(SECRET)];
    })
    .await;
    let source = format!("http://{}/ice", server.address);
    let ways = || rtc(&[&server.url()]).ice_from(&source).relay_only();
    let ana = named("ana").webrtc(ways()).start().await.unwrap();
    let ben = named("ben").webrtc(ways()).start().await.unwrap();
    annotate(ana.document(), "the long way");
    until_noted(ben.document(), "the long way").await;
    until_online(&ben, 1).await;
    let relayed = ben.wait_until(|status| status.links.iter().any(|link| link.path == Some(Path::Turn)));
    assert!(within("the path", relayed).await);
    assert_eq!(ben.presence().online()[0].sessions[0].path, Path::Turn);
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_of_ice_servers_that_is_dead_keeps_nobody_apart() {
    let server = Relay::start().await;
    let ways = || rtc(&[&server.url()]).ice_from("http://127.0.0.1:9/ice");
    let ana = named("ana").webrtc(ways()).start().await.unwrap();
    let ben = named("ben").webrtc(ways()).start().await.unwrap();
    annotate(ana.document(), "hello");
    until_noted(ben.document(), "hello").await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_document_goes_over_at_the_pace_of_the_other_end() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    // Random, so that it cannot be made smaller on the way.
    for _ in 0..32 {
        let words: Vec<String> = (0..16_384).map(|_| format!("{:016x}", rand::random::<u64>())).collect();
        ana_doc.get_list("words").push(words.concat()).unwrap();
        ana_doc.commit();
    }
    annotate(&ana_doc, "that was all");
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_noted(&ben_doc, "that was all").await;
    assert_eq!(ben_doc.get_deep_value(), ana_doc.get_deep_value());
    within("quiet", ana.wait_until(|status| status.links.iter().all(|link| link.unacknowledged == 0))).await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signaling_server_that_refuses_us_is_named_with_the_status() {
    let closed = TestServer::with(|config| {
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("token")];
    })
    .await;
    let with = |query: &str| rtc(&[&format!("{}/{query}", closed.url())]);
    let eve = named("eve").webrtc(with("?token=guessed")).start().await.unwrap();
    let refused = eve.wait_until(|status| {
        status.signaling.iter().any(|server| matches!(server.refused, Some(401 | 403)) && !server.up)
    });
    assert!(within("the refusal", refused).await);
    let shown = format!("{:?}", eve.status().signaling);
    assert!(!shown.contains("guessed"), "{shown}");
    let ana = named("ana").webrtc(with("?token=token")).start().await.unwrap();
    let up = ana.wait_until(|status| status.signaling.iter().any(|server| server.up));
    assert!(within("the server", up).await);
    ana.close().await;
    eve.close().await;
}

#[tokio::test]
async fn an_address_that_cannot_be_used_is_refused_at_the_start() {
    let started = named("ana").webrtc(rtc(&["http://here"])).start().await;
    assert!(matches!(started.unwrap_err(), StartError::BadSignaling(_)));
}
