//! The task of one server: connects, subscribes, passes messages on, and begins again.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::time::MissedTickBehavior;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};

use super::backoff::Backoff;
use super::dial::{Address, DialError, Stream, dial};
use super::envelope::{self, Envelope, Frame};
use super::{Event, MAX_MESSAGE, PasswordProblem, ServerId, Settings, Shared, State, Table};
use crate::surroundings::is_here;

const PING: &str = r#"{"type":"ping"}"#;

/// Frames that wait for the socket. One more is left out: a signal that waits so long is stale.
const FRAMES: usize = 256;

/// Bytes that may wait for the socket before the connection is given up.
const WRITE_BUFFER: usize = 4 * MAX_MESSAGE;

/// How much is read at once. As much stays reserved as long as the connection, for what is a few messages a minute.
const READ_BUFFER: usize = 8 << 10;

/// How long one write may take.
const WRITE: Duration = Duration::from_secs(10);

/// How long a server that seems to be there may take to prove it, when it is doubted.
const PROOF: Duration = Duration::from_secs(3);

/// How often it is told of one topic that passwords do not fit.
const PROBLEM_EVERY: Duration = Duration::from_secs(60);

type Socket = WebSocketStream<Box<dyn Stream>>;

/// What the task of one server knows.
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) address: Address,
    pub(super) settings: Settings,
    /// Gone with the client.
    pub(super) shared: Weak<Shared>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) wake: Arc<Notify>,
    pub(super) moved: Arc<Notify>,
}

/// Why a connection ended, or never was.
#[derive(Debug, Error)]
enum Failure {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no connection within {0:?}")]
    Late(Duration),
    #[error("refused with status {0}")]
    Status(u16),
    #[error("{0}")]
    Socket(#[from] tungstenite::Error),
    #[error("a write took longer than {WRITE:?}")]
    Stuck,
    #[error("closed by the server")]
    Closed,
    #[error("nothing came for {0:?}")]
    Silent(Duration),
    #[error("the machine has other addresses now")]
    Moved,
    #[error("the client is gone")]
    Gone,
}

impl Failure {
    /// The state that it leads to: some refusals stay what they are.
    fn state(&self) -> State {
        match self {
            Self::Status(status @ (401 | 403 | 404)) => State::Refused { status: *status },
            _ => State::Waiting,
        }
    }
}

impl Server {
    /// Stays connected as well as it can, until the client is gone.
    pub(super) async fn run(self) {
        let mut backoff = Backoff::default();
        let mut is_told = false;
        loop {
            let failure = match self.connect().await {
                Ok(socket) => {
                    is_told = false;
                    let since = Instant::now();
                    let failure = self.serve(socket).await;
                    backoff.lost(since, Instant::now());
                    failure
                }
                Err(failure) => failure,
            };
            if matches!(failure, Failure::Gone) {
                return;
            }
            let state = failure.state();
            self.set(state.clone(), None);
            tracing::debug!(server = %self.address.name(), reason = %failure, "not connected");
            let reason = failure.to_string();
            let event = Event::Disconnected { server: self.id, state: state.clone(), reason };
            if !std::mem::replace(&mut is_told, true) && self.events.send(event).await.is_err() {
                return;
            }
            if !matches!(failure, Failure::Moved) {
                self.pause(&state, backoff.delay(rand::random())).await;
            }
        }
    }

    /// Waits before the next try.
    async fn pause(&self, state: &State, delay: Duration) {
        let delay = async {
            match state {
                State::Refused { .. } => std::future::pending().await,
                _ => tokio::time::sleep(delay).await,
            }
        };
        tokio::select! {
            () = delay => {}
            () = self.wake.notified() => {}
            () = self.moved.notified() => {}
            () = self.events.closed() => {}
        }
    }

