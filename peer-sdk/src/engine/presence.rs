//! Who is there: what each session shows, and where we have it from.
//!
//! A session shows one entry, under its own name, stamped by its own clock; of two entries the later stamp counts, so
//! clocks need not agree. It shows it again every [`HEARTBEAT`], and whoever is not heard of for [`LIFETIME`] is gone.
//! That is the backstop. Peers without a hub show themselves when their clocks show full [`BETWEEN_PEERS`], so that where
//! clocks agree, as they mostly do, a few messages carry what all have to say, and then it is quiet. With a hub, which
//! passes on what each says to everybody, they do it each in its own time. Who has a channel to everybody that is there
//! does not: whether it is still there, the channels tell. Sooner than by the backstop:
//!
//! - who goes says so;
//! - when a link that led straight to a session goes down, it is declared gone after [`GRACE`], unless it is heard of
//!   again: a session whose link goes down shows itself at once over the others.
//!
//! A session that is declared gone by mistake shows itself with a later stamp.

mod entries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::LoroValue;

use super::vocabulary::{LinkId, Online};
use entries::Entry;

/// The most bytes that one session may show.
pub const MAX_PRESENCE: usize = 8 << 10;
/// How often a session shows itself when nothing changes, at a hub, where there are those who judge by their own clock how old
/// it is, and where there is none.
const HEARTBEAT: Duration = Duration::from_secs(10);
const BETWEEN_PEERS: Duration = Duration::from_secs(20);
/// How long a session is there that is not heard of.
const LIFETIME: Duration = Duration::from_secs(45);
/// How long a session may take to show itself over another link.
const GRACE: Duration = Duration::from_millis(1500);
/// The same, when its link was quiet for a while already.
const QUIET_GRACE: Duration = Duration::from_secs(1);
/// How long it is remembered that a session is gone, so that nobody brings it back.
const MEMORY: Duration = Duration::from_secs(300);
/// The least time between two showings of ours, and after somebody has contradicted us.
const PACE: Duration = Duration::from_millis(50);
const CONTRADICTED: Duration = Duration::from_secs(1);
/// Sessions and bytes that are known at most. More are ignored.
const MOST_KEYS: usize = 4096;
const MOST_BYTES: usize = 4 << 20;
/// Presence travels in updates of about so many bytes.
const UPDATE: usize = 32 << 10;

#[derive(Debug)]
pub(super) struct Presence {
    session: Arc<str>,
    /// Our clock: milliseconds since 1970 at an instant.
    wall: (Instant, u64),
    ours: Option<LoroValue>,
    /// When to show ourselves.
    show_at: Option<Instant>,
    shown_at: Option<Instant>,
    /// When to show ourselves is for nothing but that we are still there.
    is_routine: bool,
    /// There is a hub, here or elsewhere.
    has_hub: bool,
    known: BTreeMap<Arc<str>, Known>,
    bytes: usize,
    /// Nobody's time is over before.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    weight: usize,
    since: Instant,
    /// When its stamp was last seen to change.
    at: Instant,
    links: BTreeSet<LinkId>,
    direct: Option<LinkId>,
    /// When it is declared gone.
    doomed: Option<Instant>,
}

/// Keys that others are to be told of.
pub(super) type Changes = BTreeSet<Arc<str>>;

/// What an update told.
#[derive(Debug, Default)]
pub(super) struct News {
    pub(super) changes: Changes,
    /// Some of it is more than that somebody is still there.
    pub(super) is_urgent: bool,
}

/// Bytes that are no presence.
#[derive(Debug)]
pub(super) struct Malformed;

impl Presence {
    pub(super) fn new(now: Instant, session: &str, wall: u64) -> Self {
        Self {
            session: session.into(),
            wall: (now, wall),
            ours: None,
            show_at: None,
            shown_at: None,
            is_routine: false,
            has_hub: false,
            known: BTreeMap::new(),
            bytes: 0,
            next: None,
        }
    }

    /// What others are to see of us.
    pub(super) fn present(&mut self, now: Instant, value: Option<LoroValue>) {
        if value.is_some() || self.ours.is_some() {
            self.ours = value;
            self.show_soon(now);
        }
    }

