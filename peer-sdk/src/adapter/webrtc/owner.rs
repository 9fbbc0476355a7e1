//! The task that owns a connection, from its first offer until its sockets are closed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::DataChannel;
use webrtc::error::Error;
use webrtc::peer_connection::{RTCIceCandidateType, RTCPeerConnectionState as State, StatsSelector};

use super::assemble::{self, Assembled, Happening, Owned};
use super::channel::{self, Stage};
use super::negotiation::{Negotiation, Offer};
use super::outbox::Outbox;
use super::pace::Pace;
use super::{CloseReason, Command, Event, LABEL, MAX_MESSAGE, Path, Role, Settings};
use crate::adapter::ice::{IceServer, Usable};

/// How often an open connection is looked at: its way, its round trip, and whether it is at rest.
const LOOK: Duration = Duration::from_secs(3);

/// How long what waits to be sent may hold up an orderly close.
const FLUSH: Duration = Duration::from_secs(1);

/// How long the other side may take to say that it has closed the channel too.
const GOODBYE: Duration = Duration::from_millis(300);

/// How long after the initiator the other side restarts ICE, if the initiator has not.
const SECOND_TRY: Duration = Duration::from_secs(2);

/// How much of a stranger's label is shown, in characters.
const SHOWN: usize = 64;

const DRIVER_GONE: &str = "its sockets can no longer be used";

/// Nobody listens any more.
pub(super) struct Gone;

/// What the tasks of a connection share with its handles.
#[derive(Clone)]
pub(super) struct Link {
    pub(super) events: mpsc::Sender<Event>,
    /// Bytes of messages that may still be queued for the reader of the events.
    pub(super) room: Arc<Semaphore>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) pace: Arc<Pace>,
    /// Cancelled when the handle is dropped.
    pub(super) stop: CancellationToken,
}

impl Link {
    /// Queues an event, waiting for its reader if need be.
    pub(super) async fn tell(&self, event: Event) -> Result<(), Gone> {
        tokio::select! {
            told = self.events.send(event) => told.map_err(|_| Gone),
            () = self.stop.cancelled() => Err(Gone),
        }
    }
}

/// Runs a connection until it ends, and says how it ended.
pub(super) async fn run(
    role: Role,
    settings: Settings,
    link: Link,
    requests: mpsc::Receiver<Command>,
    queue: mpsc::Receiver<Bytes>,
    end: watch::Sender<bool>,
) {
    let (outbox, events) = (Arc::clone(&link.outbox), link.events.clone());
    // In a task of its own, so that even a panic over what a stranger sent ends in an event.
    let living = tokio::spawn(live(role, settings, link, requests, queue));
    let reason = living.await.unwrap_or_else(|panic| CloseReason::Fault(panic.to_string()));
    outbox.shut();
    end.send_replace(true);
    tracing::debug!(%reason, "a connection has ended");
    // Waits for a reader that is behind; nothing of the connection is left by now.
    let _ = events.send(Event::Closed { reason }).await;
}

async fn live(
    role: Role,
    settings: Settings,
    link: Link,
    requests: mpsc::Receiver<Command>,
    queue: mpsc::Receiver<Bytes>,
) -> CloseReason {
    let usable = Usable::of(&settings.ice);
    if !usable.unsupported.is_empty()
        && link.tell(Event::Unsupported { urls: usable.unsupported.clone() }).await.is_err()
    {
        return CloseReason::Local;
    }
    let assembled = match assemble::assemble(&settings, &usable, &link.pace).await {
        Ok(assembled) => assembled,
        Err(error) => return CloseReason::Fault(error.to_string()),
    };
    let Assembled { connection, happenings, overrun, driver_gone } = assembled;
    let mut owner = Owner::new(role, settings, link, &connection, queue);
    let signs = Signs { requests, happenings, overrun, driver_gone };
    let reason = match owner.begin().await {
        Ok(()) => owner.serve(&connection, signs).await,
        Err(error) => CloseReason::Fault(error.to_string()),
    };
    owner.part(&reason).await;
    connection.close().await;
    reason
}

/// Where the owner hears from.
struct Signs {
    requests: mpsc::Receiver<Command>,
    happenings: mpsc::Receiver<Happening>,
    overrun: CancellationToken,
    driver_gone: CancellationToken,
}

struct Owner {
    role: Role,
    settings: Settings,
    link: Link,
    negotiation: Negotiation,
    channel: Option<Arc<dyn DataChannel>>,
    queue: Arc<Mutex<mpsc::Receiver<Bytes>>>,
    /// Reads and writes the channel. Ends with the owner.
    tasks: JoinSet<()>,
    stage: (watch::Sender<Stage>, watch::Receiver<Stage>),
    largest: watch::Sender<usize>,
    /// Since when nothing came, and whether ICE was restarted for it.
    interrupted: Option<(Instant, bool)>,
    way: Option<(Path, Option<Duration>)>,
}

