//! `probe` says step by step what works, of any y-webrtc server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/command.rs"]
mod command;

use certificates::Authority;
use command::{Files, Said, run};
use signaling_server::config::{AccessMode, Secret};
use support::TestServer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

async fn probe(arguments: &[&str]) -> Said {
    let arguments: Vec<String> =
        ["probe"].iter().chain(arguments).map(|&argument| argument.to_owned()).collect();
    let run = move || run(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Step and verdict of each line.
fn verdicts(said: &Said) -> Vec<(String, String)> {
    let lines = said.out.lines().map(|line| {
        let mut words = line.split_whitespace().map(str::to_owned);
        (words.next().unwrap(), words.next().unwrap())
    });
    lines.collect()
}

fn steps(
    tcp: &str,
    tls: &str,
    upgrade: &str,
    subscribe: &str,
    echo: &str,
    ping: &str,
) -> Vec<(String, String)> {
    let verdicts = [tcp, tls, upgrade, subscribe, echo, ping];
    let names = ["tcp", "tls", "upgrade", "subscribe", "echo", "ping"];
    names.iter().zip(verdicts).map(|(name, verdict)| ((*name).to_owned(), verdict.to_owned())).collect()
}

/// A server that answers every request with `answer` and nothing else.
async fn answers(answer: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

#[tokio::test]
async fn everything_works_on_a_sound_server() {
    let server = TestServer::start().await;
    let said = probe(&[&server.url()]).await;
    assert_eq!(verdicts(&said), steps("ok", "-", "ok", "ok", "ok", "ok"), "{}", said.out);
    assert_eq!(said.code, 0);
    assert!(said.out.contains(" ms"), "{}", said.out);
}

#[tokio::test]
async fn a_server_without_echo_is_sound() {
    let server = TestServer::with(|config| config.signaling.echo = false).await;
    let said = probe(&[&server.url(), "--timeout", "500ms"]).await;
    assert_eq!(verdicts(&said), steps("ok", "-", "ok", "ok", "-", "ok"), "{}", said.out);
    assert_eq!(said.code, 0);
}

#[tokio::test]
async fn a_missing_token_fails_the_upgrade_and_the_right_one_does_not() {
    let server = TestServer::with(|config| {
        config.access.mode = AccessMode::Tokens;
        config.access.tokens = vec![Secret::new("a+b/c")];
    })
    .await;
    let said = probe(&[&server.url()]).await;
    assert_eq!(verdicts(&said), steps("ok", "-", "FAILED", "-", "-", "-"), "{}", said.out);
    assert!(said.out.contains("HTTP 401") && said.out.contains("--token"), "{}", said.out);
    assert_eq!(said.code, 1);
    let said = probe(&[&server.url(), "--token", "a+b/c"]).await;
    assert_eq!((said.code, verdicts(&said)), (0, steps("ok", "-", "ok", "ok", "ok", "ok")), "{}", said.out);
}

#[tokio::test]
async fn certificates_are_checked_as_a_browser_checks_them() {
    let (authority, files) = (Authority::new(), Files::new());
    let (cert, key) = authority.issue("localhost");
    let server = TestServer::with(|config| {
        config.tls.cert = Some(files.write("cert.pem", cert));
        config.tls.key = Some(files.write("key.pem", key));
    })
    .await;
    let ca = files.write_text("ca.pem", authority.pem());
    let url = format!("wss://localhost:{}", server.address.port());
    let said = probe(&[&url, "--ca", &ca]).await;
    assert_eq!((said.code, verdicts(&said)), (0, steps("ok", "ok", "ok", "ok", "ok", "ok")), "{}", said.out);
    let said = probe(&[&url]).await;
    assert_eq!((said.code, verdicts(&said)), (1, steps("ok", "FAILED", "-", "-", "-", "-")), "{}", said.out);
    assert!(said.out.contains("not trusted") && said.out.contains("--ca"), "{}", said.out);
    let said = probe(&[&format!("wss://{}", server.address), "--ca", &ca]).await;
    assert!(said.out.contains("for another host name"), "{}", said.out);
}

#[tokio::test]
async fn a_port_nobody_listens_on_fails_the_first_step() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let said = probe(&[&format!("ws://{closed}")]).await;
    assert_eq!((said.code, verdicts(&said)), (1, steps("FAILED", "-", "-", "-", "-", "-")), "{}", said.out);
}

#[tokio::test]
async fn something_else_than_a_websocket_server_is_told_apart() {
    let web = answers("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nokay").await;
    let said = probe(&[&web]).await;
    assert_eq!((said.code, verdicts(&said)), (1, steps("ok", "-", "FAILED", "-", "-", "-")), "{}", said.out);
    assert!(said.out.contains("does not pass on the Upgrade header"), "{}", said.out);
    let proxy = answers("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").await;
    assert!(probe(&[&proxy]).await.out.contains("a proxy can not reach the server"));
    let said = probe(&[&web.replace("ws://", "wss://")]).await;
    assert_eq!(verdicts(&said), steps("ok", "FAILED", "-", "-", "-", "-"), "{}", said.out);
    assert!(said.out.contains("try ws://"), "{}", said.out);
}

#[tokio::test]
async fn a_server_that_says_nothing_fails_within_the_time_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let said = probe(&[&format!("ws://{}", listener.local_addr().unwrap()), "--timeout", "200ms"]).await;
    assert_eq!((said.code, verdicts(&said)), (1, steps("ok", "-", "FAILED", "-", "-", "-")), "{}", said.out);
    assert!(said.out.contains("no answer in 0.2 s"), "{}", said.out);
}

/// A WebSocket server that accepts and then says nothing of its own.
async fn mute_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            open.push(tokio_tungstenite::accept_async(stream).await);
        }
    });
    url
}

#[tokio::test]
async fn a_websocket_server_that_is_no_signaling_server_is_told_apart() {
    let url = mute_server().await;
    let said = probe(&[&url, "--timeout", "200ms"]).await;
    assert_eq!(
        (said.code, verdicts(&said)),
        (1, steps("ok", "-", "ok", "FAILED", "-", "FAILED")),
        "{}",
        said.out
    );
}

#[tokio::test]
async fn arguments_that_are_none_are_one_line() {
    let said = probe(&["localhost:4444"]).await;
    assert_eq!(
        said.refusal(),
        "argument URL: expected ws://HOST[:PORT][/PATH] or wss://HOST[:PORT][/PATH], found \"localhost:4444\""
    );
    let said = probe(&["ws://localhost", "--timeout", "soon"]).await;
    assert_eq!(said.refusal(), "flag --timeout: expected a duration such as \"30s\", found \"soon\"");
    let said = probe(&["wss://localhost", "--ca", "/nowhere/ca.pem"]).await;
    assert_eq!(said.refusal(), "flag --ca: /nowhere/ca.pem: no such file");
}
