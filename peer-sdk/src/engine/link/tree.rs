//! One channel's part in the trees along which changes are pushed: each author's changes have a tree of their own.

use std::collections::BTreeSet;

use bytes::Bytes;
use loro::{PeerID, VersionVector};

use super::{Hands, Link};
use crate::engine::replica::counter;

/// Authors that are remembered at most, each way. The changes of others are pushed, and may come twice.
const MOST: usize = 4096;
/// What stands before the authors in an announcement that says that their changes came twice. Whoever does not know of
/// trees reads an announcement like any other.
const TWICE: &[u8] = b"twice";

/// The part of one channel.
#[derive(Debug, Default)]
pub(super) struct Branch {
    /// Whose changes the other end gets by another way: they are announced to it.
    lazy: BTreeSet<PeerID>,
    /// Whose changes we get by another way, and have said so.
    pruned: BTreeSet<PeerID>,
}

impl Branch {
    pub(super) fn is_lazy(&self, author: PeerID) -> bool {
        self.lazy.contains(&author)
    }

    /// The other end may have said that some changes came twice.
    pub(super) fn pruned_by_them(&mut self, extra: &[u8]) {
        let Some(authors) = extra.strip_prefix(TWICE) else { return };
        for author in authors.chunks_exact(size_of::<PeerID>()) {
            if self.lazy.len() < MOST {
                self.lazy.extend(author.try_into().map(PeerID::from_le_bytes));
            }
        }
    }

    /// The other end lacks something of these authors: it does not get that by another way.
    pub(super) fn lacks(&mut self, ours: &VersionVector, theirs: &VersionVector) {
        self.lazy.retain(|author| counter(ours, *author) <= counter(theirs, *author));
    }

    /// We are about to ask for what we lack: it is wanted this way.
    pub(super) fn wanted(&mut self, theirs: &VersionVector, ours: &VersionVector) {
        self.pruned.retain(|author| counter(theirs, *author) <= counter(ours, *author));
    }

    /// Which of these authors the other end has not been told of.
    fn prune(&mut self, covers: &VersionVector) -> Vec<PeerID> {
        let room = MOST.saturating_sub(self.pruned.len());
        let fresh = covers.keys().filter(|author| !self.pruned.contains(author));
        let fresh: Vec<_> = fresh.copied().take(room.min(MOST / 16)).collect();
        self.pruned.extend(fresh.iter().copied());
        fresh
    }
}

impl Link {
    /// These changes came twice: the other end need not push their authors' changes.
    pub(super) fn prune(&mut self, covers: &VersionVector, hands: &mut Hands<'_>) {
        let authors = self.tree.prune(covers);
        if !authors.is_empty() {
            let authors = authors.into_iter().flat_map(PeerID::to_le_bytes);
            let extra: Bytes = TWICE.iter().copied().chain(authors).collect();
            self.show(&extra, hands);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(entries: &[(u64, i32)]) -> VersionVector {
        entries.iter().copied().collect()
    }

    #[test]
    fn what_came_twice_is_said_once_until_it_is_asked_for() {
        let mut branch = Branch::default();
        assert_eq!(branch.prune(&version(&[(1, 5)])), [1]);
        assert!(branch.prune(&version(&[(1, 6)])).is_empty());
        branch.wanted(&version(&[(1, 9)]), &version(&[(1, 6)]));
        assert_eq!(branch.prune(&version(&[(1, 9)])), [1]);
    }

    #[test]
    fn who_lacks_something_is_pushed_to_again() {
        let mut branch = Branch::default();
        let extra: Vec<u8> = TWICE.iter().copied().chain(7_u64.to_le_bytes()).collect();
        branch.pruned_by_them(&extra);
        assert!(branch.is_lazy(7) && !branch.is_lazy(8));
        branch.lacks(&version(&[(7, 3)]), &version(&[(7, 3)]));
        assert!(branch.is_lazy(7));
        branch.lacks(&version(&[(7, 3)]), &version(&[(7, 2)]));
        assert!(!branch.is_lazy(7));
    }

    #[test]
    fn a_stranger_cannot_have_more_remembered_than_there_is_room_for() {
        let mut branch = Branch::default();
        branch.pruned_by_them(b"something else");
        branch.pruned_by_them(b"twice and then what is no author");
        for many in 0..20_u64 {
            let authors = (many * 1000..(many + 1) * 1000).flat_map(u64::to_le_bytes);
            branch.pruned_by_them(&TWICE.iter().copied().chain(authors).collect::<Vec<_>>());
        }
        assert!(branch.lazy.len() <= MOST);
    }
}
