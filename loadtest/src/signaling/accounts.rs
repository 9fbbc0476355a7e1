//! Who should have heard what: exact, for every receiver and every sender.
//!
//! The protocol keeps the order of one connection's messages, so a receiver expects the numbers of each sender
//! in order and one counter for each pair tells all: what is missing, and what came twice or too late.

use crate::stamp::Stamp;

/// The books of the clients of some rooms. Client `n` sits in room `n % rooms`, on seat `n / rooms`.
#[derive(Debug)]
pub(super) struct Accounts {
    rooms: u32,
    members: Vec<Member>,
    /// For each member, the number that it expects next from each seat of its room.
    next: Vec<u32>,
    /// How many members of each room are connected.
    live: Vec<u32>,
    /// Deliveries that are owed for all that was published.
    pub(super) expected: u64,
    /// Deliveries that came.
    pub(super) delivered: u64,
    /// Deliveries that came twice, or after a later one of the same sender.
    pub(super) out_of_order: u64,
    /// Deliveries to somebody who is not in the room.
    pub(super) strayed: u64,
}

#[derive(Debug)]
struct Member {
    room: u32,
    seats: usize,
    first: usize,
}

impl Accounts {
    /// Opens the books: `members` are the numbers of the clients that are connected, out of `clients`.
    pub(super) fn new(clients: u32, rooms: u32, members: &[u32]) -> Self {
        let mut accounts = Self {
            rooms,
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

    /// A member publishes: all who are in its room are owed one delivery, itself included.
    pub(super) fn published(&mut self, who: usize) {
        self.expected += u64::from(self.live[self.members[who].room as usize]);
    }

    /// A member lost its connection and is owed nothing of what is published from now on.
    pub(super) fn left(&mut self, who: usize) {
        self.live[self.members[who].room as usize] -= 1;
    }

    /// A delivery reached a member.
    pub(super) fn heard(&mut self, who: usize, stamp: Stamp) {
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
    pub(super) fn is_settled(&self) -> bool {
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
        let mut accounts = Accounts::new(5, 2, &[0, 1, 2, 3, 4]);
        accounts.published(0);
        assert_eq!(accounts.expected, 3);
        accounts.published(1);
        assert_eq!(accounts.expected, 5);
        accounts.left(4);
        accounts.published(2);
        assert_eq!(accounts.expected, 7);
    }

    #[test]
    fn a_missing_a_repeated_and_a_late_delivery_show() {
        let mut accounts = Accounts::new(2, 1, &[0, 1]);
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
        let mut accounts = Accounts::new(4, 2, &[0, 1, 2, 3]);
        accounts.heard(0, stamp(1, 0));
        accounts.heard(0, stamp(4, 0));
        accounts.heard(0, stamp(u32::MAX, 0));
        assert_eq!((accounts.delivered, accounts.strayed), (0, 3));
    }
}
