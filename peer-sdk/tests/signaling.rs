//! The signaling client against the real server, against servers that misbehave, and against the published y-webrtc.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(feature = "webrtc")]

mod support;

use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use peer_sdk::adapter::signaling::{
    Envelope, Event, Events, Key, MAX_TOPIC, MAX_TOPICS, PasswordProblem, ServerId, Settings, Signaling,
    State, TopicError, UrlError, Via,
};
use serde_json::json;
use signaling_server::config::{AccessMode, Secret};
use support::PATIENCE;
use support::node::Node;
use support::server::TestServer;
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

struct Client {
    signaling: Signaling,
    events: Events,
}

impl Client {
    fn start<S: Into<String>>(servers: impl IntoIterator<Item = S>) -> Self {
        let servers = servers.into_iter().map(Into::into).collect();
        Self::with(Settings { servers, ..Settings::default() })
    }

    fn with(settings: Settings) -> Self {
        let (signaling, events) = Signaling::start(settings).unwrap();
        Self { signaling, events }
    }

    /// A client that is connected, and subscribed to `topic` for certain.
    async fn on(server: &TestServer, topic: &str, key: Option<Key>) -> Self {
        let mut client = Self::start([server.url()]);
        client.signaling.subscribe(topic, key).unwrap();
        client.connected().await;
        // Our own message comes back behind the subscription.
        let probe = Envelope::Announce { from: "probe".to_owned() };
        assert_eq!(client.signaling.publish(topic, &probe, Via::All), 1);
        assert_eq!(client.message().await, probe);
        client
    }

    async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(PATIENCE, self.events.next()).await.expect("an event in time");
        next.expect("an event before the end")
    }

    async fn connected(&mut self) -> ServerId {
        loop {
            if let Event::Connected { server } = self.next().await {
                return server;
            }
        }
    }

    async fn disconnected(&mut self) -> (State, String) {
        loop {
            if let Event::Disconnected { state, reason, .. } = self.next().await {
                return (state, reason);
            }
        }
    }

    async fn message(&mut self) -> Envelope {
        loop {
            if let Event::Received { message, .. } = self.next().await {
                return message;
            }
        }
    }

    /// The first message that is not a probe.
    async fn word(&mut self) -> Envelope {
        loop {
            match self.message().await {
                Envelope::Announce { from } if from == "probe" => {}
                message => return message,
            }
        }
    }

    async fn problem(&mut self) -> PasswordProblem {
        loop {
            if let Event::Password { problem, .. } = self.next().await {
                return problem;
            }
        }
    }
}

fn announce(from: &str) -> Envelope {
    Envelope::Announce { from: from.to_owned() }
}

fn signal(from: &str, to: &str) -> Envelope {
    let signal = json!({"type": "offer", "sdp": "v=0\r\n\u{e4}\u{1f600}"});
    Envelope::Signal {
        from: from.to_owned(),
        to: to.to_owned(),
        token: Some(1_763_888_400_123.456_8),
        signal,
    }
}

#[tokio::test]
async fn what_one_publishes_the_others_on_the_topic_receive() {
    let server = TestServer::start().await;
    let ana = Client::on(&server, "room", None).await;
    let mut ben = Client::on(&server, "room", None).await;
    let mut eve = Client::on(&server, "another room", None).await;
    for message in [announce("ana"), signal("ana", "ben")] {
        ana.signaling.publish("room", &message, Via::All);
        assert_eq!(ben.word().await, message);
    }
    eve.signaling.publish("another room", &announce("eve"), Via::All);
    assert_eq!(eve.word().await, announce("eve"), "the first thing that it hears");
    assert_eq!(ana.signaling.publish("a third room", &announce("ana"), Via::All), 0);
}

#[tokio::test]
async fn a_topic_that_is_no_longer_subscribed_is_silent() {
    let server = TestServer::start().await;
    let ana = Client::on(&server, "room", None).await;
    let mut ben = Client::on(&server, "room", None).await;
    ben.signaling.unsubscribe("room");
    ben.signaling.subscribe("next", None).unwrap();
    ben.signaling.publish("next", &announce("fence"), Via::All);
    assert_eq!(ben.word().await, announce("fence"));
    ana.signaling.publish("room", &announce("ana"), Via::All);
    ana.signaling.subscribe("next", None).unwrap();
    ana.signaling.publish("next", &announce("ana again"), Via::All);
    assert_eq!(ben.word().await, announce("ana again"));
}

