//! One object that keeps a document in step.

mod status;
#[cfg(feature = "webrtc")]
mod webrtc;

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use loro::{LoroDoc, VersionVector};
use rand::Rng;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio_util::task::AbortOnDropHandle;
use wire::id::{PeerId, RoomId};

#[cfg(feature = "websocket")]
use crate::adapter::{
    Arrival,
    websocket::{Hub, Key, WebSocket},
};
use crate::adapter::{Channels, Signaling, Storage, Transport};
use crate::document::Worker;
use crate::driver::{Command, Disk, Driver, Links, Shared, Ways};
use crate::engine::{Config, Engine};
use crate::error::{Closed, StartError};
use crate::presence::{Presence, encode};
pub use status::{Event, LinkState, Status};

/// Events that a receiver may be behind. One that is further behind is told how many it has missed.
const EVENTS: usize = 256;
/// Arrivals and commands that may wait for the driver. Then whoever brings more waits, networks included.
const ARRIVALS: usize = 64;
const COMMANDS: usize = 16;
/// The longest credentials that are shown when joining, in bytes: they and a version have to fit into a frame.
const MOST_AUTH: usize = 64 << 10;
/// Most data channels at once, if nothing else is said.
const CHANNELS: usize = 8;

/// What a peer is to be made of. `P` is what it shows of itself; see [`PeerBuilder::presence`].
pub struct PeerBuilder<P = ()> {
    room: String,
    doc: Option<LoroDoc>,
    storage: Option<Box<dyn Storage>>,
    ways: Ways,
    auths: Vec<Bytes>,
    channels: usize,
    user: Option<String>,
    presence: Option<P>,
    #[cfg(feature = "websocket")]
    hub: Option<Hub>,
    refused: Option<StartError>,
}

impl<P> std::fmt::Debug for PeerBuilder<P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PeerBuilder").field("room", &self.room).finish_non_exhaustive()
    }
}

impl<P> PeerBuilder<P> {
    /// Keeps this document in step. A clone of a `LoroDoc` is the same document: go on using yours. It needs a peer id
    /// of its own for each run, as `LoroDoc::new` draws one. Without this, a new document is made;
    /// [`Peer::document`] gives it.
    #[must_use]
    pub fn document(mut self, doc: &LoroDoc) -> Self {
        self.doc = Some(doc.clone());
        self
    }

    /// Keeps the document on the local disk, and has it from there before the network is touched.
    #[must_use]
    pub fn storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// Dials this hub or relay, `ws://` or `wss://`, and dials it again whenever it is lost. As often as there are any.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket(self, url: &str) -> Self {
        self.websocket_with(url, Bytes::new())
    }

    /// As [`websocket`](Self::websocket), and shows this when joining, for servers that want a token there.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_with(mut self, url: &str, auth: impl Into<Bytes>) -> Self {
        match WebSocket::new(url) {
            Ok(socket) => self.transport(socket, auth),
            Err(error) => {
                self.refused = Some(error.into());
                self
            }
        }
    }

    /// As [`websocket`](Self::websocket), for a relay that nobody has to trust: the document is encrypted with this key
    /// (`%ELO`, as the published `EloAdaptor` has it), and presence does not go this way. Everybody who is to read the
    /// document has the same key; what cannot be decrypted is told with [`Event::WrongKey`].
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn websocket_sealed(mut self, url: &str, key: &Key) -> Self {
        match WebSocket::new(url) {
            Ok(socket) => self.transport(socket.sealed(key.clone()), Bytes::new()),
            Err(error) => {
                self.refused = Some(error.into());
                self
            }
        }
    }

    /// Lets the guests of this hub into the room.
    #[cfg(feature = "websocket")]
    #[must_use]
    pub fn hub(mut self, hub: &Hub) -> Self {
        self.hub = Some(hub.clone());
        self
    }

    /// Dials by another transport, and shows `auth` when joining.
    #[must_use]
    pub fn transport(mut self, transport: impl Transport, auth: impl Into<Bytes>) -> Self {
        let auth = auth.into();
        if auth.len() > MOST_AUTH {
            self.refused = Some(StartError::AuthTooLong { len: auth.len(), limit: MOST_AUTH });
        }
        self.ways.transports.push(Arc::new(transport));
        self.auths.push(auth);
        self
    }

    /// Finds remote peers by this signaling, and connects to them by these data channels.
    #[must_use]
    pub fn mesh(mut self, signaling: impl Signaling, channels: impl Channels) -> Self {
        self.ways.signaling = Some(Arc::new(signaling));
        self.ways.channels = Some(Arc::new(channels));
        self
    }

    /// Has at most so many data channels at once; 8 if nothing is said.
    #[must_use]
    pub fn channels(mut self, most: usize) -> Self {
        self.channels = most;
        self
    }

    /// Who the user is, by which sessions are grouped in presence. Each session is a user of its own if nothing is said.
    #[must_use]
    pub fn user(mut self, name: &str) -> Self {
        self.user = Some(name.to_owned());
        self
    }

    /// Shows this to the others, and reads what they show as the same type.
    #[must_use]
    pub fn presence<Q: Serialize + DeserializeOwned>(self, shows: Q) -> PeerBuilder<Q> {
        PeerBuilder {
            room: self.room,
            doc: self.doc,
            storage: self.storage,
            ways: self.ways,
            auths: self.auths,
            channels: self.channels,
            user: self.user,
            presence: Some(shows),
            #[cfg(feature = "websocket")]
            hub: self.hub,
            refused: self.refused,
        }
    }
}