    async fn connect(&self) -> Result<Socket, Failure> {
        if self.events.is_closed() {
            return Err(Failure::Gone);
        }
        let within = self.settings.connect_within;
        let connecting = async {
            let stream = dial(&self.address, self.settings.tls.clone()).await?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE))
                .read_buffer_size(READ_BUFFER)
                .max_write_buffer_size(WRITE_BUFFER);
            let uri = self.address.uri().clone();
            match tokio_tungstenite::client_async_with_config(uri, stream, Some(config)).await {
                Ok((socket, _)) => Ok(socket),
                Err(tungstenite::Error::Http(answer)) => Err(Failure::Status(answer.status().as_u16())),
                Err(error) => Err(error.into()),
            }
        };
        tokio::select! {
            connected = tokio::time::timeout(within, connecting) => connected.map_err(|_| Failure::Late(within))?,
            // It may be dialling from an address that is gone.
            () = self.moved.notified() => Err(Failure::Moved),
        }
    }

    /// Serves a connection until it fails.
    async fn serve(&self, mut socket: Socket) -> Failure {
        let (frames, mut queued) = mpsc::channel(FRAMES);
        // From now on new topics are queued as frames, so that none falls between.
        let Some(topics) = self.set(State::Connected, Some(frames)) else { return Failure::Gone };
        if let Err(failure) = write(&mut socket, topics).await {
            return failure;
        }
        if self.events.send(Event::Connected { server: self.id }).await.is_err() {
            return Failure::Gone;
        }
        self.pass_on(&mut socket, &mut queued).await
    }

    async fn pass_on(&self, socket: &mut Socket, queued: &mut mpsc::Receiver<String>) -> Failure {
        let ping = self.settings.ping;
        let mut tick = tokio::time::interval_at(tokio::time::Instant::now() + ping, ping);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        // Until when something must have come, when that is asked for.
        let mut proof: Option<tokio::time::Instant> = None;
        loop {
            let due = proof;
            let done = tokio::select! {
                () = self.events.closed() => Err(Failure::Gone),
                came = socket.next() => {
                    (heard, proof) = (Instant::now(), None);
                    self.came(came).await
                }
                Some(frame) = queued.recv() => write(socket, frame).await,
                _ = tick.tick() => {
                    if heard.elapsed() >= 2 * ping { Err(Failure::Silent(2 * ping)) } else { write(socket, PING.to_owned()).await }
                }
                () = self.wake.notified() => {
                    proof = proof.or(Some(tokio::time::Instant::now() + PROOF));
                    write(socket, PING.to_owned()).await
                }
                () = self.moved.notified() => match socket.get_ref().here() {
                    Some(here) if !is_here(here) => Err(Failure::Moved),
                    _ => Ok(()),
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(tokio::time::Instant::now)), if due.is_some() => {
                    Err(Failure::Silent(PROOF))
                }
            };
            if let Err(failure) = done {
                return failure;
            }
        }
    }

    async fn came(&self, came: Option<Result<Message, tungstenite::Error>>) -> Result<(), Failure> {
        match came {
            Some(Ok(Message::Text(text))) => self.said(text.as_str()).await,
            Some(Ok(Message::Close(_))) | None => Err(Failure::Closed),
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
        }
    }

    /// The server has said something.
    async fn said(&self, text: &str) -> Result<(), Failure> {
        let Frame::Published { topic, data } = Frame::parse(text) else { return Ok(()) };
        let shared = self.shared.upgrade().ok_or(Failure::Gone)?;
        let Some(subscribed) = shared.lock().topics.get(&topic).cloned() else { return Ok(()) };
        let event = match Envelope::open(data, subscribed.key.as_ref()) {
            Ok(Some(message)) => Event::Received { server: self.id, topic, message },
            Ok(None) => return Ok(()),
            Err(problem) => match shared.lock().problem(topic, problem, Instant::now()) {
                Some(event) => event,
                None => return Ok(()),
            },
        };
        drop(shared);
        self.events.send(event).await.map_err(|_| Failure::Gone)
    }

    /// Notes how this server is doing. What subscribes all topics, unless the client or its interest is gone.
    fn set(&self, state: State, frames: Option<mpsc::Sender<String>>) -> Option<String> {
        let shared = self.shared.upgrade()?;
        let mut table = shared.lock();
        let listed = table.servers.iter_mut().find(|server| server.id == self.id)?;
        listed.state = state;
        listed.frames = frames;
        Some(envelope::subscribe(table.topics.keys().map(String::as_str)))
    }
}

impl Table {
    /// The event of a problem, unless it was told a short while ago.
    fn problem(&mut self, topic: String, problem: PasswordProblem, now: Instant) -> Option<Event> {
        let subscribed = self.topics.get_mut(&topic)?;
        let recently = |last: Instant| now.saturating_duration_since(last) < PROBLEM_EVERY;
        if subscribed.last_problem.is_some_and(recently) {
            return None;
        }
        subscribed.last_problem = Some(now);
        Some(Event::Password { topic, problem })
    }
}

async fn write(socket: &mut Socket, frame: String) -> Result<(), Failure> {
    let sent = tokio::time::timeout(WRITE, socket.send(Message::text(frame))).await;
    Ok(sent.map_err(|_| Failure::Stuck)??)
}
