//! A real server on a port of its own, and clients that speak to it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use signaling_server::config::{Config, Endpoint};
use signaling_server::server::Server;
use signaling_server::signaling::Signaling;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No wait in a test is longer: what takes as long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub struct TestServer {
    pub address: SocketAddr,
    pub metrics: SocketAddr,
    pub signaling: Arc<Signaling>,
    shutdown: Option<oneshot::Sender<()>>,
    abort: Option<oneshot::Sender<()>>,
    pub task: JoinHandle<()>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with what `configure` changes. Loopback is exempt from limits per address, as everywhere.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        config.server.listen = any;
        config.metrics.listen = Endpoint::At(any);
        configure(&mut config);
        let server = Server::bind(config).await.unwrap();
        let (shutdown, on_shutdown) = oneshot::channel::<()>();
        let (abort, on_abort) = oneshot::channel::<()>();
        Self {
            address: server.local_addr(),
            metrics: server.metrics_addr().unwrap(),
            signaling: Arc::clone(server.signaling()),
            shutdown: Some(shutdown),
            abort: Some(abort),
            task: tokio::spawn(server.run(asked(on_shutdown), asked(on_abort))),
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await
    }

    /// A client that is subscribed to `topic` for certain.
    pub async fn subscriber(&self, topic: &str) -> Client {
        let mut client = self.client().await;
        client.subscribe(topic).await;
        client.settle().await;
        client
    }

    pub async fn raw(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A socket behind a finished WebSocket handshake.
    pub async fn raw_websocket(&self) -> TcpStream {
        let mut stream = self.raw().await;
        stream.write_all(HANDSHAKE.as_bytes()).await.unwrap();
        assert!(read_head(&mut stream).await.starts_with("HTTP/1.1 101 "));
        stream
    }

    pub fn drain(&mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
    }

    pub fn abort(&mut self) {
        self.abort.take().unwrap().send(()).unwrap();
    }

    /// The value of one series as Prometheus would read it.
    pub async fn metric(&self, series: &str) -> f64 {
        let (status, text) = get(self.metrics, "/metrics").await;
        assert_eq!(status, 200);
        let line = text.lines().find(|line| line.rsplit_once(' ').is_some_and(|(name, _)| name == series));
        let line = line.unwrap_or_else(|| panic!("no series {series} in\n{text}"));
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }

    /// Waits until a series has reached a value.
    pub async fn until_metric(&self, series: &str, reached: impl Fn(f64) -> bool) {
        let wait = async {
            while !reached(self.metric(series).await) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{series} in time"));
    }

    /// Two strangers who know nothing of each other's troubles still reach each other.
    pub async fn assert_serves_others(&self) {
        let mut ana = self.subscriber("others").await;
        let mut ben = self.subscriber("others").await;
        ana.publish("others", json!("hello")).await;
        assert_eq!(ben.next().await["data"], "hello");
    }
}

/// Ready when asked; never when the asker is gone.
async fn asked(signal: oneshot::Receiver<()>) {
    if signal.await.is_err() {
        std::future::pending::<()>().await;
    }
}

pub const HANDSHAKE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An HTTP answer's head, byte by byte, so that nothing behind it is lost.
pub async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let read = async {
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("an answer in time");
    String::from_utf8(head).unwrap()
}

/// Everything until the end of the stream, which comes in time; a reset is an end too.
pub async fn read_to_end(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let read = async {
        let mut chunk = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            bytes.extend_from_slice(&chunk[..count]);
        }
    };
    tokio::time::timeout(PATIENCE, read).await.expect("the connection ends in time");
    bytes
}

pub async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    request(address, "GET", path, "").await
}

/// Status and body of an HTTP request; `headers` are whole lines.
pub async fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let answer = String::from_utf8(read_to_end(&mut stream).await).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The status with which an upgrade is refused, or 101.
pub async fn upgrade_status(url: &str, headers: &[(&'static str, &str)]) -> u16 {
    let mut request = url.into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match tokio_tungstenite::connect_async(request).await {
        Ok(_) => 101,
        Err(tungstenite::Error::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    }
}

/// A masked client frame, by the book.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | len as u8),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn connect(url: &str) -> Self {
        let connected = tokio::time::timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await;
        Self(connected.expect("a connection in time").unwrap().0)
    }

    pub async fn send(&mut self, message: &Value) {
        self.send_text(&message.to_string()).await;
    }

    pub async fn send_text(&mut self, text: &str) {
        self.0.send(Message::text(text)).await.unwrap();
    }

    pub async fn subscribe(&mut self, topic: &str) {
        self.send(&json!({"type": "subscribe", "topics": [topic]})).await;
    }

    pub async fn publish(&mut self, topic: &str, data: Value) {
        self.send(&json!({"type": "publish", "topic": topic, "data": data})).await;
    }

    /// The next text message, as it came.
    pub async fn next_text(&mut self) -> String {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message in time");
            match next.expect("an open connection").unwrap() {
                Message::Text(text) => return text.as_str().to_owned(),
                Message::Binary(frame) if frame.starts_with(b"%") => {}
                Message::Binary(_) => panic!("binary of no protocol"),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    pub async fn next(&mut self) -> Value {
        serde_json::from_str(&self.next_text().await).unwrap()
    }

    /// Everything that the server has for us until now. The ping's answer comes behind all that was queued before it.
    pub async fn settle(&mut self) -> Vec<Value> {
        self.send(&json!({"type": "ping"})).await;
        let mut messages = Vec::new();
        loop {
            match self.next().await {
                pong if pong == json!({"type": "pong"}) => return messages,
                message => messages.push(message),
            }
        }
    }

    /// How the server ends the connection: its close frame, answered, or `None` when there is none.
    pub async fn closed(&mut self) -> Option<CloseFrame> {
        let wait = async {
            let mut close = None;
            while let Some(Ok(message)) = self.0.next().await {
                if let Message::Close(frame) = message {
                    close = frame;
                }
            }
            close
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a close in time")
    }
}
