//! The task that owns a connection, from its first offer until its sockets are closed.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use webrtc::data_channel::DataChannel;
use webrtc::error::Error;
use webrtc::peer_connection::RTCPeerConnectionState as State;

use super::assemble::{self, Assembled, Happening, Owned};
use super::channel::{self, Stage};
use super::negotiation::{Negotiation, Offer};
use super::outbox::Outbox;
use super::pace::Pace;
use super::silence::Silence;
use super::way::{self, Way};
use super::{CloseReason, Command, Event, LABEL, MAX_MESSAGE, Role, Settings};
use crate::adapter::ice::{IceServer, Usable};

/// How often an open connection is looked at: its way and its round trip.
const LOOK: Duration = Duration::from_secs(3);

/// How long what waits to be sent may hold up an orderly close. A packet that is lost is sent again after a second.
const FLUSH: Duration = Duration::from_secs(4);

/// How long the other side may take to say that it has closed the channel too.
const GOODBYE: Duration = Duration::from_millis(1500);

/// How long what we answer to that may take to be sent.
const ANSWERED: Duration = Duration::from_millis(50);

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
    /// Cancelled when the connection is to be closed in order.
    pub(super) close: CancellationToken,
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
    let (reason, mut reading) = living.await.unwrap_or_else(|panic| {
        let reason = CloseReason::Fault(panic.to_string());
        (reason, JoinSet::new())
    });
    outbox.shut();
    end.send_replace(true);
    tracing::debug!(%reason, "a connection has ended");
    // Of the connection nothing is left by now but what it has brought, which waits for the reader of the events.
    while reading.join_next().await.is_some() {}
    let _ = events.send(Event::Closed { reason }).await;
}