#[tokio::test]
async fn of_several_servers_one_that_is_down_does_no_harm() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let gone = TestServer::start().await;
    let urls = [one.url(), gone.url(), two.url()];
    gone.stop().await;
    let mut ana = Client::start(urls.clone());
    ana.signaling.subscribe("room", None).unwrap();
    let (mut connected, mut disconnected) = (Vec::new(), 0);
    while connected.len() < 2 || disconnected < 1 {
        match ana.next().await {
            Event::Connected { server } => connected.push(server),
            Event::Disconnected { state, .. } => {
                assert_eq!(state, State::Waiting);
                disconnected += 1;
            }
            _ => {}
        }
    }
    let states: Vec<_> =
        ana.signaling.servers().into_iter().map(|server| (server.name, server.state)).collect();
    let expected = [State::Connected, State::Waiting, State::Connected];
    assert_eq!(states, urls.into_iter().zip(expected).collect::<Vec<_>>());
    // Through either of the two, and through one alone if asked.
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::All), 2);
    let mut heard = Vec::new();
    while heard.len() < 2 {
        if let Event::Received { server, message, .. } = ana.next().await {
            assert_eq!(message, announce("ana"));
            heard.push(server);
        }
    }
    heard.sort_unstable();
    connected.sort_unstable();
    assert_eq!(heard, connected);
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::One(connected[1])), 1);
    let Event::Received { server, .. } = ana.next().await else { panic!("what was published") };
    assert_eq!(server, connected[1]);
}

#[tokio::test]
async fn servers_can_be_changed_at_any_time() {
    let (one, two) = (TestServer::start().await, TestServer::start().await);
    let mut ana = Client::start([one.url()]);
    ana.signaling.subscribe("room", None).unwrap();
    let first = ana.connected().await;
    ana.signaling.set_servers(&[one.url(), two.url(), two.url()]).unwrap();
    assert_ne!(ana.connected().await, first);
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::All), 2);
    ana.signaling.set_servers(&[two.url()]).unwrap();
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::All), 1);
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::One(first)), 0);
    // A list that is refused changes nothing.
    let refused = ana.signaling.set_servers(&["http://h".to_owned()]);
    assert_eq!(refused, Err(UrlError::Malformed { plain: "ws", secure: "wss" }));
    let many: Vec<_> = (0..17).map(|nth| format!("ws://127.0.0.1:{}", 1 + nth)).collect();
    assert_eq!(ana.signaling.set_servers(&many), Err(UrlError::TooMany { count: 17, limit: 16 }));
    assert_eq!(ana.signaling.servers().len(), 1);
}

#[tokio::test]
async fn after_a_restart_of_the_server_topics_are_subscribed_again() {
    let server = TestServer::start().await;
    let address = server.address;
    let mut ana = Client::on(&server, "room", None).await;
    server.stop().await;
    assert_eq!(ana.disconnected().await.0, State::Waiting);
    assert_eq!(ana.signaling.publish("room", &announce("ana"), Via::All), 0, "nothing is queued");
    let server = TestServer::with(|config| config.server.listen = address).await;
    // Not waiting for the delay.
    ana.signaling.wake();
    ana.connected().await;
    let ben = Client::on(&server, "room", None).await;
    ben.signaling.publish("room", &announce("ben"), Via::All);
    assert_eq!(ana.word().await, announce("ben"));
}

#[tokio::test]
async fn a_token_in_the_url_lets_in_and_a_wrong_one_is_not_tried_again() {
    let server = TestServer::with(|config| {
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("the right one")];
    })
    .await;
    let right = format!("{}/?token=the%20right%20one", server.url());
    let wrong = format!("{}/?token=another", server.url());
    let mut ana = Client::start([wrong]);
    let (state, reason) = ana.disconnected().await;
    assert!(matches!(state, State::Refused { status: 401 | 403 }), "{state:?}");
    assert!(!reason.contains("another") && !format!("{:?}", ana.signaling.servers()).contains("another"));
    ana.signaling.set_servers(&[right]).unwrap();
    ana.connected().await;
}

#[tokio::test]
async fn with_the_same_password_peers_understand_each_other_and_nobody_else_does() {
    let server = TestServer::start().await;
    let key = Key::derive("password", "room").await;
    let mut ana = Client::on(&server, "room", Some(key.clone())).await;
    let mut ben = Client::on(&server, "room", Some(key)).await;
    let mut wrong = Client::on(&server, "room", Some(Key::derive("passwort", "room").await)).await;
    ana.signaling.publish("room", &announce("ana"), Via::All);
    assert_eq!(ben.word().await, announce("ana"));
    assert_eq!(wrong.problem().await, PasswordProblem::Different);
    assert_eq!(ana.problem().await, PasswordProblem::Different);
    assert_eq!(ana.word().await, announce("ana"), "the echo");
    ben.signaling.publish("room", &signal("ben", "ana"), Via::All);
    assert_eq!(ana.word().await, signal("ben", "ana"));
}

#[tokio::test]
async fn that_only_one_side_has_a_password_is_told_to_both() {
    let server = TestServer::start().await;
    let mut ana = Client::on(&server, "room", Some(Key::derive("password", "room").await)).await;
    let mut none = Client::on(&server, "room", None).await;
    assert_eq!(ana.problem().await, PasswordProblem::Superfluous);
    ana.signaling.publish("room", &announce("ana"), Via::All);
    assert_eq!(none.problem().await, PasswordProblem::Missing);
    // Told once; what is understood goes on.
    ana.signaling.publish("room", &announce("ana"), Via::All);
    none.signaling.publish("room", &announce("none"), Via::All);
    assert_eq!(none.word().await, announce("none"));
}

