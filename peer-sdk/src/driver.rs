//! The only event loop of a peer: it feeds the engine and performs what it says.
//!
//! Everything that happens arrives in one of a few bounded queues; whoever finds one full waits, so that a peer that has
//! much to do slows its network down. The engine runs here, or for a large import on a thread that may block.

mod disk;
mod links;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::{LoroDoc, LoroValue, VersionVector};
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::sleep_until;

use crate::adapter::{Arrival, Heard, Note};
use crate::document::difference;
use crate::engine::{Engine, Event as Told, Input, LinkId, Output};
use crate::peer::{Event, Status};
use crate::presence::Others;
use crate::surroundings::{Change, Surroundings};
pub(crate) use disk::Disk;
pub(crate) use links::{Links, Ways};

/// The least time between two looks at the status.
const LOOK: Duration = Duration::from_millis(20);
/// How long closing waits for the disk and for the hubs to take what is left.
const FLUSH: Duration = Duration::from_secs(2);

/// What the handle and the document's worker ask.
#[derive(Debug)]
pub(crate) enum Command {
    /// The application has edited, and its document has this now; the answer is what the engine has.
    Edited(Bytes, VersionVector, oneshot::Sender<VersionVector>),
    /// What is the news for an application that has this?
    Pull(VersionVector, oneshot::Sender<(Option<Bytes>, VersionVector)>),
    Wake,
    Close(oneshot::Sender<()>),
}

/// What the handle looks at.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) status: watch::Sender<Status>,
    pub(crate) others: watch::Sender<Others>,
    pub(crate) events: broadcast::Sender<Event>,
    /// There are updates for the application.
    pub(crate) news: Notify,
}

pub(crate) struct Driver {
    /// `None` only while it runs on another thread.
    engine: Option<Engine>,
    links: Links,
    disk: Disk,
    doc: LoroDoc,
    shared: Arc<Shared>,
    arrivals: mpsc::Receiver<Arrival>,
    commands: mpsc::Receiver<Command>,
    shows: watch::Receiver<Option<LoroValue>>,
    /// What the application's document has, as far as we have heard.
    delivered: VersionVector,
    restored: Option<oneshot::Receiver<Bytes>>,
    /// Looked at only by those who have a network to lose.
    surroundings: Option<Surroundings>,
    look_at: Option<Instant>,
    presence_changed: bool,
}

/// Says that the peer is closed, however the driver ends.
struct Closing(Arc<Shared>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.status.send_modify(|status| status.closed = true);
    }
}

/// Why the loop takes a turn.
enum Turn {
    Arrival(Arrival),
    Command(Option<Command>),
    Stored(Input),
    Restored(Bytes),
    Shows,
    Surroundings(Change),
    Time,
}

impl Driver {
    #[expect(clippy::too_many_arguments, reason = "made in one place, of what that place has just made")]
    pub(crate) fn new(
        engine: Engine,
        links: Links,
        disk: Disk,
        doc: LoroDoc,
        shared: Arc<Shared>,
        arrivals: mpsc::Receiver<Arrival>,
        commands: mpsc::Receiver<Command>,
        shows: watch::Receiver<Option<LoroValue>>,
    ) -> Self {
        let delivered = engine.version().clone();
        let surroundings = links.is_connecting().then(Surroundings::new);
        Self {
            engine: Some(engine),
            links,
            disk,
            doc,
            shared,
            arrivals,
            commands,
            shows,
            delivered,
            restored: None,
            surroundings,
            look_at: None,
            presence_changed: false,
        }
    }

    /// Runs until it is told to close, or nobody is left who could tell it.
    pub(crate) async fn run(mut self) {
        let _closing = Closing(Arc::clone(&self.shared));
        self.tell(Input::Tick).await;
        loop {
            match self.turn().await {
                Turn::Arrival(arrival) => self.arrived(arrival).await,
                Turn::Command(Some(Command::Close(done))) => {
                    self.close().await;
                    let _ = done.send(());
                    return;
                }
                Turn::Command(None) => return,
                Turn::Command(Some(command)) => self.obey(command).await,
                Turn::Stored(input) => self.tell(input).await,
                Turn::Restored(update) => {
                    self.restored = None;
                    self.tell(Input::Restored(vec![update])).await;
                }
                Turn::Shows => {
                    let value = self.shows.borrow_and_update().clone();
                    self.tell(Input::Present(value)).await;
                }
                Turn::Surroundings(change) => self.surroundings_changed(change).await,
                Turn::Time => self.tell(Input::Tick).await,
            }
            self.look();
        }
    }

    fn engine(&self) -> &Engine {
        self.engine.as_ref().expect("the engine is here between turns")
    }

    fn engine_mut(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("the engine is here between turns")
    }