    /// Shows nothing more, and that at once.
    pub(super) fn leave(&mut self, now: Instant) {
        if self.ours.take().is_some() {
            self.show_by(now);
        }
    }

    /// Whether there is a hub from now on, which decides when we show ourselves while nothing changes.
    pub(super) fn has_hub(&mut self, has_hub: bool) {
        self.has_hub = has_hub;
    }

    pub(super) fn is_present(&self) -> bool {
        self.ours.is_some()
    }

    fn show_soon(&mut self, now: Instant) {
        // A store drops the second of two entries of one millisecond, so two never go out in one.
        let soon = self.shown_at.map_or(now, |last| now.max(last + PACE));
        self.show_by(soon);
    }

    /// There is a reason to show ourselves then.
    fn show_by(&mut self, at: Instant) {
        if self.show_at.is_none_or(|before| at < before) {
            self.show_at = Some(at);
            self.is_routine = false;
        }
    }

    /// Somebody's time may be over then.
    fn due(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }

    fn clock(&self, now: Instant) -> i64 {
        let (start, wall) = self.wall;
        let wall = wall.saturating_add(now.saturating_duration_since(start).as_millis() as u64);
        i64::try_from(wall).unwrap_or(i64::MAX)
    }

    /// Shows ourselves: at once, with a stamp later than any of ours before.
    fn show(&mut self, now: Instant) {
        let before = self.known.get(&self.session).map_or(0, |known| known.entry.stamp);
        let clock = self.clock(now);
        let into = Duration::from_millis(clock.rem_euclid(BETWEEN_PEERS.as_millis() as i64) as u64);
        // Stamped with the time for which it was meant, so that the next is a whole heartbeat later.
        let meant = if self.is_routine && !self.has_hub { clock - into.as_millis() as i64 } else { clock };
        let stamp = meant.max(before + 1);
        // Never later than a heartbeat: who shows itself sooner has a reason, which others see by that.
        let next = if self.has_hub { HEARTBEAT } else { (BETWEEN_PEERS - into).max(PACE) };
        self.shown_at = Some(now);
        self.show_at = self.ours.is_some().then(|| now + next);
        self.is_routine = true;
        let entry = Entry { key: self.session.clone(), value: self.ours.clone(), stamp };
        self.keep(now, None, entry);
    }

