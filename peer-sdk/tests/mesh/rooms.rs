//! Who finds whom, and what goes on when a server is gone.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn two_peers_find_each_other_and_edits_flow_both_ways() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    annotate(&ana_doc, "from before");
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_noted(&ben_doc, "from before").await;
    annotate(&ben_doc, "from ben");
    until_noted(&ana_doc, "from ben").await;
    until_online(&ana, 1).await;
    until_online(&ben, 1).await;
    let measured = ana.wait_until(|status| status.links.iter().any(|link| link.round_trip.is_some()));
    within("the round trip", measured).await;
    let session = &ana.presence().online()[0].sessions[0];
    assert_eq!(session.path, Path::Direct);
    assert!(session.round_trip.is_some_and(|time| time < Duration::from_secs(1)), "{session:?}");
    assert!(ana.status().signaling.first().is_some_and(|server| server.up));
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_is_gone_at_once() {
    let server = Relay::start().await;
    let (_, ana) = peer("ana", &server.url()).await;
    let (_, ben) = peer("ben", &server.url()).await;
    until_online(&ana, 1).await;
    until_online(&ben, 1).await;
    let begun = Instant::now();
    let seen = async {
        until_online(&ana, 0).await;
        begun.elapsed()
    };
    let (seen, ()) = tokio::join!(seen, ben.close());
    assert!(seen < Duration::from_secs(1), "{seen:?}");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    ana.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_peers_have_one_document_and_see_each_other() {
    let server = Relay::start().await;
    let mut room = Vec::new();
    for name in ["ana", "ben", "cem", "dana", "eve"] {
        room.push((name, peer(name, &server.url()).await));
    }
    for (name, (doc, _)) in &room {
        annotate(doc, name);
    }
    for (_, (doc, peer)) in &room {
        for (name, _) in &room {
            until_noted(doc, name).await;
        }
        until_online(peer, 4).await;
    }
    for (_, (_, peer)) in &room {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hub_that_is_killed_is_not_missed_and_catches_up_when_it_is_back() {
    let server = Relay::start().await;
    let agent_doc = LoroDoc::new();
    annotate(&agent_doc, "the plan");
    let hub = Hub::builder().token("t").bind("127.0.0.1:0").await.unwrap();
    let (address, url) = (hub.address().to_string(), hub.url());
    let agent = named("agent").document(&agent_doc).hub(&hub).start().await.unwrap();
    let ana = named("ana").websocket(&url).webrtc(rtc(&[&server.url()])).start().await.unwrap();
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_noted(&ben_doc, "the plan").await;
    until_online(&ben, 2).await;
    annotate(&agent_doc, "through ana");
    until_noted(&ben_doc, "through ana").await;

    hub.close().await;
    drop(agent);
    within("noticing", ana.wait_until(|status| !status.links[0].up)).await;
    until_online(&ben, 1).await;
    annotate(&ben_doc, "without the hub");
    until_noted(ana.document(), "without the hub").await;
    annotate(ana.document(), "an answer");
    until_noted(&ben_doc, "an answer").await;

    let hub = Hub::builder().token("t").bind(&address).await.unwrap();
    let again = LoroDoc::new();
    let agent = named("agent").document(&again).hub(&hub).start().await.unwrap();
    ana.wake().await;
    until_noted(&again, "an answer").await;
    assert_eq!(notes(&again), notes(&ben_doc));
    until_online(&ben, 2).await;
    for peer in [agent, ana, ben] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_signaling_server_edits_flow_and_with_it_again_others_join() {
    let server = TestServer::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    until_online(&ana, 1).await;
    let address = server.address;
    server.stop().await;
    within("noticing", ana.wait_until(|status| status.signaling.first().is_some_and(|server| !server.up)))
        .await;
    annotate(&ana_doc, "in the dark");
    until_noted(&ben_doc, "in the dark").await;
    let server = TestServer::with(|config| config.server.listen = address).await;
    let (cem_doc, cem) = peer("cem", &server.url()).await;
    ana.wake().await;
    until_noted(&cem_doc, "in the dark").await;
    annotate(&cem_doc, "from cem");
    until_noted(&ben_doc, "from cem").await;
    for peer in [ana, ben, cem] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_servers_one_that_is_dead_does_not_matter_and_the_list_changes_at_run_time() {
    let (server, dead) = (Relay::start().await, "ws://127.0.0.1:9/");
    let ways = rtc(&[dead]);
    let ana = named("ana").webrtc(ways.clone()).start().await.unwrap();
    let ben = named("ben").webrtc(rtc(&[dead, &server.url()])).start().await.unwrap();
    within("ben", ben.wait_until(|status| status.signaling.iter().any(|server| server.up))).await;
    assert!(ways.set_servers(["http://wrong"]).is_err());
    ways.set_servers([dead.to_owned(), server.url()]).unwrap();
    until_online(&ana, 1).await;
    within("both servers", ana.wait_until(|status| status.signaling.len() == 2)).await;
    ways.set_servers([dead]).unwrap();
    within("the change", ana.wait_until(|status| status.signaling.len() == 1)).await;
    annotate(ben.document(), "still here");
    until_noted(ana.document(), "still here").await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_that_call_each_other_at_the_same_moment_connect_all_the_same() {
    let server = Relay::start().await;
    for round in 0..10 {
        let room = format!("glare {round}");
        let start = |name: &'static str| {
            Peer::builder(&room).user(name).presence(IDLE).webrtc(rtc(&[&server.url()])).start()
        };
        let (ana, ben) = tokio::join!(start("ana"), start("ben"));
        let (ana, ben) = (ana.unwrap(), ben.unwrap());
        let begun = Instant::now();
        tokio::join!(until_online(&ana, 1), until_online(&ben, 1));
        assert!(begun.elapsed() < Duration::from_secs(4), "round {round}: {:?}", begun.elapsed());
        tokio::join!(ana.close(), ben.close());
    }
}
