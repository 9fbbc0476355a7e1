//! What a peer does, without doing it: the core of this crate.
//!
//! One [`Engine`] keeps one document and the presence of one room in step with everybody whom its links lead to. It is
//! a core in the project's one contract: [`Engine::handle`] takes one thing that happened, [`Engine::poll`] says what
//! to do about it and is drained before the next, [`Engine::deadline`] says when [`Input::Tick`] is due. Nothing here
//! awaits, locks, reads a clock or draws a random number.
//!
//! # The story
//!
//! The engine has a copy of the document of its own (`replica`). What the application edits is imported there; then
//! the disk (`journal`) and every `link` are owed a difference, and get it at their own pace. What comes over a
//! link is imported there too, and the application is told that it is owed a difference.
//!
//! - What was edited here goes out at once, on every link.
//! - What others wrote goes on within a [`BEAT`]: to hubs, relays and guests as updates; to data channels at once along
//!   the tree of its author (`link::tree`), and else as an announcement of our version, so that only who lacks something gets
//!   it.
//! - Whoever sends us something is thanked once the disk holds it.
//! - About every 30 seconds, versions are exchanged again.

mod asking;
mod backoff;
mod inflight;
mod journal;
mod link;
mod mesh;
mod presence;
mod replica;
mod showing;
mod uplink;
mod vocabulary;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;
use wire::id::PeerId;

use asking::Ask;
use backoff::Dice;
use journal::Journal;
use link::{Hands, Heard, Link};
use mesh::Mesh;
use presence::Presence;
use replica::{Refused, Replica, exceeds};

use uplink::Uplink;

pub(crate) use replica::missing;

pub use presence::MAX_PRESENCE;
pub use vocabulary::{
    Config, End, EngineStatus, Event, Input, LinkId, LinkStatus, Online, Output, Reason, SignalKind,
    StoreFailed, Ticket,
};

/// About so many bytes may be given to a link beyond what it has drained; then updates wait.
pub const HIGH_WATER: usize = 256 << 10;
/// A link for which more bytes than this wait, answers and presence included, is ended.
const MOST_UNSENT: usize = 4 << 20;
/// How long what others wrote may wait to be passed on, about.
pub const BEAT: Duration = Duration::from_millis(100);
/// What others wrote is pushed on along the tree of its author if it came in a frame of at most so many bytes. More is
/// announced, and sent to who asks for it.
const PUSHED: usize = 16 << 10;
/// Reading so many bytes takes well under a millisecond.
const HEAVY: usize = 64 << 10;
/// One document, and everybody around it.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    replica: Replica,
    journal: Journal,
    links: BTreeMap<LinkId, Link>,
    uplinks: Vec<Uplink>,
    mesh: Mesh,
    presence: Presence,
    dice: Dice,
    /// When to pass on what others wrote.
    beat_at: Option<Instant>,
    /// When to pass on presence.
    presence_at: Option<Instant>,
    /// What was asked of whom, and until when nobody else is asked for the same.
    asks: Vec<Ask>,
    broken: bool,
    garbage: u64,
    outputs: VecDeque<Output>,
}

impl Engine {
    /// An engine that holds what was stored before, and will dial its [`Config::uplinks`] at the first
    /// [`Input::Tick`]. Stored updates that cannot be read are an error: nothing may be written over them.
    pub fn new(now: Instant, config: Config, stored: &[Bytes]) -> Result<Self, Unreadable> {
        let mut replica = Replica::new();
        for (at, update) in stored.iter().enumerate() {
            replica.import(update).map_err(|_| Unreadable { at })?;
        }
        let journal = Journal::new(replica.version().clone(), journal::len(stored));
        Ok(Self {
            replica,
            journal,
            links: BTreeMap::new(),
            uplinks: config.uplinks.iter().map(|_| Uplink::new(now)).collect(),
            mesh: Mesh::new(now, config.session.clone(), config.channels, config.wall),
            presence: Presence::new(now, &config.session.to_string_lossy(), config.wall),
            dice: Dice::new(config.seed),
            beat_at: None,
            presence_at: None,
            asks: Vec::new(),
            broken: false,
            garbage: 0,
            outputs: VecDeque::new(),
            config,
        })
    }