    /// Reads presence that has come over a link. `direct` is the session that the link leads straight to, if known.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        link: LinkId,
        direct: Option<&str>,
        update: &[u8],
    ) -> Result<News, Malformed> {
        let entries = entries::parse(update).ok_or(Malformed)?;
        // A guest shows itself alone, before it has heard of anybody.
        let alone = entries.len() == 1 && matches!(link, LinkId::Guest(_));
        let mut news = News::default();
        for entry in entries {
            let key = entry.key.clone();
            let is_routine = self.known.get(&key).is_some_and(|known| known.is_repeated_by(&entry));
            let straight = direct == Some(&*key) || alone && !self.known.contains_key(&key);
            if self.hear(now, link, entry) {
                news.is_urgent |= !is_routine;
                news.changes.insert(key.clone());
            }
            if let Some(known) = self.known.get_mut(&key).filter(|known| known.links.contains(&link)) {
                known.direct = if straight { Some(link) } else { known.direct };
            }
        }
        Ok(news)
    }

    /// Whether it is news.
    fn hear(&mut self, now: Instant, link: LinkId, entry: Entry) -> bool {
        if let Some(known) = self.known.get_mut(&entry.key)
            && known.entry.stamp >= entry.stamp
        {
            if known.entry == entry {
                known.links.insert(link);
            }
            return false;
        }
        if entry.key == self.session {
            // Somebody speaks for us: we speak louder, in a moment.
            let stamp = entry.stamp;
            if let Some(known) = self.known.get_mut(&self.session) {
                known.entry.stamp = stamp;
            }
            self.show_by(now + CONTRADICTED);
            return false;
        }
        self.keep(now, Some(link), entry)
    }

    fn keep(&mut self, now: Instant, link: Option<LinkId>, entry: Entry) -> bool {
        let weight = entries::weight(&entry);
        let before = self.known.get(&entry.key).map_or(0, |known| known.weight);
        let full = before == 0 && self.known.len() >= MOST_KEYS || self.bytes - before + weight > MOST_BYTES;
        if link.is_some() && (full || weight > MAX_PRESENCE) {
            return false;
        }
        self.bytes = self.bytes - before + weight;
        self.due(now + LIFETIME.min(MEMORY));
        let links = link.into_iter().collect();
        match self.known.get_mut(&entry.key) {
            Some(known) => {
                if known.entry.value.is_none() {
                    known.since = now;
                }
                *known = Known { entry, weight, at: now, links, doomed: None, ..*known };
            }
            None => {
                let known = Known { entry, weight, since: now, at: now, links, direct: None, doomed: None };
                self.known.insert(known.entry.key.clone(), known);
            }
        }
        true
    }

    /// A link has gone down.
    pub(super) fn down(&mut self, now: Instant, link: LinkId) {
        for (key, known) in &mut self.known {
            known.links.remove(&link);
            if known.direct != Some(link) {
                continue;
            }
            known.direct = None;
            if *key != self.session && known.entry.value.is_some() {
                known.doomed = Some(now + GRACE);
            }
        }
        self.due(now + GRACE);
        if self.ours.is_some() {
            self.show_soon(now);
        }
    }

    /// Nothing comes over a link: whom it leads straight to is gone soon, unless it is heard of.
    pub(super) fn interrupted(&mut self, now: Instant, link: LinkId) {
        let there = |known: &&mut Known| known.direct == Some(link) && known.entry.value.is_some();
        self.known.values_mut().filter(there).for_each(|known| known.doomed = Some(now + QUIET_GRACE));
        self.due(now + QUIET_GRACE);
        if self.ours.is_some() {
            self.show_soon(now);
        }
    }

    /// Something comes again. Who was declared gone meanwhile hears of it, and shows itself.
    pub(super) fn resumed(&mut self, now: Instant, link: LinkId) {
        self.known
            .values_mut()
            .filter(|known| known.direct == Some(link))
            .for_each(|known| known.doomed = None);
        if self.ours.is_some() {
            self.show_soon(now);
        }
    }

    /// Does what time alone brings about: the keys that others are to be told of, and whether anybody left.
    pub(super) fn keep_time(&mut self, now: Instant) -> (Changes, bool) {
        let mut changes = Changes::new();
        if self.show_at.is_some_and(|at| at <= now) {
            if self.is_routine && !self.has_hub && self.is_next_to_all() {
                self.show_at = Some(now + BETWEEN_PEERS);
            } else {
                self.show(now);
                changes.insert(self.session.clone());
            }
        }
        let mut left = false;
        if self.next.is_none_or(|next| next > now) {
            return (changes, left);
        }
        let others = self.known.iter().filter(|(key, _)| **key != self.session);
        let due: Vec<_> = others
            .filter(|(_, known)| known.ends().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            left |= self.end(now, &key, &mut changes);
        }
        let others = self.known.iter().filter(|(key, _)| **key != self.session);
        self.next = others.filter_map(|(_, known)| known.ends()).min();
        (changes, left)
    }

    /// Whether a channel leads straight to everybody who is there.
    fn is_next_to_all(&self) -> bool {
        let others =
            self.known.iter().filter(|(key, known)| **key != self.session && known.entry.value.is_some());
        others.map(|(_, known)| known).all(Known::is_next_to_us)
    }

    /// One entry's time is over. Whether somebody left.
    fn end(&mut self, now: Instant, key: &Arc<str>, changes: &mut Changes) -> bool {
        let Some(known) = self.known.get_mut(key) else { return false };
        self.bytes -= known.weight;
        if known.entry.value.is_none() {
            self.known.remove(key);
            return false;
        }
        known.entry.value = None;
        if known.doomed.take().is_some() {
            // Later than what it showed, by its own clock: so others believe it, unless it has shown itself since.
            known.entry.stamp += 1;
            changes.insert(key.clone());
        }
        known.weight = entries::weight(&known.entry);
        self.bytes += known.weight;
        known.at = now;
        known.direct = None;
        known.links.clear();
        true
    }

    /// The updates that tell of these keys.
    pub(super) fn updates(&self, keys: &BTreeSet<Arc<str>>, to: LinkId) -> Vec<Bytes> {
        let told: Vec<&Known> = keys
            .iter()
            .filter_map(|key| self.known.get(key))
            // Who told us needs not be told.
            .filter(|known| !known.links.contains(&to))
            .collect();
        let mut updates = Vec::new();
        let (mut from, mut len) = (0, 0);
        for (at, known) in told.iter().enumerate() {
            if len > 0 && len + known.weight > UPDATE {
                updates.push(entries::join(told[from..at].iter().map(|known| &known.entry)));
                (from, len) = (at, 0);
            }
            len += known.weight;
        }
        if from < told.len() {
            updates.push(entries::join(told[from..].iter().map(|known| &known.entry)));
        }
        updates
    }

    /// The key under which we are known, alone.
    pub(super) fn own_key(&self) -> BTreeSet<Arc<str>> {
        [self.session.clone()].into()
    }

    /// Every key, those of sessions that are gone included.
    pub(super) fn keys(&self) -> BTreeSet<Arc<str>> {
        self.known.keys().cloned().collect()
    }

    /// The sessions that are there, but for ours.
    pub(super) fn sessions(&self) -> impl Iterator<Item = &str> {
        let there = self.known.values().filter(|known| known.entry.value.is_some());
        there.map(|known| &*known.entry.key).filter(|key| *key != &*self.session)
    }

    /// Who is there, but for us.
    pub(super) fn online(&self, now: Instant) -> Vec<Online> {
        let there = self.known.values().filter(|known| known.entry.key != self.session);
        let online = there.filter_map(|known| {
            Some(Online {
                session: known.entry.key.to_string(),
                value: known.entry.value.clone()?,
                since: now.saturating_duration_since(known.since),
                links: known.links.iter().copied().collect(),
                direct: known.direct,
            })
        });
        online.collect()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next.into_iter().chain(self.show_at).min()
    }
}

