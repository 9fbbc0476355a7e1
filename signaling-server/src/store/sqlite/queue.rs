//! What waits to be written: bounded in bytes, in the order it came.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use wire::sync::Room;

use crate::store::{Batch, Compaction, Cut, CutOut, Reply, StoreError, Written};

/// What a request takes beyond its payload: itself, its room's name, its reply.
const REQUEST_OVERHEAD: usize = 512;

/// Appends of more bytes than this are not put into one commit, so that the first of them is not acknowledged late.
const GROUP_BYTES: usize = 8 << 20;

/// A write that somebody waits for.
#[derive(Debug)]
pub(super) enum Request {
    Append(Append),
    Compact(Room, Compaction, Reply<Written>),
    Cut(Room, Cut, Reply<CutOut>),
    Delete(Room, Reply<()>),
    Sweep { unused_since: SystemTime, live: Vec<Room>, reply: Reply<Vec<Room>> },
}

#[derive(Debug)]
pub(super) struct Append {
    pub(super) room: Room,
    pub(super) batch: Batch,
    pub(super) reply: Reply<Written>,
    pub(super) since: Instant,
}

/// What the writer does next.
#[derive(Debug)]
pub(super) enum Work {
    /// Appends that came one after the other, to be synced together.
    Appends(Vec<Append>),
    /// Any other request, by itself: if it fails, it takes nothing with it.
    One(Request),
    /// Nothing came in the time given.
    Idle,
    /// Nothing will come any more.
    Closed,
}

impl Request {
    /// The memory it holds, in bytes.
    fn weight(&self) -> usize {
        let payload = match self {
            Self::Append(append) => append.batch.payload.len(),
            Self::Compact(_, compaction, _) => compaction.snapshot.len(),
            Self::Sweep { live, .. } => live.len() * REQUEST_OVERHEAD,
            Self::Cut(..) | Self::Delete(..) => 0,
        };
        payload + REQUEST_OVERHEAD
    }

    fn refuse(self, error: StoreError) {
        match self {
            Self::Append(Append { reply, .. }) | Self::Compact(_, _, reply) => reply.tell(Err(error)),
            Self::Cut(_, _, reply) => reply.tell(Err(error)),
            Self::Delete(_, reply) => reply.tell(Err(error)),
            Self::Sweep { reply, .. } => reply.tell(Err(error)),
        }
    }
}

/// The queue between all rooms and the writer.
#[derive(Debug)]
pub(super) struct Queue {
    limit: usize,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    /// What waits, in bytes.
    bytes: usize,
    /// What the writer has taken and not yet written, in bytes.
    in_hand: usize,
    closed: bool,
}

impl Queue {
    /// A queue for so many bytes, those that are being written included.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), filled: Condvar::new() }
    }

    /// Queues a request, or refuses it at once when too much waits. What is larger than the whole queue is let in
    /// when nothing else waits.
    pub(super) fn push(&self, request: Request) {
        let mut state = self.lock();
        let waiting = state.bytes + state.in_hand;
        let refusal = match waiting.saturating_add(request.weight()) {
            _ if state.closed => Some(StoreError::Closed),
            bytes if waiting > 0 && bytes > self.limit => {
                Some(StoreError::Busy { waiting, limit: self.limit })
            }
            _ => None,
        };
        if let Some(error) = refusal {
            // The reply is the caller's code: it may push again.
            drop(state);
            return request.refuse(error);
        }
        state.bytes += request.weight();
        state.waiting.push_back(request);
        self.filled.notify_one();
    }

    /// What was taken last is written, and its place is free. Said before those who wait for it are told, since one of
    /// them may come back at once.
    pub(super) fn written(&self) {
        self.lock().in_hand = 0;
    }

    /// Takes what is next, and waits for it at most so long.
    pub(super) fn next(&self, patience: Duration) -> Work {
        let mut state = self.lock();
        if state.waiting.is_empty() && !state.closed {
            let waited = self.filled.wait_timeout(state, patience);
            state = waited.expect("no code that holds this lock panics").0;
        }
        state.take()
    }

    /// Lets nothing in any more; what waits is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    /// Lets nothing in any more, and refuses what waits.
    pub(super) fn abandon(&self) {
        let mut state = self.lock();
        state.closed = true;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        waiting.into_iter().for_each(|request| request.refuse(StoreError::Closed));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code that holds this lock panics")
    }
}

impl State {
    fn take(&mut self) -> Work {
        let (mut group, mut grouped) = (Vec::new(), 0);
        while let Some(request) = self.waiting.pop_front() {
            let weight = request.weight();
            match request {
                Request::Append(append) if group.is_empty() || grouped + weight <= GROUP_BYTES => {
                    self.hand_over(weight);
                    grouped += weight;
                    group.push(append);
                }
                request if group.is_empty() => {
                    self.hand_over(weight);
                    return Work::One(request);
                }
                request => {
                    self.waiting.push_front(request);
                    break;
                }
            }
        }
        match group.is_empty() {
            false => Work::Appends(group),
            true if self.closed => Work::Closed,
            true => Work::Idle,
        }
    }

