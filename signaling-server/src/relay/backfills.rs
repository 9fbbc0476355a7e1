//! How much is on its way to newcomers: a slow one keeps what it lacks in memory until it has it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;

use crate::metrics::Metrics;
use crate::room::relay::Backfill;

/// What all backfills together hold.
#[derive(Debug)]
pub(super) struct Backfills {
    held: AtomicUsize,
    most: usize,
    metrics: Arc<Metrics>,
}

/// A backfill under way; its bytes are given back when it is dropped.
pub(super) struct UnderWay {
    backfill: Backfill,
    bytes: usize,
    all: Arc<Backfills>,
}

impl Backfills {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most, metrics })
    }

    /// Room for one more, or nothing if there is none. One alone always fits.
    pub(super) fn admit(self: &Arc<Self>, backfill: Backfill) -> Option<UnderWay> {
        let bytes = backfill.left();
        let before = self.held.fetch_add(bytes, Ordering::Relaxed);
        let under_way = UnderWay { backfill, bytes, all: Arc::clone(self) };
        self.note();
        // Dropped if it does not fit, and so given back.
        (before == 0 || before.saturating_add(bytes) <= self.most).then_some(under_way)
    }

    fn note(&self) {
        let held = self.held.load(Ordering::Relaxed);
        self.metrics.relay.backfill_bytes.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

impl Iterator for UnderWay {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.backfill.next()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.all.note();
    }
}