async fn live(
    role: Role,
    settings: Settings,
    link: Link,
    requests: mpsc::Receiver<Command>,
    queue: mpsc::Receiver<Bytes>,
) -> (CloseReason, JoinSet<()>) {
    let usable = Usable::of(&settings.ice);
    if !usable.unsupported.is_empty()
        && link.tell(Event::Unsupported { urls: usable.unsupported.clone() }).await.is_err()
    {
        return (CloseReason::Local, JoinSet::new());
    }
    let assembled = match assemble::assemble(&settings, &usable, &link.pace).await {
        Ok(assembled) => assembled,
        Err(error) => return (CloseReason::Fault(error.to_string()), JoinSet::new()),
    };
    let Assembled { connection, happenings, overrun, driver_gone } = assembled;
    let mut owner = Owner::new(role, settings, link, &connection, queue);
    let signs = Signs { requests, happenings, overrun, driver_gone };
    let reason = match owner.begin().await {
        Ok(()) => owner.serve(&connection, signs).await,
        Err(error) => CloseReason::Fault(error.to_string()),
    };
    let reading = owner.part(&reason).await;
    // Ends the reader too, once it has read what is there.
    connection.close().await;
    (reason, reading)
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
    /// What is to be sent, until the channel's writer has it.
    queue: Option<mpsc::Receiver<Bytes>>,
    /// The tasks of the channel, at most one each. They end with the owner.
    reader: JoinSet<()>,
    writer: JoinSet<()>,
    stage: (watch::Sender<Stage>, watch::Receiver<Stage>),
    largest: watch::Sender<usize>,
    /// While nothing comes.
    interrupted: Option<Silence>,
    way: Option<Way>,
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
            queue: Some(queue),
            reader: JoinSet::new(),
            writer: JoinSet::new(),
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
        // The first look is as soon as the channel is open.
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stage = self.stage.1.clone();
        let never = too_late.deadline();
        loop {
            if self.say().await.is_err() {
                return CloseReason::Local;
            }
            let at = *stage.borrow();
            let lost = self.interrupted.as_ref().map(|silence| silence.since + self.settings.lost_after);
            let recovers = self.recovers_at();
            let ended = tokio::select! {
                () = self.link.stop.cancelled() => Some(CloseReason::Local),
                () = self.link.close.cancelled() => Some(self.flush().await),
                () = self.link.events.closed() => Some(CloseReason::Local),
                () = signs.driver_gone.cancelled() => Some(CloseReason::Fault(DRIVER_GONE.to_owned())),
                () = signs.overrun.cancelled() => Some(CloseReason::Misbehaved("does too much at once")),
                request = signs.requests.recv() => self.requested(request, connection).await,
                Some(happening) = signs.happenings.recv() => self.happened(happening).await,
                _ = stage.changed() => self.moved(),
                _ = look.tick(), if at == Stage::Open => self.look(connection).await,
                () = tokio::time::sleep_until(recovers.unwrap_or(never)), if recovers.is_some() => self.recover().await,
                () = tokio::time::sleep_until(lost.unwrap_or(never)), if lost.is_some() => Some(CloseReason::Lost),
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
        match request {
            None => return Some(CloseReason::Local),
            // Who has given us up while we have not, and has begun anew, is let go: as long as we wait, its offers are not
            // heard. But not while all is well, for anybody may speak in its name.
            Some(Command::Signal(signal))
                if (self.interrupted.is_some() || self.negotiation.is_doubted())
                    && self.negotiation.is_elsewhere(&signal) =>
            {
                return Some(CloseReason::Lost);
            }
            Some(Command::SignalAnew) => self.interrupted.iter_mut().for_each(Silence::starts_over),
            Some(Command::Moved) => self.machine_moved(),
            Some(request) => self.negotiate(request, connection).await,
        }
        None
    }

    async fn negotiate(&mut self, request: Command, connection: &Owned) {
        self.link.pace.negotiates();
        let done = match request {
            Command::Signal(signal) => self.negotiation.hear(signal).await,
            Command::Renegotiate => self.negotiation.renegotiate().await,
            Command::RestartIce(servers) => self.restart(servers, connection).await,
            Command::SignalAnew | Command::Moved => Ok(()),
        };
        self.link.pace.kick();
        if let Err(error) = done {
            tracing::debug!(%error, "a signal that can not be applied");
        }
    }

    /// The machine has other addresses: the other side cannot know if ours is gone.
    fn machine_moved(&mut self) {
        if *self.stage.1.borrow() == Stage::Open && self.link.pace.is_stranded() {
            let patience = self.settings.interrupted_after;
            let silence = || Silence::unnoticed(Instant::now(), patience);
            self.interrupted.get_or_insert_with(silence).starts_over();
        }
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
            let _ = tokio::time::timeout(GOODBYE, channel::decline(channel.as_ref())).await;
            return Some(CloseReason::Foreign { label: label.chars().take(SHOWN).collect() });
        }
        if self.channel.is_some() {
            return Some(CloseReason::Misbehaved("opened a second channel"));
        }
        if !channel::is_reliable(channel.as_ref()).await {
            return Some(CloseReason::Misbehaved("opened a channel that may lose messages or their order"));
        }
        self.adopt(channel);
        None
    }

    fn adopt(&mut self, channel: Arc<dyn DataChannel>) {
        let (largest, stage) = (self.largest.subscribe(), self.stage.0.clone());
        self.reader.spawn(channel::read(Arc::clone(&channel), self.link.clone(), largest, stage));
        self.channel = Some(channel);
    }

    async fn state(&mut self, state: State) -> Option<CloseReason> {
        match state {
            State::Failed => Some(self.ended()),
            State::Closed => Some(CloseReason::Remote),
            State::Disconnected => {
                let now = Instant::now();
                let is_sure = self.link.pace.has_asked_in_vain();
                let silence = || if is_sure { Silence::sure(now) } else { Silence::doubtful(now) };
                self.interrupted.get_or_insert_with(silence);
                self.link.pace.negotiates();
                self.recover().await
            }
            State::Connected if self.interrupted.take().is_some_and(|silence| silence.is_told()) => {
                self.link.tell(Event::Resumed).await.is_err().then_some(CloseReason::Local)
            }
            _ => None,
        }
    }

    /// When the next is to be done about an interruption.
    fn recovers_at(&self) -> Option<Instant> {
        let is_answered = self.negotiation.is_answered();
        self.interrupted.as_ref().map(|silence| silence.next(self.role, is_answered))
    }

    /// Says that there is an interruption, and looks for another way, each if it is time to.
    async fn recover(&mut self) -> Option<CloseReason> {
        let (now, is_answered) = (Instant::now(), self.negotiation.is_answered());
        let silence = self.interrupted.as_mut()?;
        let tries = now >= silence.due(self.role, is_answered);
        if tries {
            silence.tries(now);
        }
        if silence.tells(now) && self.link.tell(Event::Interrupted).await.is_err() {
            return Some(CloseReason::Local);
        }
        if tries {
            if let Err(error) = self.negotiation.restart().await {
                tracing::debug!(%error, "ICE could not be restarted");
            }
            self.link.pace.kick();
        }
        None
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
    fn moved(&mut self) -> Option<CloseReason> {
        let stage = *self.stage.1.borrow();
        match stage {
            Stage::Opening => None,
            Stage::Ended => Some(CloseReason::Remote),
            Stage::Open => {
                self.start_writing();
                None
            }
        }
    }

    fn start_writing(&mut self) {
        if let (Some(channel), Some(queue)) = (&self.channel, self.queue.take()) {
            self.writer.spawn(channel::write(Arc::clone(channel), self.link.clone(), queue));
        }
    }

    /// Looks at an open connection.
    async fn look(&mut self, connection: &Owned) -> Option<CloseReason> {
        if !self.link.pace.looks() {
            return None;
        }
        let way = way::measure(connection.get().as_ref()).await?;
        if self.interrupted.is_none() {
            self.link.pace.has_way();
        }
        if !way::is_news(self.way, way) {
            return None;
        }
        self.way = Some(way);
        let (path, round_trip) = way;
        self.link.tell(Event::Path { path, round_trip }).await.is_err().then_some(CloseReason::Local)
    }

    async fn flush(&mut self) -> CloseReason {
        let is_open = *self.stage.1.borrow() == Stage::Open && self.interrupted.is_none();
        if is_open {
            // The channel may have opened a moment ago.
            self.start_writing();
        }
        if let (Some(channel), true) = (&self.channel, is_open) {
            let flushed = channel::flushed(channel.as_ref(), &self.link);
            if tokio::time::timeout(FLUSH, flushed).await.is_err() {
                tracing::debug!(bytes = self.link.outbox.queued(), "closed before everything was sent");
            }
        }
        CloseReason::Local
    }

    /// Says goodbye: first to the channel, so that the other side sees a close and not an abort. What still reads, if
    /// anybody is interested.
    async fn part(mut self, reason: &CloseReason) -> JoinSet<()> {
        self.link.outbox.shut();
        self.writer.shutdown().await;
        let mut stage = self.stage.1.clone();
        let is_open = *stage.borrow() == Stage::Open;
        let is_ours = !matches!(reason, CloseReason::Remote | CloseReason::Lost | CloseReason::Fault(_));
        if !is_ours {
            return self.reader;
        }
        if let (Some(channel), true) = (&self.channel, is_open) {
            self.link.pace.kick();
            let closed = async {
                channel.close().await.ok()?;
                stage.wait_for(|stage| *stage == Stage::Ended).await.ok()?;
                // Chromium takes what comes before our answer for an error.
                self.link.pace.kick();
                tokio::time::sleep(ANSWERED).await;
                Some(())
            };
            let _ = tokio::time::timeout(GOODBYE, closed).await;
        }
        self.reader.shutdown().await;
        self.reader
    }
}
