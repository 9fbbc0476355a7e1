//! Who has filled outboxes flushes them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Outbox;

/// Outboxes that one task has filled and is to flush.
#[derive(Debug, Default)]
pub struct Flush {
    outboxes: VecDeque<Arc<Outbox>>,
    /// Others are publishing too: what they publish before our next turn is to go out in the same writes.
    pub(crate) wait_a_turn: bool,
}

impl Flush {
    /// Most outboxes flushed in one turn.
    const TURN: usize = 64;

    /// An outbox whose push asked for a flush.
    pub(crate) fn add(&mut self, outbox: &Arc<Outbox>) {
        self.outboxes.push_back(Arc::clone(outbox));
    }

    /// Flushes some.
    pub(crate) fn turn(&mut self) {
        self.wait_a_turn = false;
        for outbox in self.outboxes.drain(..self.outboxes.len().min(Self::TURN)) {
            outbox.flush();
        }
        if self.outboxes.is_empty() && self.outboxes.capacity() > Self::TURN {
            self.outboxes = VecDeque::new();
        }
    }

    /// Whether nothing is left to flush.
    pub(crate) fn is_empty(&self) -> bool {
        self.outboxes.is_empty()
    }
}

impl Drop for Flush {
    /// What was claimed is flushed, whatever becomes of the task that claimed it.
    fn drop(&mut self) {
        while !self.is_empty() {
            self.turn();
        }
    }
}
