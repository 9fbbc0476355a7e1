//! Which data channels to have: y-webrtc signaling, and a room that stays connected with few of them.
//!
//! # Signaling
//!
//! Who has room for more says that it is there; who hears that and wants a channel makes an offer. If both ends make
//! one (*glare*), the offer with the larger token counts: a peer drops an offer whose token is less than its own, and
//! else gives its own up and answers. A token is a number that was drawn with the first word about a connection.
//!
//! # Which ones
//!
//! Every session stands on a ring, at the place that its name hashes to. Everybody wants a channel to the next one in
//! either direction, which makes a ring of the whole room as soon as all know of each other, and some to others at
//! random, which make it small. When there are as many as there may be, one at random gives way to one on the ring.
//! Whoever cannot be reached is left alone for a while; y-webrtc's other users are let go and remembered.

mod names;
mod ring;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::id::PeerId;

use super::backoff::Dice;
use super::vocabulary::{Event, LinkId, Output, Reason, SignalKind};
use names::Names;
use ring::neighbours;

/// How long an offer may go unanswered, and how long a connection may take after that.
const ANSWER: Duration = Duration::from_secs(5);
const OPEN: Duration = Duration::from_secs(20);
/// When to say that we are there while there are too few channels: at first and at most.
const CALL: Duration = Duration::from_secs(1);
const SLOWEST_CALL: Duration = Duration::from_secs(30);
/// How often otherwise, for each ten in the room: so that two halves that grew apart hear of each other.
const REMINDER: Duration = Duration::from_secs(30);
/// Within this time those of a large room look at a newcomer.
const SPREAD: Duration = Duration::from_millis(300);

#[derive(Debug)]
pub(super) struct Mesh {
    session: PeerId,
    /// Most channels.
    most: usize,
    channels: BTreeMap<u64, Channel>,
    minted: u64,
    names: Names,
    up: bool,
    call_at: Option<Instant>,
    call_delay: Duration,
    /// When to look for more channels.
    look_at: Option<Instant>,
    /// Our clock, for tokens: milliseconds since 1970 at an instant.
    wall: (Instant, u64),
}

#[derive(Debug)]
struct Channel {
    peer: PeerId,
    initiator: bool,
    open: bool,
    answered: bool,
    /// Nobody has heard our offer, which is to be made anew.
    unheard: bool,
    token: Option<f64>,
    /// The token of the offer that it answers.
    theirs: Option<f64>,
    deadline: Option<Instant>,
}

impl Mesh {
    pub(super) fn new(now: Instant, session: PeerId, most: usize, wall: u64) -> Self {
        Self {
            session,
            most,
            channels: BTreeMap::new(),
            minted: 0,
            names: Names::default(),
            up: false,
            call_at: None,
            call_delay: CALL,
            look_at: None,
            wall: (now, wall),
        }
    }

    /// How many channels to look for: the rest is left for those who look for us.
    fn wanted(&self) -> usize {
        if self.most <= 3 { self.most } else { self.most * 5 / 8 }
    }

    /// The session at the other end of a channel.
    pub(super) fn peer(&self, channel: u64) -> Option<&PeerId> {
        self.channels.get(&channel).map(|channel| &channel.peer)
    }

    /// Whether we made the offer, and so ask first.
    pub(super) fn is_initiator(&self, channel: u64) -> bool {
        self.channels.get(&channel).is_some_and(|channel| channel.initiator)
    }

    pub(super) fn signaling_up(&mut self, now: Instant) {
        if self.most == 0 {
            return;
        }
        self.up = true;
        // What was offered while signaling was away was offered to nobody, and is no reason to leave anybody alone.
        self.names.forgive();
        let offered = |channel: &&mut Channel| channel.initiator && !channel.answered && !channel.open;
        for channel in self.channels.values_mut().filter(offered) {
            channel.unheard = true;
            channel.deadline = Some(now);
        }
        self.go_on(now);
    }

    fn go_on(&mut self, now: Instant) {
        self.call_delay = CALL;
        self.call_at = Some(now);
        self.look_at = Some(now);
    }

    pub(super) fn wake(&mut self, now: Instant) {
        self.names.forgive_all();
        if self.up {
            self.go_on(now);
        }
    }

    fn heard(&mut self, now: Instant, from: &PeerId) -> bool {
        if *from == self.session || self.most == 0 {
            return false;
        }
        self.names.heard(now, from);
        true
    }

    pub(super) fn announced(&mut self, now: Instant, from: &PeerId, dice: &mut Dice) {
        let known = self.names.knows(from) && self.channels.len() >= self.wanted();
        if self.heard(now, from) && !known {
            // Not all at once, if there are many: the newcomer has room for some of us only.
            let spread = if self.names.len() > self.most { SPREAD } else { Duration::ZERO };
            let soon = now + dice.between(Duration::ZERO, spread);
            self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        }
    }

