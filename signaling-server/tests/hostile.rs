//! Whatever a stranger sends, the process lives and the others never notice.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::net::Shutdown;
use std::time::Duration;

use serde_json::json;
use signaling_server::config::{Period, Size};
use support::{TestServer, frame, read_to_end};
use tokio::io::AsyncWriteExt;

const TEXT: u8 = 1;
const CONTINUATION: u8 = 0;
const PING: u8 = 9;

/// The status code of the close frame that these bytes end with.
fn close_code(bytes: &[u8]) -> Option<u16> {
    let at = bytes.iter().position(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

/// Sends raw bytes behind a finished handshake and says with which status the server closes.
async fn closed_with(server: &TestServer, bytes: &[u8]) -> Option<u16> {
    let mut stream = server.raw_websocket().await;
    stream.write_all(bytes).await.unwrap();
    let code = close_code(&read_to_end(&mut stream).await);
    server.assert_serves_others().await;
    code
}

/// Sends a text message that is to be ignored: the connection goes on.
async fn ignored(server: &TestServer, text: &str) {
    let mut client = server.subscriber("t").await;
    client.send_text(text).await;
    assert!(client.settle().await.is_empty());
    server.assert_serves_others().await;
}

#[tokio::test]
async fn killer_1_bad_json() {
    ignored(&TestServer::start().await, "{nonsense").await;
}

#[tokio::test]
async fn killer_2_an_empty_frame() {
    ignored(&TestServer::start().await, "").await;
}

#[tokio::test]
async fn killer_3_topics_a_string() {
    ignored(&TestServer::start().await, r#"{"type":"subscribe","topics":"abc"}"#).await;
}

#[tokio::test]
async fn killer_4_topics_an_object() {
    ignored(&TestServer::start().await, r#"{"type":"unsubscribe","topics":{"a":1}}"#).await;
}

#[tokio::test]
async fn killer_5_an_unmasked_frame() {
    let server = TestServer::start().await;
    assert_eq!(closed_with(&server, b"\x81\x02{}").await, Some(1002));
}

#[tokio::test]
async fn killer_6_invalid_utf8_in_a_text_frame() {
    let server = TestServer::start().await;
    assert_eq!(closed_with(&server, &frame(TEXT, b"\"\xff\xfe\"")).await, Some(1007));
}

#[tokio::test]
async fn killer_7_a_header_declaring_over_100_mib() {
    let server = TestServer::start().await;
    let mut huge = vec![0x81, 0x80 | 127];
    huge.extend((101_u64 << 20).to_be_bytes());
    huge.extend([0; 4]);
    assert_eq!(closed_with(&server, &huge).await, Some(1009));
}

#[tokio::test]
async fn ten_megabytes_of_brackets_are_refused() {
    let server = TestServer::start().await;
    assert_eq!(closed_with(&server, &frame(TEXT, &vec![b'['; 10 << 20])[..1 << 20]).await, Some(1009));
    ignored(&server, &"[".repeat(200 << 10)).await;
    ignored(&server, &format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(65), "]".repeat(65))).await;
    assert_eq!(server.metric(r#"signaling_messages_received_total{kind="too_deep"}"#).await, 2.0);
}

#[tokio::test]
async fn fragments_that_never_become_a_message_are_charged_too() {
    let server = TestServer::with(|config| {
        (config.limits.bytes_per_second, config.limits.bytes_burst) = (Size::kib(1), Size::kib(1));
        config.limits.max_message = Size::kib(1);
    })
    .await;
    let mut stream = server.raw_websocket().await;
    let mut empty = frame(CONTINUATION, b"");
    empty[0] = CONTINUATION;
    let mut fragments = vec![0x01, 0x80, 0, 0, 0, 0];
    (0..1000).for_each(|_| fragments.extend(&empty));
    stream.write_all(&fragments).await.unwrap();
    server.until_metric("signaling_throttled_total", |count| count >= 1.0).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_million_topics_cost_no_more_than_the_limit() {
    let server = TestServer::with(|config| config.limits.enabled = false).await;
    let mut client = server.client().await;
    let mut sent = 0;
    while sent < 1_000_000 {
        let topics: Vec<String> = (sent..sent + 20_000).map(|n| n.to_string()).collect();
        client.send(&json!({"type": "subscribe", "topics": topics})).await;
        sent += 20_000;
    }
    server.until_metric("signaling_rooms", |rooms| rooms == 128.0).await;
    let refused = r#"signaling_messages_refused_total{reason="too_many_topics"}"#;
    server.until_metric(refused, |refused| refused == 1_000_000.0 - 128.0).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn fragments_without_end_are_bounded() {
    let server = TestServer::start().await;
    let mut endless = vec![0x01, 0x80, 0, 0, 0, 0];
    for _ in 0..6 {
        let mut fragment = frame(CONTINUATION, &[b' '; 50_000]);
        fragment[0] = CONTINUATION;
        endless.extend(fragment);
    }
    assert_eq!(closed_with(&server, &endless).await, Some(1009));
}

#[tokio::test]
async fn broken_framing_is_a_protocol_error() {
    let server = TestServer::start().await;
    let reserved_bit = [&[0xc1_u8, 0x80][..], &[0; 4]].concat();
    let reserved_opcode = [&[0x83_u8, 0x80][..], &[0; 4]].concat();
    let orphan = frame(CONTINUATION, b"x");
    let long_ping = frame(PING, &[0; 126]);
    for bytes in [reserved_bit, reserved_opcode, orphan, long_ping] {
        assert_eq!(closed_with(&server, &bytes).await, Some(1002), "{:x?}", &bytes[..2]);
    }
}

#[tokio::test]
async fn truncated_frames_and_half_closed_sockets_leave_nothing_behind() {
    let server = TestServer::start().await;
    let whole = frame(TEXT, &[b' '; 300]);
    for cut in [1, 2, 3, 5, 7, 8, 200] {
        let mut stream = server.raw_websocket().await;
        stream.write_all(&whole[..cut]).await.unwrap();
        stream.shutdown().await.unwrap();
        read_to_end(&mut stream).await;
    }
    server.until_metric("signaling_connections", |open| open == 0.0).await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_frame_ends_that_connection_alone() {
    let server = TestServer::start().await;
    let mut stream = server.raw_websocket().await;
    stream.write_all(&frame(TEXT, br#"{"type":"subscribe","topics":["others"]}"#)).await.unwrap();
    stream.write_all(&frame(TEXT, &[b' '; 300])[..100]).await.unwrap();
    server.until_metric("signaling_rooms", |rooms| rooms == 1.0).await;
    let stream = stream.into_std().unwrap();
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    drop(stream);
    server.until_metric("signaling_connections", |open| open == 0.0).await;
    assert_eq!(server.metric(r#"signaling_connections_closed_total{reason="network"}"#).await, 1.0);
    server.assert_serves_others().await;
}

#[tokio::test]
async fn what_is_not_http_is_turned_away() {
    let server = TestServer::start().await;
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01\x00\x01"[..], b"\0\0\0\0\r\n\r\n", b"GET / HTTP/1.1\r\n\0\r\n\r\n"]
    {
        let mut stream = server.raw().await;
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = read_to_end(&mut stream).await;
        assert!(!answer.starts_with(b"HTTP/1.1 200"), "{bytes:?}");
    }
    let mut endless = server.raw().await;
    let mut head = b"GET / HTTP/1.1\r\n".to_vec();
    head.extend((0..4000).flat_map(|n| format!("x-{n}: y\r\n").into_bytes()));
    // The server may have answered and closed before it has read all of that.
    let _ = endless.write_all(&head).await;
    assert!(!read_to_end(&mut endless).await.starts_with(b"HTTP/1.1 200"));
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_client_that_says_its_request_too_slowly_is_dropped() {
    let server = TestServer::with(|config| {
        config.limits.handshake_deadline = Period::millis(200);
    })
    .await;
    let mut silent = server.raw().await;
    let mut slow = server.raw().await;
    slow.write_all(b"GET / HT").await.unwrap();
    read_to_end(&mut silent).await;
    read_to_end(&mut slow).await;
    server
        .until_metric(r#"signaling_sockets_refused_total{reason="handshake_deadline"}"#, |count| count >= 1.0)
        .await;
    server.assert_serves_others().await;
}

#[tokio::test]
async fn a_half_open_socket_is_found_out() {
    let server = TestServer::with(|config| {
        config.signaling.ping_interval = Period::millis(50);
        config.signaling.dead_after = Period::millis(300);
    })
    .await;
    // It reads nothing and so answers no ping, as a client whose network is gone.
    let _half_open = server.raw_websocket().await;
    server
        .until_metric(r#"signaling_connections_closed_total{reason="timeout"}"#, |count| count == 1.0)
        .await;
}

#[tokio::test]
async fn one_flipped_byte_anywhere_in_a_session_harms_nobody_else() {
    let server = TestServer::start().await;
    let mut witness = server.subscriber("witness").await;
    let session: Vec<u8> = [
        frame(TEXT, br#"{"type":"subscribe","topics":["t"]}"#),
        frame(TEXT, br#"{"type":"publish","topic":"t","data":{"from":"a","to":"b"}}"#),
        frame(PING, b"x"),
    ]
    .concat();
    for at in 0..session.len() {
        let mut damaged = session.clone();
        damaged[at] ^= 0xff;
        let stream = server.raw_websocket().await;
        let mut stream = stream.into_std().unwrap();
        std::io::Write::write_all(&mut stream, &damaged).unwrap();
        stream.shutdown(Shutdown::Both).unwrap();
    }
    server.until_metric("signaling_connections", |open| open == 1.0).await;
    assert!(witness.settle().await.is_empty());
    server.assert_serves_others().await;
}
