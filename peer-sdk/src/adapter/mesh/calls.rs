//! Signaling as the driver wants it: one room, and only what concerns us.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use wire::id::PeerId;

use super::repeats::Repeats;
use crate::adapter::signaling::{
    Envelope, Event, Events, Key, ServerId, Settings, Signaling as Client, State, Via,
};
use crate::adapter::webrtc;
use crate::adapter::{Call, Door, Heard, ServerState, Signaling};
use crate::engine::SignalKind;

/// Peers of whom it is remembered where they were heard. What is for others goes to all servers.
const MOST_PLACES: usize = 1024;

/// Speaks to the signaling servers of one [`WebRtc`](super::WebRtc).
#[derive(Debug)]
pub(crate) struct Calls {
    servers: watch::Receiver<Vec<String>>,
    settings: Settings,
    password: Option<Arc<str>>,
    wake: Arc<Notify>,
    prove: Arc<Notify>,
}

impl Calls {
    pub(super) fn new(
        servers: watch::Receiver<Vec<String>>,
        settings: Settings,
        password: Option<Arc<str>>,
    ) -> Self {
        Self { servers, settings, password, wake: Arc::default(), prove: Arc::default() }
    }
}

impl Signaling for Calls {
    fn run(
        &self,
        room: String,
        session: PeerId,
        calls: mpsc::Receiver<Call>,
        door: Door,
    ) -> BoxFuture<'static, ()> {
        let (mut servers, password) = (self.servers.clone(), self.password.clone());
        let (wake, prove) = (Arc::clone(&self.wake), Arc::clone(&self.prove));
        let settings = Settings { servers: servers.borrow_and_update().clone(), ..self.settings.clone() };
        Box::pin(async move {
            let key = match password {
                Some(password) => Some(Key::derive(&password, &room).await),
                None => None,
            };
            let Ok((client, events)) = Client::start(settings) else { return };
            if let Err(error) = client.subscribe(&room, key) {
                tracing::warn!(%error, "the room cannot be a topic: nobody is found over signaling");
                return;
            }
            let session = session.to_string_lossy().into_owned();
            let caller =
                Caller { client, room, session, door, places: HashMap::new(), repeats: Repeats::default() };
            caller.run(events, calls, servers, (wake, prove)).await;
        })
    }

    fn wake(&self) {
        self.wake.notify_one();
    }

    fn prove(&self) {
        self.prove.notify_one();
    }
}

struct Caller {
    client: Client,
    room: String,
    session: String,
    door: Door,
    /// Where each peer was heard last.
    places: HashMap<String, ServerId>,
    repeats: Repeats,
}

impl Caller {
    async fn run(
        mut self,
        mut events: Events,
        mut calls: mpsc::Receiver<Call>,
        mut servers: watch::Receiver<Vec<String>>,
        (wake, prove): (Arc<Notify>, Arc<Notify>),
    ) {
        loop {
            self.door.heard(Heard::Servers(self.states())).await;
            let quiet = loop {
                tokio::select! {
                    event = events.next() => match event {
                        Some(event) => if self.happened(event).await { break false },
                        None => break true,
                    },
                    call = calls.recv() => match call {
                        Some(call) => self.call(call),
                        None => break true,
                    },
                    Ok(()) = servers.changed() => {
                        let list = servers.borrow_and_update().clone();
                        if let Err(error) = self.client.set_servers(&list) {
                            tracing::warn!(%error, "the list of signaling servers stays as it was");
                        }
                        break false;
                    }
                    () = wake.notified() => self.client.wake(),
                    () = prove.notified() => self.client.prove(),
                }
            };
            if quiet {
                return;
            }
        }
    }

    /// Whether a server is now doing otherwise than before.
    async fn happened(&mut self, event: Event) -> bool {
        match event {
            Event::Connected { .. } => {
                self.door.heard(Heard::Up).await;
                true
            }
            Event::Disconnected { server, .. } => {
                self.places.retain(|_, place| *place != server);
                true
            }
            Event::Password { .. } => {
                self.door.heard(Heard::WrongPassword).await;
                false
            }
            Event::Received { server, message, .. } => {
                self.received(server, message).await;
                false
            }
        }
    }

    async fn received(&mut self, server: ServerId, message: Envelope) {
        let heard = match message {
            Envelope::Announce { from } if from != self.session => {
                self.note(&from, server);
                Heard::Announced { from: PeerId::from(from.as_str()) }
            }
            Envelope::Signal { from, to, token, signal } if to == self.session && from != self.session => {
                if let Err(error) = webrtc::check(&signal) {
                    tracing::debug!(%error, "a signal that is refused");
                    return;
                }
                self.note(&from, server);
                let data = Bytes::from(signal.to_string());
                if self.repeats.is_copy(server, &from, &data) {
                    return;
                }
                Heard::Signal { from: PeerId::from(from.as_str()), kind: kind(&signal), token, signal: data }
            }
            _ => return,
        };
        self.door.heard(heard).await;
    }

    fn note(&mut self, from: &str, server: ServerId) {
        if let Some(place) = self.places.get_mut(from) {
            *place = server;
            return;
        }
        if self.places.len() >= MOST_PLACES {
            self.places.clear();
        }
        self.places.insert(from.to_owned(), server);
    }

    fn call(&self, call: Call) {
        let from = self.session.clone();
        match call {
            Call::Announce => {
                self.client.publish(&self.room, &Envelope::Announce { from }, Via::All);
            }
            Call::Signal { to, token, signal } => {
                let Ok(signal) = serde_json::from_slice::<Value>(&signal) else { return };
                let to = to.to_string_lossy().into_owned();
                let place = self.places.get(&to).copied();
                let envelope = Envelope::Signal { from, to, token: Some(token), signal };
                let one = |id| self.client.publish(&self.room, &envelope, Via::One(id));
                if place.map_or(0, one) == 0 {
                    self.client.publish(&self.room, &envelope, Via::All);
                }
            }
        }
    }

    fn states(&self) -> Vec<ServerState> {
        let shown = |server: crate::adapter::signaling::ServerStatus| ServerState {
            name: server.name,
            up: server.state == State::Connected,
            refused: match server.state {
                State::Refused { status } => Some(status),
                _ => None,
            },
        };
        self.client.servers().into_iter().map(shown).collect()
    }
}

fn kind(signal: &Value) -> SignalKind {
    match signal.get("type").and_then(Value::as_str) {
        Some("offer") => SignalKind::Offer,
        Some("answer") => SignalKind::Answer,
        _ => SignalKind::Other,
    }
}
