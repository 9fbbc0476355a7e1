//! What is remembered of everybody in the room.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use wire::id::PeerId;

use crate::engine::backoff::Dice;
use crate::engine::vocabulary::Reason;

/// How long to leave somebody alone who could not be reached, at first and at most.
const REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(120);
/// How long to leave somebody alone, at most, whose channel was lost.
const BREATH: Duration = Duration::from_secs(1);
/// How long to leave somebody alone who speaks another protocol.
const FOREIGN: Duration = Duration::from_secs(600);
/// How long somebody counts as being in the room whom only signaling has told of.
const HEARD: Duration = Duration::from_secs(60);
/// Names that are remembered at most.
const MOST: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<PeerId, Name>);

/// What is remembered of somebody.
#[derive(Debug)]
struct Name {
    heard: Instant,
    /// Not to be called before.
    rests_until: Option<Instant>,
    failures: u32,
    /// While it rests: it speaks another protocol, and is not answered either.
    foreign: bool,
}

impl Name {
    fn new(heard: Instant) -> Self {
        Self { heard, rests_until: None, failures: 0, foreign: false }
    }

    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| now < until)
    }
}

impl Names {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn knows(&self, peer: &PeerId) -> bool {
        self.0.contains_key(peer)
    }

    /// Signaling has told of somebody. Where there is no room left, the name is not remembered.
    pub(super) fn heard(&mut self, now: Instant, from: &PeerId) {
        if let Some(name) = self.0.get_mut(from) {
            name.heard = now;
            return;
        }
        if self.0.len() >= MOST {
            self.0.retain(|_, name| now < name.heard + HEARD);
        }
        if self.0.len() < MOST {
            self.0.insert(from.clone(), Name::new(now));
        }
    }

    /// We are about to call somebody: what becomes of it can be remembered.
    pub(super) fn called(&mut self, now: Instant, peer: &PeerId) {
        if !self.knows(peer) {
            self.0.insert(peer.clone(), Name::new(now.checked_sub(HEARD).unwrap_or(now)));
        }
    }

    pub(super) fn reached(&mut self, peer: &PeerId) {
        if let Some(name) = self.0.get_mut(peer) {
            (name.failures, name.rests_until) = (0, None);
        }
    }

    /// A channel to somebody has ended: how long to leave it alone.
    pub(super) fn ended(
        &mut self,
        now: Instant,
        peer: &PeerId,
        was_open: bool,
        reason: Option<Reason>,
        dice: &mut Dice,
    ) {
        let Some(name) = self.0.get_mut(peer) else { return };
        name.foreign = reason == Some(Reason::Foreign);
        let rest = match reason {
            Some(Reason::Foreign) => Some(FOREIGN),
            Some(Reason::Glare) => None,
            None if was_open => Some(dice.between(Duration::ZERO, BREATH)),
            _ => {
                name.failures = name.failures.saturating_add(1);
                let rest = REST.saturating_mul(1 << name.failures.min(7)).min(LONGEST_REST);
                Some(rest.mul_f64(0.5 + dice.unit() / 2.0))
            }
        };
        name.rests_until = rest.map(|rest| now + rest);
    }

    /// Nobody need be left alone any longer, but for those who speak another protocol.
    pub(super) fn forgive(&mut self) {
        self.0.values_mut().filter(|name| !name.foreign).for_each(|name| name.rests_until = None);
    }

    /// Nobody need be left alone any longer.
    pub(super) fn forgive_all(&mut self) {
        self.0.values_mut().for_each(|name| name.rests_until = None);
    }

    pub(super) fn rests(&self, now: Instant, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|name| name.rests(now))
    }

    pub(super) fn is_foreign(&self, now: Instant, peer: &PeerId) -> bool {
        self.0.get(peer).is_some_and(|name| name.foreign && name.rests(now))
    }

    /// Of whom signaling has told of late.
    pub(super) fn recent(&self, now: Instant) -> impl Iterator<Item = &PeerId> {
        self.0.iter().filter(move |(_, name)| now < name.heard + HEARD).map(|(peer, _)| peer)
    }

    /// When the first of those who are left alone no longer is.
    pub(super) fn first_rested(&self, now: Instant) -> Option<Instant> {
        self.0.values().filter_map(|name| name.rests_until.filter(|until| *until > now)).min()
    }
}
