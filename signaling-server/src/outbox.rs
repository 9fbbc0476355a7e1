//! What waits to be written to one socket: bounded in bytes and in messages.
//!
//! Whoever publishes puts frames into its receivers' outboxes and [flushes](Outbox::flush) them straight into the
//! sockets, so that no receiver's task need wake for it. On a busy server it does so a turn later: all that has gathered
//! by then goes out in one write.
//! Only when a socket takes no more does its own task take over, and waits until it does.
//!
//! When the next frame does not fit, the outbox closes, lets go of all it held, and its connection ends as a slow
//! consumer: nothing is ever left out of a stream that goes on.

mod flush;
mod writer;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, IoSlice};
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use wire::sync::Room;

use crate::frame::Frame;
use crate::metrics::Disconnect;

pub use flush::Flush;
pub(crate) use writer::SharedWriter;

/// Queues with room for more frames than this are given back to the allocator when they run empty.
const KEEP_CAPACITY: usize = 16;
/// Most frames written at once.
const WRITE_AT_ONCE: usize = 64;
/// Most frames taken from feeds before other tasks get their turn.
const FED_AT_ONCE: usize = 4;

/// The payloads of binary messages that are made as the socket takes them.
pub(crate) type Feed = Box<dyn Iterator<Item = Bytes> + Send>;

/// The bound of an outbox.
#[derive(Clone, Copy, Debug)]
pub struct Capacity {
    /// Bytes that may wait.
    pub bytes: usize,
    /// Frames that may wait.
    pub frames: usize,
}

/// The frames that wait for one socket.
///
/// On a server with little to do, a delivery finds nothing in the caches: what it needs lies together here, in two lines.
#[repr(C)]
pub struct Outbox {
    /// The socket, where anybody may write to it. A TLS stream belongs to its task alone.
    socket: Option<OwnedWriteHalf>,
    capacity: Capacity,
    state: Mutex<State>,
}

#[derive(Default)]
#[repr(C)]
struct State {
    /// Somebody has said that it will flush this outbox.
    claimed: bool,
    /// The socket takes no more, or has failed: only the connection's own task goes on.
    blocked: bool,
    /// Set once; nothing is queued afterwards.
    closing: Option<Disconnect>,
    /// Bytes in `queue`, less `written`.
    waiting: usize,
    queue: VecDeque<Frame>,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Bytes and frames of an update that was let in although it is larger than the capacity; until all is written.
    allowance: (usize, usize),
    // A delivery needs no more than this.
    waker: Option<Waker>,
    /// What is to be sent at the socket's own pace, one feed a room.
    feeds: VecDeque<(Room, Feed)>,
}

/// A frame was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// Bytes that wait now.
    pub waiting: usize,
    /// Whether it is up to the caller to flush; otherwise somebody else is about to.
    pub flush: bool,
}

/// The frame was not queued, since the connection is ending.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

impl Outbox {
    /// An empty outbox. With a `socket`, [`flush`](Self::flush) writes to it; without, it wakes the connection's task.
    #[must_use]
    pub fn new(capacity: Capacity, socket: Option<OwnedWriteHalf>) -> Self {
        Self { capacity, socket, state: Mutex::default() }
    }

    /// Queues a frame, to be flushed by the caller if it is told so, or written by the connection's own task at the end
    /// of its turn. When it does not fit, the connection is closed as a slow consumer and what waited is dropped
    /// with it.
    pub fn push(&self, frame: Frame) -> Result<Queued, Closed> {
        let mut state = self.lock();
        if state.closing.is_some() {
            return Err(Closed);
        }
        if !state.has_room(self.capacity, frame.len(), 1) {
            return Err(overflow(state));
        }
        state.waiting += frame.len();
        state.queue.push_back(frame);
        let flush = !std::mem::replace(&mut state.claimed, true);
        Ok(Queued { waiting: state.waiting, flush })
    }

    /// Queues the frames of one update, with none in between. One update may be larger than the capacity; until it and
    /// all before it is written, the next such closes the connection.
    pub(crate) fn push_update(&self, frames: &[Frame]) -> Result<Queued, Closed> {
        if let [frame] = frames {
            return self.push(frame.clone());
        }
        let mut state = self.lock();
        if state.closing.is_some() {
            return Err(Closed);
        }
        let bytes = frames.iter().map(Frame::len).sum();
        if !state.has_room(self.capacity, bytes, frames.len()) {
            if state.allowance != (0, 0) {
                return Err(overflow(state));
            }
            state.allowance = (bytes, frames.len());
        }
        state.waiting += bytes;
        state.queue.extend(frames.iter().cloned());
        let flush = !std::mem::replace(&mut state.claimed, true);
        Ok(Queued { waiting: state.waiting, flush })
    }