impl Known {
    /// Whether an entry says nothing but that its author is still there, when it was time to say so. Who says so sooner
    /// has a reason.
    fn is_repeated_by(&self, entry: &Entry) -> bool {
        let pause = entry.stamp.saturating_sub(self.entry.stamp);
        self.doomed.is_none() && self.entry.value == entry.value && pause >= HEARTBEAT.as_millis() as i64
    }

    /// Whether a channel leads straight to it.
    fn is_next_to_us(&self) -> bool {
        matches!(self.direct, Some(LinkId::Channel(_)))
    }

    /// When it is over, one way or the other. Of whom a channel leads to, the channel tells.
    fn ends(&self) -> Option<Instant> {
        let natural = match self.entry.value {
            Some(_) if self.is_next_to_us() => None,
            Some(_) => Some(self.at + LIFETIME),
            None => Some(self.at + MEMORY),
        };
        natural.into_iter().chain(self.doomed).min()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    impl Presence {
        /// How many are known, and how many bytes they are.
        pub(in crate::engine) fn weight(&self) -> (usize, usize) {
            (self.known.len(), self.bytes)
        }
    }

    #[test]
    fn that_somebody_is_still_there_can_wait_and_everything_else_cannot() {
        let now = Instant::now();
        let mut presence = Presence::new(now, "us", 0);
        let mut is_urgent = |value: &str, stamp: i64| {
            let entry = Entry { key: "ana".into(), value: Some(value.into()), stamp };
            let update = entries::join(std::iter::once(&entry));
            presence.receive(now, LinkId::Channel(1), None, &update).unwrap().is_urgent
        };
        assert!(is_urgent("a", 1_000), "somebody comes");
        assert!(!is_urgent("a", 11_000), "it was time to say so");
        assert!(is_urgent("a", 20_999), "who says so sooner has a reason");
        assert!(is_urgent("b", 31_000), "it shows something else");
    }

    #[test]
    fn of_what_is_shown_within_a_moment_only_the_last_goes_out_and_later_than_the_first() {
        let now = Instant::now();
        let mut presence = Presence::new(now, "us", 1_000);
        presence.present(now, Some("a".into()));
        assert_eq!(presence.keep_time(now).0.len(), 1);
        let first = presence.known["us"].entry.stamp;
        for value in ["b", "c"] {
            presence.present(now, Some(value.into()));
            assert!(presence.keep_time(now).0.is_empty(), "a store would drop the second of one millisecond");
        }
        assert_eq!(presence.keep_time(now + PACE).0.len(), 1);
        let Entry { value, stamp, .. } = &presence.known["us"].entry;
        assert_eq!((value.clone(), *stamp), (Some("c".into()), first + PACE.as_millis() as i64));
        assert!(presence.keep_time(now + 2 * PACE).0.is_empty());
    }

    /// The stamps, of this clock, with which somebody shows itself within so many seconds, looking when it is due.
    fn shows(wall: u64, has_hub: bool, direct: Option<&str>, seconds: u64) -> Vec<i64> {
        let start = Instant::now();
        let mut presence = Presence::new(start, "us", wall);
        presence.has_hub(has_hub);
        let ben = Entry { key: "ben".into(), value: Some("b".into()), stamp: 1 };
        presence.receive(start, LinkId::Channel(1), direct, &entries::join(std::iter::once(&ben))).unwrap();
        presence.present(start, Some("a".into()));
        let mut stamps = Vec::new();
        while let Some(due) = presence.show_at.filter(|at| *at <= start + Duration::from_secs(seconds)) {
            // A timer is late, and never early.
            presence.keep_time(due + Duration::from_millis(3));
            stamps.push(presence.known["us"].entry.stamp);
        }
        stamps
    }

    #[test]
    fn those_without_a_hub_say_that_they_are_still_there_when_clocks_show_full_twenty_seconds() {
        assert_eq!(shows(1_003_000, false, None, 60), [1_003_003, 1_020_000, 1_040_000, 1_060_000]);
        assert_eq!(shows(1_019_990, false, None, 45), [1_019_993, 1_020_000, 1_040_000, 1_060_000]);
        assert_eq!(shows(1_007_000, true, None, 25), [1_007_003, 1_017_006, 1_027_009]);
    }

    #[test]
    fn who_has_a_channel_to_everybody_need_not_say_that_it_is_still_there() {
        let first = 1_003_003;
        assert!(shows(1_003_000, false, Some("ben"), 100).iter().all(|stamp| *stamp == first));
        assert_eq!(shows(1_003_000, true, Some("ben"), 25).len(), 3, "a hub has those who cannot see it");
    }

    #[test]
    fn who_is_not_heard_of_is_gone_unless_a_channel_leads_to_it() {
        let start = Instant::now();
        let mut presence = Presence::new(start, "us", 0);
        for (key, link) in [("ben", 1), ("cem", 1)] {
            let entry = Entry { key: key.into(), value: Some(key.into()), stamp: 1 };
            let update = entries::join(std::iter::once(&entry));
            presence.receive(start, LinkId::Channel(link), Some("ben"), &update).unwrap();
        }
        let online = |presence: &Presence| presence.sessions().map(str::to_owned).collect::<Vec<_>>();
        presence.keep_time(start + LIFETIME - PACE);
        assert_eq!(online(&presence), ["ben", "cem"]);
        presence.keep_time(start + LIFETIME);
        assert_eq!(online(&presence), ["ben"]);
        presence.down(start + 2 * LIFETIME, LinkId::Channel(1));
        presence.keep_time(start + 2 * LIFETIME + GRACE);
        assert!(online(&presence).is_empty(), "the channel tells");
    }

    /// The update that holds these entries of a vector.
    pub(in crate::engine) fn from_json(entries: &serde_json::Value) -> Bytes {
        let entries: Vec<_> = entries.as_array().unwrap().iter().map(entries::tests::from_json).collect();
        entries::join(entries.iter())
    }

    pub(in crate::engine) fn to_json(update: &[u8]) -> serde_json::Value {
        entries::parse(update).unwrap().iter().map(entries::tests::to_json).collect()
    }

    /// An update in which a session shows so many bytes.
    pub(in crate::engine) fn shown(session: &str, len: usize) -> Bytes {
        let entry =
            Entry { key: session.into(), value: Some("x".repeat(len).into()), stamp: 1_800_000_000_000 };
        entries::join(std::iter::once(&entry))
    }
}
