//! Being dialled: a WebSocket listener that hands those who come to the peers of their rooms.
//!
//! A listener on localhost can be reached from every web page that the user visits. So by default a hub answers only
//! who names it by its own address (`Host`), comes from no web page or from one that is listed (`Origin`), and shows
//! the token that [`Hub::url`] carries. Everybody else is turned away before the upgrade.

mod gate;

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{BoxStream, SelectAll};
use futures_util::{SinkExt, StreamExt, stream};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rand::Rng;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::StatusCode;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{WebSocketStream, accept_hdr_async_with_config};
use tokio_util::sync::{CancellationToken, DropGuard};
use wire::id::RoomId;
use wire::sync::{Frame, JoinError, MAX_FRAME, Message as Said, Remedy, Room};

use super::live::{Liveness, Verdict, Watched};
use super::{HANDSHAKE, PATIENCE, patiently, settings};
use crate::adapter::{Arrival, Door, Note, Path, Port};
use crate::engine::{End, LinkId};
use gate::Gate;

/// Rooms that one connection may be in.
const MOST_ROOMS: usize = 16;

/// How a [`Hub`] is to be made.
#[derive(Clone, Debug)]
pub struct HubBuilder {
    origins: Vec<String>,
    hosts: Vec<String>,
    token: Option<String>,
    guests: usize,
}

impl Default for HubBuilder {
    fn default() -> Self {
        let token: [u64; 2] = rand::rng().random();
        let token = Some(format!("{:016x}{:016x}", token[0], token[1]));
        Self { origins: Vec::new(), hosts: Vec::new(), token, guests: 256 }
    }
}

impl HubBuilder {
    /// Lets web pages of this origin in, for example `https://plans.example`. Without any, no page may come.
    #[must_use]
    pub fn origin(mut self, origin: &str) -> Self {
        self.origins.push(origin.trim_end_matches('/').to_ascii_lowercase());
        self
    }

    /// Answers to this name too, with its port if it has one, for example `hub.example:7450`. The address that it is
    /// bound to, and `localhost`, are known.
    #[must_use]
    pub fn host(mut self, host: &str) -> Self {
        self.hosts.push(host.to_ascii_lowercase());
        self
    }

    /// Wants this token instead of one that is drawn at random. In the address it is percent-encoded.
    #[must_use]
    pub fn token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// Wants no token: every program on this machine, or on the network if it is bound to more, may come in.
    #[must_use]
    pub fn without_token(mut self) -> Self {
        self.token = None;
        self
    }

    /// Holds so many connections at most; 256 if nothing is said. More are turned away with 503.
    #[must_use]
    pub fn guests(mut self, most: usize) -> Self {
        self.guests = most;
        self
    }

    /// Starts to listen, for example at `127.0.0.1:7450`; port 0 is any that is free.
    pub async fn bind(self, address: &str) -> Result<Hub, HubError> {
        let refused = |error| HubError { address: address.to_owned(), error };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let local = listener.local_addr().map_err(refused)?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            gate: Gate::new(self, local),
            rooms: Mutex::default(),
            minted: AtomicU64::new(0),
            guests: AtomicUsize::new(0),
            stop: stop.clone(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Hub { shared, local, _stop: Arc::new(stop.drop_guard()) })
    }
}

/// The address cannot be listened at.
#[derive(Debug, Error)]
#[error("cannot listen at {address}: {error}")]
pub struct HubError {
    /// The address.
    pub address: String,
    /// What the system says.
    #[source]
    pub error: std::io::Error,
}

/// A listener. A clone is the same one; it stops, and its connections end, when the last is dropped.
#[derive(Clone, Debug)]
pub struct Hub {
    shared: Arc<Shared>,
    local: SocketAddr,
    _stop: Arc<DropGuard>,
}

impl Hub {
    /// Starts to listen with everything as it is by default.
    pub async fn bind(address: &str) -> Result<Self, HubError> {
        HubBuilder::default().bind(address).await
    }

    /// More to say about it.
    #[must_use]
    pub fn builder() -> HubBuilder {
        HubBuilder::default()
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.local
    }

    /// What to dial, with the token. A secret.
    #[must_use]
    pub fn url(&self) -> String {
        let query = self.shared.gate.token.as_ref().map_or_else(String::new, |token| {
            format!("?token={}", utf8_percent_encode(token, NON_ALPHANUMERIC))
        });
        format!("ws://{}/{query}", self.local)
    }

