//! A client that keeps one document in step, and may misbehave.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use loro::{ExportMode, LoroDoc, VersionVector};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{self, Message as Ws};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};
use wire::fragment::{FRAGMENT, FragmentLimits, Reassembly, Split};
use wire::id::{BatchId, RoomId};
use wire::sync::{self, Crdt, Frame, Message, Room, Status};

use super::support::{PATIENCE, TestServer};

pub(crate) fn room(crdt: Crdt, id: &str) -> Room {
    Room { crdt, id: RoomId::try_from(id).unwrap() }
}

pub(crate) struct Peer {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    pub(crate) room: Room,
    pub(crate) doc: LoroDoc,
    fragments: Reassembly,
    sent: VersionVector,
    batches: u64,
    acks: HashMap<BatchId, Status>,
    /// What came that is neither an update nor an ack.
    pub(crate) said: VecDeque<Message>,
    /// Payloads of updates that came.
    pub(crate) updates: Vec<Bytes>,
    pub(crate) received: usize,
    /// Takes updates for bytes.
    pub(crate) blind: bool,
}

impl Peer {
    pub(crate) async fn connect(url: &str, room: Room) -> Self {
        Self::try_connect(url, room).await.unwrap()
    }

    /// The same, where the server may be gone.
    pub(crate) async fn try_connect(url: &str, room: Room) -> Result<Self, tungstenite::Error> {
        let connected = tokio::time::timeout(PATIENCE, tokio_tungstenite::connect_async(url)).await;
        Ok(Self {
            socket: connected.expect("a connection in time")?.0,
            room,
            doc: LoroDoc::new(),
            fragments: Reassembly::new(FragmentLimits::default()),
            sent: VersionVector::default(),
            batches: 0,
            acks: HashMap::new(),
            said: VecDeque::new(),
            updates: Vec::new(),
            received: 0,
            blind: false,
        })
    }

    /// A member of a document's room.
    pub(crate) async fn joined(server: &TestServer, id: &str) -> Self {
        let mut peer = Self::connect(&server.url(), room(Crdt::Loro, id)).await;
        peer.enter().await;
        peer
    }

    /// Joins, and fails the test if it may not.
    pub(crate) async fn enter(&mut self) {
        let answer = self.join(b"").await;
        assert!(matches!(answer, Message::JoinOk { .. }), "{answer:?}");
    }

    /// Asks to join with this token, and says what the answer is.
    pub(crate) async fn join(&mut self, token: &'static [u8]) -> Message {
        let version = match self.room.crdt {
            Crdt::Loro if !self.blind => self.doc.oplog_vv().encode().into(),
            _ => Bytes::new(),
        };
        self.say(&Message::JoinRequest { auth: Bytes::from_static(token), version }).await;
        self.next_said(|said| matches!(said, Message::JoinOk { .. } | Message::JoinError { .. })).await
    }

    /// Joins; `None` if the server goes before it has answered.
    pub(crate) async fn try_enter(&mut self) -> Option<()> {
        let version = self.doc.oplog_vv().encode().into();
        let request = Message::JoinRequest { auth: Bytes::new(), version }.encode(&self.room).unwrap();
        self.try_say_raw(request).await.ok()?;
        while self.said.is_empty() {
            self.step().await.ok()?;
        }
        let answer = self.said.pop_front();
        assert!(matches!(answer, Some(Message::JoinOk { .. })), "{answer:?}");
        Some(())
    }

    pub(crate) async fn say(&mut self, message: &Message) {
        let frame = message.encode(&self.room).unwrap();
        self.say_raw(frame).await;
    }

    pub(crate) async fn say_raw(&mut self, frame: Bytes) {
        self.socket.send(Ws::Binary(frame)).await.unwrap();
    }

    /// Sends without caring whether the server is still there.
    pub(crate) async fn try_say_raw(&mut self, frame: Bytes) -> Result<(), tungstenite::Error> {
        self.socket.send(Ws::Binary(frame)).await
    }

    pub(crate) fn batch(&mut self) -> BatchId {
        self.batches += 1;
        BatchId::from(self.batches)
    }

    /// Sends an update as it is, in fragments if it is long.
    pub(crate) async fn send(&mut self, update: &[u8]) -> BatchId {
        let batch = self.batch();
        if update.len() <= FRAGMENT {
            let frame = sync::update(&self.room, batch, &[Bytes::copy_from_slice(update)]).unwrap();
            self.say_raw(frame).await;
            return batch;
        }
        let frames: Vec<Bytes> = Split::new(&self.room, batch, update, FRAGMENT).collect();
        for frame in frames {
            self.say_raw(frame).await;
        }
        batch
    }

    /// What the document has that was not sent yet.
    pub(crate) fn unsent(&mut self) -> Vec<u8> {
        self.doc.commit();
        let update = self.doc.export(ExportMode::updates(&self.sent)).unwrap();
        self.sent = self.doc.oplog_vv();
        update
    }

