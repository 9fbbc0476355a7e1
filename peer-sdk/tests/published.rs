//! The published Loro client: it meets our hub, and shares encrypted documents with us through a relay.
#![cfg(feature = "websocket")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[allow(dead_code, unreachable_pub, reason = "other test files use it too")]
#[path = "support/node.rs"]
mod node;
mod peers;

use loro::LoroDoc;
use node::Node;
use peer_sdk::adapter::websocket::{Hub, Key};
use peer_sdk::{Event, Peer};
use peers::{Relay, annotate, notes, until_noted, until_online, within};
use serde_json::{Value, json};

const SECRET: [u8; 32] = [0x5a; 32];

fn hex(key: &[u8]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn client(arguments: &[&str]) -> Node {
    let mut node = Node::start("loro_client.mjs", arguments).await;
    until(&mut node, "joining", |line| line["joined"] == true).await;
    node
}

/// Waits until the client says something like this.
async fn until(node: &mut Node, what: &str, mut like_this: impl FnMut(&Value) -> bool) {
    let said = async { while !like_this(&node.line().await) {} };
    within(what, said).await;
}

async fn until_it_has(node: &mut Node, note: &str) {
    until(node, note, |line| line["notes"].as_array().is_some_and(|notes| notes.contains(&json!(note))))
        .await;
}

async fn note(node: &mut Node, note: &str) {
    node.tell(json!({"do": "note", "note": note})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_and_a_hub_have_the_same_document() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).start().await.unwrap();
    annotate(agent.document(), "the plan");
    let mut page = client(&[&hub.url(), "plan"]).await;
    until_it_has(&mut page, "the plan").await;
    note(&mut page, "from the page").await;
    until_noted(agent.document(), "from the page").await;
    annotate(agent.document(), "from the agent");
    until_it_has(&mut page, "from the agent").await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_brings_a_hub_large_updates_and_gets_them() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).start().await.unwrap();
    let mut page = client(&[&hub.url(), "plan"]).await;
    page.tell(json!({"do": "blob", "bytes": 900_000})).await;
    note(&mut page, "behind it").await;
    until_noted(agent.document(), "behind it").await;
    let blob = agent.document().get_map("files").get_deep_value();
    let len = blob.as_map().unwrap().get("blob").unwrap().as_binary().unwrap().len();
    assert_eq!(len, 900_000);
    let mut late = client(&[&hub.url(), "plan"]).await;
    until_it_has(&mut late, "behind it").await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_that_was_away_gets_what_it_missed_from_a_hub_and_brings_what_it_wrote() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).start().await.unwrap();
    let mut page = client(&[&hub.url(), "plan"]).await;
    page.tell(json!({"do": "leave"})).await;
    until(&mut page, "leaving", |line| line["left"] == true).await;
    annotate(agent.document(), "while it was away");
    note(&mut page, "written apart").await;
    page.tell(json!({"do": "return"})).await;
    until_it_has(&mut page, "while it was away").await;
    until_noted(agent.document(), "written apart").await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_client_and_a_hub_see_each_other() {
    let hub = Hub::bind("127.0.0.1:0").await.unwrap();
    let agent = Peer::builder("plan").hub(&hub).presence(json!({"name": "agent"})).start().await.unwrap();
    let mut page = client(&[&hub.url(), "plan"]).await;
    page.tell(json!({"do": "show", "key": "somebody", "value": {"user": "Ana", "state": {"name": "Ana"}}}))
        .await;
    until(&mut page, "the agent", |line| line["shown"] == 2).await;
    until_online(&agent, 1).await;
    assert_eq!(agent.presence().online()[0].name, "Ana");
    drop(page);
    until_online(&agent, 0).await;
    agent.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_published_adaptor_and_we_read_what_the_other_has_encrypted() {
    let relay = Relay::start().await;
    let key = Key::new("first", &SECRET).unwrap();
    let peer = async |room: &str| {
        let peer = Peer::builder(room).websocket_sealed(&relay.url(), &key).start().await.unwrap();
        within("joining", peer.wait_until(|status| status.links[0].joined)).await;
        peer
    };
    let ana = peer("sealed").await;
    let mut page = client(&[&relay.url(), "sealed", &hex(&SECRET)]).await;
    annotate(ana.document(), "from ana");
    until_it_has(&mut page, "from ana").await;
    page.tell(json!({"do": "blob", "bytes": 900_000})).await;
    note(&mut page, "from the page").await;
    until_noted(ana.document(), "from the page").await;
    // What several have written, for who comes late.
    let ben = peer("sealed").await;
    until_noted(ben.document(), "from the page").await;
    assert_eq!(notes(ben.document()), notes(ana.document()));
    annotate(ben.document(), "from ben");
    until_it_has(&mut page, "from ben").await;
    let mut late = client(&[&relay.url(), "sealed", &hex(&SECRET)]).await;
    until_it_has(&mut late, "from ben").await;
    within("the ack", ben.wait_until(peer_sdk::Status::acknowledged)).await;
    ana.close().await;
    ben.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_wrote_before_goes_to_a_sealed_room_one_author_at_a_time() {
    let relay = Relay::start().await;
    let key = Key::new("first", &SECRET).unwrap();
    let doc = LoroDoc::new();
    for author in 1..=70 {
        let other = LoroDoc::new();
        other.set_peer_id(author).unwrap();
        annotate(&other, &format!("from {author}"));
        doc.import(&other.export(loro::ExportMode::all_updates()).unwrap()).unwrap();
    }
    let ana =
        Peer::builder("sealed").document(&doc).websocket_sealed(&relay.url(), &key).start().await.unwrap();
    within("the acks", ana.wait_until(|status| status.acknowledged() && status.version.len() == 70)).await;
    let mut page = client(&[&relay.url(), "sealed", &hex(&SECRET)]).await;
    until(&mut page, "all of it", |line| line["notes"].as_array().is_some_and(|notes| notes.len() == 70))
        .await;
    ana.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_of_a_sealed_room_never_has_a_word_of_it_on_its_disk() {
    let dir = tempfile::tempdir().unwrap();
    let relay = Relay::on_disk(dir.path()).await;
    let key = Key::new("first", &SECRET).unwrap();
    let sealed = Peer::builder("sealed").websocket_sealed(&relay.url(), &key).start().await.unwrap();
    let open = Peer::builder("open").websocket(&relay.url()).start().await.unwrap();
    annotate(sealed.document(), "the merger is on friday");
    annotate(open.document(), "the canteen has soup");
    for peer in [&sealed, &open] {
        let kept = |status: &peer_sdk::Status| status.acknowledged() && !status.version.is_empty();
        within("the ack", peer.wait_until(kept)).await;
        peer.close().await;
    }
    relay.end().await;
    let files =
        std::fs::read_dir(dir.path()).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    let files: Vec<_> = files.collect();
    let found =
        |text: &[u8]| files.iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text));
    assert!(found(b"the canteen has soup"), "what is not encrypted would be found");
    assert!(!found(b"merger") && !found(&SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_another_key_is_told_and_reads_nothing() {
    let relay = Relay::start().await;
    let (right, wrong) = (Key::new("first", &SECRET).unwrap(), Key::new("first", &[1; 32]).unwrap());
    let ana = Peer::builder("sealed").websocket_sealed(&relay.url(), &right).start().await.unwrap();
    annotate(ana.document(), "for readers");
    within("the ack", ana.wait_until(|status| status.acknowledged() && !status.version.is_empty())).await;
    let eve = Peer::builder("sealed").websocket_sealed(&relay.url(), &wrong).start().await.unwrap();
    let told = eve.wait_until(|status| status.links[0].trouble.is_some());
    assert!(within("being told", told).await);
    let mut events = eve.events();
    annotate(ana.document(), "and more");
    let event = async { while !matches!(events.recv().await.unwrap(), Event::WrongKey(_)) {} };
    within("the event", event).await;
    assert!(notes(eve.document()).is_empty());
    ana.close().await;
    eve.close().await;
}
