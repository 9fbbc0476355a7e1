//! `%EPH` and `%EPS`: who is there and what they are doing, as the newest bytes for each key.
//!
//! An entry is judged by the stamp of its author's clock and by nothing else, as every `EphemeralStore` judges it, so
//! a client whose clock is slow is seen like any other. Its bytes are kept and handed out as they came.
//!
//! What a connection has announced leaves with it: the others get a deletion, stamped one past the entry's own stamp.
//! Deleted keys are remembered, so that a client that comes back with an old store does not bring a ghost with it.
//! In a `%EPS` room entries outlive their connections.
//!
//! # Coming back
//!
//! A client whose connection broke comes back a moment later with the store that it had, in which its entry is as it
//! was, and older than the deletion. So an entry that left with a connection may be brought back by whoever joins soon
//! after as the same author: it is then given to everybody, its author included, stamped one past the deletion, which
//! again is nobody's clock. What the author sets next has a later stamp still.

mod entries;
mod lost;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wire::sync::Status;

use super::ConnectionId;
use super::content::{Answer, Job, Opening, Taken};
use super::relay::{Author, parcel};
use entries::Entry;
use lost::Lost;

/// What each key is counted as beyond its bytes.
const OVERHEAD: usize = 128;

/// The newest entries of a room.
#[derive(Debug)]
pub(super) struct Presence {
    keys: HashMap<Bytes, Known>,
    /// Bytes of `keys`, and what they may be.
    len: usize,
    most: usize,
    lasting: bool,
    /// Connections that have ended and may come back until then, the first to go first.
    leaving: Vec<Leaving>,
    /// Entries that have just been brought back, to be given to everybody.
    back: Vec<Bytes>,
}

#[derive(Debug)]
struct Leaving {
    until: Instant,
    who: ConnectionId,
    author: Author,
    /// Those who have joined since as the same author: perhaps it is back, and has not said so yet.
    spared: Vec<ConnectionId>,
}

impl Leaving {
    /// A connection joins that may write as this author.
    fn spare(&mut self, who: ConnectionId, author: &Author) {
        if self.author == *author && !self.spared.contains(&who) {
            self.spared.push(who);
        }
    }
}

#[derive(Debug)]
struct Known {
    entry: Entry,
    /// Those that have announced it. Never empty, unless the entry is a deletion or nobody's business.
    holders: Vec<ConnectionId>,
    /// It was announced by itself, as stores do when something is set, and not as part of all that a store knew.
    sure: bool,
    /// It has left with a connection since it was set.
    lost: Option<Box<Lost>>,
}

impl Presence {
    /// `%EPH`: at most so many bytes; entries leave with who announced them.
    pub(super) fn passing(most: usize) -> Self {
        Self { keys: HashMap::new(), len: 0, most, lasting: false, leaving: Vec::new(), back: Vec::new() }
    }

    /// `%EPS`: at most so many bytes; entries stay.
    pub(super) fn lasting(most: usize) -> Self {
        Self { lasting: true, ..Self::passing(most) }
    }

    pub(super) fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// How many keys have a value.
    pub(super) fn entries(&self) -> usize {
        self.keys.values().filter(|known| !known.entry.deleted).count()
    }

