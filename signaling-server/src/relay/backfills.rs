//! How much is on its way to newcomers: a slow one keeps what it lacks in memory until it has it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::metrics::{Disconnect, Metrics};
use crate::outbox::Outbox;
use crate::room::relay::Backfill;

/// How long a backfill keeps its place when others want it: else a few who read as slowly as they may would keep
/// everybody out.
const PATIENCE: Duration = Duration::from_secs(30);

/// What all backfills together hold.
#[derive(Debug)]
pub(super) struct Backfills {
    held: AtomicUsize,
    most: usize,
    /// Those under way, the oldest first.
    places: Mutex<Places>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Places {
    last: u64,
    taken: BTreeMap<u64, Place>,
}

#[derive(Debug)]
struct Place {
    since: Instant,
    outbox: Weak<Outbox>,
}

/// A backfill under way; its bytes are given back when it is dropped.
pub(super) struct UnderWay {
    backfill: Backfill,
    bytes: usize,
    place: u64,
    all: Arc<Backfills>,
}

impl Backfills {
    pub(super) fn new(most: usize, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most, places: Mutex::default(), metrics })
    }

    /// Room for one more, or nothing if there is none. One alone always fits; those that have taken too long are closed
    /// to make room.
    pub(super) fn admit(
        self: &Arc<Self>,
        backfill: Backfill,
        outbox: &Arc<Outbox>,
        now: Instant,
    ) -> Option<UnderWay> {
        let bytes = backfill.left();
        while !self.reserve(bytes) {
            // Lets go of its backfill, unless it is about to anyway.
            self.overdue(now)?.close(Disconnect::Busy);
        }
        self.note();
        let mut places = self.places();
        places.last += 1;
        let place = places.last;
        places.taken.insert(place, Place { since: now, outbox: Arc::downgrade(outbox) });
        Some(UnderWay { backfill, bytes, place, all: Arc::clone(self) })
    }

    fn reserve(&self, bytes: usize) -> bool {
        let fits = |held: usize| {
            let sum = held.saturating_add(bytes);
            (held == 0 || sum <= self.most).then_some(sum)
        };
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }

    /// The outbox of the oldest backfill, which gives up its place, if it has had it for long enough.
    fn overdue(&self, now: Instant) -> Option<Arc<Outbox>> {
        let mut places = self.places();
        loop {
            let oldest = places.taken.first_entry()?;
            if now.saturating_duration_since(oldest.get().since) < PATIENCE {
                return None;
            }
            if let Some(outbox) = oldest.remove().outbox.upgrade() {
                return Some(outbox);
            }
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no code that holds this lock panics")
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
        self.all.places().taken.remove(&self.place);
        self.all.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.all.note();
    }
}

#[cfg(test)]
mod tests {
    use wire::id::RoomId;
    use wire::sync::{Crdt, Room};

    use super::*;
    use crate::frame::Frame;
    use crate::outbox::Capacity;

    struct Newcomers {
        all: Arc<Backfills>,
        room: Room,
        now: Instant,
    }

    impl Newcomers {
        fn new() -> Self {
            let room = Room { crdt: Crdt::Loro, id: RoomId::try_from("r").unwrap() };
            Self { all: Backfills::new(100, Arc::new(Metrics::new())), room, now: Instant::now() }
        }

        /// The outbox of one who lacks so much, if that is on its way.
        fn admit(&self, len: usize) -> Option<Arc<Outbox>> {
            let outbox = Arc::new(Outbox::new(Capacity { bytes: 1000, frames: 10 }, None));
            let backfill = Backfill::new(&self.room, 0, vec![vec![0; len].into()]);
            let under_way = self.all.admit(backfill, &outbox, self.now)?;
            outbox.feed(&self.room, Box::new(under_way));
            Some(outbox)
        }

        fn held(&self) -> i64 {
            self.all.metrics.relay.backfill_bytes.get()
        }
    }

    #[test]
    fn what_is_on_its_way_is_bounded_until_it_has_arrived_and_one_alone_always_fits() {
        let newcomers = Newcomers::new();
        let large = newcomers.admit(1000).expect("it is alone");
        assert!(newcomers.admit(1).is_none());
        drop(large);
        let (one, two) = (newcomers.admit(60), newcomers.admit(40));
        assert!(one.is_some() && two.is_some() && newcomers.admit(1).is_none());
        assert_eq!(newcomers.held(), 100);
        drop((one, two));
        assert_eq!(newcomers.held(), 0);
    }

    #[test]
    fn who_takes_too_long_makes_room_for_others_if_they_need_it() {
        let mut newcomers = Newcomers::new();
        let slow = newcomers.admit(60).unwrap();
        newcomers.now += PATIENCE / 2;
        let later = newcomers.admit(30).unwrap();
        newcomers.now += PATIENCE / 2;
        let is_open = |outbox: &Outbox| outbox.push(Frame::binary(b"x")).is_ok();
        let small = newcomers.admit(10).unwrap();
        assert!(is_open(&slow), "there was room");
        let next = newcomers.admit(50).unwrap();
        assert!(!is_open(&slow) && is_open(&later) && is_open(&small) && is_open(&next));
        assert_eq!(newcomers.held(), 90);
        assert!(newcomers.admit(20).is_none(), "nobody else has taken too long");
    }
}
