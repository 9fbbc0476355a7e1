//! One document over one link: joining, versions, and what the other end is owed.
//!
//! Nothing is queued for the network. What a link is owed is the difference between our version and the version that
//! the other end is known to hold, so that the first join, coming back after weeks and catching up with a slow reader
//! are one and the same. What the other end holds is known from the versions that it shows, from what it sends, and
//! from what it acknowledges.
//!
//! # Who says what
//!
//! The Loro Protocol knows clients and servers. To a hub or relay we are the client, to a guest the server. On a data
//! channel whoever made it asks first, and from then on both ends may do both:
//!
//! - *Ask*: a `JoinRequest` shows a version and wants what is missing. It is answered by a `JoinOk` with the other
//!   version, and by the difference; then the one who asked sends what the other lacks.
//! - *Announce*: a `JoinOk` that nobody asked for shows a version and wants nothing. Who lacks something asks.
//!
//! # Trees
//!
//! What others wrote is pushed on over data channels as soon as it comes. Who gets it a second time says so, with an
//! announcement that names the authors ([`tree`]), and the channel is *lazy* for them from then on: their changes are
//! announced there and no longer pushed. So the channels that are not lazy for an author make a tree, along which its
//! changes came first. Who hears of changes sooner than it gets them, or instead, asks, and the channel is lazy no more.

mod flow;
mod joining;
mod reading;
mod tree;

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;
use wire::fragment::{FRAGMENT, FragmentLimits, Reassembly};
use wire::id::RoomId;
use wire::sync::{Crdt, Message, Room, Status};

use super::backoff::Dice;
use super::inflight::Inflight;
use super::journal::Journal;
use super::replica::{Replica, counter, exceeds, exceeds_both, raise};
use super::vocabulary::{LinkId, LinkStatus, Output, Reason};
use flow::{Outgoing, Receipt};
use tree::Branch;

/// Updates are cut so short on data channels, where a long message holds up everything behind it.
const CHANNEL_FRAGMENT: usize = 60 << 10;
/// What stands around a fragment in its message, but for the room's name.
const ENVELOPE: usize = 64;
/// About how often versions are exchanged when nothing else happens.
const EXCHANGE: Duration = Duration::from_secs(30);
/// How long an answer to a join may take, and how often it is asked before the link is given up.
const JOIN: Duration = Duration::from_secs(10);
const JOIN_TRIES: u32 = 3;
/// The least time between two joins, or two suggestions to join.
const PACE: Duration = Duration::from_secs(1);
/// So many frames that cannot be read are put up with between two exchanges.
const STRIKES: u32 = 32;

/// What a link needs of the engine around it.
pub(super) struct Hands<'a> {
    pub(super) now: Instant,
    pub(super) replica: &'a mut Replica,
    pub(super) journal: &'a Journal,
    pub(super) dice: &'a mut Dice,
    pub(super) out: &'a mut VecDeque<Output>,
}

/// What a frame was about, beyond the link itself.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// How far those got whose changes are new.
    pub(super) gained: VersionVector,
    /// Presence, still to be read.
    pub(super) presence: Vec<Bytes>,
    /// The other end now wants presence, all of it.
    pub(super) wants_presence: bool,
}

/// What the other end is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Owe {
    Nothing,
    /// What is pushed.
    Some,
    All,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No version of the other end is known.
    Strange,
    Live,
}

/// A question that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Join {
    deadline: Instant,
    tries: u32,
    /// The last update that was sent before it.
    mark: u64,
}

#[derive(Debug)]
pub(super) struct Link {
    id: LinkId,
    document: Room,
    presence: Room,
    /// What we show when we join; to a guest, who we are.
    auth: Bytes,
    /// The session that we have dialled, if it has said so: a relay has none.
    host: Option<String>,
    /// We are the one who asks.
    asks: bool,
    fragment: usize,
    /// Each update holds the changes of one author alone.
    by_author: bool,
    stage: Stage,
    may_write: bool,
    theirs: VersionVector,
    /// The last version that the other end was shown.
    shown: VersionVector,
    /// The version of theirs that was there when we last asked: one that lies is asked once.
    asked: Option<VersionVector>,
    /// Until when what was asked for may take to begin to come.
    awaited_until: Option<Instant>,
    inflight: Inflight,
    owe: Owe,
    /// How far the changes go that are pushed.
    pushed: VersionVector,
    tree: Branch,
    outgoing: Option<Outgoing>,
    /// Bytes given to the network and not drained yet.
    unsent: usize,
    join: Option<Join>,
    exchange_at: Option<Instant>,
    joined_at: Option<Instant>,
    suggested_at: Option<Instant>,
    /// How often versions were exchanged for what an update builds on, and nothing came of it.
    fruitless: u32,
    /// Updates are held back until then, for they were refused.
    held_until: Option<Instant>,
    refusals: u32,
    fragments: Reassembly,
    receipts: VecDeque<Receipt>,
    strikes: u32,
    heard_anything: bool,
    /// The other end takes part in presence.
    present: bool,
    /// Keys of presence that it has not been told of.
    pub(super) news_of: BTreeSet<Arc<str>>,
}