impl Owner {
    fn new(
        role: Role,
        settings: Settings,
        link: Link,
        connection: &Owned,
        queue: mpsc::Receiver<Bytes>,
    ) -> Self {
        Self {
            role,
            settings,
            link,
            negotiation: Negotiation::new(Arc::clone(connection.get()), role),
            channel: None,
            queue: Arc::new(Mutex::new(queue)),
            tasks: JoinSet::new(),
            stage: watch::channel(Stage::Opening),
            largest: watch::Sender::new(MAX_MESSAGE),
            interrupted: None,
            way: None,
        }
    }

    /// The initiator's first words.
    async fn begin(&mut self) -> Result<(), Error> {
        if self.role == Role::Initiator {
            let channel = self.negotiation.open_channel(LABEL).await?;
            self.adopt(channel);
            self.negotiation.offer(Offer::Plain).await?;
        }
        Ok(())
    }

    async fn serve(&mut self, connection: &Owned, mut signs: Signs) -> CloseReason {
        let within = self.settings.connect_within;
        let too_late = tokio::time::sleep(within);
        tokio::pin!(too_late);
        let mut look = tokio::time::interval(LOOK);
        let mut stage = self.stage.1.clone();
        loop {
            if self.say().await.is_err() {
                return CloseReason::Local;
            }
            let at = *stage.borrow_and_update();
            let ended = tokio::select! {
                () = self.link.stop.cancelled() => Some(CloseReason::Local),
                () = self.link.events.closed() => Some(CloseReason::Local),
                () = signs.driver_gone.cancelled() => Some(CloseReason::Fault(DRIVER_GONE.to_owned())),
                () = signs.overrun.cancelled() => Some(CloseReason::Misbehaved("does too much at once")),
                request = signs.requests.recv() => self.requested(request, connection).await,
                Some(happening) = signs.happenings.recv() => self.happened(happening).await,
                _ = stage.changed() => self.moved(connection).await,
                _ = look.tick(), if at == Stage::Open => self.look(connection).await,
                () = &mut too_late, if at == Stage::Opening => Some(CloseReason::Unreachable { within }),
            };
            if let Some(reason) = ended {
                return reason;
            }
        }
    }

    /// Passes on what is to be said to the other side.
    async fn say(&mut self) -> Result<(), Gone> {
        if let Some(largest) = self.negotiation.largest.take() {
            self.largest.send_replace(largest);
        }
        for signal in std::mem::take(&mut self.negotiation.said) {
            self.link.tell(Event::Signal(signal)).await?;
        }
        Ok(())
    }

    async fn requested(&mut self, request: Option<Command>, connection: &Owned) -> Option<CloseReason> {
        self.link.pace.busy();
        let done = match request {
            None => return Some(CloseReason::Local),
            Some(Command::Close) => {
                self.flush().await;
                return Some(CloseReason::Local);
            }
            Some(Command::Signal(signal)) => self.negotiation.hear(signal).await,
            Some(Command::Renegotiate) => self.negotiation.renegotiate().await,
            Some(Command::RestartIce(servers)) => self.restart(servers, connection).await,
        };
        self.link.pace.busy();
        if let Err(error) = done {
            tracing::debug!(%error, "a signal that can not be applied");
        }
        None
    }

    async fn restart(&mut self, servers: Option<Vec<IceServer>>, connection: &Owned) -> Result<(), Error> {
        if let Some(servers) = servers {
            let usable = Usable::of(&servers);
            let configuration = assemble::configuration(self.settings.policy, &usable);
            connection.get().set_configuration(configuration).await?;
            if !usable.unsupported.is_empty() {
                // If nobody listens, the next event finds out.
                let _ = self.link.tell(Event::Unsupported { urls: usable.unsupported }).await;
            }
        }
        if self.negotiation.has_begun() { self.negotiation.offer(Offer::Restart).await } else { Ok(()) }
    }

    async fn happened(&mut self, happening: Happening) -> Option<CloseReason> {
        match happening {
            Happening::Candidate(line) => {
                self.negotiation.candidate(&line);
                None
            }
            Happening::Channel(channel) => self.offered(channel).await,
            Happening::State(state) => self.state(state).await,
        }
    }

    /// The other side has opened a channel.
    async fn offered(&mut self, channel: Arc<dyn DataChannel>) -> Option<CloseReason> {
        let label = channel.label().await.unwrap_or_default();
        if label != LABEL {
            return Some(CloseReason::Foreign { label: label.chars().take(SHOWN).collect() });
        }
        if self.channel.is_some() {
            return Some(CloseReason::Misbehaved("opened a second channel"));
        }
        self.adopt(channel);
        None
    }

    fn adopt(&mut self, channel: Arc<dyn DataChannel>) {
        let (largest, stage) = (self.largest.subscribe(), self.stage.0.clone());
        self.tasks.spawn(channel::read(Arc::clone(&channel), self.link.clone(), largest, stage));
        self.channel = Some(channel);
    }

