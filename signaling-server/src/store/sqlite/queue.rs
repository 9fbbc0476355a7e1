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
    /// Rung for a writer that sleeps.
    bell: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Request>,
    /// What waits, in bytes.
    bytes: usize,
    /// What the writer has taken and not yet written, in bytes.
    in_hand: usize,
    closed: bool,
    writer: Sleep,
}

/// What wakes the writer.
#[derive(Debug, Default, PartialEq, Eq)]
enum Sleep {
    /// It is awake.
    #[default]
    Not,
    /// Anything that comes.
    Light,
    /// So much that it is better not to wait for more.
    Deep,
}

impl Queue {
    /// A queue for so many bytes, those that are being written included.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), bell: Condvar::new() }
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
        // Ringing costs a call into the system, so nobody rings for nothing.
        if state.is_to_be_woken(self.limit) {
            self.bell.notify_one();
        }
    }

    /// What was taken last is written, and its place is free. Said before those who wait for it are told, since one of
    /// them may come back at once.
    pub(super) fn written(&self) {
        self.lock().in_hand = 0;
    }

    /// Takes what is next, and waits for it at most so long. Until `not_before`, what comes is left to gather.
    pub(super) fn next(&self, not_before: Instant, patience: Duration) -> Work {
        let mut state = self.sleep(self.lock(), Sleep::Deep, not_before);
        if state.waiting.is_empty() {
            state = self.sleep(state, Sleep::Light, Instant::now() + patience);
        }
        state.take()
    }

    fn sleep<'q>(
        &self,
        mut state: MutexGuard<'q, State>,
        sleep: Sleep,
        until: Instant,
    ) -> MutexGuard<'q, State> {
        state.writer = sleep;
        while !state.is_to_be_woken(self.limit) {
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                break;
            };
            state = self.bell.wait_timeout(state, left).expect("no code that holds this lock panics").0;
        }
        state.writer = Sleep::Not;
        state
    }

    /// Lets nothing in any more; what waits is still written.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.bell.notify_one();
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
    fn is_to_be_woken(&self, limit: usize) -> bool {
        match self.writer {
            Sleep::Not => false,
            _ if self.closed => true,
            Sleep::Light => !self.waiting.is_empty(),
            Sleep::Deep => self.bytes > (limit / 2).min(GROUP_BYTES),
        }
    }

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

    fn next(queue: &Queue) -> Work {
        queue.next(Instant::now(), Duration::ZERO)
    }

    /// How many requests the writer is handed.
    fn taken(queue: &Queue) -> usize {
        match next(queue) {
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
        assert!(matches!(next(&queue), Work::Appends(appends) if appends.len() == 2));
        queue.written();
        assert!(matches!(next(&queue), Work::One(Request::Delete(..))));
        assert!(matches!(next(&queue), Work::One(Request::Delete(..))));
        queue.written();
        assert!(matches!(next(&queue), Work::Appends(appends) if appends.len() == 1));
        assert!(matches!(next(&queue), Work::Idle));
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
        assert!(matches!(queue.next(far(), Duration::from_secs(60)), Work::Closed));
    }

    /// Later than any test waits.
    fn far() -> Instant {
        Instant::now() + Duration::from_secs(3600)
    }

    #[test]
    fn what_comes_gathers_until_its_time() {
        let queue = Queue::new(1 << 20);
        let time = Instant::now() + Duration::from_millis(20);
        queue.push(append(1).0);
        std::thread::scope(|scope| {
            scope.spawn(|| queue.push(append(1).0));
            assert!(matches!(queue.next(time, Duration::ZERO), Work::Appends(appends) if appends.len() == 2));
        });
        assert!(Instant::now() >= time);
    }

    #[test]
    fn a_writer_that_lets_things_gather_wakes_when_the_queue_is_half_full() {
        let queue = Queue::new(100_000);
        std::thread::scope(|scope| {
            scope.spawn(|| (0..6).for_each(|_| queue.push(append(10_000).0)));
            assert!(matches!(queue.next(far(), Duration::ZERO), Work::Appends(_)));
        });
    }

    #[test]
    fn a_writer_with_nothing_to_do_wakes_for_the_first_thing_that_comes() {
        let queue = Queue::new(100_000);
        std::thread::scope(|scope| {
            scope.spawn(|| queue.push(delete()));
            assert!(matches!(queue.next(Instant::now(), Duration::from_secs(3600)), Work::One(_)));
        });
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