    /// Sends what `feed` yields whenever nothing else waits, in place of what is left of the last feed of that room.
    /// It is dropped when the connection ends.
    pub(crate) fn feed(&self, room: &Room, feed: Feed) {
        let mut state = self.lock();
        if state.closing.is_some() {
            return;
        }
        state.feeds.retain(|(fed, _)| fed != room);
        state.feeds.push_back((room.clone(), feed));
        wake(state);
    }

    /// Sends nothing more of that room's feed.
    pub(crate) fn unfeed(&self, room: &Room) {
        self.lock().feeds.retain(|(fed, _)| fed != room);
    }

    /// Writes what waits, as far as the socket takes it at once. Never blocks.
    pub fn flush(&self) {
        let mut state = self.lock();
        state.claimed = false;
        if state.blocked || state.queue.is_empty() {
            return;
        }
        if let Some(socket) = &self.socket {
            let outcome = state.write(|slices| send(socket, slices));
            if outcome.is_ok() {
                return;
            }
            state.blocked = true;
        }
        wake(state);
    }

    /// Asks the connection to end, after it has written what was queued before. The first reason counts.
    pub fn close(&self, reason: Disconnect) {
        let state = self.lock();
        if state.closing.is_none() {
            close(state, reason);
        }
    }

    /// Queues the last frame, behind all others, once the connection is ending.
    pub(crate) fn push_last(&self, frame: Frame) {
        let mut state = self.lock();
        state.waiting += frame.len();
        state.queue.push_back(frame);
    }

