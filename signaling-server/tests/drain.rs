//! The staged way out: not ready, then no new sockets, then closes with 1012 spread over a window.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::time::{Duration, Instant};

use signaling_server::config::Period;
use support::{PATIENCE, TestServer, get, upgrade_status};
use tokio::net::TcpStream;

async fn draining(ready_wait: u64, window: u64) -> TestServer {
    TestServer::with(|config| {
        config.drain.ready_wait = Period::millis(ready_wait);
        config.drain.window = Period::millis(window);
    })
    .await
}

#[tokio::test]
async fn a_draining_server_is_not_ready_and_still_accepts() {
    let mut server = draining(60_000, 0).await;
    let _client = server.client().await;
    server.drain();
    server.until_metric("signaling_draining", |draining| draining == 1.0).await;
    assert_eq!(get(server.address, "/readyz").await.0, 503);
    assert_eq!(get(server.metrics, "/readyz").await.0, 503);
    assert_eq!(get(server.address, "/healthz").await.0, 200);
    assert_eq!(upgrade_status(&server.url(), &[]).await, 101);
}

#[tokio::test]
async fn connections_are_closed_with_1012_spread_over_the_window() {
    let mut server = draining(0, 900).await;
    let mut clients = Vec::new();
    for _ in 0..9 {
        clients.push(server.client().await);
    }
    let start = Instant::now();
    server.drain();
    let ends = clients.iter_mut().map(|client| async move {
        let close = client.closed().await.expect("a close frame");
        assert_eq!(u16::from(close.code), 1012);
        start.elapsed()
    });
    let ends = futures_util::future::join_all(ends).await;
    let (first, last) = (ends.iter().min().unwrap(), ends.iter().max().unwrap());
    assert!(*last - *first >= Duration::from_millis(500), "{ends:?}");
    tokio::time::timeout(PATIENCE, server.task).await.expect("ends in time").unwrap();
}

#[tokio::test]
async fn nobody_new_gets_in_while_connections_are_closed() {
    let mut server = draining(0, 60_000).await;
    let (mut one, mut other) = (server.client().await, server.client().await);
    server.drain();
    tokio::select! {
        close = one.closed() => assert_eq!(u16::from(close.unwrap().code), 1012),
        close = other.closed() => assert_eq!(u16::from(close.unwrap().code), 1012),
    }
    assert!(TcpStream::connect(server.address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let mut server = draining(60_000, 60_000).await;
    let _client = server.client().await;
    server.drain();
    server.until_metric("signaling_draining", |draining| draining == 1.0).await;
    server.abort();
    tokio::time::timeout(PATIENCE, server.task).await.expect("ends in time").unwrap();
}

#[tokio::test]
async fn without_connections_there_is_nothing_to_wait_for() {
    let mut server = draining(60_000, 60_000).await;
    server.drain();
    tokio::time::timeout(PATIENCE, server.task).await.expect("ends in time").unwrap();
}
