//! Certificates are exchanged under open connections, and a client that stalls holds up nobody.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

#[path = "support/certificates.rs"]
mod certificates;
#[path = "support/command.rs"]
mod command;

use std::net::SocketAddr;

use certificates::Authority;
use command::Files;
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::ServerName;
use signaling_server::config::{Config, Period, TlsConfig};
use signaling_server::tls::Tls;
use support::{PATIENCE, TestServer};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

const NAME: &str = "signaling.example.com";

/// The files of a certificate that can be exchanged.
struct Certificate {
    authority: Authority,
    files: Files,
}

impl Certificate {
    fn new() -> Self {
        let certificate = Self { authority: Authority::new(), files: Files::new() };
        certificate.renew();
        certificate
    }

    fn renew(&self) {
        let (cert, key) = self.authority.issue(NAME);
        self.files.write("cert.pem", cert);
        self.files.write("key.pem", key);
    }

    fn config(&self) -> TlsConfig {
        TlsConfig {
            cert: Some(self.files.path("cert.pem")),
            key: Some(self.files.path("key.pem")),
            reload_interval: Period::millis(5),
        }
    }

    async fn server(&self) -> TestServer {
        TestServer::with(|config: &mut Config| config.tls = self.config()).await
    }

    async fn connect(&self, address: SocketAddr) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        tokio::time::timeout(PATIENCE, self.authority.connector().connect(name, stream))
            .await
            .unwrap()
            .unwrap()
    }

    async fn client(&self, address: SocketAddr) -> WebSocketStream<TlsStream<TcpStream>> {
        let stream = self.connect(address).await;
        client_async(format!("wss://{NAME}/"), stream).await.unwrap().0
    }

    /// The certificate that a new connection is shown.
    async fn shown(&self, address: SocketAddr) -> Vec<u8> {
        let stream = self.connect(address).await;
        stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
    }
}

async fn pong(client: &mut WebSocketStream<TlsStream<TcpStream>>) {
    client.send(Message::text("{\"type\":\"ping\"}")).await.unwrap();
    let answer = tokio::time::timeout(PATIENCE, client.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(answer.to_text().unwrap(), "{\"type\":\"pong\"}");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_new_connections_and_old_ones_stay() {
    let certificate = Certificate::new();
    let server = certificate.server().await;
    let mut before = certificate.client(server.address).await;
    let first = certificate.shown(server.address).await;
    certificate.renew();
    server.until_metric("signaling_reloads_total", |reloads| reloads >= 1.0).await;
    assert_ne!(certificate.shown(server.address).await, first);
    pong(&mut before).await;
}

#[tokio::test]
async fn a_bad_certificate_changes_nothing() {
    let certificate = Certificate::new();
    let server = certificate.server().await;
    let first = certificate.shown(server.address).await;
    certificate.files.write("key.pem", "nonsense");
    server.until_metric("signaling_reload_failures_total", |failures| failures >= 1.0).await;
    assert_eq!(certificate.shown(server.address).await, first);
    pong(&mut certificate.client(server.address).await).await;
}

#[tokio::test]
async fn stalled_handshakes_hold_up_nobody_and_end_at_their_deadline() {
    let certificate = Certificate::new();
    let server = TestServer::with(|config| {
        config.tls = certificate.config();
        config.limits.handshake_deadline = Period::millis(500);
    })
    .await;
    let mut stalled = Vec::new();
    for begun in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x02\x00\x01"].repeat(20) {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun).await.unwrap();
        stalled.push(stream);
    }
    pong(&mut certificate.client(server.address).await).await;
    for mut stream in stalled {
        support::read_to_end(&mut stream).await;
    }
}

#[tokio::test]
async fn plain_http_to_a_tls_port_ends_that_connection_alone() {
    let certificate = Certificate::new();
    let server = certificate.server().await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(!support::read_to_end(&mut plain).await.starts_with(b"HTTP"));
    pong(&mut certificate.client(server.address).await).await;
}

#[test]
fn a_certificate_that_can_not_be_used_is_one_line_with_the_key_and_the_file() {
    let certificate = Certificate::new();
    let (cert, key) = (certificate.files.path("cert.pem"), certificate.files.path("key.pem"));
    let read = |path| std::fs::read_to_string(path).unwrap();
    let (sound_cert, sound_key) = (read(&cert), read(&key));
    let other_key = certificate.authority.issue(NAME).1;
    let encrypted = sound_key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    for (cert_text, key_text, at_fault, problem) in [
        (
            &sound_cert,
            &other_key,
            "tls.key",
            format!("expected the key of the certificate in {}, found another", cert.display()),
        ),
        (
            &sound_cert,
            &encrypted,
            "tls.key",
            "expected an unencrypted private key, found an encrypted one".to_owned(),
        ),
        (&sound_cert, &sound_cert, "tls.key", "expected a PEM block \"PRIVATE KEY\", found none".to_owned()),
        (&sound_key, &sound_key, "tls.cert", "expected a PEM block \"CERTIFICATE\", found none".to_owned()),
        (
            &String::new(),
            &sound_key,
            "tls.cert",
            "expected a PEM block \"CERTIFICATE\", found none".to_owned(),
        ),
    ] {
        certificate.files.write("cert.pem", cert_text);
        certificate.files.write("key.pem", key_text);
        let error = Tls::from_config(&certificate.config()).unwrap_err().to_string();
        let path = if at_fault == "tls.key" { &key } else { &cert };
        assert_eq!(error, format!("{at_fault}: {}: {problem}", path.display()));
    }
    std::fs::remove_file(&key).unwrap();
    let error = Tls::from_config(&certificate.config()).unwrap_err().to_string();
    assert_eq!(error, format!("tls.key: {}: no such file", key.display()));
    assert!(Tls::from_config(&TlsConfig::default()).unwrap().is_none());
}

#[test]
fn damaged_pem_is_refused_without_a_panic() {
    let certificate = Certificate::new();
    let sound = std::fs::read_to_string(certificate.files.path("cert.pem")).unwrap();
    let body = sound.find('\n').unwrap() + 1;
    for damaged in [
        sound.replace("END", "ND"),
        sound.replacen("MI", "!!", 1),
        format!("{}AAAA{}", &sound[..body], &sound[body..]),
    ] {
        certificate.files.write("cert.pem", damaged);
        let error = Tls::from_config(&certificate.config()).unwrap_err().to_string();
        assert!(error.starts_with("tls.") && !error.contains('\n'), "{error}");
    }
}