    /// Takes one thing that happened at `now`. Drain [`poll`](Self::poll) before the next.
    pub fn handle(&mut self, now: Instant, input: Input) {
        debug_assert!(self.outputs.is_empty(), "outputs are drained before the next input");
        match input {
            Input::Edited(update) => self.edited(&update),
            Input::Present(value) => self.presence.present(now, value),
            Input::Up { link, frame } => self.up(now, link, frame),
            Input::Frame { link, frame } => self.frame(now, link, &frame),
            Input::Drained { link, bytes } => {
                if let Some(link) = self.links.get_mut(&link) {
                    link.drained(bytes);
                }
            }
            Input::Down { link, end } => self.down(now, link, end),
            Input::Interrupted { link } => self.presence.interrupted(now, link),
            Input::Resumed { link } => self.presence.resumed(now, link),
            Input::Stored { ticket, result } => {
                if !self.journal.answered(now, ticket, result.is_ok()) {
                    self.outputs.push_back(Output::Event(Event::StoreFailed));
                }
            }
            Input::SignalingUp => self.mesh.signaling_up(now),
            Input::Announced { from } => self.mesh.announced(now, &from, &mut self.dice),
            Input::Signalled { from, kind, token, data } => {
                let present = self.present();
                self.mesh.signalled(now, &from, (kind, token), data, &present, &mut self.outputs);
            }
            Input::Local { channel, data } => {
                self.outputs.extend(self.mesh.local(now, channel, data, &mut self.dice));
            }
            Input::Wake => self.wake(now),
            Input::Restored(updates) => self.restored(now, &updates),
            Input::Close => self.close(now),
            Input::Tick => {}
        }
        self.settle(now);
    }