    /// How many are connected.
    #[must_use]
    pub fn guests(&self) -> usize {
        self.shared.guests.load(Ordering::Relaxed)
    }

    /// Stops listening and ends all connections, for every clone. When this returns, the port is free. Peers that serve
    /// their rooms here go on without.
    pub async fn close(&self) {
        self.shared.stop.cancel();
        self.shared.closed.cancelled().await;
    }

    /// Hands those who join this room to a driver, until it is gone. False if another peer has the room.
    pub(crate) fn serve(&self, room: &RoomId, arrivals: mpsc::Sender<Arrival>) -> bool {
        let mut rooms = self.shared.rooms();
        rooms.retain(|_, arrivals| !arrivals.is_closed());
        if rooms.contains_key(room.as_str()) {
            return false;
        }
        rooms.insert(room.as_str().to_owned(), arrivals);
        true
    }

    /// Takes a room from a driver, if it is still the one that has it.
    pub(crate) fn leave(&self, room: &RoomId, arrivals: &mpsc::Sender<Arrival>) {
        let mut rooms = self.shared.rooms();
        if rooms.get(room.as_str()).is_some_and(|has| has.same_channel(arrivals)) {
            rooms.remove(room.as_str());
        }
    }
}

#[derive(Debug)]
struct Shared {
    gate: Gate,
    rooms: Mutex<HashMap<String, mpsc::Sender<Arrival>>>,
    minted: AtomicU64,
    guests: AtomicUsize,
    stop: CancellationToken,
    /// The port is free again.
    closed: CancellationToken,
}

impl Shared {
    fn rooms(&self) -> std::sync::MutexGuard<'_, HashMap<String, mpsc::Sender<Arrival>>> {
        // Nothing that is done under this lock leaves it half done.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let _closed = shared.closed.clone().drop_guard();
    // Dropped before the guard.
    let listener = listener;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let stop = shared.stop.clone();
                    tokio::select! {
                        () = welcome(stream, shared) => {}
                        () = stop.cancelled() => {}
                    }
                });
            }
            // Out of file descriptors, or the like.
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn welcome(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let place = Place::take(&shared);
    let full = shared.guests.load(Ordering::Relaxed) > shared.gate.guests;
    // The shape that tungstenite asks for.
    #[expect(clippy::result_large_err, reason = "the callback's signature is the library's")]
    let check = |request: &Request, response: Response| {
        let admitted =
            if full { Err((StatusCode::SERVICE_UNAVAILABLE, "full")) } else { shared.gate.admits(request) };
        admitted.map(|()| response).map_err(|(status, why)| {
            let mut refusal = ErrorResponse::new(Some(why.to_owned()));
            *refusal.status_mut() = status;
            refusal
        })
    };
    let upgrade = accept_hdr_async_with_config(Watched::new(Box::new(stream)), check, Some(settings()));
    if let Ok(Ok(socket)) = timeout(HANDSHAKE, upgrade).await {
        Guest { shared: Arc::clone(&shared), rooms: BTreeMap::new(), outgoing: SelectAll::new() }
            .serve(socket)
            .await;
    }
    drop(place);
}

/// One connection's place among those that a hub holds.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Self {
        shared.guests.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(shared))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.guests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection, and the links that it carries: one for each room.
struct Guest {
    shared: Arc<Shared>,
    rooms: BTreeMap<RoomId, (Port, Door)>,
    outgoing: SelectAll<BoxStream<'static, (RoomId, Option<Bytes>)>>,
}

/// A connection that is over, perhaps with a word to the other end.
struct Over(Option<CloseFrame>);

impl Guest {
    async fn serve(mut self, mut socket: WebSocketStream<Watched>) {
        let mut liveness = Liveness::new(&socket);
        let over = loop {
            let done = tokio::select! {
                Some((room, frame)) = self.outgoing.next() => self.send(&mut socket, &mut liveness, &room, frame).await,
                message = socket.next() => self.receive(&mut socket, &mut liveness, message).await,
                () = liveness.due() => match liveness.tick() {
                    Verdict::Alive => Ok(()),
                    Verdict::Ping(payload) => say(&mut socket, Message::Ping(Bytes::copy_from_slice(&payload))).await,
                    Verdict::Dead => Err(Over(None)),
                },
            };
            if let Err(over) = done {
                break over;
            }
        };
        for (_, door) in self.rooms.values() {
            door.down(End::Lost).await;
        }
        if let Some(close) = over.0 {
            let _ = timeout(PATIENCE, socket.close(Some(close))).await;
        }
    }