    /// Writes what waits by way of `write`, on behalf of the connection's task, which is woken by the next flush that
    /// needs it and by a close. `Ready` when all is written.
    pub(crate) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&mut Context<'_>, &[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Progress {
        let mut state = self.lock();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        state.claimed = false;
        let (mut blocked, mut sent) = (false, 0);
        let mut write = |slices: &[IoSlice<'_>]| match write(cx, slices) {
            Poll::Ready(outcome) => outcome.inspect(|count| sent += count),
            Poll::Pending => {
                blocked = true;
                Err(io::ErrorKind::WouldBlock.into())
            }
        };
        let mut outcome = state.write(&mut write);
        for _ in 0..FED_AT_ONCE {
            if outcome.is_err() || !state.take_from_feeds() {
                break;
            }
            outcome = state.write(&mut write);
        }
        state.blocked = outcome.is_err();
        Progress {
            hungry: outcome.is_ok() && !state.feeds.is_empty(),
            written: if blocked { Poll::Pending } else { Poll::Ready(outcome) },
            sent,
            closing: state.closing,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

/// How far a connection's task has come.
#[derive(Debug)]
pub(crate) struct Progress {
    pub(crate) written: Poll<io::Result<()>>,
    /// All is written, and there is more to be had from feeds: the task should come again soon.
    pub(crate) hungry: bool,
    /// Bytes written just now.
    pub(crate) sent: usize,
    /// Why the connection is to end, once it is.
    pub(crate) closing: Option<Disconnect>,
}

impl State {
    /// Whether so much more fits.
    fn has_room(&self, capacity: Capacity, bytes: usize, frames: usize) -> bool {
        let (spare_bytes, spare_frames) = self.allowance;
        self.waiting + bytes <= capacity.bytes + spare_bytes
            && self.queue.len() + frames <= capacity.frames + spare_frames
    }

    /// Queues a frame from the feed whose turn it is; says whether there was one.
    fn take_from_feeds(&mut self) -> bool {
        while let Some((room, mut feed)) = self.feeds.pop_front() {
            if let Some(payload) = feed.next() {
                let frame = Frame::binary(&payload);
                self.waiting += frame.len();
                self.queue.push_back(frame);
                self.feeds.push_back((room, feed));
                return true;
            }
        }
        false
    }

    /// Writes until nothing waits or `write` fails.
    fn write(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<()> {
        while !self.queue.is_empty() {
            let count = self.write_some(&mut write)?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(count);
        }
        if self.queue.capacity() > KEEP_CAPACITY {
            self.queue = VecDeque::new();
        }
        self.allowance = (0, 0);
        Ok(())
    }

    /// Writes the first frames that wait, less what is written of them.
    fn write_some(&self, write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) -> io::Result<usize> {
        let mut frames = self.queue.iter().map(Frame::as_bytes);
        let first = frames.next().map_or(&[][..], |frame| &frame[self.written..]);
        if self.queue.len() == 1 {
            return write(&[IoSlice::new(first)]);
        }
        let mut slices = [IoSlice::new(first); WRITE_AT_ONCE];
        for (slice, frame) in slices[1..].iter_mut().zip(frames) {
            *slice = IoSlice::new(frame);
        }
        write(&slices[..self.queue.len().min(WRITE_AT_ONCE)])
    }

    /// So many more bytes are out.
    fn advance(&mut self, count: usize) {
        self.waiting -= count;
        self.written += count;
        while let Some(len) = self.queue.front().map(Frame::len).filter(|len| *len <= self.written) {
            self.written -= len;
            self.queue.pop_front();
        }
    }
}

/// Writes without asking tokio whether it may, which it would have to look up. One slice is a plain `send`, which costs the
/// kernel less than a `writev`.
fn send(socket: &OwnedWriteHalf, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let socket: &TcpStream = socket.as_ref();
    let socket = SockRef::from(socket);
    match slices {
        [one] => socket.send(one),
        several => socket.send_vectored(several),
    }
}

/// Closes as a slow consumer, and lets go of all that waits.
fn overflow(mut state: MutexGuard<'_, State>) -> Closed {
    state.queue = VecDeque::new();
    (state.written, state.waiting) = (0, 0);
    close(state, Disconnect::SlowConsumer);
    Closed
}

fn close(mut state: MutexGuard<'_, State>, reason: Disconnect) {
    state.closing = Some(reason);
    state.feeds = VecDeque::new();
    wake(state);
}

/// Wakes the connection's task, outside of the lock.
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

    fn outbox(bytes: usize, frames: usize) -> Outbox {
        Outbox::new(Capacity { bytes, frames }, None)
    }

    /// Writes as far as a socket goes that takes `room` bytes, and says how many it took.
    fn write(outbox: &Outbox, room: usize) -> (usize, Progress) {
        let mut taken = 0;
        let progress = outbox.poll_write(&mut Context::from_waker(Waker::noop()), |_, slices| {
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let count = offered.min(room - taken);
            taken += count;
            if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
        });
        (taken, progress)
    }

    #[cfg(target_pointer_width = "64")]
    #[test]
    fn what_a_delivery_needs_lies_in_two_lines_of_memory() {
        use std::mem::size_of;
        let counts = 2 * size_of::<usize>();
        let rest = size_of::<Option<Waker>>() + size_of::<VecDeque<(Room, Feed)>>();
        assert!(counts + size_of::<Outbox>() - rest <= 128);
    }

    #[test]
    fn what_has_gathered_is_written_at_once() {
        let outbox = outbox(100, 10);
        assert_eq!(outbox.push(frame(10)), Ok(Queued { waiting: 10, flush: true }));
        assert_eq!(outbox.push(frame(10)), Ok(Queued { waiting: 20, flush: false }), "one flush is enough");
        let (taken, progress) = write(&outbox, 1000);
        assert_eq!((taken, progress.sent), (20, 20));
        assert!(progress.written.is_ready());
        outbox.flush();
        assert!(outbox.push(frame(10)).unwrap().flush);
    }

    #[test]
    fn what_a_connection_writes_itself_leaves_nothing_claimed() {
        let outbox = outbox(100, 10);
        outbox.push(frame(10)).unwrap();
        write(&outbox, 1000);
        assert!(outbox.push(frame(10)).unwrap().flush, "else nobody would ever flush again");
    }

    #[test]
    fn a_write_goes_on_where_the_socket_stopped() {
        let outbox = outbox(100, 10);
        let bytes = |range: std::ops::Range<u8>| Frame::text(&range.collect::<Vec<u8>>());
        outbox.push(bytes(0..20)).unwrap();
        outbox.push(bytes(20..40)).unwrap();
        let mut stream: Vec<u8> = Vec::new();
        for room in [1, 2, 30, 100] {
            let mut left = room;
            let _ = outbox.poll_write(&mut Context::from_waker(Waker::noop()), |_, slices| {
                let offered: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
                let count = offered.len().min(left);
                left -= count;
                stream.extend(&offered[..count]);
                if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
            });
        }
        let expected = [bytes(0..20).as_bytes(), bytes(20..40).as_bytes()].concat();
        assert_eq!(stream, expected);
    }

    #[test]
    fn a_frame_that_does_not_fit_closes_the_outbox_and_frees_it() {
        let outbox = outbox(100, 10);
        outbox.push(frame(60)).unwrap();
        assert_eq!(outbox.push(frame(60)), Err(Closed));
        let (taken, progress) = write(&outbox, 1000);
        assert_eq!((taken, progress.closing), (0, Some(Disconnect::SlowConsumer)));
        assert_eq!(outbox.push(frame(1)), Err(Closed), "nothing is left out of a stream that goes on");
    }

    #[test]
    fn many_small_frames_are_bounded_too() {
        let outbox = outbox(1000, 2);
        outbox.push(frame(1)).unwrap();
        outbox.push(frame(1)).unwrap();
        assert_eq!(outbox.push(frame(1)), Err(Closed));
    }

    #[test]
    fn the_first_reason_to_close_counts() {
        let outbox = outbox(100, 10);
        outbox.close(Disconnect::Operator);
        outbox.close(Disconnect::Drain);
        assert_eq!(write(&outbox, 0).1.closing, Some(Disconnect::Operator));
    }
}
