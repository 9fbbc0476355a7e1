//! What waits to be written to one socket: bounded in bytes and in messages.
//!
//! Whoever publishes puts a frame in and goes on; the connection's own task takes everything that has gathered and
//! writes it in one call. When the next frame does not fit, the outbox closes, lets go of all it held, and its
//! connection ends as a slow consumer: nothing is ever left out of a stream that goes on.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Waker};

use crate::frame::Frame;
use crate::metrics::Disconnect;

/// Queues with room for more frames than this are given back to the allocator when they run empty.
const KEEP_CAPACITY: usize = 16;

/// The bound of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Bytes that may wait, those that are being written included.
    pub bytes: usize,
    /// Frames that may wait.
    pub frames: usize,
}

/// The frames that wait for one socket.
#[derive(Debug)]
pub struct Outbox {
    capacity: Capacity,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Frame>,
    /// Bytes in `queue`.
    queued: usize,
    /// Bytes that the connection has taken and not yet written.
    in_flight: usize,
    /// Set once; nothing is queued afterwards.
    closing: Option<Disconnect>,
    waker: Option<Waker>,
}

/// The frame was not queued, since the connection is ending.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new(capacity: Capacity) -> Self {
        Self { capacity, state: Mutex::default() }
    }

    /// Queues a frame, wakes the connection, and says how many bytes wait now. When the frame does not fit, the
    /// connection is closed as a slow consumer and what waited is dropped with it.
    pub fn push(&self, frame: Frame) -> Result<usize, Closed> {
        let mut state = self.lock();
        if state.closing.is_some() {
            return Err(Closed);
        }
        let waiting = state.queued + state.in_flight + frame.len();
        if waiting > self.capacity.bytes || state.queue.len() >= self.capacity.frames {
            state.closing = Some(Disconnect::SlowConsumer);
            state.queue = VecDeque::new();
            state.queued = 0;
            wake(state);
            return Err(Closed);
        }
        state.queued += frame.len();
        state.queue.push_back(frame);
        // A connection that is writing comes back for more by itself.
        if state.in_flight == 0 {
            wake(state);
        }
        Ok(waiting)
    }

    /// Asks the connection to end, after it has written what was queued before. The first reason counts.
    pub fn close(&self, reason: Disconnect) {
        let mut state = self.lock();
        if state.closing.is_none() {
            state.closing = Some(reason);
            wake(state);
        }
    }

    /// Moves all frames that wait into `batch`, when that is empty; `unwritten` says how many bytes of it were left.
    /// Registers the task to be woken by the next push or close. Says why the connection is to end, once it is.
    pub(crate) fn take(
        &self,
        cx: &mut Context<'_>,
        batch: &mut VecDeque<Frame>,
        unwritten: usize,
    ) -> Option<Disconnect> {
        let mut state = self.lock();
        state.in_flight = unwritten;
        if batch.is_empty() && !state.queue.is_empty() {
            std::mem::swap(&mut state.queue, batch);
            state.in_flight = std::mem::take(&mut state.queued);
        } else if batch.is_empty() {
            give_back(batch);
            give_back(&mut state.queue);
        }
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.closing
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

/// Frees an empty queue that a burst has made large.
fn give_back(queue: &mut VecDeque<Frame>) {
    if queue.capacity() > KEEP_CAPACITY {
        *queue = VecDeque::new();
    }
}

/// Wakes the task outside of the lock.
fn wake(mut state: MutexGuard<'_, State>) {
    let waker = state.waker.take();
    drop(state);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(len: usize) -> Frame {
        Frame::encoded(vec![0; len].into())
    }

    fn take(outbox: &Outbox) -> (usize, Option<Disconnect>) {
        let mut batch = VecDeque::new();
        let closing = outbox.take(&mut Context::from_waker(Waker::noop()), &mut batch, 0);
        (batch.len(), closing)
    }

    #[test]
    fn what_was_pushed_is_taken_at_once() {
        let outbox = Outbox::new(Capacity { bytes: 100, frames: 10 });
        for _ in 0..3 {
            outbox.push(frame(10)).unwrap();
        }
        assert_eq!(take(&outbox), (3, None));
        assert_eq!(take(&outbox), (0, None));
    }

    #[test]
    fn a_frame_that_does_not_fit_closes_the_outbox_and_frees_it() {
        let outbox = Outbox::new(Capacity { bytes: 100, frames: 10 });
        outbox.push(frame(60)).unwrap();
        assert_eq!(outbox.push(frame(60)), Err(Closed));
        assert_eq!(take(&outbox), (0, Some(Disconnect::SlowConsumer)));
        assert_eq!(outbox.push(frame(1)), Err(Closed), "nothing is left out of a stream that goes on");
    }

    #[test]
    fn bytes_being_written_count() {
        let outbox = Outbox::new(Capacity { bytes: 100, frames: 10 });
        outbox.push(frame(60)).unwrap();
        assert_eq!(take(&outbox), (1, None));
        assert_eq!(outbox.push(frame(60)), Err(Closed));
    }

    #[test]
    fn many_small_frames_are_bounded_too() {
        let outbox = Outbox::new(Capacity { bytes: 1000, frames: 2 });
        outbox.push(frame(1)).unwrap();
        outbox.push(frame(1)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(Closed));
    }

    #[test]
    fn the_first_reason_to_close_counts() {
        let outbox = Outbox::new(Capacity { bytes: 100, frames: 10 });
        outbox.close(Disconnect::Operator);
        outbox.close(Disconnect::Drain);
        assert_eq!(take(&outbox), (0, Some(Disconnect::Operator)));
    }
}
