//! One connection to one peer, between the driver and WebRTC.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use wire::id::PeerId;

use super::Occasions;
use super::sources::Sources;
use crate::adapter::ice::IceServer;
use crate::adapter::webrtc::{self, CloseReason, Connection, Event, Events, Role, SendError, Settings};
use crate::adapter::{Channels, Door, Note, Path, Port};
use crate::engine::End;

/// How long it may take to answer an offer.
const ANSWER: Duration = Duration::from_secs(3);

/// Makes the connections of one [`WebRtc`](super::WebRtc).
#[derive(Debug)]
pub(crate) struct Rtc {
    settings: Settings,
    sources: Sources,
    occasions: watch::Sender<Occasions>,
}

impl Rtc {
    pub(super) fn new(settings: Settings, sources: Sources, occasions: watch::Sender<Occasions>) -> Self {
        Self { settings, sources, occasions }
    }
}

impl Channels for Rtc {
    fn run(
        &self,
        _peer: PeerId,
        initiator: bool,
        heard: mpsc::Receiver<Bytes>,
        door: Door,
    ) -> BoxFuture<'static, End> {
        let (settings, sources) = (self.settings.clone(), self.sources.clone());
        let mut occasions = self.occasions.subscribe();
        let known = *occasions.borrow_and_update();
        let role = if initiator { Role::Initiator } else { Role::Answerer };
        Box::pin(async move {
            let ice = sources.servers().await;
            let (connection, events) = Connection::start(role, Settings { ice: ice.clone(), ..settings });
            let answers_by = (role == Role::Answerer).then(|| Instant::now() + ANSWER);
            let carrier = Carrier {
                connection,
                sources,
                door,
                ice,
                port: None,
                refresh: None.into(),
                waiting: None,
                answers_by,
                occasions,
                known,
            };
            carrier.carry(events, heard).await
        })
    }

    fn moved(&self) {
        self.occasions.send_modify(|occasions| occasions.moved += 1);
    }
}

/// Carries signals and messages between a connection and the driver.
struct Carrier {
    connection: Connection,
    sources: Sources,
    door: Door,
    /// The servers that the connection knows.
    ice: Vec<IceServer>,
    /// There once the channel is open, until the driver has enough.
    port: Option<Port>,
    /// The servers of now, while they are asked for.
    refresh: OptionFuture<BoxFuture<'static, Vec<IceServer>>>,
    /// Until when there is an answer to the offer, if one is owed: an offer that makes no sense never has one.
    answers_by: Option<Instant>,
    /// A message for which the connection has no room yet. Until then no other is taken.
    waiting: Option<Bytes>,
    occasions: watch::Receiver<Occasions>,
    /// Those that the connection has been told of.
    known: Occasions,
}

impl Carrier {
    async fn carry(mut self, mut events: Events, mut heard: mpsc::Receiver<Bytes>) -> End {
        loop {
            let is_free = self.waiting.is_none();
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Closed { reason }) => return self.closed(reason).await,
                    Some(event) => if let Some(end) = self.happened(event).await { return end },
                    None => return End::Lost,
                },
                Some(signal) = heard.recv() => self.signal(&signal),
                message = next(&mut self.port), if is_free => match message {
                    Some(message) => self.send(message).await,
                    None => {
                        self.port = None;
                        self.connection.close();
                    }
                },
                () = sleep_until(self.answers_by.unwrap_or_else(Instant::now)), if self.answers_by.is_some() => {
                    self.door.note(Note::Trouble("its offer cannot be answered".into())).await;
                    return End::Lost;
                }
                Ok(()) = self.occasions.changed() => self.occasion(),
                Some(ice) = &mut self.refresh => {
                    self.refresh = None.into();
                    self.restart(ice);
                }
            }
        }
    }

    /// Something has happened; an end if it is one.
    async fn happened(&mut self, event: Event) -> Option<End> {
        match event {
            Event::Signal(signal) => {
                self.answers_by = None;
                self.door.signal(signal.to_string().into()).await;
            }
            Event::Unsupported { urls } => self.door.note(Note::Unsupported(urls)).await,
            Event::Open { max_message_size, .. } => self.port = Some(self.door.open(max_message_size).await),
            Event::Message(message) => {
                if let Some(port) = &self.port {
                    port.received(message).await;
                }
            }
            // We never say anything in text, and neither does anybody who speaks as we do.
            Event::Text(_) => return Some(End::Foreign),
            Event::Drained => {
                if let Some(message) = self.waiting.take() {
                    self.send(message).await;
                }
            }
            Event::Path { path, round_trip } => self.way(path, round_trip).await,
            Event::Interrupted => {
                self.door.note(Note::Interrupted).await;
                if self.sources.may_change() {
                    let sources = self.sources.clone();
                    let servers: BoxFuture<'static, _> = Box::pin(async move { sources.servers().await });
                    self.refresh = Some(servers).into();
                }
            }
            Event::Resumed => self.door.note(Note::Resumed).await,
            Event::Closed { .. } => {}
        }
        None
    }

    async fn closed(&mut self, reason: CloseReason) -> End {
        let end = match reason {
            CloseReason::Foreign { .. } => End::Foreign,
            _ => End::Lost,
        };
        if !matches!(reason, CloseReason::Local | CloseReason::Remote) {
            self.door.note(Note::Trouble(reason.to_string().into())).await;
        }
        end
    }

    fn signal(&self, signal: &[u8]) {
        let Ok(signal) = serde_json::from_slice(signal) else { return };
        if let Err(error) = self.connection.signal(&signal) {
            tracing::debug!(%error, "a signal that is refused");
        }
    }

    async fn send(&mut self, message: Bytes) {
        let len = message.len();
        match self.connection.send(message.clone()) {
            Ok(_) => {
                if let Some(port) = &self.port {
                    port.sent(len).await;
                }
            }
            Err(SendError::Full { .. }) => self.waiting = Some(message),
            // It has ended, which is an event of its own.
            Err(SendError::NotOpen | SendError::TooLarge { .. }) => {}
        }
    }

    fn occasion(&mut self) {
        let before = std::mem::replace(&mut self.known, *self.occasions.borrow_and_update());
        let told = [
            (before.moved != self.known.moved).then(|| self.connection.moved()),
            (before.back != self.known.back).then(|| self.connection.signals_anew()),
        ];
        for error in told.into_iter().flatten().filter_map(Result::err) {
            tracing::debug!(%error, "a connection looks for no other way");
        }
    }

    /// The credentials of before may have expired.
    fn restart(&mut self, ice: Vec<IceServer>) {
        if ice != self.ice {
            self.ice.clone_from(&ice);
            if let Err(error) = self.connection.restart_ice(Some(ice)) {
                tracing::debug!(%error, "ICE is not restarted");
            }
        }
    }

    async fn way(&mut self, path: webrtc::Path, round_trip: Option<Duration>) {
        let path = match path {
            webrtc::Path::Direct => Path::Direct,
            webrtc::Path::Relayed => Path::Turn,
        };
        self.door.note(Note::Path(path)).await;
        if let Some(time) = round_trip {
            self.door.note(Note::RoundTrip(time)).await;
        }
    }
}

/// The next message to send; never while there is no channel.
async fn next(port: &mut Option<Port>) -> Option<Bytes> {
    match port {
        Some(port) => port.next().await,
        None => std::future::pending().await,
    }
}
