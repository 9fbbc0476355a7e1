//! Who is in a room of the Loro Protocol, what each may do, and who is to be told to join again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wire::sync::Permission;

use super::Author;
use crate::room::{ByConnection, ConnectionId};

/// Everybody who has joined, or has asked to.
#[derive(Debug)]
pub(super) struct Seats {
    seats: ByConnection<Seat>,
    /// Those who hear what is said, listed again once somebody has come or gone.
    seated: Option<Arc<[ConnectionId]>>,
    /// When the earliest suggestion becomes due, or before: it is not put off when that one is dropped.
    next_due: Option<Instant>,
    /// The least time between two suggestions to one member.
    patience: Duration,
}

/// One member, or somebody about to become one.
#[derive(Debug)]
struct Seat {
    permission: Permission,
    author: Author,
    /// Its join has been answered: from then on it hears what the others say.
    seated: bool,
    suggested: Option<Instant>,
    /// A suggestion that came too soon after the last one is made then.
    due: Option<Instant>,
    /// It was refused something that it can bring again once the store works.
    owed: bool,
}

impl Seats {
    pub(super) fn new(patience: Duration) -> Self {
        Self { seats: ByConnection::default(), seated: None, next_due: None, patience }
    }

    /// Keeps a seat, or changes what its holder may do from now on.
    pub(super) fn reserve(&mut self, who: ConnectionId, permission: Permission, author: Author) {
        let seat = self.seats.entry(who).or_insert_with(|| Seat {
            permission,
            author: author.clone(),
            seated: false,
            suggested: None,
            due: None,
            owed: false,
        });
        seat.permission = permission;
        seat.author = author;
    }

    /// Its join is being answered. What it may do; `None` if it has left meanwhile.
    pub(super) fn take(&mut self, who: ConnectionId) -> Option<Permission> {
        let seat = self.seats.get_mut(&who)?;
        if !std::mem::replace(&mut seat.seated, true) {
            self.seated = None;
        }
        Some(seat.permission)
    }

    /// As whom it was there, if it was.
    pub(super) fn leave(&mut self, who: ConnectionId) -> Option<Author> {
        self.seated = None;
        self.seats.remove(&who).map(|seat| seat.author)
    }

    /// Everybody leaves.
    pub(super) fn clear(&mut self) {
        self.seated = None;
        self.seats.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    pub(super) fn contains(&self, who: ConnectionId) -> bool {
        self.seats.contains_key(&who)
    }

    /// Under which name it may write; `None` if it may not.
    pub(super) fn writer(&self, who: ConnectionId) -> Option<&Author> {
        let seat = self.seats.get(&who)?;
        (seat.permission == Permission::Write).then_some(&seat.author)
    }

    /// Those who hear what is said, in no particular order.
    pub(super) fn seated(&mut self) -> Arc<[ConnectionId]> {
        let seats = &self.seats;
        let list = || seats.iter().filter(|(_, seat)| seat.seated).map(|(who, _)| *who).collect();
        Arc::clone(self.seated.get_or_insert_with(list))
    }

    /// Whether to suggest now that it joins again. If that has been done a moment ago, it becomes due later.
    pub(super) fn suggest(&mut self, now: Instant, who: ConnectionId) -> bool {
        let Some(seat) = self.seats.get_mut(&who) else { return false };
        let allowed = seat.suggested.map_or(now, |last| last + self.patience);
        if now < allowed {
            seat.due = Some(allowed);
            self.next_due = Some(self.next_due.map_or(allowed, |next| next.min(allowed)));
            return false;
        }
        seat.suggested = Some(now);
        seat.due = None;
        true
    }

    /// Somebody whose suggestion has become due by now.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<ConnectionId> {
        if self.next_due.is_none_or(|due| due > now) {
            return None;
        }
        let overdue = self.seats.iter().find(|(_, seat)| seat.due.is_some_and(|due| due <= now));
        let overdue = overdue.map(|(who, _)| *who);
        if overdue.is_none() {
            self.next_due = self.seats.values().filter_map(|seat| seat.due).min();
        }
        overdue
    }

    /// When to ask who is [overdue](Self::overdue) at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next_due
    }

    /// It was refused something while nothing could be stored.
    pub(super) fn owe(&mut self, who: ConnectionId) {
        if let Some(seat) = self.seats.get_mut(&who) {
            seat.owed = true;
        }
    }

    /// Those who were refused something while nothing could be stored. Asked once.
    pub(super) fn owed(&mut self) -> Vec<ConnectionId> {
        let seats = self.seats.iter_mut();
        seats.filter_map(|(who, seat)| std::mem::take(&mut seat.owed).then_some(*who)).collect()
    }
}