    async fn turn(&mut self) -> Turn {
        let deadline = [self.engine().deadline(), self.look_at].into_iter().flatten().min();
        let far = || Instant::now() + Duration::from_secs(3600);
        let restored = async {
            match &mut self.restored {
                Some(restored) => restored.await.unwrap_or_default(),
                None => std::future::pending().await,
            }
        };
        let changed = async {
            match &mut self.surroundings {
                Some(surroundings) => surroundings.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(arrival) = self.arrivals.recv() => Turn::Arrival(arrival),
            command = self.commands.recv() => Turn::Command(command),
            input = self.disk.answer() => Turn::Stored(input),
            update = restored => Turn::Restored(update),
            Ok(()) = self.shows.changed() => Turn::Shows,
            change = changed => Turn::Surroundings(change),
            () = sleep_until(deadline.unwrap_or_else(far).into()) => Turn::Time,
        }
    }

    async fn arrived(&mut self, arrival: Arrival) {
        if let Arrival::Heard(Heard::WrongPassword) = arrival {
            let _ = self.shared.events.send(Event::WrongPassword);
            return;
        }
        if let Arrival::Note { link, note: Note::WrongKey, .. } = &arrival {
            let _ = self.shared.events.send(Event::WrongKey(*link));
        }
        match self.links.arrived(arrival) {
            Some(input) => self.tell(input).await,
            None => self.look_soon(),
        }
    }

    /// Whatever waits for better times tries again now.
    async fn surroundings_changed(&mut self, change: Change) {
        tracing::debug!(?change, "the machine's surroundings have changed");
        self.links.moved();
        if change == Change::Slept {
            self.links.wake();
        }
        self.tell(Input::Wake).await;
    }

    async fn obey(&mut self, command: Command) {
        match command {
            Command::Edited(update, version, done) => {
                self.delivered = version;
                self.tell(Input::Edited(update)).await;
                let _ = done.send(self.engine().version().clone());
            }
            Command::Pull(version, done) => {
                let update = self.engine_mut().updates_since(&version);
                self.delivered = version;
                let _ = done.send((update, self.engine().version().clone()));
                self.look_at.get_or_insert_with(Instant::now);
            }
            Command::Wake => {
                self.links.wake();
                self.tell(Input::Wake).await;
            }
            Command::Close(_) => {}
        }
    }

    /// Gives the engine one input and performs what it says.
    async fn tell(&mut self, input: Input) {
        self.handle(input).await;
        // A link whose queue is full is down; so may be another after that, but no more than there are.
        while let Some(input) = self.links.broken() {
            self.handle(input).await;
        }
        self.look_soon();
    }

    fn look_soon(&mut self) {
        self.look_at.get_or_insert_with(|| Instant::now() + LOOK);
    }

    async fn handle(&mut self, input: Input) {
        let Some(mut engine) = self.engine.take() else { return };
        let engine = if engine.is_heavy(&input) {
            spawn_blocking(move || {
                engine.handle(Instant::now(), input);
                engine
            })
            .await
            .expect("the engine catches what may panic")
        } else {
            engine.handle(Instant::now(), input);
            engine
        };
        self.engine = Some(engine);
        while let Some(output) = self.engine_mut().poll() {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Append { .. } | Output::Compact { .. } => self.disk.write(output),
            Output::Changed => self.shared.news.notify_one(),
            Output::Restore => self.restore(),
            Output::Event(event) => self.event(event),
            output => self.links.perform(output),
        }
    }

    /// Reads everything from the application's document, which may take long.
    fn restore(&mut self) {
        let (done, restored) = oneshot::channel();
        let doc = self.doc.clone();
        spawn_blocking(move || done.send(difference(&doc, &VersionVector::default()).unwrap_or_default()));
        self.restored = Some(restored);
        let _ = self.shared.events.send(Event::Restored);
    }

    fn event(&mut self, event: Told) {
        let event = match event {
            Told::Presence => {
                self.presence_changed = true;
                Event::Presence
            }
            Told::Joined(link) => Event::Joined(link),
            Told::ReadOnly(link) => Event::ReadOnly(link),
            Told::Refused(link, status) => Event::Refused(link, status),
            Told::StoreFailed => {
                let why = self.disk.trouble().unwrap_or_default();
                Event::StoreFailed(why)
            }
            Told::Cut(link, reason) => {
                if let LinkId::Uplink(_) = link {
                    self.links.trouble(link, reason.to_string());
                }
                Event::Ended(link, reason)
            }
        };
        if event == Event::Presence {
            self.publish_presence();
        }
        // Nobody listens: then it is no news.
        let _ = self.shared.events.send(event);
    }

    fn publish_presence(&mut self) {
        if let Some(engine) = &self.engine {
            let online = self.links.describe(engine.online(Instant::now()));
            self.shared.others.send_replace(online);
        }
        self.presence_changed = false;
    }

    /// Looks how all of it is doing, but not at every turn.
    fn look(&mut self) {
        if self.look_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        self.look_at = None;
        self.publish();
    }

    /// Shows how all of it is doing.
    pub(crate) fn publish(&mut self) {
        let engine = self.engine();
        let told = engine.status();
        let delivered = self.delivered.includes_vv(&told.version);
        let settled = engine.is_caught_up() && told.dialling == 0 && delivered;
        let status = Status {
            stored: told.stored,
            caught_up: settled,
            links: self.links.status(&told),
            signaling: self.links.signaling(),
            unsupported: self.links.unsupported(),
            garbage: told.garbage,
            trouble: self.disk.trouble(),
            version: told.version,
            closed: false,
        };
        self.shared.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
        self.publish_presence();
    }

    /// Lets everybody have what is left, says goodbye, and closes.
    async fn close(&mut self) {
        let until = Instant::now() + FLUSH;
        while !self.is_flushed() && Instant::now() < until {
            let turn = tokio::time::timeout_at(until.into(), self.turn()).await;
            match turn {
                Ok(Turn::Arrival(arrival)) => self.arrived(arrival).await,
                Ok(Turn::Stored(input)) => self.tell(input).await,
                Ok(Turn::Command(Some(command))) => self.obey(command).await,
                Ok(Turn::Time | Turn::Shows) => self.tell(Input::Tick).await,
                _ => break,
            }
        }
        self.tell(Input::Close).await;
        self.links.close().await;
        self.disk.close().await;
    }

    fn is_flushed(&self) -> bool {
        let status = self.engine().status();
        let given =
            |link: &crate::engine::LinkStatus| !link.joined || link.unacknowledged == 0 && link.holds_all;
        let uplinks = |link: &&crate::engine::LinkStatus| matches!(link.link, LinkId::Uplink(_));
        status.stored && status.links.iter().filter(uplinks).all(given)
    }
}