impl<P: Serialize + DeserializeOwned> PeerBuilder<P> {
    /// Reads what is stored, and starts. Does not wait for the network: see [`Peer::caught_up`].
    pub async fn start(self) -> Result<Peer<P>, StartError> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let room = RoomId::try_from(self.room.as_str())?;
        let doc = self.doc.unwrap_or_default();
        let session = fresh_session();
        let user: Arc<str> = self.user.as_deref().unwrap_or(&session).into();
        let shows = self.presence.map(|shows| encode(&user, &shows)).transpose()?;
        let (storage, stored) = load(self.storage, &self.room, &doc).await?;

        let transports = (0..).zip(&self.ways.transports);
        let by_author = transports.filter(|(_, way)| way.by_author()).map(|(n, _)| n).collect();
        let config = Config {
            room: room.clone(),
            session: PeerId::from(session.as_str()),
            seed: rand::rng().random(),
            wall: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64),
            uplinks: self.auths,
            by_author,
            channels: if self.ways.channels.is_some() { self.channels } else { 0 },
        };
        let engine = Engine::new(Instant::now(), config, &stored)?;
        let (arrive, arrivals) = mpsc::channel(ARRIVALS);
        #[cfg(feature = "websocket")]
        let hub = match self.hub {
            Some(hub) if !hub.serve(&room, arrive.clone()) => return Err(StartError::RoomTaken),
            hub => hub.map(|hub| Serving { room: room.clone(), hub, arrivals: arrive.clone() }),
        };

        let (command, commands) = mpsc::channel(COMMANDS);
        // Marked as changed, so that the driver shows it first of all.
        let (show, mut shown) = watch::channel(shows);
        shown.mark_changed();
        let shared = Arc::new(Shared {
            status: watch::channel(Status::default()).0,
            others: watch::channel(Vec::new()).0,
            events: broadcast::channel(EVENTS).0,
            news: Notify::new(),
        });
        let known = engine.version().clone();
        let links = Links::new(self.ways, &self.room, &PeerId::from(session.as_str()), arrive);
        let disk = Disk::new(self.room, storage);
        let mut driver =
            Driver::new(engine, links, disk, doc.clone(), Arc::clone(&shared), arrivals, commands, shown);
        // So that whoever looks first sees what is dialled.
        driver.publish();
        let driver = AbortOnDropHandle::new(tokio::spawn(driver.run()));

        let edits = Arc::new(Notify::new());
        let bell = Arc::clone(&edits);
        let subscription = doc.subscribe_local_update(Box::new(move |_| {
            bell.notify_one();
            true
        }));
        // What the document had before it was ours counts as edited now.
        edits.notify_one();
        let worker = Worker::new(doc.clone(), command.clone(), Arc::clone(&shared), known);
        let worker = AbortOnDropHandle::new(tokio::spawn(worker.run(Arc::clone(&edits))));
        Ok(Peer {
            presence: Presence::new(user, show, Arc::clone(&shared)),
            session,
            doc,
            command,
            shared,
            tasks: tokio::sync::Mutex::new(Some(Tasks { driver, worker, _subscription: subscription })),
            #[cfg(feature = "websocket")]
            _hub: hub,
        })
    }
}

/// What is stored, in the application's document too.
async fn load(
    storage: Option<Box<dyn Storage>>,
    room: &str,
    doc: &LoroDoc,
) -> Result<(Option<Box<dyn Storage>>, Vec<Bytes>), StartError> {
    let Some(mut storage) = storage else { return Ok((None, Vec::new())) };
    let (room, doc) = (room.to_owned(), doc.clone());
    let loading = tokio::task::spawn_blocking(move || {
        let stored = storage.load(&room)?;
        let copies: Vec<Vec<u8>> = stored.iter().map(|update| update.to_vec()).collect();
        if !copies.is_empty() {
            doc.import_batch(&copies).map_err(|error| StartError::Import(error.to_string()))?;
        }
        Ok((Some(storage), stored))
    });
    loading.await.unwrap_or_else(|_| Err(StartError::Import("it panicked".to_owned())))
}

/// 128 random bits, as y-webrtc's peers have.
fn fresh_session() -> String {
    let [a, b]: [u64; 2] = rand::rng().random();
    let (b, c, d) = (b, a >> 48, a >> 32 & 0xfff);
    format!("{:08x}-{c:04x}-4{d:03x}-8{:03x}-{:012x}", a as u32, b >> 52, b & 0xffff_ffff_ffff)
}

