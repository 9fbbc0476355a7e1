//! What comes through several signaling servers is heard once.

use std::collections::VecDeque;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::adapter::signaling::ServerId;

/// Messages that are remembered. Copies come within moments of each other.
const MEMORY: usize = 256;

/// The messages of late, and the server that brought each first.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    hasher: RandomState,
    seen: VecDeque<(u64, ServerId)>,
}

impl Repeats {
    /// Whether another server has brought this already. Somebody who says the same again says it at the same server.
    pub(super) fn is_copy(&mut self, server: ServerId, from: &str, message: &[u8]) -> bool {
        let hash = self.hasher.hash_one((from, message));
        if let Some((_, first)) = self.seen.iter().find(|(seen, _)| *seen == hash) {
            return *first != server;
        }
        if self.seen.len() >= MEMORY {
            self.seen.pop_front();
        }
        self.seen.push_back((hash, server));
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_from_another_server_is_left_out_and_a_repetition_is_not() {
        let (one, other) = (ServerId::test(1), ServerId::test(2));
        let mut repeats = Repeats::default();
        assert!(!repeats.is_copy(one, "ana", b"offer"));
        assert!(repeats.is_copy(other, "ana", b"offer"));
        assert!(!repeats.is_copy(one, "ana", b"offer"));
        assert!(!repeats.is_copy(other, "ben", b"offer"));
        for n in 0..MEMORY {
            assert!(!repeats.is_copy(other, "ana", &n.to_be_bytes()));
        }
        assert!(repeats.seen.len() <= MEMORY);
        assert!(!repeats.is_copy(other, "ana", b"offer"), "long forgotten");
    }
}
