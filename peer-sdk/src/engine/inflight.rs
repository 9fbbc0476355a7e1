//! Updates that were sent and not acknowledged yet.
//!
//! "Sent" is not "received": what an update covers counts as held by the other end only once it is acknowledged, or
//! once the other end shows a version that has it. Until then it is *promised*, so that it is not sent twice.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use loro::VersionVector;
use wire::id::BatchId;

use super::replica::{exceeds, raise};

/// How long an acknowledgement may take, and how much longer for each of so many bytes.
const PATIENCE: Duration = Duration::from_secs(10);
const BYTES_A_SECOND: usize = 100_000;
/// No more is sent while so many bytes are not acknowledged.
const WINDOW: usize = 1 << 20;
/// Nor while so many updates are not.
const MOST: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Inflight {
    batches: VecDeque<Batch>,
    bytes: usize,
    minted: u64,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    /// What the other end holds once it has this.
    covers: VersionVector,
    len: usize,
    /// `None`: it is known to have arrived, and only the word that it is safe is missing.
    deadline: Option<Instant>,
}

impl Inflight {
    /// Whether one more may be sent.
    pub(super) fn has_room(&self) -> bool {
        self.batches.len() < MOST && (self.bytes < WINDOW || self.batches.is_empty())
    }

    /// A name for the next update.
    pub(super) fn mint(&mut self) -> BatchId {
        self.minted += 1;
        BatchId::from(self.minted)
    }

    /// The last update that was named is being sent.
    pub(super) fn sent(&mut self, now: Instant, covers: VersionVector, len: usize) {
        let patience = PATIENCE + Duration::from_secs((len / BYTES_A_SECOND) as u64);
        let deadline = Some(now + patience);
        self.bytes += len;
        self.batches.push_back(Batch { number: self.minted, covers, len, deadline });
    }

    /// The number of the last update that was named.
    pub(super) fn mark(&self) -> u64 {
        self.minted
    }

    /// An answer to one has come. What it covers, if it was waited for.
    pub(super) fn answered(&mut self, batch: BatchId) -> Option<VersionVector> {
        let at = self.batches.iter().position(|sent| BatchId::from(sent.number) == batch)?;
        let batch = self.batches.remove(at)?;
        self.bytes -= batch.len;
        Some(batch.covers)
    }

    /// The other end has shown a version that tells of everything up to this mark: what is not in it is lost.
    pub(super) fn settle(&mut self, mark: u64, version: &VersionVector) {
        for batch in &mut self.batches {
            if batch.number <= mark && !exceeds(&batch.covers, version) {
                batch.deadline = None;
            }
        }
        self.batches.retain(|batch| batch.number > mark || batch.deadline.is_none());
        self.bytes = self.batches.iter().map(|batch| batch.len).sum();
    }

    /// Adds what is promised to what is known to be held.
    pub(super) fn promised(&self, held: &VersionVector) -> VersionVector {
        let mut promised = held.clone();
        self.batches.iter().for_each(|batch| raise(&mut promised, &batch.covers));
        promised
    }

    pub(super) fn len(&self) -> usize {
        self.batches.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.batches.iter().filter_map(|batch| batch.deadline).min()
    }

    /// Whether an answer is overdue. The question is put off, so that it is answered once for each time of patience.
    pub(super) fn is_overdue(&mut self, now: Instant) -> bool {
        let mut overdue = false;
        for deadline in self.batches.iter_mut().filter_map(|batch| batch.deadline.as_mut()) {
            if *deadline <= now {
                overdue = true;
                *deadline = now + PATIENCE;
            }
        }
        overdue
    }

    pub(super) fn clear(&mut self) {
        self.batches.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(end: i32) -> VersionVector {
        [(1, end)].into_iter().collect()
    }

    fn send(inflight: &mut Inflight, now: Instant, end: i32, len: usize) -> BatchId {
        let batch = inflight.mint();
        inflight.sent(now, to(end), len);
        batch
    }

    #[test]
    fn what_is_sent_is_promised_until_it_is_answered() {
        let (now, mut inflight) = (Instant::now(), Inflight::default());
        let batch = send(&mut inflight, now, 5, 100);
        assert_eq!(inflight.promised(&to(2)), to(5));
        assert_eq!(inflight.answered(batch), Some(to(5)));
        assert_eq!(inflight.answered(batch), None);
        assert_eq!(inflight.promised(&to(2)), to(2));
    }

    #[test]
    fn a_version_settles_what_was_sent_before_it_and_nothing_after() {
        let (now, mut inflight) = (Instant::now(), Inflight::default());
        let arrived = send(&mut inflight, now, 3, 1);
        let lost = send(&mut inflight, now, 5, 1);
        let mark = inflight.mark();
        let later = send(&mut inflight, now, 9, 1);
        inflight.settle(mark, &to(3));
        assert_eq!(inflight.answered(lost), None);
        assert_eq!(inflight.promised(&to(3)), to(9));
        assert_eq!(inflight.answered(arrived), Some(to(3)), "the word that it is safe may still come");
        assert_eq!(inflight.answered(later), Some(to(9)));
    }

    #[test]
    fn a_full_window_waits_but_a_single_update_always_goes() {
        let (now, mut inflight) = (Instant::now(), Inflight::default());
        let large = send(&mut inflight, now, 1, 50 << 20);
        assert!(!inflight.has_room());
        inflight.answered(large);
        assert!(inflight.has_room());
    }

    #[test]
    fn silence_is_noticed_once_for_each_time_of_patience() {
        let (now, mut inflight) = (Instant::now(), Inflight::default());
        send(&mut inflight, now, 1, 1);
        assert!(!inflight.is_overdue(now + PATIENCE / 2));
        let late = now + PATIENCE;
        assert!(inflight.is_overdue(late));
        assert!(!inflight.is_overdue(late));
        assert_eq!(inflight.deadline(), Some(late + PATIENCE));
    }
}