    fn hand_over(&mut self, weight: usize) {
        self.bytes -= weight;
        self.in_hand += weight;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, sync_channel};

    use bytes::Bytes;
    use wire::sync::Crdt;
    use wire::{BatchId, RoomId};

    use super::*;
    use crate::store::{Author, Kind};

    const NOW: Duration = Duration::ZERO;

    type Told<T> = Receiver<Result<T, StoreError>>;

    fn reply<T: Send + 'static>() -> (Reply<T>, Told<T>) {
        let (tell, told) = sync_channel(1);
        // Most tests here do not listen.
        (Reply::new(move |outcome| drop(tell.send(outcome))), told)
    }

    fn room() -> Room {
        Room { crdt: Crdt::Loro, id: RoomId::try_from("r").unwrap() }
    }

    fn append(len: usize) -> (Request, Told<Written>) {
        let (reply, told) = reply();
        let payload = Bytes::from(vec![0; len]);
        let batch = Batch { author: Author::from("ana"), id: BatchId::from(1), kind: Kind(0), payload };
        (Request::Append(Append { room: room(), batch, reply, since: Instant::now() }), told)
    }

    fn delete() -> Request {
        Request::Delete(room(), reply().0)
    }

    /// How many requests the writer is handed.
    fn taken(queue: &Queue) -> usize {
        match queue.next(NOW) {
            Work::Appends(appends) => appends.len(),
            Work::One(_) => 1,
            Work::Idle | Work::Closed => 0,
        }
    }

    #[test]
    fn appends_that_wait_are_taken_together_and_everything_else_by_itself_in_order() {
        let queue = Queue::new(1 << 20);
        for request in [append(1).0, append(1).0, delete(), delete(), append(1).0] {
            queue.push(request);
        }
        assert!(matches!(queue.next(NOW), Work::Appends(appends) if appends.len() == 2));
        queue.written();
        assert!(matches!(queue.next(NOW), Work::One(Request::Delete(..))));
        assert!(matches!(queue.next(NOW), Work::One(Request::Delete(..))));
        queue.written();
        assert!(matches!(queue.next(NOW), Work::Appends(appends) if appends.len() == 1));
        assert!(matches!(queue.next(NOW), Work::Idle));
    }

    #[test]
    fn what_does_not_fit_is_refused_at_once_until_what_was_taken_is_written() {
        let queue = Queue::new(10_000);
        queue.push(append(5_000).0);
        let (too_much, told) = append(5_000);
        queue.push(too_much);
        let busy = StoreError::Busy { waiting: 5_000 + REQUEST_OVERHEAD, limit: 10_000 };
        assert_eq!(told.recv().unwrap(), Err(busy));
        assert_eq!(taken(&queue), 1);
        let (still_too_much, told) = append(5_000);
        queue.push(still_too_much);
        assert!(matches!(told.recv().unwrap(), Err(StoreError::Busy { .. })));
        queue.written();
        queue.push(append(5_000).0);
        assert_eq!(taken(&queue), 1);
    }

    #[test]
    fn what_is_larger_than_the_queue_is_let_in_alone() {
        let queue = Queue::new(1_000);
        queue.push(append(50_000).0);
        let (second, told) = append(1);
        queue.push(second);
        assert!(matches!(told.recv().unwrap(), Err(StoreError::Busy { .. })));
        assert_eq!(taken(&queue), 1);
    }

    #[test]
    fn a_group_is_bounded() {
        let queue = Queue::new(64 << 20);
        for _ in 0..3 {
            queue.push(append(GROUP_BYTES / 2 - REQUEST_OVERHEAD).0);
        }
        for expected in [2, 1, 0] {
            assert_eq!(taken(&queue), expected);
            queue.written();
        }
    }

    #[test]
    fn a_closed_queue_hands_out_what_waits_and_takes_nothing_more() {
        let queue = Queue::new(10_000);
        queue.push(append(1).0);
        queue.close();
        let (late, told) = append(1);
        queue.push(late);
        assert_eq!(told.recv().unwrap(), Err(StoreError::Closed));
        assert_eq!(taken(&queue), 1);
        assert!(matches!(queue.next(Duration::from_secs(60)), Work::Closed));
    }

    #[test]
    fn an_abandoned_queue_refuses_what_waits() {
        let queue = Queue::new(10_000);
        let (waiting, told) = append(1);
        queue.push(waiting);
        queue.abandon();
        assert_eq!(told.recv().unwrap(), Err(StoreError::Closed));
    }
}