    async fn state(&mut self, state: State) -> Option<CloseReason> {
        match state {
            State::Failed => Some(self.ended()),
            State::Closed => Some(CloseReason::Remote),
            State::Disconnected if self.interrupted.is_none() => {
                self.interrupted = Some((Instant::now(), false));
                if self.link.tell(Event::Interrupted).await.is_err() {
                    return Some(CloseReason::Local);
                }
                self.recover().await;
                None
            }
            State::Connected if self.interrupted.take().is_some() => {
                self.link.tell(Event::Resumed).await.is_err().then_some(CloseReason::Local)
            }
            _ => None,
        }
    }

    /// Looks for another way, the initiator at once and the other side a little later, so that not both do.
    async fn recover(&mut self) {
        let Some((since, false)) = self.interrupted else { return };
        if self.role == Role::Answerer && since.elapsed() < SECOND_TRY {
            return;
        }
        self.interrupted = Some((since, true));
        self.link.pace.busy();
        if let Err(error) = self.negotiation.offer(Offer::Restart).await {
            tracing::debug!(%error, "ICE could not be restarted");
        }
    }

    /// Why a connection that fails by itself has ended.
    fn ended(&self) -> CloseReason {
        match *self.stage.1.borrow() {
            Stage::Opening => CloseReason::Unreachable { within: self.settings.connect_within },
            Stage::Open => CloseReason::Lost,
            Stage::Ended => CloseReason::Remote,
        }
    }

    /// The channel has opened or ended.
    async fn moved(&mut self, connection: &Owned) -> Option<CloseReason> {
        let stage = *self.stage.1.borrow();
        match stage {
            Stage::Opening => None,
            Stage::Ended => Some(CloseReason::Remote),
            Stage::Open => {
                let channel = self.channel.clone().expect("what has opened was adopted");
                self.tasks.spawn(channel::write(channel, self.link.clone(), Arc::clone(&self.queue)));
                self.look(connection).await
            }
        }
    }

    /// Looks at an open connection.
    async fn look(&mut self, connection: &Owned) -> Option<CloseReason> {
        self.link.pace.look();
        self.recover().await;
        let way = measure(connection).await?;
        if !is_news(self.way, way) {
            return None;
        }
        self.way = Some(way);
        let (path, round_trip) = way;
        self.link.tell(Event::Path { path, round_trip }).await.is_err().then_some(CloseReason::Local)
    }

    async fn flush(&mut self) {
        let stage = *self.stage.1.borrow();
        if let (Some(channel), Stage::Open) = (&self.channel, stage) {
            let flushed = channel::flushed(channel.as_ref(), &self.link);
            if tokio::time::timeout(FLUSH, flushed).await.is_err() {
                tracing::debug!(bytes = self.link.outbox.queued(), "closed before everything was sent");
            }
        }
    }

    /// Says goodbye: first to the channel, so that the other side sees a close and not an abort.
    async fn part(&mut self, reason: &CloseReason) {
        self.link.outbox.shut();
        let mut stage = self.stage.1.clone();
        let is_open = *stage.borrow() == Stage::Open && *reason != CloseReason::Lost;
        if let (Some(channel), true) = (&self.channel, is_open) {
            self.link.pace.busy();
            // The reader may have stopped with the handle; then the channel's own state tells.
            let closed = async {
                channel.close().await.ok()?;
                let gone = stage.wait_for(|stage| *stage == Stage::Ended);
                gone.await.ok().map(|_| ())
            };
            let _ = tokio::time::timeout(GOODBYE, closed).await;
        }
        self.tasks.shutdown().await;
    }
}

/// The way that is in use, and its round trip.
async fn measure(connection: &Owned) -> Option<(Path, Option<Duration>)> {
    let connection = connection.get();
    let transport = connection.sctp().await?.transport().ice_transport();
    let pair = transport.get_selected_candidate_pair().await.ok()??;
    let is_relay = |typ| typ == RTCIceCandidateType::Relay;
    let is_relayed = is_relay(pair.local().typ) || is_relay(pair.remote().typ);
    let report = connection.get_stats(Instant::now(), StatsSelector::None).await;
    let measured =
        report.candidate_pairs().filter(|pair| pair.nominated && pair.current_round_trip_time > 0.0);
    let round_trip = measured.map(|pair| Duration::from_secs_f64(pair.current_round_trip_time)).next();
    Some((if is_relayed { Path::Relayed } else { Path::Direct }, round_trip))
}

/// Whether the way is another one, or a round trip has changed by a quarter and more than a millisecond.
fn is_news(before: Option<(Path, Option<Duration>)>, now: (Path, Option<Duration>)) -> bool {
    match (before, now) {
        (Some((path, Some(before))), (same, Some(now))) if path == same => {
            let moved = before.abs_diff(now);
            moved > before / 4 && moved > Duration::from_millis(1)
        }
        (Some((path, _)), (same, None)) => path != same,
        _ => true,
    }
}
