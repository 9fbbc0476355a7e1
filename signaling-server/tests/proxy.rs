//! Behind a TCP proxy, each client counts as itself.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use signaling_server::config::{Config, ProxyProtocol};
use support::{HANDSHAKE, TestServer, read_head, read_to_end};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn behind_a_proxy(config: &mut Config) {
    config.proxy.trusted = vec!["127.0.0.1/32".parse().unwrap()];
    config.proxy.protocol = ProxyProtocol::V2;
    config.limits.connections_per_address = 1;
}

/// A PROXY protocol v2 header for a client at `address`.
fn proxy_header(address: [u8; 4]) -> Vec<u8> {
    let addresses = [address, [127, 0, 0, 1]].concat();
    [SIGNATURE, &[0x21, 0x11, 0, 12], &addresses, &[0xC0, 0, 0x11, 0x5C]].concat()
}

/// The head of the answer to an upgrade, and the socket, which stays open.
async fn upgrade(server: &TestServer, address: [u8; 4]) -> (String, TcpStream) {
    let mut stream = server.raw().await;
    stream.write_all(&[&proxy_header(address), HANDSHAKE.as_bytes()].concat()).await.unwrap();
    (read_head(&mut stream).await, stream)
}

#[tokio::test]
async fn the_proxys_header_says_who_a_connection_counts_for() {
    let server = TestServer::with(behind_a_proxy).await;
    let (first, _held) = upgrade(&server, [192, 0, 2, 1]).await;
    assert!(first.starts_with("HTTP/1.1 101 "), "{first}");
    let (second, _) = upgrade(&server, [192, 0, 2, 1]).await;
    assert!(second.starts_with("HTTP/1.1 429 "), "{second}");
    let (other, _) = upgrade(&server, [192, 0, 2, 2]).await;
    assert!(other.starts_with("HTTP/1.1 101 "), "{other}");
}

#[tokio::test]
async fn a_connection_without_the_header_is_closed_without_an_answer() {
    let server = TestServer::with(behind_a_proxy).await;
    let mut stream = server.raw().await;
    stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
    assert!(read_to_end(&mut stream).await.is_empty());
    let (sound, _) = upgrade(&server, [192, 0, 2, 1]).await;
    assert!(sound.starts_with("HTTP/1.1 101 "), "{sound}");
}

#[tokio::test]
async fn a_header_from_somebody_who_is_no_proxy_is_not_believed() {
    let server = TestServer::with(|config| {
        behind_a_proxy(config);
        config.proxy.trusted = vec!["192.0.2.0/24".parse().unwrap()];
    })
    .await;
    let mut stream = server.raw().await;
    stream.write_all(&[&proxy_header([192, 0, 2, 1]), HANDSHAKE.as_bytes()].concat()).await.unwrap();
    assert!(!String::from_utf8_lossy(&read_to_end(&mut stream).await).contains(" 101 "));
}