    pub(super) fn clear(&mut self) {
        let empty = Self::passing(self.most);
        *self = Self { lasting: self.lasting, ..empty };
    }

    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match job {
            Job::Open(opening) => match self.open(opening) {
                Ok(()) => Answer::Opened { set_aside: Vec::new() },
                Err(reason) => Answer::Unreadable(reason),
            },
            Job::Join { who, writer, at, .. } => {
                if let Some(author) = writer {
                    self.keys.values_mut().for_each(|known| known.spare(*at, *who, author));
                    self.leaving.iter_mut().for_each(|leaving| leaving.spare(*who, author));
                }
                let state = self.state(|known| !known.is_kept_from(*who));
                Answer::Joined { version: Bytes::new(), updates: state.into_iter().collect() }
            }
            Job::Batch(batch) => Answer::Taken(self.take(batch.receipt.who, &batch.updates)),
            Job::Snapshot => Answer::Snapshot(parcel::pack(self.state(|_| true).as_slice())),
        }
    }

    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        let mut updates = opening.snapshot()?;
        for (_, batch) in opening.log() {
            updates.extend(batch?);
        }
        for update in updates {
            let entries = entries::parse(&update).map_err(|_| "the stored presence is damaged".to_owned())?;
            entries.into_iter().for_each(|entry| self.keep(None, true, entry));
        }
        Ok(())
    }

    fn take(&mut self, from: ConnectionId, updates: &[Bytes]) -> Taken {
        let mut news = false;
        for (index, update) in updates.iter().enumerate() {
            let Ok(entries) = entries::parse(update) else {
                return Taken { news, ..Taken::refused_after(index, Status::InvalidUpdate) };
            };
            if !self.make_room(&entries) {
                return Taken { news, ..Taken::refused_after(index, Status::PayloadTooLarge) };
            }
            news |= !entries.is_empty();
            let sure = entries.len() == 1;
            entries.into_iter().for_each(|entry| self.keep(Some(from), sure, entry));
        }
        Taken { news, ..Taken::all(updates.len()) }
    }

    /// Whether these fit, once deleted keys are forgotten if need be.
    fn make_room(&mut self, entries: &[Entry]) -> bool {
        let more = |keys: &HashMap<Bytes, Known>| {
            let growth = entries.iter().map(|entry| {
                let before = keys.get(&entry.key).map_or(0, |known| weight(&known.entry));
                weight(entry).saturating_sub(before)
            });
            growth.sum::<usize>()
        };
        if self.len + more(&self.keys) <= self.most {
            return true;
        }
        self.keys.retain(|_, known| !known.entry.deleted);
        self.len = self.keys.values().map(|known| weight(&known.entry)).sum();
        self.len + more(&self.keys) <= self.most
    }

    fn keep(&mut self, from: Option<ConnectionId>, sure: bool, entry: Entry) {
        let from = from.filter(|_| !self.lasting);
        if let Some(known) = self.keys.get_mut(&entry.key) {
            if known.entry.stamp > entry.stamp {
                if let Some(from) = from {
                    let before = weight(&known.entry);
                    self.back.extend(known.bring_back(from, &entry));
                    self.len = self.len - before + weight(&known.entry);
                }
                return;
            }
            if known.entry.stamp == entry.stamp {
                known.claim(from, sure, &self.leaving);
                return;
            }
        }
        let entry = entry.detached();
        let key = Bytes::copy_from_slice(&entry.key);
        self.len += weight(&entry);
        let known = Known { holders: from.into_iter().collect(), sure, entry, lost: None };
        if let Some(before) = self.keys.insert(key, known) {
            self.len -= weight(&before.entry);
        }
    }

    /// The newest entries as an update, deletions included; those of connections that may be gone are left out, so
    /// that nobody takes them up who has not seen them.
    fn state(&self, wanted: impl Fn(&Known) -> bool) -> Option<Bytes> {
        let stays = |known: &&Known| {
            known.holders.is_empty() || known.holders.iter().any(|holder| !is_leaving(&self.leaving, *holder))
        };
        let entries = self.keys.values().filter(stays).filter(|known| wanted(known));
        together(entries.map(|known| &known.entry.bytes).collect())
    }

    /// A connection has left: what it alone has announced is deleted, now or when it has not come back in time.
    pub(super) fn leave(
        &mut self,
        now: Instant,
        who: ConnectionId,
        author: &Author,
        grace: Duration,
    ) -> Option<Bytes> {
        if grace.is_zero() {
            let deletions = self.release(who, &Lost::now(now, author, &[]));
            return together(deletions.iter().collect());
        }
        if self.keys.values().any(|known| known.holders.contains(&who)) {
            self.leaving.push(Leaving {
                until: now + grace,
                who,
                author: author.clone(),
                spared: Vec::new(),
            });
        }
        None
    }

    /// Deletes what belongs to connections whose time is over.
    pub(super) fn expire(&mut self, now: Instant) -> Option<Bytes> {
        let over = self.leaving.iter().take_while(|leaving| leaving.until <= now).count();
        let gone: Vec<_> = self.leaving.drain(..over).collect();
        let release = |Leaving { who, author, spared, .. }: Leaving| {
            self.release(who, &Lost::now(now, &author, &spared))
        };
        let deletions: Vec<_> = gone.into_iter().flat_map(release).collect();
        together(deletions.iter().collect())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.leaving.first().map(|leaving| leaving.until)
    }

    /// What has been brought back since this was last asked.
    pub(super) fn brought_back(&mut self) -> Option<Bytes> {
        together(std::mem::take(&mut self.back).iter().collect())
    }

    /// Takes a connection's hands off everything, and deletes what nobody holds any more.
    fn release(&mut self, who: ConnectionId, lost: &Lost) -> Vec<Bytes> {
        let mut deletions = Vec::new();
        for known in self.keys.values_mut() {
            let held = known.holders.len();
            known.holders.retain(|holder| *holder != who);
            if known.holders.len() == held || !known.holders.is_empty() || known.entry.deleted {
                continue;
            }
            let before = weight(&known.entry);
            known.lose(lost);
            self.len = self.len - before + weight(&known.entry);
            deletions.push(known.entry.bytes.clone());
        }
        deletions
    }
}

/// These entries as an update, if there are any.
fn together(entries: Vec<&Bytes>) -> Option<Bytes> {
    (!entries.is_empty()).then(|| entries::join(entries.into_iter()))
}

impl Known {
    /// The same entry is announced once more. By its author who is back? By somebody who has heard of it, as stores
    /// announce all that they know when they join? Who has set it by itself is believed; else it is held by all who
    /// announced it, and leaves with the last of them.
    fn claim(&mut self, from: Option<ConnectionId>, sure: bool, leaving: &[Leaving]) {
        let Some(from) = from.filter(|from| !self.holders.contains(from)) else { return };
        let held = self.holders.len();
        self.holders.retain(|holder| !is_leaving(leaving, *holder));
        if sure && !self.sure {
            self.holders.clear();
            self.sure = true;
        } else if self.sure && self.holders.len() == held {
            return;
        }
        self.holders.push(from);
    }
}

fn is_leaving(leaving: &[Leaving], who: ConnectionId) -> bool {
    leaving.iter().any(|leaving| leaving.who == who)
}

fn weight(entry: &Entry) -> usize {
    entry.bytes.len() + OVERHEAD
}
