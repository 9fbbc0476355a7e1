//! The adapters' tasks: what the engine says of links becomes connections, and what they say becomes its input.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use wire::id::PeerId;

use crate::adapter::{Arrival, Call, Channels, Door, Heard, Note, Path, ServerState, Signaling, Transport};
use crate::engine::{End, EngineStatus, Input, LinkId, Online, Output};
use crate::peer::LinkState;
use crate::presence::{Other, Others};

/// Signals that may wait for one connection, and calls for signaling. One more is dropped: signaling may lose messages,
/// and what it is for is tried again.
const SIGNALS: usize = 64;
/// How long a link that is closed politely may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// Troubles of links that are gone are remembered for so many.
const MOST_TROUBLES: usize = 256;
/// STUN and TURN servers that cannot be used are shown up to so many.
const MOST_UNSUPPORTED: usize = 64;

/// Everything that a peer can connect with.
#[derive(Default)]
pub(crate) struct Ways {
    pub(crate) transports: Vec<Arc<dyn Transport>>,
    pub(crate) channels: Option<Arc<dyn Channels>>,
    pub(crate) signaling: Option<Arc<dyn Signaling>>,
}

pub(crate) struct Links {
    ways: Ways,
    calls: mpsc::Sender<Call>,
    signaling: Option<Task>,
    arrivals: mpsc::Sender<Arrival>,
    epoch: u64,
    links: HashMap<LinkId, Wired>,
    /// Links that the engine does not know to be down yet.
    broken: VecDeque<LinkId>,
    troubles: HashMap<LinkId, Arc<str>>,
    /// Signaling servers, as they were told of last.
    servers: Vec<ServerState>,
    /// STUN and TURN servers that cannot be used.
    unsupported: BTreeSet<String>,
}

/// One link: a task that makes it, and what is known once it is there.
struct Wired {
    epoch: u64,
    /// `None` for guests, whose task is the hub's.
    task: Option<Task>,
    outgoing: Option<mpsc::Sender<Bytes>>,
    /// For data channels: what the other end says over signaling.
    heard: Option<mpsc::Sender<Bytes>>,
    path: Option<Path>,
    round_trip: Option<Duration>,
}

