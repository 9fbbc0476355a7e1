//! How much is stored, and how much may be.

use super::StoreError;

/// How much is stored of a room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomSize {
    /// Bytes of the snapshot.
    pub snapshot: u64,
    /// Bytes of the log: payloads, and [`BATCH_OVERHEAD`](super::BATCH_OVERHEAD) for each batch.
    pub log: u64,
    /// Batches in the log.
    pub batches: u64,
}

impl RoomSize {
    /// What counts against the caps, in bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.snapshot + self.log
    }

    /// Whether the log is longer than this and than the snapshot. Whoever compacts only then writes, over the life of
    /// a room, no more than some three times what was appended.
    #[must_use]
    pub fn wants_compaction(&self, compact_after: u64) -> bool {
        self.log > compact_after.max(self.snapshot)
    }
}

/// How much is stored in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rooms.
    pub rooms: u64,
    /// Bytes, as [`RoomSize::total`] counts them.
    pub bytes: u64,
}

/// How much may be stored; 0 means no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Rooms.
    pub rooms: u64,
    /// Bytes of one room.
    pub bytes_per_room: u64,
    /// Bytes of all rooms together.
    pub bytes: u64,
}

impl Caps {
    /// Whether a room of this size (`None`: not stored yet) may grow by so many bytes. Rooms ask before they pass an
    /// update on, counting what they have queued as stored; the store asks again.
    ///
    /// # Errors
    ///
    /// With the cap in the way.
    pub fn admit(&self, usage: Usage, room: Option<RoomSize>, more: u64) -> Result<(), StoreError> {
        if room.is_none() && is_over(usage.rooms + 1, self.rooms) {
            return Err(StoreError::TooManyRooms { limit: self.rooms });
        }
        let size = room.unwrap_or_default().total().saturating_add(more);
        if is_over(size, self.bytes_per_room) {
            return Err(StoreError::RoomFull { size, limit: self.bytes_per_room });
        }
        let size = usage.bytes.saturating_add(more);
        if is_over(size, self.bytes) {
            return Err(StoreError::Full { size, limit: self.bytes });
        }
        Ok(())
    }

    /// Whether a room may change its size. What gets no larger is always let through, so that a room over a cap that
    /// was lowered can still be compacted.
    pub(super) fn admit_change(
        &self,
        usage: Usage,
        from: Option<RoomSize>,
        to: RoomSize,
    ) -> Result<(), StoreError> {
        match to.total().checked_sub(from.unwrap_or_default().total()) {
            None | Some(0) if from.is_some() => Ok(()),
            more => self.admit(usage, from, more.unwrap_or_default()),
        }
    }
}

fn is_over(size: u64, limit: u64) -> bool {
    limit > 0 && size > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPS: Caps = Caps { rooms: 2, bytes_per_room: 100, bytes: 150 };

    fn sized(log: u64) -> RoomSize {
        RoomSize { log, ..RoomSize::default() }
    }

    #[test]
    fn each_cap_is_reached_exactly() {
        let usage = Usage { rooms: 1, bytes: 100 };
        assert_eq!(CAPS.admit(usage, None, 50), Ok(()));
        assert_eq!(CAPS.admit(usage, None, 51), Err(StoreError::Full { size: 151, limit: 150 }));
        assert_eq!(CAPS.admit(usage, Some(sized(60)), 40), Ok(()));
        let full = StoreError::RoomFull { size: 101, limit: 100 };
        assert_eq!(CAPS.admit(usage, Some(sized(60)), 41), Err(full));
        let usage = Usage { rooms: 2, bytes: 0 };
        assert_eq!(CAPS.admit(usage, None, 1), Err(StoreError::TooManyRooms { limit: 2 }));
        assert_eq!(CAPS.admit(usage, Some(sized(0)), 1), Ok(()));
    }

    #[test]
    fn without_caps_everything_is_let_in() {
        let usage = Usage { rooms: u64::MAX - 1, bytes: u64::MAX };
        assert_eq!(Caps::default().admit(usage, None, u64::MAX), Ok(()));
    }

    #[test]
    fn a_room_over_a_lowered_cap_may_still_shrink() {
        let usage = Usage { rooms: 9, bytes: 900 };
        assert_eq!(CAPS.admit_change(usage, Some(sized(500)), sized(400)), Ok(()));
        assert_eq!(CAPS.admit_change(usage, Some(sized(500)), sized(500)), Ok(()));
        assert!(CAPS.admit_change(usage, Some(sized(500)), sized(501)).is_err());
        assert!(CAPS.admit_change(usage, None, sized(0)).is_err());
    }

    #[test]
    fn a_log_is_compacted_once_it_outgrows_both_its_allowance_and_the_snapshot() {
        let size = |snapshot, log| RoomSize { snapshot, log, batches: 1 };
        assert!(!size(0, 10).wants_compaction(10));
        assert!(size(0, 11).wants_compaction(10));
        assert!(!size(20, 20).wants_compaction(10));
        assert!(size(20, 21).wants_compaction(10));
    }
}
