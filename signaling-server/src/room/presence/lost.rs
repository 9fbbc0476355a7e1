//! Entries that left with their connection, and how they are brought back.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::Known;
use super::entries::{self, Entry, MAX_STAMP};
use crate::room::ConnectionId;
use crate::room::relay::Author;

/// How long after its connection's end whoever joins may bring an entry back. Stores forget what is older anyway.
const RETURN: Duration = Duration::from_secs(30);

/// How an entry left.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    /// As whom its last holder wrote.
    author: Author,
    until: Instant,
    /// Stamps of the entry as its author may know it: as it was set, and as it was each time that it was brought back.
    first: i64,
    last: i64,
    /// Connections that joined since then as the same author, and were not told: they may know the entry because it is
    /// theirs. Those who were here have heard that it is gone, so that what they say of it is old.
    spared: Vec<ConnectionId>,
}

impl Lost {
    /// With a connection of this author, which is gone now; these may be its successors.
    pub(super) fn now(now: Instant, author: &Author, spared: &[ConnectionId]) -> Self {
        Self { author: author.clone(), until: now + RETURN, first: 0, last: 0, spared: spared.to_vec() }
    }
}

impl Known {
    /// Deletes the entry, which leaves with the last connection that held it.
    pub(super) fn lose(&mut self, lost: &Lost) {
        let last = self.entry.stamp;
        let first = self.lost.take().map_or(last, |lost| lost.first);
        self.lost = Some(Box::new(Lost { first, last, ..lost.clone() }));
        self.entry = entries::deletion(&self.entry);
    }

    /// A connection joins that may write as this author.
    pub(super) fn spare(&mut self, now: Instant, who: ConnectionId, author: &Author) {
        if let Some(lost) = &mut self.lost
            && lost.author == *author
            && now <= lost.until
            && !lost.spared.contains(&who)
        {
            lost.spared.push(who);
        }
    }

    /// Whether this is a deletion that a connection is not told of, since it may have come to bring the entry back.
    pub(super) fn is_kept_from(&self, who: ConnectionId) -> bool {
        self.entry.deleted && self.lost.as_ref().is_some_and(|lost| lost.spared.contains(&who))
    }

    /// Somebody announces an entry older than the one here: perhaps this one as it was before it left. What everybody
    /// is to hear then, if it is news.
    pub(super) fn bring_back(&mut self, from: ConnectionId, entry: &Entry) -> Option<Bytes> {
        let lost = self.lost.as_ref().filter(|lost| lost.spared.contains(&from))?;
        if entry.deleted || !(lost.first..=lost.last).contains(&entry.stamp) || self.entry.stamp >= MAX_STAMP
        {
            return None;
        }
        if self.entry.deleted {
            self.entry = entry.stamped(self.entry.stamp + 1);
            self.holders = vec![from];
            return Some(self.entry.bytes.clone());
        }
        // Two who write as one, and went and came together, know each other: it leaves with the last of them.
        if !self.holders.contains(&from) {
            self.holders.push(from);
        }
        None
    }
}
