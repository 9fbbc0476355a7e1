//! What waits to be sent on one channel, counted in bytes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

use super::MAX_MESSAGE;
use super::pace::Pace;

/// Messages that wait, whatever their size. One more is [`SendError::Full`].
const MESSAGES: usize = 1024;

/// In the place of the largest message of a channel that takes no more.
const SHUT: usize = usize::MAX;

/// Why a message was not queued.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SendError {
    /// The channel is not open yet, or no longer.
    #[error("the channel is not open")]
    NotOpen,
    /// The other side would not take it.
    #[error("message is {len} bytes, the other side takes {limit}")]
    TooLarge {
        /// How large it is.
        len: usize,
        /// What the other side takes.
        limit: usize,
    },
    /// Too much waits already. [`Event::Drained`](super::Event::Drained) says when it is worth another try.
    #[error("{buffered} bytes wait to be sent, which leaves no room")]
    Full {
        /// How many bytes wait.
        buffered: usize,
    },
}

/// The sending side's view of a channel.
#[derive(Debug)]
pub(crate) struct Outbox {
    queue: mpsc::Sender<Bytes>,
    queued: AtomicUsize,
    capacity: usize,
    /// Somebody was refused and waits to hear that there is room.
    refused: AtomicBool,
    /// Zero while the channel is not open.
    largest: AtomicUsize,
    pace: Arc<Pace>,
}

impl Outbox {
    /// An outbox for `capacity` bytes, and what is taken out of it.
    pub(crate) fn new(capacity: usize, pace: Arc<Pace>) -> (Arc<Self>, mpsc::Receiver<Bytes>) {
        let (queue, taken) = mpsc::channel(MESSAGES);
        let (queued, largest) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let outbox = Self { queue, queued, capacity, refused: AtomicBool::new(false), largest, pace };
        (Arc::new(outbox), taken)
    }

    /// From now on messages are taken, up to `largest` bytes each, unless nothing is taken any more.
    pub(crate) fn open(&self, largest: usize) {
        let largest = largest.clamp(1, MAX_MESSAGE);
        let _ = self.largest.compare_exchange(0, largest, Ordering::SeqCst, Ordering::SeqCst);
    }

    /// From now on nothing is taken.
    pub(crate) fn shut(&self) {
        self.largest.store(SHUT, Ordering::SeqCst);
    }

    pub(crate) fn queued(&self) -> usize {
        self.queued.load(Ordering::SeqCst)
    }

    pub(crate) fn push(&self, message: Bytes) -> Result<usize, SendError> {
        let (len, limit) = (message.len(), self.largest.load(Ordering::SeqCst));
        if limit == 0 || limit == SHUT {
            return Err(SendError::NotOpen);
        }
        if len > limit {
            return Err(SendError::TooLarge { len, limit });
        }
        let before = self.queued.fetch_add(len, Ordering::SeqCst);
        // One message always finds room, however small the outbox.
        if before > 0 && before + len > self.capacity {
            return Err(self.refuse(len));
        }
        match self.queue.try_send(message) {
            Ok(()) => {
                self.pace.sends();
                Ok(before + len)
            }
            Err(mpsc::error::TrySendError::Full(_)) => Err(self.refuse(len)),
            Err(mpsc::error::TrySendError::Closed(_)) => {
                self.queued.fetch_sub(len, Ordering::SeqCst);
                Err(SendError::NotOpen)
            }
        }
    }

    /// `len` bytes have left. Whether somebody waits to hear of it.
    pub(crate) fn taken(&self, len: usize) -> bool {
        let left = self.queued.fetch_sub(len, Ordering::SeqCst) - len;
        left <= self.capacity / 2 && self.refused.swap(false, Ordering::SeqCst)
    }

    fn refuse(&self, len: usize) -> SendError {
        // Told before the count goes down: whoever takes the last message sees one of the two.
        self.refused.store(true, Ordering::SeqCst);
        let buffered = self.queued.fetch_sub(len, Ordering::SeqCst) - len;
        SendError::Full { buffered }
    }
}
