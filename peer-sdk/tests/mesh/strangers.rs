//! Others in the room who are none of us.

use futures_util::{SinkExt, StreamExt};
use peer_sdk::adapter::webrtc::{self, Connection, Role};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn with_a_password_peers_find_each_other_and_a_wrong_one_is_told() {
    let server = Relay::start().await;
    let with = |name: &'static str, password: &'static str| {
        named(name).webrtc(rtc(&[&server.url()]).password(password)).start()
    };
    let ana = with("ana", "right").await.unwrap();
    let ben = with("ben", "right").await.unwrap();
    until_online(&ana, 1).await;
    let told = until(&ana, |event| (event == Event::WrongPassword).then_some(()));
    let eve = async {
        let eve = with("eve", "wrong").await.unwrap();
        until(&eve, |event| (event == Event::WrongPassword).then_some(())).await;
        eve
    };
    let ((), eve) = tokio::join!(told, eve);
    assert!(eve.presence().online().is_empty());
    assert_eq!(ana.presence().online().len(), 1);
    for peer in [ana, ben, eve] {
        peer.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_application_in_the_room_is_let_go_and_left_alone() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    let mut events = ana.events();
    let mut yjs = Node::start("y_webrtc.mjs", &[&server.url(), "plan"]).await;
    assert_eq!(yjs.line().await["event"], "started");
    let mut foreign = 0;
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    annotate(&ana_doc, "among ourselves");
    until_noted(&ben_doc, "among ourselves").await;
    // It announces itself whenever it has lost somebody, so it has had its chances by then.
    let over = tokio::time::Instant::now() + Duration::from_secs(10);
    while let Ok(event) = tokio::time::timeout_at(over, events.recv()).await {
        foreign += usize::from(matches!(event, Ok(Event::Ended(_, Reason::Foreign))));
    }
    assert_eq!(foreign, 1);
    until_online(&ana, 1).await;
    ana.close().await;
    ben.close().await;
}

/// Says all of it over signaling to `to`, under a name of its own for each thing.
async fn heckle(server: &str, to: &str) {
    let (mut socket, _) = tokio_tungstenite::connect_async(server).await.unwrap();
    for (number, signal) in support::junk().into_iter().enumerate() {
        let from = format!("stranger {}", number % 40);
        let data = json!({"type": "signal", "from": from, "to": to, "token": number, "signal": signal});
        let frame = json!({"type": "publish", "topic": "plan", "data": data});
        socket.send(Message::text(frame.to_string())).await.unwrap();
    }
    for data in [
        json!(null),
        json!("sealed?"),
        json!({"type": "announce", "from": ""}),
        json!({"type": 7, "from": []}),
    ] {
        let frame = json!({"type": "publish", "topic": "plan", "data": data});
        socket.send(Message::text(frame.to_string())).await.unwrap();
    }
    socket.close(None).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_over_signaling_keeps_nobody_apart() {
    let server = Relay::start().await;
    let (ana_doc, ana) = peer("ana", &server.url()).await;
    within("signaling", ana.wait_until(|status| status.signaling.iter().any(|server| server.up))).await;
    heckle(&server.url(), ana.session()).await;
    let (ben_doc, ben) = peer("ben", &server.url()).await;
    annotate(&ana_doc, "hello");
    until_noted(&ben_doc, "hello").await;
    heckle(&server.url(), ana.session()).await;
    annotate(&ben_doc, "and hello");
    until_noted(&ana_doc, "and hello").await;
    until_online(&ana, 1).await;
    ana.close().await;
    ben.close().await;
}

/// Every signal for `me` that one server brings, until it brings no more for a second.
async fn signals_for(
    me: &str,
    socket: &mut (impl StreamExt<Item = Result<Message, Error>> + Unpin),
) -> Vec<Value> {
    let mut signals = Vec::new();
    while let Ok(Some(Ok(message))) = tokio::time::timeout(Duration::from_secs(1), socket.next()).await {
        let said: Value = serde_json::from_slice(&message.into_data()).unwrap();
        if said["data"]["to"] == me {
            signals.push(said["data"]["signal"].clone());
        }
    }
    signals
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_comes_through_two_servers_is_answered_once() {
    let (one, two) = (Relay::start().await, Relay::start().await);
    let ana = named("ana").webrtc(rtc(&[&one.url(), &two.url()])).start().await.unwrap();
    let both = ana.wait_until(|status| status.signaling.iter().filter(|server| server.up).count() == 2);
    assert!(within("both servers", both).await);
    let (_connection, mut events) = Connection::start(Role::Initiator, support::local());
    let webrtc::Event::Signal(offer) = events.next().await.unwrap() else { panic!("an offer comes first") };
    let data = json!({"type": "signal", "from": "ben", "to": ana.session(), "token": 9e15, "signal": offer});
    let mut sockets = Vec::new();
    for server in [&one, &two] {
        let (mut socket, _) = tokio_tungstenite::connect_async(server.url()).await.unwrap();
        let frame = json!({"type": "subscribe", "topics": ["plan"]});
        socket.send(Message::text(frame.to_string())).await.unwrap();
        sockets.push(socket);
    }
    let frame = json!({"type": "publish", "topic": "plan", "data": data}).to_string();
    let mut answers = Vec::new();
    // The copy takes longer.
    for nth in [0, 1] {
        sockets[nth].send(Message::text(frame.clone())).await.unwrap();
        for socket in &mut sockets {
            let signals = signals_for("ben", socket).await;
            answers.extend(signals.into_iter().filter(|signal| signal["type"] == "answer"));
        }
        assert_eq!(answers.len(), 1);
    }
    ana.close().await;
}
