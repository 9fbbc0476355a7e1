//! Updates that do not fit into a frame: taken apart by [`Split`], put together by [`Reassembly`].
//!
//! A header announces how many fragments there are and how long they are in all; then they come, in any order, some
//! perhaps twice. The receiver decides by its [`FragmentLimits`] whether it wants them, believes no claim before the
//! bytes are there, and gives up on a sender that falls silent.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use crate::id::BatchId;
use crate::sync::{self, Fragment, FragmentHeader, Message, Room, Status};

/// How long a fragment is if nothing else is asked for, in bytes: what the published clients send.
pub const FRAGMENT: usize = 240 * 1024;

/// The frames that carry one update: a [`Message::Update`] if it fits into one, else a header and fragments.
///
/// Each frame is encoded when it is asked for, so a large update is never in memory twice.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    room: &'a Room,
    batch: BatchId,
    update: &'a [u8],
    fragment: usize,
    next: Next,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Start,
    Fragment(usize),
    Nothing,
}

impl<'a> Split<'a> {
    /// Fragments are at most `fragment` bytes long: at least 1, at most what fits into a frame. [`FRAGMENT`] suits
    /// a WebSocket; a data channel wants less.
    pub fn new(room: &'a Room, batch: BatchId, update: &'a [u8], fragment: usize) -> Self {
        let fragment = fragment.clamp(1, sync::largest_part(room));
        Self { room, batch, update, fragment, next: Next::Start }
    }

    fn part(&self, index: usize) -> Option<Bytes> {
        let part = self.update.chunks(self.fragment).nth(index)?;
        Some(
            sync::fragment(self.room, self.batch, index as u64, part)
                .expect("a part is cut to fit into a frame"),
        )
    }

    fn start(&self) -> Bytes {
        let header = FragmentHeader {
            batch: self.batch,
            fragments: self.update.len().div_ceil(self.fragment) as u64,
            len: self.update.len() as u64,
        };
        let frame = match self.update.len() {
            len if len <= self.fragment => sync::update(self.room, self.batch, &[self.update]),
            _ => Message::FragmentHeader(header).encode(self.room),
        };
        frame.expect("a header, or an update as short as a fragment, fits into a frame")
    }
}

impl Iterator for Split<'_> {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        match self.next {
            Next::Start => {
                let whole = self.update.len() <= self.fragment;
                self.next = if whole { Next::Nothing } else { Next::Fragment(0) };
                Some(self.start())
            }
            Next::Fragment(index) => {
                self.next = Next::Fragment(index + 1);
                self.part(index)
            }
            Next::Nothing => None,
        }
    }
}

/// What a receiver of fragments puts up with from one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentLimits {
    /// The longest update, in bytes, put together.
    pub update: usize,
    /// How many bytes the updates that are under way may have in all.
    pub pending: usize,
    /// How many updates may be under way.
    pub batches: usize,
    /// In how many fragments an update may come.
    pub fragments: usize,
    /// How long to wait for the next fragment.
    pub patience: Duration,
}

impl Default for FragmentLimits {
    /// 32 MiB in all, at most 16 updates at once in at most 4096 fragments each, and the protocol's 10 seconds.
    fn default() -> Self {
        Self {
            update: 32 << 20,
            pending: 32 << 20,
            batches: 16,
            fragments: 4096,
            patience: Duration::from_secs(10),
        }
    }
}

