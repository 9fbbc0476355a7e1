//! Signaling as the driver wants it: one room, and only what concerns us.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, watch};
use wire::id::PeerId;

use super::Occasions;
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
    asked: Arc<Asked>,
    occasions: watch::Sender<Occasions>,
}

/// What the driver asks for.
#[derive(Debug, Default)]
struct Asked {
    wake: Notify,
    prove: Notify,
    moved: Notify,
}

impl Calls {
    pub(super) fn new(
        servers: watch::Receiver<Vec<String>>,
        settings: Settings,
        password: Option<Arc<str>>,
        occasions: watch::Sender<Occasions>,
    ) -> Self {
        Self { servers, settings, password, asked: Arc::default(), occasions }
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
        let (asked, occasions) = (Arc::clone(&self.asked), self.occasions.clone());
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
            let (places, repeats) = (HashMap::new(), Repeats::default());
            let caller = Caller { client, room, session, door, places, repeats, occasions };
            caller.run(events, calls, servers, &asked).await;
        })
    }

    fn wake(&self) {
        self.asked.wake.notify_one();
    }

    fn prove(&self) {
        self.asked.prove.notify_one();
    }

    fn moved(&self) {
        self.asked.moved.notify_one();
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
    occasions: watch::Sender<Occasions>,
}

impl Caller {
    async fn run(
        mut self,
        mut events: Events,
        mut calls: mpsc::Receiver<Call>,
        mut servers: watch::Receiver<Vec<String>>,
        asked: &Asked,
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
                    () = asked.wake.notified() => self.client.wake(),
                    () = asked.prove.notified() => self.client.prove(),
                    () = asked.moved.notified() => self.client.moved(),
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
            Event::Connected { server } => {
                self.connected(server).await;
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

    async fn connected(&mut self, server: ServerId) {
        let up = self.client.servers().into_iter().filter(|server| server.state == State::Connected);
        if up.count() > 1 {
            // What was said at the others was heard there, and need not be said again.
            let from = self.session.clone();
            self.client.publish(&self.room, &Envelope::Announce { from }, Via::One(server));
            return;
        }
        self.door.heard(Heard::Up).await;
        self.occasions.send_modify(|occasions| occasions.back += 1);
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