    pub(super) fn signalled(
        &mut self,
        now: Instant,
        from: &PeerId,
        (kind, token): (SignalKind, Option<f64>),
        data: Bytes,
        present: &BTreeSet<PeerId>,
        out: &mut VecDeque<Output>,
    ) {
        if !self.heard(now, from) {
            return;
        }
        let known = self.channels.iter().find(|(_, channel)| channel.peer == *from).map(|(id, _)| *id);
        match (kind, known) {
            (SignalKind::Offer, None) if self.names.is_foreign(now, from) => {}
            // Of a connection that is there, an offer negotiates it anew.
            (SignalKind::Offer, Some(id)) if !self.is_open(id) && !self.yields(id, token) => {}
            (SignalKind::Offer, Some(id)) if !self.is_open(id) => {
                self.cut(id, Reason::Glare, out);
                self.answer(now, from, token, data, out);
            }
            (SignalKind::Offer, None) => {
                if self.make_room(now, from, present, out) {
                    self.answer(now, from, token, data, out);
                }
            }
            // Each has given up what it offered, and takes the other for who has. One of two offers will do.
            (SignalKind::Answer, Some(id)) if !self.is_initiator(id) && !self.is_open(id) => {
                self.cut(id, Reason::Glare, out);
                self.offer(now, from, out);
            }
            (kind, Some(id)) => {
                if let Some(channel) = self.channels.get_mut(&id).filter(|_| kind == SignalKind::Answer) {
                    channel.token = None;
                    if !channel.open && !channel.answered {
                        channel.answered = true;
                        channel.deadline = Some(now + OPEN);
                    }
                }
                out.push_back(Output::Deliver { channel: id, data });
            }
            (_, None) => {}
        }
    }

    fn is_open(&self, id: u64) -> bool {
        self.channels.get(&id).is_some_and(|channel| channel.open)
    }

    /// Whether an offer with this token counts more than what there is. Who has offered before and offers once more has given
    /// up what it began; but the same offer may come twice, by another server. Else it is glare.
    fn yields(&self, id: u64, offered: Option<f64>) -> bool {
        let Some(channel) = self.channels.get(&id) else { return true };
        let stands = if channel.initiator {
            channel.token.zip(offered).is_some_and(|(ours, offered)| ours > offered)
        } else {
            channel.theirs.zip(offered).is_some_and(|(before, offered)| before >= offered)
        };
        !stands
    }

    fn answer(
        &mut self,
        now: Instant,
        peer: &PeerId,
        theirs: Option<f64>,
        offer: Bytes,
        out: &mut VecDeque<Output>,
    ) {
        let channel = self.connect(now, peer, false, out);
        if let Some(made) = self.channels.get_mut(&channel) {
            made.theirs = theirs;
        }
        out.push_back(Output::Deliver { channel, data: offer });
    }

    fn connect(&mut self, now: Instant, peer: &PeerId, initiator: bool, out: &mut VecDeque<Output>) -> u64 {
        self.minted += 1;
        let deadline = Some(now + if initiator { ANSWER } else { OPEN });
        let channel = Channel {
            peer: peer.clone(),
            initiator,
            open: false,
            answered: false,
            unheard: false,
            token: None,
            theirs: None,
            deadline,
        };
        self.channels.insert(self.minted, channel);
        out.push_back(Output::Connect { channel: self.minted, peer: peer.clone(), initiator });
        self.minted
    }

    /// A connection of ours has something to say.
    pub(super) fn local(&mut self, now: Instant, id: u64, data: Bytes, dice: &mut Dice) -> Option<Output> {
        let (start, wall) = self.wall;
        let channel = self.channels.get_mut(&id)?;
        let millis = wall as f64 + now.saturating_duration_since(start).as_millis() as f64;
        let token = *channel.token.get_or_insert_with(|| millis + dice.unit());
        Some(Output::Signal { to: channel.peer.clone(), token, data })
    }

    pub(super) fn opened(&mut self, id: u64) -> bool {
        let Some(channel) = self.channels.get_mut(&id) else { return false };
        channel.open = true;
        channel.deadline = None;
        self.names.reached(&channel.peer);
        true
    }

    /// A channel is gone. `reason` if it was ended from here.
    pub(super) fn closed(&mut self, now: Instant, id: u64, reason: Option<Reason>, dice: &mut Dice) {
        let Some(channel) = self.channels.remove(&id) else { return };
        self.names.ended(now, &channel.peer, channel.open, reason, dice);
        let soon = now + dice.between(Duration::ZERO, CALL);
        self.look_at = Some(self.look_at.map_or(soon, |at| at.min(soon)));
        if self.up {
            self.call_delay = CALL;
            self.call_at = Some(self.call_at.map_or(soon, |at| at.min(soon)));
        }
    }