/// A task that ends when this is dropped.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Links {
    pub(crate) fn new(ways: Ways, room: &str, session: &PeerId, arrivals: mpsc::Sender<Arrival>) -> Self {
        let (calls, asked) = mpsc::channel(SIGNALS);
        let door = Door::new(LinkId::Channel(0), 0, arrivals.clone());
        let signaling = ways.signaling.as_ref().map(|signaling| {
            let run = signaling.run(room.to_owned(), session.clone(), asked, door);
            Task(tokio::spawn(run))
        });
        Self {
            ways,
            calls,
            signaling,
            arrivals,
            epoch: 0,
            links: HashMap::new(),
            broken: VecDeque::new(),
            troubles: HashMap::new(),
            servers: Vec::new(),
            unsupported: BTreeSet::new(),
        }
    }

    /// What an arrival means to the engine, if anything.
    pub(crate) fn arrived(&mut self, arrival: Arrival) -> Option<Input> {
        match arrival {
            Arrival::Up { link, epoch, frame, outgoing } => {
                if let LinkId::Guest(_) = link {
                    self.links.insert(link, Wired::new(epoch, None, None));
                }
                self.current(link, epoch)?.outgoing = Some(outgoing);
                Some(Input::Up { link, frame })
            }
            Arrival::Frame { link, epoch, frame } => {
                self.current(link, epoch)?;
                Some(Input::Frame { link, frame })
            }
            Arrival::Sent { link, epoch, bytes } => {
                self.current(link, epoch)?;
                Some(Input::Drained { link, bytes })
            }
            Arrival::Down { link, epoch, end } => {
                self.current(link, epoch)?;
                self.links.remove(&link);
                Some(Input::Down { link, end })
            }
            Arrival::Local { channel, data } => Some(Input::Local { channel, data }),
            Arrival::Note { link, epoch, note } => self.note(link, epoch, note),
            Arrival::Heard(heard) => match heard {
                Heard::Up => Some(Input::SignalingUp),
                Heard::Announced { from } => Some(Input::Announced { from }),
                Heard::Signal { from, kind, token, signal } => {
                    Some(Input::Signalled { from, kind, token, data: signal })
                }
                Heard::WrongPassword => None,
                Heard::Servers(servers) => {
                    self.servers = servers;
                    None
                }
            },
        }
    }

    /// The link, if this connection of it is the one that counts.
    fn current(&mut self, link: LinkId, epoch: u64) -> Option<&mut Wired> {
        self.links.get_mut(&link).filter(|wired| wired.epoch == epoch)
    }

    fn note(&mut self, link: LinkId, epoch: u64, note: Note) -> Option<Input> {
        match note {
            Note::Trouble(why) => self.trouble(link, why),
            Note::WrongKey => self.trouble(link, "what comes cannot be decrypted with our key"),
            Note::RoundTrip(time) => {
                if let Some(wired) = self.current(link, epoch) {
                    wired.round_trip = Some(time);
                }
            }
            Note::Path(path) => {
                self.troubles.remove(&link);
                if let Some(wired) = self.current(link, epoch) {
                    wired.path = Some(path);
                }
            }
            Note::Interrupted => {
                self.current(link, epoch)?;
                self.trouble(link, "nothing comes from the other end");
                // What finds another way to it goes over signaling.
                if let Some(signaling) = &self.ways.signaling {
                    signaling.prove();
                }
                return Some(Input::Interrupted { link });
            }
            Note::Resumed => {
                self.current(link, epoch)?;
                self.troubles.remove(&link);
                return Some(Input::Resumed { link });
            }
            Note::Unsupported(urls) => {
                let room = MOST_UNSUPPORTED.saturating_sub(self.unsupported.len());
                self.unsupported.extend(urls.into_iter().take(room));
            }
        }
        None
    }

    pub(crate) fn trouble(&mut self, link: LinkId, why: impl Into<Arc<str>>) {
        if self.troubles.len() >= MOST_TROUBLES {
            self.troubles.retain(|link, _| matches!(link, LinkId::Uplink(_)));
        }
        self.troubles.insert(link, why.into());
    }

    pub(crate) fn perform(&mut self, output: Output) {
        match output {
            Output::Dial { uplink } => self.dial(uplink),
            Output::Send { link, frame } => self.send(link, frame),
            Output::Cut { link, .. } => {
                if let Some(wired) = self.links.remove(&link) {
                    tokio::spawn(wired.fade());
                }
            }
            Output::Announce => self.call(Call::Announce),
            Output::Signal { to, token, data } => self.call(Call::Signal { to, token, signal: data }),
            Output::Connect { channel, peer, initiator } => self.connect(channel, peer, initiator),
            Output::Deliver { channel, data } => {
                let heard = self.links.get(&LinkId::Channel(channel)).and_then(|wired| wired.heard.as_ref());
                // One signal too many is one lost on the way.
                let _ = heard.map(|heard| heard.try_send(data));
            }
            _ => {}
        }
    }

    fn call(&self, call: Call) {
        // One call too many is one lost on the way.
        let _ = self.calls.try_send(call);
    }

    fn send(&mut self, link: LinkId, frame: Bytes) {
        let Some(outgoing) = self.links.get(&link).and_then(|wired| wired.outgoing.as_ref()) else { return };
        // A full queue is a link that takes nothing: it is ended, and brought up to date when it is back.
        if outgoing.try_send(frame).is_err() && !self.broken.contains(&link) {
            self.broken.push_back(link);
        }
    }

    /// A link that broke while it was sent to.
    pub(crate) fn broken(&mut self) -> Option<Input> {
        let link = self.broken.pop_front()?;
        self.links.remove(&link);
        Some(Input::Down { link, end: End::Lost })
    }

    fn dial(&mut self, uplink: u16) {
        let Some(transport) = self.ways.transports.get(usize::from(uplink)).cloned() else { return };
        self.run(LinkId::Uplink(uplink), None, |door| transport.run(door));
    }

    fn connect(&mut self, channel: u64, peer: PeerId, initiator: bool) {
        let Some(channels) = self.ways.channels.clone() else { return };
        let (heard, signals) = mpsc::channel(SIGNALS);
        self.run(LinkId::Channel(channel), Some(heard), |door| channels.run(peer, initiator, signals, door));
    }

    /// Runs an adapter for one connection of a link.
    fn run(
        &mut self,
        link: LinkId,
        heard: Option<mpsc::Sender<Bytes>>,
        adapter: impl FnOnce(Door) -> BoxFuture<'static, End>,
    ) {
        self.epoch += 1;
        let door = Door::new(link, self.epoch, self.arrivals.clone());
        let connection = adapter(door.clone());
        let task = tokio::spawn(async move {
            let end = connection.await;
            door.down(end).await;
        });
        self.links.insert(link, Wired::new(self.epoch, Some(Task(task)), heard));
    }

    pub(crate) fn wake(&self) {
        if let Some(signaling) = &self.ways.signaling {
            signaling.wake();
        }
    }

    /// The machine has other addresses than before.
    pub(crate) fn moved(&self) {
        self.ways.transports.iter().for_each(|transport| transport.moved());
        self.ways.channels.iter().for_each(|channels| channels.moved());
        self.ways.signaling.iter().for_each(|signaling| signaling.moved());
    }

    /// Whether there is anything that the machine's network matters to.
    pub(crate) fn is_connecting(&self) -> bool {
        !self.ways.transports.is_empty() || self.ways.channels.is_some() || self.ways.signaling.is_some()
    }

    /// How each link is doing: those that are up, and the hubs and relays that are not.
    pub(crate) fn status(&self, engine: &EngineStatus) -> Vec<LinkState> {
        let down = |link: LinkId| LinkState {
            link,
            up: false,
            joined: false,
            holds_all: false,
            unacknowledged: 0,
            path: None,
            round_trip: None,
            trouble: self.troubles.get(&link).cloned(),
        };
        let uplinks = (0..).zip(&self.ways.transports).map(|(n, _)| LinkId::Uplink(n));
        let missing = uplinks.filter(|id| !engine.links.iter().any(|link| link.link == *id));
        let up = engine.links.iter().map(|told| {
            let wired = self.links.get(&told.link);
            LinkState {
                up: true,
                joined: told.joined,
                holds_all: told.holds_all,
                unacknowledged: told.unacknowledged,
                path: wired.and_then(|wired| wired.path),
                round_trip: wired.and_then(|wired| wired.round_trip),
                ..down(told.link)
            }
        });
        missing.map(down).chain(up).collect()
    }

    /// How the signaling servers are doing.
    pub(crate) fn signaling(&self) -> Vec<ServerState> {
        self.servers.clone()
    }

    /// STUN and TURN servers that cannot be used.
    pub(crate) fn unsupported(&self) -> Vec<String> {
        self.unsupported.iter().cloned().collect()
    }

    /// Adds the ways to those who are there.
    pub(crate) fn describe(&self, online: Vec<Online>) -> Others {
        let describe = |online: Online| {
            let link = online.direct.or(online.links.first().copied());
            let wired = link.and_then(|link| self.links.get(&link));
            Other {
                path: online.direct.and(wired).and_then(|wired| wired.path).unwrap_or(Path::Hub),
                round_trip: online.direct.and(wired).and_then(|wired| wired.round_trip),
                session: online.session,
                value: online.value,
                since: online.since,
            }
        };
        online.into_iter().map(describe).collect()
    }

    /// Closes everything politely.
    pub(crate) async fn close(&mut self) {
        let fading: Vec<_> = self.links.drain().map(|(_, wired)| wired.fade()).collect();
        futures_util::future::join_all(fading).await;
        self.signaling = None;
    }
}

impl Wired {
    fn new(epoch: u64, task: Option<Task>, heard: Option<mpsc::Sender<Bytes>>) -> Self {
        Self { epoch, task, outgoing: None, heard, path: None, round_trip: None }
    }

    /// Lets the adapter send what waits and close, but not for long.
    async fn fade(mut self) {
        let was_up = self.outgoing.take().is_some();
        self.heard = None;
        if let Some(mut task) = self.task.filter(|_| was_up) {
            let _ = timeout(FAREWELL, &mut task.0).await;
        }
    }
}