impl Link {
    pub(super) fn new(
        now: Instant,
        id: LinkId,
        room: &RoomId,
        auth: Bytes,
        asks: bool,
        frame: usize,
    ) -> Self {
        let most = match id {
            LinkId::Channel(_) => CHANNEL_FRAGMENT,
            LinkId::Uplink(_) | LinkId::Guest(_) => FRAGMENT,
        };
        let fragment = frame.saturating_sub(ENVELOPE + room.as_str().len()).clamp(1, most);
        Self {
            id,
            document: Room { crdt: Crdt::Loro, id: room.clone() },
            presence: Room { crdt: Crdt::Ephemeral, id: room.clone() },
            auth,
            host: None,
            asks,
            fragment,
            by_author: false,
            stage: Stage::Strange,
            may_write: true,
            theirs: VersionVector::default(),
            shown: VersionVector::default(),
            asked: None,
            awaited_until: None,
            inflight: Inflight::default(),
            owe: Owe::Nothing,
            pushed: VersionVector::default(),
            tree: Branch::default(),
            outgoing: None,
            unsent: 0,
            join: None,
            exchange_at: match id {
                _ if asks => Some(now),
                // Whoever made the channel asks first, or does not speak our protocol.
                LinkId::Channel(_) => Some(now + JOIN * JOIN_TRIES),
                _ => None,
            },
            joined_at: None,
            suggested_at: None,
            fruitless: 0,
            held_until: None,
            refusals: 0,
            fragments: Reassembly::new(FragmentLimits::default()),
            receipts: VecDeque::new(),
            strikes: 0,
            heard_anything: false,
            present: false,
            news_of: BTreeSet::new(),
        }
    }

    pub(super) fn by_author(self, by_author: bool) -> Self {
        Self { by_author, ..self }
    }

    fn is_channel(&self) -> bool {
        matches!(self.id, LinkId::Channel(_))
    }

    fn is_uplink(&self) -> bool {
        matches!(self.id, LinkId::Uplink(_))
    }

    /// The session that we have dialled, if it is one.
    pub(super) fn host(&self) -> Option<String> {
        self.host.clone()
    }

    pub(super) fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    pub(super) fn is_present(&self) -> bool {
        self.present
    }

    /// Whether the other end has shown something that is neither in this version nor asked for already.
    pub(super) fn is_worth_asking(&self, version: &VersionVector) -> bool {
        let asked = self.asked.as_ref().is_some_and(|asked| !exceeds(&self.theirs, asked));
        self.is_live() && self.join.is_none() && !asked && exceeds(&self.theirs, version)
    }

    /// The version that the other end is known to hold.
    pub(super) fn theirs(&self) -> &VersionVector {
        &self.theirs
    }

    /// Whether something of it is on its way in.
    pub(super) fn is_receiving(&self) -> bool {
        self.fragments.pending() > 0
    }

    /// Bytes of unfinished updates, updates that wait for thanks, and bytes that wait for the network.
    #[cfg(test)]
    pub(super) fn weight(&self) -> [usize; 3] {
        [self.fragments.pending(), self.receipts.len(), self.unsent]
    }

    pub(super) fn status(&self, ours: &VersionVector) -> LinkStatus {
        LinkStatus {
            link: self.id,
            joined: self.is_live(),
            holds_all: self.is_live() && !exceeds(ours, &self.theirs),
            unacknowledged: self.inflight.len(),
        }
    }

