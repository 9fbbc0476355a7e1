//! The series of the relay and of its store.

use std::time::Instant;

use prometheus::{Histogram, IntCounter, IntGauge};
use wire::sync::{RoomErrorCode, Status};

use super::label::{AckStatus, Join, RoomErrorKind};
use super::{CounterBy, Maker};
use crate::relay::Relays;
use crate::room::relay::Reply;

const LATENCIES: [f64; 13] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// What the relay counts; all zero when it is off.
#[derive(Debug)]
pub struct RelayMetrics {
    /// Rooms in memory.
    pub rooms: IntGauge,
    /// Rooms that left memory since nobody was in them.
    pub evicted: IntCounter,
    /// Joins answered, by outcome.
    pub joins: CounterBy<Join>,
    /// Acknowledgements, by status.
    pub acks: CounterBy<AckStatus>,
    /// Errors told to members, by code.
    pub room_errors: CounterBy<RoomErrorKind>,
    /// From an update's arrival until it was queued for its receivers.
    pub delivery: Histogram,
    /// From an update's arrival until its acknowledgement was queued.
    pub ack: Histogram,
    /// Updates that wait for others that they build on.
    pub pending: IntCounter,
    /// Documents that panicked.
    pub quarantined: IntCounter,
    /// Stored batches left out since their document panics over them.
    pub set_aside: IntCounter,
    /// Rooms that could not be opened.
    pub unreadable: IntCounter,
    /// Times that a room's store failed, so that it took nothing until all was stored again.
    pub gaps: IntCounter,
    /// Bytes on their way to newcomers.
    pub backfill_bytes: IntGauge,
    /// Batches in each commit of the store.
    pub commit_batches: Histogram,
    /// Payload bytes committed.
    pub commit_bytes: IntCounter,
    /// How long each commit took.
    pub sync: Histogram,
    /// How long each compaction took.
    pub compaction: Histogram,
    /// Writes of the store that failed.
    pub store_failures: IntCounter,
    /// Abandoned rooms that were forgotten.
    pub swept: IntCounter,
    entries: IntGauge,
    stored_rooms: IntGauge,
    stored_bytes: IntGauge,
}

impl RelayMetrics {
    pub(super) fn new(make: &Maker) -> Self {
        Self {
            rooms: make.gauge("signaling_relay_rooms", "Rooms of the Loro Protocol in memory."),
            evicted: make.counter(
                "signaling_relay_evictions_total",
                "Rooms that left memory since nobody had been in them for relay.idle_after.",
            ),
            joins: make.by("signaling_relay_joins_total", "Joins of rooms answered, by outcome."),
            acks: make.by("signaling_relay_acks_total", "Updates acknowledged or refused, by status."),
            room_errors: make.by("signaling_relay_room_errors_total", "Errors told to members, by code."),
            delivery: make.histogram(
                "signaling_relay_delivery_seconds",
                "From an update's arrival until it was queued for its receivers; one observation an update.",
                &LATENCIES,
            ),
            ack: make.histogram(
                "signaling_relay_ack_seconds",
                "From an update's arrival until its positive acknowledgement was queued.",
                &LATENCIES,
            ),
            pending: make.counter(
                "signaling_relay_pending_updates_total",
                "Updates kept that wait for others that they build on.",
            ),
            quarantined: make.counter(
                "signaling_relay_quarantined_total",
                "Documents that an update broke; each was loaded again without it.",
            ),
            set_aside: make.counter(
                "signaling_relay_batches_set_aside_total",
                "Stored batches left out since they break their document.",
            ),
            unreadable: make.counter(
                "signaling_relay_unreadable_total",
                "Times that a room could not be opened; what is stored of it stays as it is.",
            ),
            gaps: make.counter(
                "signaling_relay_gaps_total",
                "Times that the store failed a room, which then took nothing until all of it was stored again.",
            ),
            backfill_bytes: make
                .gauge("signaling_relay_backfill_bytes", "Bytes of documents on their way to newcomers."),
            commit_batches: make.histogram(
                "signaling_store_commit_batches",
                "Batches in each commit of the store.",
                &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
            ),
            commit_bytes: make.counter("signaling_store_committed_bytes_total", "Payload bytes committed."),
            sync: make.histogram(
                "signaling_store_commit_seconds",
                "How long each commit took, which is mostly the disk's sync.",
                &LATENCIES,
            ),
            compaction: make.histogram(
                "signaling_store_compaction_seconds",
                "How long it took to put a snapshot in place of a room's log.",
                &LATENCIES,
            ),
            store_failures: make
                .counter("signaling_store_failures_total", "Writes that failed although they should not."),
            swept: make.counter("signaling_store_swept_total", "Abandoned rooms that were forgotten."),
            entries: make.gauge("signaling_relay_presence_entries", "Keys of presence in memory."),
            stored_rooms: make.gauge("signaling_store_rooms", "Rooms stored."),
            stored_bytes: make
                .gauge("signaling_store_bytes", "Bytes stored, by the reckoning of relay.bytes."),
        }
    }

    /// An update has been queued for its receivers.
    pub(crate) fn delivered(&self, arrived: Instant, receivers: u64) {
        if receivers > 0 {
            self.delivery.observe(arrived.elapsed().as_secs_f64());
        }
    }

    /// A room has answered somebody.
    pub(crate) fn note_reply(&self, reply: Reply) {
        match reply {
            Reply::JoinOk => self.joins.inc(Join::Ok),
            Reply::JoinError => self.joins.inc(Join::Room),
            Reply::RoomError(code) => self.room_errors.inc(code.into()),
            Reply::Ack { status, arrived } => {
                self.acks.inc(status.into());
                if status == Status::Ok {
                    self.ack.observe(arrived.elapsed().as_secs_f64());
                }
            }
        }
    }

    /// Looks at what there is, for a scrape.
    pub(crate) fn look(&self, relays: &Relays) {
        let entries: usize = relays.rooms().iter().map(|report| report.entries).sum();
        let usage = relays.usage();
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.stored_rooms.set(i64::try_from(usage.rooms).unwrap_or(i64::MAX));
        self.stored_bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
    }
}

impl From<Status> for AckStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::Ok => Self::Ok,
            Status::PermissionDenied => Self::PermissionDenied,
            Status::InvalidUpdate => Self::InvalidUpdate,
            Status::PayloadTooLarge => Self::PayloadTooLarge,
            Status::RateLimited => Self::RateLimited,
            Status::FragmentTimeout => Self::FragmentTimeout,
            Status::Unknown | Status::AppError => Self::Unknown,
        }
    }
}

impl From<RoomErrorCode> for RoomErrorKind {
    fn from(code: RoomErrorCode) -> Self {
        match code {
            RoomErrorCode::RejoinSuggested => Self::RejoinSuggested,
            RoomErrorCode::Evicted => Self::Evicted,
            RoomErrorCode::Unknown => Self::Unknown,
        }
    }
}