    /// The next thing to do, `None` when there is nothing left.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When to call [`handle`](Self::handle) at the latest, with [`Input::Tick`] if nothing else happens.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        if self.broken {
            return None;
        }
        let dials = self.uplinks.iter().filter_map(Uplink::deadline);
        let links = self.links.values().filter_map(Link::deadline);
        let asks = self.asks.iter().map(|ask| ask.until);
        let own = [self.beat_at, self.presence_at, self.presence.deadline(), self.mesh.deadline()];
        own.into_iter().flatten().chain(self.journal.deadline()).chain(dials).chain(links).chain(asks).min()
    }

    /// Whether an input may take long enough for others to notice, and so belongs on a thread that nobody waits for.
    #[must_use]
    pub fn is_heavy(&self, input: &Input) -> bool {
        match input {
            Input::Frame { link, frame } => {
                frame.len() > HEAVY || self.links.get(link).is_some_and(Link::is_receiving)
            }
            Input::Edited(update) => update.len() > HEAVY,
            Input::Restored(_) => true,
            _ => false,
        }
    }

    /// What the engine holds.
    #[must_use]
    pub fn version(&self) -> &VersionVector {
        self.replica.version()
    }

    /// Everything that somebody with this version lacks; `None` if nothing.
    pub fn updates_since(&mut self, version: &VersionVector) -> Option<Bytes> {
        exceeds(self.replica.version(), version).then(|| self.replica.since(version))
    }

    /// Who is there, but for us.
    #[must_use]
    pub fn online(&self, now: Instant) -> Vec<Online> {
        self.presence.online(now)
    }

    /// How all of it is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let ours = self.replica.version();
        EngineStatus {
            version: ours.clone(),
            stored: self.journal.holds(ours),
            links: self.links.values().map(|link| link.status(ours)).collect(),
            dialling: self.uplinks.iter().filter(|uplink| uplink.is_dialling()).count(),
            garbage: self.garbage,
        }
    }

    /// Whether every link that is up has exchanged versions, and nobody lacks anything that somebody else has shown.
    #[must_use]
    pub fn is_caught_up(&self) -> bool {
        let ours = self.replica.version();
        self.links.values().all(|link| link.is_caught_up(ours))
    }

    /// The session at the other end of a data channel, if there is one.
    #[must_use]
    pub fn session_of(&self, channel: u64) -> Option<&PeerId> {
        self.mesh.peer(channel)
    }

    fn edited(&mut self, update: &[u8]) {
        match self.replica.import(update) {
            Ok(imported) => self.links.values_mut().for_each(|link| link.edited(&imported.gained)),
            Err(Refused::Malformed) => self.garbage += 1,
            Err(Refused::Broken) => self.restore(),
        }
    }

    fn up(&mut self, now: Instant, id: LinkId, frame: usize) {
        let (auth, asks) = match id {
            LinkId::Uplink(n) => {
                let Some(uplink) = self.uplinks.get_mut(usize::from(n)) else { return };
                uplink.up(now);
                (self.config.uplinks[usize::from(n)].clone(), true)
            }
            // Whom a guest has come to, so that it knows who is gone when the link is.
            LinkId::Guest(_) => (Bytes::copy_from_slice(self.config.session.as_bytes()), false),
            LinkId::Channel(n) => {
                let initiator = self.mesh.is_initiator(n);
                if !self.mesh.opened(n) {
                    return;
                }
                (Bytes::new(), initiator)
            }
        };
        let by_author = matches!(id, LinkId::Uplink(n) if self.config.by_author.contains(&n));
        let link = Link::new(now, id, &self.config.room, auth, asks, frame).by_author(by_author);
        self.links.insert(id, link);
    }

    fn frame(&mut self, now: Instant, id: LinkId, frame: &Bytes) {
        if self.broken {
            return;
        }
        let heard = self.with_link(now, id, |link, hands| link.receive(frame, hands));
        let Some(Heard { gained, presence, wants_presence }) = heard else { return };
        if !gained.is_empty() {
            self.outputs.push_back(Output::Changed);
            let beat = self.dice.between(BEAT.mul_f64(0.7), BEAT.mul_f64(1.3));
            self.beat_at.get_or_insert(now + beat);
            if frame.len() <= PUSHED {
                self.links.values_mut().for_each(|link| link.push_on(&gained));
            }
        }
        if wants_presence {
            self.introduce(now, id);
        }
        for update in presence {
            self.hear_presence(now, id, &update);
        }
    }

    /// Has a link do something; one that fails is ended.
    fn with_link<T>(
        &mut self,
        now: Instant,
        id: LinkId,
        act: impl FnOnce(&mut Link, &mut Hands<'_>) -> Result<T, Reason>,
    ) -> Option<T> {
        let link = self.links.get_mut(&id)?;
        let mut hands = Hands {
            now,
            replica: &mut self.replica,
            journal: &self.journal,
            dice: &mut self.dice,
            out: &mut self.outputs,
        };
        let done = act(link, &mut hands).and_then(|done| match link.is_stuck() {
            true => Err(Reason::TooSlow),
            false => Ok(done),
        });
        done.map_err(|reason| self.cut(now, id, reason)).ok()
    }

    fn cut(&mut self, now: Instant, id: LinkId, reason: Reason) {
        if matches!(reason, Reason::Garbage | Reason::Foreign | Reason::Hostile) {
            self.garbage += 1;
        }
        self.outputs.push_back(Output::Cut { link: id, reason });
        self.outputs.push_back(Output::Event(Event::Cut(id, reason)));
        self.lost(now, id, Some(reason));
        if reason == Reason::Hostile {
            self.restore();
        }
    }

    fn down(&mut self, now: Instant, id: LinkId, end: End) {
        let reason = end.reason();
        if reason == Some(Reason::Foreign) {
            self.outputs.push_back(Output::Event(Event::Cut(id, Reason::Foreign)));
        }
        self.lost(now, id, reason);
    }

    /// A link is gone.
    fn lost(&mut self, now: Instant, id: LinkId, reason: Option<Reason>) {
        if self.links.remove(&id).is_some() {
            self.presence.down(now, id);
            self.asks.retain(|ask| ask.link != id);
        }
        match id {
            LinkId::Uplink(n) => {
                let Some(uplink) = self.uplinks.get_mut(usize::from(n)) else { return };
                uplink.down(now, reason.is_some_and(Reason::is_final), &mut self.dice);
            }
            LinkId::Channel(n) => self.mesh.closed(now, n, reason, &mut self.dice),
            LinkId::Guest(_) => {}
        }
    }

    fn wake(&mut self, now: Instant) {
        for (n, uplink) in (0..).zip(&mut self.uplinks) {
            if !self.links.contains_key(&LinkId::Uplink(n)) {
                uplink.wake(now);
            }
        }
        self.mesh.wake(now);
    }

    fn close(&mut self, now: Instant) {
        self.presence.leave(now);
        self.flush_presence(now);
        for link in self.links.values_mut() {
            link.leave(&mut self.outputs);
        }
    }

    /// The document broke: it is made anew.
    fn restore(&mut self) {
        self.broken = true;
        self.outputs.push_back(Output::Restore);
    }

    fn restored(&mut self, now: Instant, updates: &[Bytes]) {
        self.replica.restore(updates);
        self.broken = false;
        // What is stored is in these updates, or cannot be read: then it is stored again.
        self.journal.start_over();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.with_link(now, id, |link, hands| {
                link.start_over(hands);
                Ok(())
            });
        }
    }

    /// Does what time alone brings about, and what is owed.
    fn settle(&mut self, now: Instant) {
        self.dial(now);
        if self.mesh.deadline().is_some_and(|at| at <= now) {
            let present = self.present();
            self.mesh.keep_time(now, &present, &mut self.dice, &mut self.outputs);
        }
        self.sweep(now);
        self.flush_presence(now);
        if self.broken {
            return;
        }
        self.outputs.extend(self.journal.write(now, &mut self.replica));
        let beat = self.beat_at.take_if(|at| *at <= now).is_some();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.with_link(now, id, |link, hands| {
                link.thank(hands);
                if beat {
                    link.pass_on(hands);
                }
                link.pump(hands);
                link.keep_time(hands)
            });
        }
        self.ask_around(now);
    }

    fn dial(&mut self, now: Instant) {
        for (n, uplink) in (0..).zip(&mut self.uplinks) {
            if uplink.dials(now) {
                self.outputs.push_back(Output::Dial { uplink: n });
            }
        }
    }

    /// Lets go of data channels that the mesh has given up.
    fn sweep(&mut self, now: Instant) {
        let gone: Vec<_> = self
            .links
            .keys()
            .copied()
            .filter(|id| matches!(id, LinkId::Channel(n) if self.mesh.peer(*n).is_none()))
            .collect();
        gone.into_iter().for_each(|id| self.lost(now, id, Some(Reason::Surplus)));
    }
}

/// Something stored that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored update {at} cannot be read")]
pub struct Unreadable {
    /// Its place, from 0.
    pub at: usize,
}