    pub(crate) async fn edit(&mut self, key: &str, value: &str) -> BatchId {
        self.doc.get_map("notes").insert(key, value).unwrap();
        let update = self.unsent();
        self.send(&update).await
    }

    /// An edit that the server has promised to keep.
    pub(crate) async fn edit_acked(&mut self, key: &str, value: &str) {
        let batch = self.edit(key, value).await;
        assert_eq!(self.ack(batch).await, Status::Ok);
    }

    pub(crate) fn note(&self, key: &str) -> Option<String> {
        let value = self.doc.get_map("notes").get(key)?.into_value().ok()?;
        Some(value.into_string().ok()?.to_string())
    }

    /// Takes the next frame, or says how the connection ended.
    pub(crate) async fn step(&mut self) -> Result<(), String> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a frame in time");
            match next {
                Some(Ok(Ws::Binary(frame))) => {
                    self.take(&frame);
                    return Ok(());
                }
                Some(Ok(Ws::Close(close))) => return Err(format!("closed: {close:?}")),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
                None => return Err("the stream ended".to_owned()),
            }
        }
    }

    fn take(&mut self, frame: &Bytes) {
        self.received += frame.len();
        let Frame { room, message } = Frame::decode(frame).unwrap();
        if room != self.room {
            return self.said.push_back(message);
        }
        let now = Instant::now();
        match message {
            Message::Update { updates, .. } => updates.iter().for_each(|update| self.import(update)),
            Message::FragmentHeader(header) => self.fragments.header(now, &room, header, frame).unwrap(),
            Message::Fragment(fragment) => {
                if let Some(whole) = self.fragments.fragment(now, &room, fragment, frame).unwrap() {
                    self.import(whole.update);
                }
            }
            Message::Ack { batch, status } => {
                assert_eq!(self.acks.insert(batch, status), None, "acknowledged twice");
            }
            other => self.said.push_back(other),
        }
    }

    fn import(&mut self, update: Bytes) {
        if self.room.crdt == Crdt::Loro && !self.blind {
            let before = self.doc.oplog_vv();
            self.doc.import(&update).unwrap();
            if self.sent == before {
                self.sent = self.doc.oplog_vv();
            }
        }
        self.updates.push(update);
    }

    /// What became of a batch.
    pub(crate) async fn ack(&mut self, batch: BatchId) -> Status {
        loop {
            if let Some(status) = self.acks.remove(&batch) {
                return status;
            }
            self.step().await.unwrap();
        }
    }

    /// The acks that have come and were not asked for.
    pub(crate) fn acks(&mut self) -> HashMap<BatchId, Status> {
        std::mem::take(&mut self.acks)
    }

    /// The next thing said of that kind; others are forgotten.
    pub(crate) async fn next_said(&mut self, wanted: impl Fn(&Message) -> bool) -> Message {
        loop {
            while let Some(said) = self.said.pop_front() {
                if wanted(&said) {
                    return said;
                }
            }
            self.step().await.unwrap();
        }
    }

    /// Reads until the document is as it should be.
    pub(crate) async fn until(&mut self, reached: impl Fn(&Self) -> bool) {
        while !reached(self) {
            self.step().await.unwrap();
        }
    }

    /// Reads all that the server had for us when this was called.
    pub(crate) async fn settle(&mut self) {
        self.socket.send(Ws::text("ping")).await.unwrap();
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a pong in time");
            match next.expect("an open connection").unwrap() {
                Ws::Binary(frame) => self.take(&frame),
                Ws::Text(text) if text.as_str() == "pong" => return,
                Ws::Close(close) => panic!("closed: {close:?}"),
                _ => {}
            }
        }
    }

    /// Whether the server still answers; what else it says is read and forgotten.
    pub(crate) async fn is_open(&mut self) -> bool {
        if self.socket.send(Ws::text("ping")).await.is_err() {
            return false;
        }
        loop {
            let next = tokio::time::timeout(PATIENCE, self.socket.next()).await.expect("a pong in time");
            match next {
                Some(Ok(Ws::Text(text))) if text.as_str() == "pong" => return true,
                Some(Ok(Ws::Close(_)) | Err(_)) | None => return false,
                Some(Ok(_)) => {}
            }
        }
    }

    /// How the server ends the connection: its code, or nothing if it does so without a word.
    pub(crate) async fn closed(&mut self) -> Option<u16> {
        tokio::time::timeout(PATIENCE, self.ended()).await.expect("a close in time")
    }

    /// The same, however long it takes.
    pub(crate) async fn ended(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(message)) = self.socket.next().await {
            match message {
                Ws::Close(close) => code = close.map(|close| u16::from(close.code)),
                Ws::Binary(frame) => self.take(&frame),
                _ => {}
            }
        }
        code
    }
}