/// Why fragments are refused. All that has come of the update is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FragmentError {
    /// The header announces a longer update than [`FragmentLimits::update`].
    #[error("update of {len} bytes in fragments, limit is {limit}")]
    UpdateTooLong {
        /// The length that it announces.
        len: u64,
        /// The limit that applied.
        limit: usize,
    },
    /// The header announces no fragments, more than there are bytes, or more than [`FragmentLimits::fragments`].
    #[error("update of {len} bytes in {fragments} fragments, limit is {limit}")]
    BadCount {
        /// The number that it announces.
        fragments: u64,
        /// The length that it announces.
        len: u64,
        /// The limit that applied.
        limit: usize,
    },
    /// Too much is under way already.
    #[error("{batches} updates of {pending} bytes are under way in fragments already")]
    TooMuchPending {
        /// How many updates.
        batches: usize,
        /// How many bytes they announced.
        pending: usize,
    },
    /// A fragment beyond the last one.
    #[error("fragment {index} of an update with {fragments}")]
    NoSuchFragment {
        /// Its index.
        index: u64,
        /// How many there are.
        fragments: usize,
    },
    /// The fragments are longer or shorter than was announced.
    #[error("fragments are {actual} bytes so far, announced were {announced}")]
    WrongLength {
        /// How long they are.
        actual: usize,
        /// How long they should be.
        announced: usize,
    },
    /// A fragment of an update that is not under way: it never was, or it was refused, or it took too long.
    #[error("fragment of an update that is not under way")]
    UnknownBatch,
}

impl FragmentError {
    /// What to tell the sender. Nothing about an [`UnknownBatch`](Self::UnknownBatch): what happened to it has been
    /// said when it happened.
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::UpdateTooLong { .. } => Some(Status::PayloadTooLarge),
            Self::TooMuchPending { .. } => Some(Status::RateLimited),
            Self::BadCount { .. } | Self::NoSuchFragment { .. } | Self::WrongLength { .. } => {
                Some(Status::InvalidUpdate)
            }
            Self::UnknownBatch => None,
        }
    }
}

/// An update that has arrived in fragments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// The update, in one piece.
    pub update: Bytes,
    /// The frames that it came in, the header first and then the fragments in order, for sending on.
    pub frames: Vec<Bytes>,
}

/// Puts fragments together: one for each sender, so that two senders may use the same batch id.
///
/// Holds at most [`FragmentLimits::pending`] bytes of updates, in the frames that they came in; short ones are copied,
/// since what was received together with them may be far longer, and would be kept with them.
#[derive(Debug)]
pub struct Reassembly {
    limits: FragmentLimits,
    batches: HashMap<(Room, BatchId), Pending>,
    pending: usize,
}

#[derive(Debug)]
struct Pending {
    header: Bytes,
    fragments: usize,
    announced: usize,
    parts: BTreeMap<u64, Part>,
    arrived: usize,
    deadline: Instant,
}

#[derive(Debug)]
struct Part {
    bytes: Bytes,
    frame: Bytes,
}

impl Part {
    fn new(bytes: &Bytes, frame: &Bytes) -> Self {
        let frame = detached(frame);
        // What a frame ends with need not be kept twice.
        let bytes = match frame.len().checked_sub(bytes.len()) {
            Some(start) if frame[start..] == bytes[..] => frame.slice(start..),
            _ => detached(bytes),
        };
        Self { bytes, frame }
    }
}

impl Reassembly {
    /// Nothing is under way.
    pub fn new(limits: FragmentLimits) -> Self {
        Self { limits, batches: HashMap::new(), pending: 0 }
    }

    /// A header has come, in this frame. One for a batch that is under way already starts it afresh.
    pub fn header(
        &mut self,
        now: Instant,
        room: &Room,
        header: FragmentHeader,
        frame: &Bytes,
    ) -> Result<(), FragmentError> {
        let key = (room.clone(), header.batch);
        self.remove(&key);
        let (fragments, announced) = self.admit(header)?;
        self.pending += announced;
        let deadline = now + self.limits.patience;
        let parts = BTreeMap::new();
        self.batches.insert(
            key,
            Pending { header: detached(frame), fragments, announced, parts, arrived: 0, deadline },
        );
        Ok(())
    }