/// A peer that runs: it keeps its document in step until it is closed or dropped.
#[derive(Debug)]
pub struct Peer<P = ()> {
    session: String,
    doc: LoroDoc,
    presence: Presence<P>,
    command: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    tasks: tokio::sync::Mutex<Option<Tasks>>,
    #[cfg(feature = "websocket")]
    _hub: Option<Serving>,
}

#[derive(Debug)]
struct Tasks {
    driver: AbortOnDropHandle<()>,
    worker: AbortOnDropHandle<()>,
    _subscription: loro::Subscription,
}

/// A hub that hands its guests to us, until this is dropped.
#[cfg(feature = "websocket")]
#[derive(Debug)]
struct Serving {
    room: RoomId,
    hub: Hub,
    arrivals: mpsc::Sender<Arrival>,
}

#[cfg(feature = "websocket")]
impl Drop for Serving {
    fn drop(&mut self) {
        self.hub.leave(&self.room, &self.arrivals);
    }
}

impl Peer {
    /// A peer for this room: the same name at hubs, at relays and in signaling. At most 128 bytes.
    #[must_use]
    pub fn builder(room: &str) -> PeerBuilder {
        PeerBuilder {
            room: room.to_owned(),
            doc: None,
            storage: None,
            ways: Ways::default(),
            auths: Vec::new(),
            channels: CHANNELS,
            user: None,
            presence: None,
            #[cfg(feature = "websocket")]
            hub: None,
            refused: None,
        }
    }
}

impl<P> Peer<P> {
    /// The document. Edit it, and commit: that is all.
    #[must_use]
    pub fn document(&self) -> &LoroDoc {
        &self.doc
    }

    /// What this run of the peer is called in presence and in signaling.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }

    /// Shows what we are at, and sees the others.
    #[must_use]
    pub fn presence(&self) -> &Presence<P> {
        &self.presence
    }

    /// How all of it is doing; at most some 20 ms old.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status.borrow().clone()
    }

    /// Waits until the status is like this; false if the peer is closed before.
    pub async fn wait_until(&self, mut like_this: impl FnMut(&Status) -> bool) -> bool {
        let mut status = self.shared.status.subscribe();
        let mut so = false;
        let seen = |status: &Status| {
            so = like_this(status);
            so || status.closed
        };
        // The sender is as long there as we are.
        let _ = status.wait_for(seen).await;
        so
    }

    /// Waits until everything that is committed so far is on the local disk: from then on a crash does not lose it.
    /// Without storage it is enough that the peer has taken it. A disk that does not keep what it is given is waited
    /// for; [`Status::trouble`] says why.
    pub async fn stored(&self) -> Result<(), Closed> {
        let version = self.committed();
        let stored = self.wait_until(|status| status.stored && status.version.includes_vv(&version)).await;
        if stored { Ok(()) } else { Err(Closed) }
    }

    /// Waits until everything that is committed so far has been taken, every link that is up has exchanged versions and
    /// lacks nothing, the document has what they had to say, and no hub or relay is just being dialled. One that cannot
    /// be reached is not waited for, and nothing is once the peer is closed.
    pub async fn caught_up(&self) {
        let version = self.committed();
        self.wait_until(|status| status.caught_up && status.version.includes_vv(&version)).await;
    }

    fn committed(&self) -> VersionVector {
        self.doc.commit();
        self.doc.oplog_vv()
    }

    /// What happens from now on. Who does not keep up is told how many it has missed.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.shared.events.subscribe()
    }

    /// Stop waiting before the next attempt to connect: the network may be back. Also tries those again that did not
    /// want us.
    pub async fn wake(&self) {
        let _ = self.command.send(Command::Wake).await;
    }

    /// Waits up to two seconds for the disk and the hubs to take what is left, tells the others that we go, and ends
    /// everything. Does nothing the second time. Dropping the peer ends it without all that.
    pub async fn close(&self) {
        let mut tasks = self.tasks.lock().await;
        let Some(Tasks { driver, worker, .. }) = tasks.take() else { return };
        // What is committed and has not reached the engine yet.
        let known = self.version().await;
        drop(worker);
        if let Some(known) = known {
            let mut last =
                Worker::new(self.doc.clone(), self.command.clone(), Arc::clone(&self.shared), known);
            last.push().await;
        }
        let (done, closed) = oneshot::channel();
        if self.command.send(Command::Close(done)).await.is_ok() {
            let _ = closed.await;
        }
        // Once it has ended, the room is free for another at the hub.
        let _ = driver.await;
    }

    async fn version(&self) -> Option<VersionVector> {
        let (done, answer) = oneshot::channel();
        self.command.send(Command::Pull(self.doc.oplog_vv(), done)).await.ok()?;
        answer.await.ok().map(|(_, version)| version)
    }
}
