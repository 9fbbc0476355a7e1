//! Over which way, and how much goes over it.

use signaling_server::config::{AccessMode, Secret};
use support::coturn::{Coturn, SECRET};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;

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

/// Where to ask for ICE servers, and how often that was done. Its answers are not to be kept.
async fn counting_source() -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/ice", listener.local_addr().unwrap());
    let (asked, times) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 1024]).await;
            let body = r#"{"iceServers":[{"urls":"stun:127.0.0.1:9"}],"ttl":0}"#;
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
            asked.send_modify(|times| *times += 1);
        }
    });
    (url, times)
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_servers_are_asked_for_before_each_connection() {
    let server = Relay::start().await;
    let (url, asked) = counting_source().await;
    let ana = named("ana").webrtc(rtc(&[&server.url()]).ice_from(&url)).start().await.unwrap();
    let mut before = 0;
    let mut others = Vec::new();
    for name in ["ben", "cem"] {
        assert_eq!(*asked.borrow(), before, "nobody to connect to, nothing to ask for");
        others.push(peer(name, &server.url()).await.1);
        until_online(&ana, others.len()).await;
        let up =
            ana.wait_until(|status| status.links.iter().filter(|link| link.joined).count() == others.len());
        assert!(within("the channel", up).await);
        let times = *asked.borrow();
        assert!(times > before, "{name} was connected to with what was known before");
        before = times;
    }
    ana.close().await;
    for other in others {
        other.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_servers_are_asked_for_again_when_a_peer_goes_quiet() {
    let server = Relay::start().await;
    let (url, mut asked) = counting_source().await;
    let ana = named("ana").webrtc(rtc(&[&server.url()]).ice_from(&url)).start().await.unwrap();
    // Of this runtime nothing is left when it ends, not even a goodbye.
    let elsewhere = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let signal = server.url();
    let ben = elsewhere.spawn(async move { peer("ben", &signal).await.1 });
    let _ben = ben.await.unwrap();
    until_online(&ana, 1).await;
    let joined = ana.wait_until(|status| status.links.iter().any(|link| link.joined));
    assert!(within("the channel", joined).await);
    asked.mark_unchanged();
    let begun = Instant::now();
    elsewhere.shutdown_background();
    within("the question", asked.changed()).await.unwrap();
    // Sooner than the connection is given up, and so for the one that there is.
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    ana.close().await;
}
