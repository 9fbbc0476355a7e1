//! Who should have heard what: exact, for every receiver and every sender.
//!
//! The protocol keeps the order of one connection's messages, so a receiver expects the numbers of each sender
//! in order and one counter for each pair tells all: what is missing, and what came twice or too late.

use crate::stamp::Stamp;

/// The books of the clients of some rooms. Client `n` sits in room `n % rooms`, on seat `n / rooms`.
#[derive(Debug)]
pub(crate) struct Accounts {
    rooms: u32,
    echo: Echo,
    members: Vec<Member>,
    /// For each member, the number that it expects next from each seat of its room.
    next: Vec<u32>,
    /// How many members of each room are connected.
    live: Vec<u32>,
    /// Deliveries that are owed for all that was published.
    pub(crate) expected: u64,
    /// Deliveries that came.
    pub(crate) delivered: u64,
    /// Deliveries that came twice, or after a later one of the same sender.
    pub(crate) out_of_order: u64,
    /// Deliveries to somebody who is not in the room.
    pub(crate) strayed: u64,
}

/// Whether a sender hears what it sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Echo {
    /// It does, as in signaling.
    Own,
    /// It does not, as in a relay.
    OthersOnly,
}

#[derive(Debug)]
struct Member {
    room: u32,
    seats: usize,
    first: usize,
}

impl Accounts {
    /// Opens the books: `members` are the numbers of the clients that are connected, out of `clients`.
    pub(crate) fn new(clients: u32, rooms: u32, members: &[u32], echo: Echo) -> Self {
        let mut accounts = Self {
            rooms,
            echo,
            members: Vec::with_capacity(members.len()),
            next: Vec::new(),
            live: vec![0; rooms as usize],
            expected: 0,
            delivered: 0,
            out_of_order: 0,
            strayed: 0,
        };
        for number in members {
            let room = number % rooms;
            let seats = clients.saturating_sub(room).div_ceil(rooms) as usize;
            accounts.members.push(Member { room, seats, first: accounts.next.len() });
            accounts.next.resize(accounts.next.len() + seats, 0);
            accounts.live[room as usize] += 1;
        }
        accounts
    }

    /// A member publishes: all who are in its room are owed one delivery, itself included if it hears its own.
    pub(crate) fn published(&mut self, who: usize) {
        self.expected += self.owed(who);
    }

    /// What a member published was refused as a whole: nobody is owed it.
    pub(crate) fn refused(&mut self, who: usize) {
        self.expected = self.expected.saturating_sub(self.owed(who));
    }

    fn owed(&self, who: usize) -> u64 {
        let live = u64::from(self.live[self.members[who].room as usize]);
        if self.echo == Echo::Own { live } else { live.saturating_sub(1) }
    }

    /// A member lost its connection and is owed nothing of what is published from now on.
    pub(crate) fn left(&mut self, who: usize) {
        self.live[self.members[who].room as usize] -= 1;
    }

    /// A delivery reached a member.
    pub(crate) fn heard(&mut self, who: usize, stamp: Stamp) {
        let member = &self.members[who];
        let seat = (stamp.sender / self.rooms) as usize;
        if stamp.sender % self.rooms != member.room || seat >= member.seats {
            self.strayed += 1;
            return;
        }
        self.delivered += 1;
        let next = &mut self.next[member.first + seat];
        if stamp.sequence < *next {
            self.out_of_order += 1;
        } else {
            *next = stamp.sequence.saturating_add(1);
        }
    }

    /// Whether everything that is owed came.
    pub(crate) fn is_settled(&self) -> bool {
        self.delivered >= self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(sender: u32, sequence: u32) -> Stamp {
        Stamp { sender, sequence, due: 0 }
    }

    #[test]
    fn everybody_in_the_room_is_owed_a_delivery_and_nobody_else() {
        // Clients 0..5 in two rooms: 0, 2, 4 and 1, 3.
        let mut accounts = Accounts::new(5, 2, &[0, 1, 2, 3, 4], Echo::Own);
        accounts.published(0);
        assert_eq!(accounts.expected, 3);
        accounts.published(1);
        assert_eq!(accounts.expected, 5);
        accounts.left(4);
        accounts.published(2);
        assert_eq!(accounts.expected, 7);
    }

    #[test]
    fn nobody_is_owed_its_own_where_there_is_no_echo_nor_what_was_refused() {
        let mut accounts = Accounts::new(5, 1, &[0, 1, 2, 3, 4], Echo::OthersOnly);
        accounts.published(0);
        assert_eq!(accounts.expected, 4);
        accounts.published(1);
        accounts.refused(1);
        assert_eq!(accounts.expected, 4);
    }

    #[test]
    fn a_missing_a_repeated_and_a_late_delivery_show() {
        let mut accounts = Accounts::new(2, 1, &[0, 1], Echo::Own);
        for _ in 0..3 {
            accounts.published(1);
        }
        for sequence in [0, 2, 1] {
            accounts.heard(0, stamp(1, sequence));
        }
        assert_eq!((accounts.delivered, accounts.out_of_order), (3, 1));
        assert!(!accounts.is_settled());
        for sequence in [0, 1, 1] {
            accounts.heard(1, stamp(1, sequence));
        }
        assert_eq!((accounts.delivered, accounts.out_of_order), (6, 2));
    }

    #[test]
    fn a_delivery_from_another_room_or_from_nobody_is_a_stray() {
        let mut accounts = Accounts::new(4, 2, &[0, 1, 2, 3], Echo::Own);
        accounts.heard(0, stamp(1, 0));
        accounts.heard(0, stamp(4, 0));
        accounts.heard(0, stamp(u32::MAX, 0));
        assert_eq!((accounts.delivered, accounts.strayed), (0, 3));
    }
}