    /// Whether versions have been exchanged, and neither end lacks anything that it is known or has asked to lack.
    pub(super) fn is_caught_up(&self, ours: &VersionVector) -> bool {
        // Over a data channel who was shown something and lacks nothing of it is silent.
        let told = self.is_channel() && !exceeds_both(ours, &self.shown, &self.theirs);
        let given = !self.may_write || told || !exceeds(ours, &self.theirs);
        // What somebody claims to have, and has not brought although it was asked, is not waited for.
        let lies = self.awaited_until.is_none() && !self.is_worth_asking(ours);
        self.is_live() && given && (lies || !exceeds(&self.theirs, ours))
    }

    /// Announces: shows our version, wants nothing. Nothing is said to whom it tells nothing new.
    pub(super) fn announce(&mut self, hands: &mut Hands<'_>) {
        let ours = hands.replica.version();
        let known = self.inflight.promised(&self.theirs);
        if self.is_live() && exceeds_both(ours, &known, &self.shown) {
            self.show(&Bytes::new(), hands);
        }
    }

    /// What others wrote is to be passed on.
    pub(super) fn pass_on(&mut self, hands: &mut Hands<'_>) {
        if self.is_channel() { self.announce(hands) } else { self.owe(Owe::All) }
    }

    /// What was edited here is to be sent.
    pub(super) fn edited(&mut self, gained: &VersionVector) {
        if self.is_channel() {
            raise(&mut self.pushed, gained);
            self.owe(Owe::Some);
        } else {
            self.owe(Owe::All);
        }
    }

    /// What others wrote has come, and is pushed on to who may lack it.
    pub(super) fn push_on(&mut self, gained: &VersionVector) {
        if !self.is_channel() || !self.is_live() {
            return;
        }
        let lacking = gained
            .iter()
            .filter(|(author, end)| !self.tree.is_lazy(**author) && **end > counter(&self.theirs, **author));
        let lacking: VersionVector = lacking.map(|(author, end)| (*author, *end)).collect();
        if !lacking.is_empty() {
            raise(&mut self.pushed, &lacking);
            self.owe(Owe::Some);
        }
    }

    fn owe(&mut self, owe: Owe) {
        self.owe = self.owe.max(owe);
    }

    /// Something came that makes no sense.
    fn strike(&mut self) -> Result<(), Reason> {
        self.strikes += 1;
        if self.strikes > STRIKES { Err(Reason::Garbage) } else { Ok(()) }
    }

    fn say(&mut self, message: &Message, room: &Room, out: &mut VecDeque<Output>) {
        let frame = message.encode(room).expect("a short message fits into a frame");
        self.send(frame, out);
    }

    fn send(&mut self, frame: Bytes, out: &mut VecDeque<Output>) {
        self.unsent += frame.len();
        out.push_back(Output::Send { link: self.id, frame });
    }

    /// Does what time alone brings about.
    pub(super) fn keep_time(&mut self, hands: &mut Hands<'_>) -> Result<(), Reason> {
        if let Some(join) = self.join.filter(|join| join.deadline <= hands.now) {
            match join.tries {
                tries if tries >= JOIN_TRIES && self.asks => return Err(Reason::Silent),
                tries if tries >= JOIN_TRIES => self.join = None,
                _ => self.ask(hands),
            }
        }
        if self.exchange_at.is_some_and(|at| at <= hands.now) {
            self.exchange_at = None;
            match (self.stage, self.asks) {
                (Stage::Strange, false) => return Err(Reason::Foreign),
                _ if self.join.is_none() => self.ask(hands),
                _ => {}
            }
        }
        self.awaited_until.take_if(|until| *until <= hands.now);
        if self.inflight.is_overdue(hands.now) {
            self.reconcile(hands);
        }
        if self.held_until.is_some_and(|until| until <= hands.now) {
            self.held_until = None;
        }
        while let Some((room, batch)) = self.fragments.expired(hands.now) {
            self.acknowledge(&room, batch, Status::FragmentTimeout, hands.out);
            self.reconcile(hands);
        }
        Ok(())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let held = self.held_until.filter(|_| self.owe != Owe::Nothing);
        let join = self.join.map(|join| join.deadline);
        let (inflight, fragments) = (self.inflight.deadline(), self.fragments.deadline());
        [join, self.exchange_at, self.awaited_until, inflight, fragments, held].into_iter().flatten().min()
    }
}