#[tokio::test]
async fn limits_on_topics_are_told() {
    let client = Client::start(["ws://127.0.0.1:9"]);
    assert_eq!(client.signaling.subscribe("", None), Err(TopicError::Name { len: 0 }));
    let long = "x".repeat(MAX_TOPIC + 1);
    assert_eq!(client.signaling.subscribe(&long, None), Err(TopicError::Name { len: MAX_TOPIC + 1 }));
    for nth in 0..MAX_TOPICS {
        client.signaling.subscribe(&nth.to_string(), None).unwrap();
    }
    client.signaling.subscribe("0", None).unwrap();
    assert_eq!(client.signaling.subscribe("one more", None), Err(TopicError::TooMany));
}

/// A WebSocket server that says `lines` and then nothing, and where it is.
async fn odd_server(lines: Vec<Message>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let lines = lines.clone();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(stream).await.unwrap();
                for line in lines {
                    socket.send(line).await.unwrap();
                }
                while socket.next().await.is_some() {}
            });
        }
    });
    url
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left() {
    let url = odd_server(Vec::new()).await;
    let ping = Duration::from_millis(50);
    let mut ana = Client::with(Settings { servers: vec![url], ping, ..Settings::default() });
    ana.connected().await;
    let (state, reason) = ana.disconnected().await;
    assert_eq!((state, reason.as_str()), (State::Waiting, "nothing came for 100ms"));
    ana.connected().await;
}

#[tokio::test]
async fn a_server_that_answers_pings_is_kept() {
    let server = TestServer::start().await;
    let ping = Duration::from_millis(20);
    let mut ana = Client::with(Settings { servers: vec![server.url()], ping, ..Settings::default() });
    ana.connected().await;
    let kept = tokio::time::timeout(20 * ping, ana.events.next()).await;
    assert!(kept.is_err(), "{kept:?}");
}

#[tokio::test]
async fn after_a_wake_a_server_has_three_seconds_to_prove_that_it_is_there() {
    let mut ana = Client::start([odd_server(Vec::new()).await]);
    ana.connected().await;
    let begun = Instant::now();
    ana.signaling.wake();
    assert_eq!(ana.disconnected().await.1, "nothing came for 3s");
    assert!(begun.elapsed() < Duration::from_secs(8));
}

#[tokio::test]
async fn junk_from_a_server_is_passed_over() {
    let published =
        |data: &str| Message::text(format!(r#"{{"type":"publish","topic":"room","data":{data}}}"#));
    let lines = vec![
        Message::text("junk"),
        Message::text("[".repeat(200_000)),
        Message::binary(vec![0; 1000]),
        published("null"),
        published(r#"{"type":"announce","from":7}"#),
        published(r#"{"type":"signal","from":"a","to":"b","signal":[]}"#),
        Message::text(r#"{"type":"publish","topic":"not ours","data":{"type":"announce","from":"a"}}"#),
        published(r#"{"type":"announce","from":"a"}"#),
    ];
    let mut ana = Client::start([odd_server(lines).await]);
    ana.signaling.subscribe("room", None).unwrap();
    assert_eq!(ana.message().await, announce("a"));
}

#[tokio::test]
async fn a_message_beyond_the_limit_ends_the_connection_and_not_the_client() {
    let mut ana = Client::start([odd_server(vec![Message::text("x".repeat(300 * 1024))]).await]);
    ana.connected().await;
    assert_eq!(ana.disconnected().await.0, State::Waiting);
    ana.connected().await;
}

#[tokio::test]
async fn a_dropped_client_leaves_the_server() {
    let server = TestServer::start().await;
    let ana = Client::on(&server, "room", None).await;
    let mut ben = Client::on(&server, "room", None).await;
    drop(ana);
    let alone = async {
        while server.connections() > 1 {
            // A round trip, and another look.
            ben.signaling.publish("room", &announce("ben"), Via::All);
            ben.word().await;
        }
    };
    tokio::time::timeout(PATIENCE, alone).await.expect("it leaves in time");
}

#[tokio::test]
async fn an_unmodified_y_webrtc_is_understood_and_understands() {
    for password in [None, Some("a password")] {
        let server = TestServer::start().await;
        let key = password.map(|password| Key::derive_now(password, "a room"));
        let mut ana = Client::on(&server, "a room", key).await;
        let mut arguments = vec![server.url(), "a room".to_owned()];
        arguments.extend(password.map(str::to_owned));
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let mut node = Node::start("y_webrtc.mjs", &arguments).await;
        let started = tokio::time::timeout(PATIENCE, node.line()).await.expect("it starts in time");
        let id = started["id"].as_str().unwrap().to_owned();
        assert_eq!(ana.word().await, announce(&id));
        // It answers an announcement with an offer, which it does for those it understands.
        ana.signaling.publish("a room", &announce("ana"), Via::All);
        let offer = loop {
            match ana.word().await {
                Envelope::Signal { from, to, token, signal } if signal["type"] == "offer" => {
                    assert_eq!((from.as_str(), to.as_str()), (id.as_str(), "ana"));
                    assert!(token.is_some_and(|token| token > 1e12 && token.fract() != 0.0), "{token:?}");
                    break signal;
                }
                _ => {}
            }
        };
        assert!(offer["sdp"].as_str().unwrap().contains("m=application"));
    }
}