    fn cut(&mut self, id: u64, reason: Reason, out: &mut VecDeque<Output>) {
        let channel = LinkId::Channel(id);
        out.push_back(Output::Cut { link: channel, reason });
        out.push_back(Output::Event(Event::Cut(channel, reason)));
        self.channels.remove(&id);
    }

    /// Everybody who seems to be in the room: `present`, and whom signaling has told of of late.
    fn room(&self, now: Instant, present: &BTreeSet<PeerId>) -> BTreeSet<PeerId> {
        let mut room: BTreeSet<_> = present.clone();
        room.extend(self.channels.values().map(|channel| channel.peer.clone()));
        room.extend(self.names.recent(now).cloned());
        room.retain(|id| !self.names.rests(now, id) || self.is_connected(id));
        room
    }

    fn is_connected(&self, peer: &PeerId) -> bool {
        self.channels.values().any(|channel| channel.peer == *peer)
    }

    /// Whether there is room for a channel to this one, if need be in place of another.
    fn make_room(
        &mut self,
        now: Instant,
        peer: &PeerId,
        present: &BTreeSet<PeerId>,
        out: &mut VecDeque<Output>,
    ) -> bool {
        if self.channels.len() < self.most {
            return true;
        }
        let mut room = self.room(now, present);
        room.insert(peer.clone());
        let ring = neighbours(&self.session, &room);
        if !ring.contains(peer) {
            return false;
        }
        let spare = self.channels.iter().filter(|(_, channel)| !ring.contains(&channel.peer));
        // One that does not exist yet goes first, then the youngest.
        let Some(id) = spare.min_by_key(|(id, channel)| (channel.open, u64::MAX - **id)).map(|(id, _)| *id)
        else {
            return false;
        };
        self.cut(id, Reason::Surplus, out);
        true
    }

    /// Does what time alone brings about.
    pub(super) fn keep_time(
        &mut self,
        now: Instant,
        present: &BTreeSet<PeerId>,
        dice: &mut Dice,
        out: &mut VecDeque<Output>,
    ) {
        let late: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.deadline.is_some_and(|at| at <= now))
            // Nobody failed to answer what nobody heard.
            .map(|(id, channel)| (*id, if channel.unheard { Reason::Glare } else { Reason::Timeout }))
            .collect();
        for (id, reason) in late {
            out.push_back(Output::Cut { link: LinkId::Channel(id), reason });
            self.closed(now, id, Some(reason), dice);
        }
        if self.up && self.look_at.is_some_and(|at| at <= now) {
            self.look(now, present, dice, out);
        }
        if self.up && self.call_at.is_some_and(|at| at <= now) {
            self.call(now, present, dice, out);
        }
    }

    /// Says that we are there.
    fn call(
        &mut self,
        now: Instant,
        present: &BTreeSet<PeerId>,
        dice: &mut Dice,
        out: &mut VecDeque<Output>,
    ) {
        out.push_back(Output::Announce);
        let open = self.channels.values().filter(|channel| channel.open).count();
        let wants = open < self.wanted() && open < self.room(now, present).len().max(1);
        let delay = if wants {
            self.call_delay = (self.call_delay * 2).min(SLOWEST_CALL);
            self.call_delay
        } else {
            REMINDER * (1 + present.len() as u32 / 10)
        };
        self.call_at = Some(now + delay.mul_f64(0.5 + dice.unit()));
    }

    /// Looks for channels to make.
    fn look(
        &mut self,
        now: Instant,
        present: &BTreeSet<PeerId>,
        dice: &mut Dice,
        out: &mut VecDeque<Output>,
    ) {
        let before = self.minted;
        let room = self.room(now, present);
        for peer in neighbours(&self.session, &room) {
            if !self.is_connected(&peer) && self.make_room(now, &peer, present, out) {
                self.offer(now, &peer, out);
            }
        }
        let mut others: Vec<_> = room.into_iter().filter(|peer| !self.is_connected(peer)).collect();
        while self.channels.len() < self.wanted() && !others.is_empty() {
            let peer = others.swap_remove(dice.below(others.len()));
            self.offer(now, &peer, out);
        }
        let pause = if self.minted == before { CALL * 5 } else { CALL };
        let later = now + dice.between(pause, pause * 2);
        // Who is left alone just now is missed no longer than that.
        self.look_at = self.names.first_rested(now).into_iter().chain([later]).min();
    }

    /// Offers to one peer, and makes sure that what becomes of it can be remembered.
    fn offer(&mut self, now: Instant, peer: &PeerId, out: &mut VecDeque<Output>) {
        self.names.called(now, peer);
        self.connect(now, peer, true, out);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let channels = self.channels.values().filter_map(|channel| channel.deadline);
        let own = [self.look_at, self.call_at].into_iter().flatten().filter(|_| self.up);
        channels.chain(own).min()
    }
}
