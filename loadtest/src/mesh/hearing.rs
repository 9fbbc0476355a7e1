//! What reaches a peer's document, and when.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use loro::{
    EventTriggerKind, LoroDoc, LoroValue, Subscription, ValueOrContainer,
    event::{Diff, DiffEvent},
};

use super::absence::Absences;
use crate::{measure::Latencies, stage::Recent, stamp::Stamp};

/// The books of all peers: written by whichever task imports something.
#[derive(Debug, Clone)]
pub(super) struct Ear(Arc<Mutex<Heard>>);

/// What was heard.
#[derive(Debug)]
pub(super) struct Heard {
    /// When the stamps begin to count.
    pub(super) origin: Instant,
    /// From when an annotation was due until another peer's document showed it.
    pub(super) latencies: Latencies,
    /// Of those that were written or heard by somebody who was cut off meanwhile: from when it was back.
    pub(super) catch_up: Latencies,
    absences: Absences,
    pub(super) recent: Recent,
    pub(super) delivered: u64,
}

impl Ear {
    /// For peers that are away then.
    pub(super) fn new(absences: Absences) -> Self {
        let (latencies, catch_up, recent) = (Latencies::default(), Latencies::default(), Recent::default());
        let origin = Instant::now();
        Self(Arc::new(Mutex::new(Heard { origin, latencies, catch_up, absences, recent, delivered: 0 })))
    }

    /// Looks at or changes the books.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut Heard) -> T) -> T {
        // Counters are right after each step, whoever panicked meanwhile.
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Listens to a peer's document until what is returned is dropped.
    pub(super) fn listen(&self, who: usize, document: &LoroDoc) -> Subscription {
        let ear = self.clone();
        document.subscribe_root(Arc::new(move |event| {
            if event.triggered_by == EventTriggerKind::Import {
                ear.heard(who, &event, Instant::now());
            }
        }))
    }

    fn heard(&self, who: usize, event: &DiffEvent<'_>, at: Instant) {
        let maps = event.events.iter().filter_map(|change| match &change.diff {
            Diff::Map(map) => Some(map),
            _ => None,
        });
        for value in maps.flat_map(|map| map.updated.values()) {
            let Some(ValueOrContainer::Value(LoroValue::String(text))) = value else { continue };
            self.with(|heard| {
                Stamp::all(text.as_bytes()).for_each(|stamp| heard.book(who, stamp, at));
            });
        }
    }
}

impl Heard {
    fn book(&mut self, who: usize, stamp: Stamp, at: Instant) {
        self.delivered += 1;
        let (at, due) = (at.saturating_duration_since(self.origin), Duration::from_nanos(stamp.due));
        let late = |since: Duration| u64::try_from(at.saturating_sub(since).as_nanos()).unwrap_or(u64::MAX);
        if let Some(back) = self.absences.between([who, stamp.sender as usize], due, at) {
            self.catch_up.record(late(back));
        } else {
            self.latencies.record(late(due));
            self.recent.record(late(due));
        }
    }
}

#[cfg(test)]
mod tests {
    use loro::ExportMode;

    use super::*;

    #[test]
    fn what_is_imported_is_heard_and_what_is_written_here_is_not() {
        let (ear, one, other) = (Ear::new(Absences::default()), LoroDoc::new(), LoroDoc::new());
        let _subscription = ear.listen(2, &other);
        for sequence in 0..3 {
            let stamp = Stamp { sender: 1, sequence, due: 0 };
            one.get_map("annotations").insert(&sequence.to_string(), stamp.text(60)).unwrap();
            one.commit();
        }
        other
            .get_map("annotations")
            .insert("own", Stamp { sender: 2, sequence: 0, due: 0 }.text(60))
            .unwrap();
        other.commit();
        assert_eq!(ear.with(|heard| heard.delivered), 0);
        other.import(&one.export(ExportMode::all_updates()).unwrap()).unwrap();
        assert_eq!(ear.with(|heard| (heard.delivered, heard.latencies.count())), (3, 3));
    }
}