    fn admit(
        &self,
        FragmentHeader { fragments, len, .. }: FragmentHeader,
    ) -> Result<(usize, usize), FragmentError> {
        let limits = &self.limits;
        let Some(announced) = usize::try_from(len).ok().filter(|&len| len <= limits.update) else {
            return Err(FragmentError::UpdateTooLong { len, limit: limits.update });
        };
        let count = usize::try_from(fragments).unwrap_or(usize::MAX);
        if count == 0 || count > limits.fragments.min(announced) {
            return Err(FragmentError::BadCount { fragments, len, limit: limits.fragments });
        }
        if self.batches.len() >= limits.batches || self.pending.saturating_add(announced) > limits.pending {
            return Err(FragmentError::TooMuchPending { batches: self.batches.len(), pending: self.pending });
        }
        Ok((count, announced))
    }

    /// A fragment has come, decoded from this frame. The update, if it was the last one missing.
    ///
    /// One that has come before is ignored. Every new one renews the sender's [`FragmentLimits::patience`].
    pub fn fragment(
        &mut self,
        now: Instant,
        room: &Room,
        fragment: Fragment,
        frame: &Bytes,
    ) -> Result<Option<Assembled>, FragmentError> {
        let key = (room.clone(), fragment.batch);
        let batch = self.batches.get_mut(&key).ok_or(FragmentError::UnknownBatch)?;
        let before = batch.parts.len();
        let complete = batch.add(fragment, frame);
        if batch.parts.len() > before {
            batch.deadline = now + self.limits.patience;
        }
        match complete {
            Ok(false) => Ok(None),
            Ok(true) => Ok(self.remove(&key).map(Pending::assemble)),
            Err(error) => {
                self.remove(&key);
                Err(error)
            }
        }
    }

    /// When to call [`expired`](Self::expired) at the latest.
    pub fn deadline(&self) -> Option<Instant> {
        self.batches.values().map(|batch| batch.deadline).min()
    }

    /// Forgets one update whose sender has been silent for too long by now, and says which. To be called until it
    /// says `None`; its sender gets a [`Status::FragmentTimeout`].
    pub fn expired(&mut self, now: Instant) -> Option<(Room, BatchId)> {
        let (key, _) = self.batches.iter().find(|(_, batch)| batch.deadline <= now)?;
        let key = key.clone();
        self.remove(&key);
        Some(key)
    }

    /// Forgets what is under way in a room that its sender has left.
    pub fn leave(&mut self, room: &Room) {
        self.batches.retain(|(other, _), batch| {
            let stays = other != room;
            self.pending -= if stays { 0 } else { batch.announced };
            stays
        });
    }

    /// How many bytes the updates that are under way have announced.
    pub fn pending(&self) -> usize {
        self.pending
    }

    fn remove(&mut self, key: &(Room, BatchId)) -> Option<Pending> {
        let batch = self.batches.remove(key)?;
        self.pending -= batch.announced;
        Some(batch)
    }
}

impl Pending {
    /// Whether all is there.
    fn add(&mut self, fragment: Fragment, frame: &Bytes) -> Result<bool, FragmentError> {
        let Fragment { index, bytes, .. } = fragment;
        if index >= self.fragments as u64 {
            return Err(FragmentError::NoSuchFragment { index, fragments: self.fragments });
        }
        if self.parts.contains_key(&index) {
            return Ok(false);
        }
        self.arrived += bytes.len();
        self.parts.insert(index, Part::new(&bytes, frame));
        let complete = self.parts.len() == self.fragments;
        if self.arrived > self.announced || complete && self.arrived != self.announced {
            return Err(FragmentError::WrongLength { actual: self.arrived, announced: self.announced });
        }
        Ok(complete)
    }

    fn assemble(self) -> Assembled {
        let mut update = BytesMut::with_capacity(self.arrived);
        let mut frames = Vec::with_capacity(1 + self.parts.len());
        frames.push(self.header);
        for Part { bytes, frame } in self.parts.into_values() {
            update.extend_from_slice(&bytes);
            frames.push(frame);
        }
        Assembled { update: update.freeze(), frames }
    }
}

/// The same in memory of its own, unless it is long: then it is most of the memory that it keeps.
fn detached(frame: &Bytes) -> Bytes {
    const LONG: usize = sync::MAX_FRAME / 4;
    if frame.len() < LONG { Bytes::copy_from_slice(frame) } else { frame.clone() }
}