    async fn send(
        &mut self,
        socket: &mut WebSocketStream<Watched>,
        liveness: &mut Liveness,
        room: &RoomId,
        frame: Option<Bytes>,
    ) -> Result<(), Over> {
        let Some(frame) = frame else {
            // The engine has ended this link: so ends the connection, which its owner will make again.
            self.rooms.remove(room);
            let close = CloseFrame { code: CloseCode::Restart, reason: "come again".into() };
            return Err(Over(Some(close)));
        };
        let len = frame.len();
        say(socket, Message::Binary(frame)).await?;
        liveness.sent(len);
        match self.rooms.get(room) {
            Some((port, _)) => patiently(socket, liveness, port.sent(len)).await.map_err(|_| Over(None)),
            None => Ok(()),
        }
    }

    async fn receive(
        &mut self,
        socket: &mut WebSocketStream<Watched>,
        liveness: &mut Liveness,
        message: Option<Result<Message, tokio_tungstenite::tungstenite::Error>>,
    ) -> Result<(), Over> {
        match message {
            Some(Ok(Message::Binary(frame))) => self.frame(socket, liveness, frame).await,
            Some(Ok(Message::Text(text))) if text.as_str() == "ping" => {
                say(socket, Message::text("pong")).await
            }
            Some(Ok(Message::Pong(payload))) => {
                if let Some(time) = liveness.pong(&payload) {
                    for (_, door) in self.rooms.values() {
                        door.note(Note::RoundTrip(time)).await;
                    }
                }
                Ok(())
            }
            Some(Ok(Message::Close(_)) | Err(_)) | None => Err(Over(None)),
            Some(Ok(_)) => Ok(()),
        }
    }

    async fn frame(
        &mut self,
        socket: &mut WebSocketStream<Watched>,
        liveness: &mut Liveness,
        frame: Bytes,
    ) -> Result<(), Over> {
        let (room, joins) = match Frame::decode(&frame) {
            Ok(Frame { room, message }) => (room, matches!(message, Said::JoinRequest { .. })),
            Err(error) => match error.remedy {
                Remedy::Ack(room, ..) | Remedy::JoinError(room) => (room, false),
                Remedy::Close => {
                    return Err(Over(Some(CloseFrame {
                        code: CloseCode::Protocol,
                        reason: "unreadable".into(),
                    })));
                }
            },
        };
        if !self.rooms.contains_key(&room.id) && !self.enter(&room).await {
            return if joins { turn_away(socket, &room).await } else { Ok(()) };
        }
        match self.rooms.get(&room.id) {
            Some((port, _)) => {
                patiently(socket, liveness, port.received(frame)).await.map_err(|_| Over(None))
            }
            None => Ok(()),
        }
    }

    /// Makes a link to the peer that serves the room, if there is one.
    async fn enter(&mut self, room: &Room) -> bool {
        let arrivals = self.shared.rooms().get(room.id.as_str()).cloned();
        let Some(arrivals) = arrivals.filter(|_| self.rooms.len() < MOST_ROOMS) else { return false };
        let link = LinkId::Guest(self.shared.minted.fetch_add(1, Ordering::Relaxed));
        let door = Door::new(link, 0, arrivals);
        let mut port = door.open(MAX_FRAME).await;
        door.note(Note::Path(Path::Direct)).await;
        // The port's messages are waited for together with those of the other rooms.
        let messages = std::mem::replace(&mut port.messages, mpsc::channel(1).1);
        let name = room.id.clone();
        let frames = stream::unfold(messages, |mut messages| async move {
            messages.recv().await.map(|frame| (Some(frame), messages))
        });
        let frames = frames.chain(stream::once(async { None }));
        self.outgoing.push(frames.map(move |frame| (name.clone(), frame)).boxed());
        self.rooms.insert(room.id.clone(), (port, door));
        true
    }
}

async fn turn_away(socket: &mut WebSocketStream<Watched>, room: &Room) -> Result<(), Over> {
    let error = JoinError::App { code: Some("no_such_room".into()) };
    let refusal = Said::JoinError { error, message: "nobody here has this room".into() };
    match refusal.encode(room) {
        Ok(frame) => say(socket, Message::Binary(frame)).await,
        Err(_) => Ok(()),
    }
}

async fn say(socket: &mut WebSocketStream<Watched>, message: Message) -> Result<(), Over> {
    match timeout(PATIENCE * 5, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(Over(None)),
    }
}
