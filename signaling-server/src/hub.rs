//! All rooms and connections: feeds rooms what happens, and performs what they decide.
//!
//! Locks are taken in one order: a map's shard, a room, an outbox; none is held across an await.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use dashmap::DashMap;
use wire::id::TopicName;
use wire::signal::Publish;

use crate::frame::Frame;
use crate::metrics::{Disconnect, MessageRefusal, Metrics, Sent};
use crate::outbox::{Flush, Outbox};
use crate::room::{ByConnection, ConnectionId, Input, Output, Room, Route, Rules};

/// Publishes closer than this to each other are written together: so long takes the writing of one to a room of some
/// dozens.
const BUSY_GAP: Duration = Duration::from_micros(200);

/// Every room, and every connection.
#[derive(Debug)]
pub struct Hub {
    rules: Rules,
    metrics: Arc<Metrics>,
    rooms: DashMap<TopicName, Arc<Hall>>,
    connections: DashMap<ConnectionId, Arc<Caller>>,
    next_id: AtomicU64,
    started: Instant,
    /// When the last publish was, in microseconds since `started`.
    last_publish: AtomicU64,
}

/// One connection, as the hub and its operator know it.
#[derive(Debug)]
pub struct Caller {
    /// Its id.
    pub id: ConnectionId,
    /// The client's address, where it is known.
    pub address: Option<IpAddr>,
    /// When the socket was upgraded.
    pub since: Instant,
    /// What waits for it.
    pub outbox: Arc<Outbox>,
}

/// A room and the way to its subscribers.
#[derive(Debug)]
struct Hall(Mutex<Hosted>);

#[derive(Debug)]
struct Hosted {
    room: Room,
    subscribers: ByConnection<Arc<Caller>>,
    /// Nobody gets in or is heard until then, by an operator's word.
    closed_until: Option<Instant>,
    /// Taken out of the map: whoever still holds it looks the room up again.
    retired: bool,
}

/// A room as operators see it.
#[derive(Clone, Debug)]
pub struct RoomReport {
    /// Its topic.
    pub topic: TopicName,
    /// Connections subscribed now.
    pub subscribers: usize,
    /// Messages published since it opened.
    pub published: u64,
    /// Messages published in about the last minute.
    pub per_minute: f64,
    /// How long an operator keeps it closed.
    pub closed_for: Option<Duration>,
}

impl Hub {
    /// A hub without rooms.
    #[must_use]
    pub fn new(rules: Rules, metrics: Arc<Metrics>) -> Self {
        Self {
            rules,
            metrics,
            rooms: DashMap::new(),
            connections: DashMap::new(),
            next_id: AtomicU64::new(1),
            started: Instant::now(),
            last_publish: AtomicU64::new(0),
        }
    }

    /// The metrics that it counts in.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A connection has been upgraded. Every one that is opened is to be [closed](Self::disconnect) once.
    pub fn connect(&self, address: Option<IpAddr>, outbox: Arc<Outbox>) -> Arc<Caller> {
        let id = ConnectionId(self.next_id.fetch_add(1, Ordering::Relaxed));
        let caller = Arc::new(Caller { id, address, since: Instant::now(), outbox });
        self.connections.insert(id, Arc::clone(&caller));
        self.metrics.opened.inc();
        self.metrics.connections.inc();
        caller
    }

    /// A connection has ended; it is unsubscribed from `topics`, which are all that it is subscribed to.
    pub fn disconnect<'a>(
        &self,
        caller: &Caller,
        topics: impl Iterator<Item = &'a TopicName>,
        why: Disconnect,
    ) {
        for topic in topics {
            self.unsubscribe(caller, topic);
        }
        self.connections.remove(&caller.id);
        self.metrics.connections.dec();
        self.metrics.closed.inc(why);
    }

    /// Subscribes a connection; from now on it receives what is published there.
    pub fn subscribe(&self, caller: &Arc<Caller>, topic: &TopicName) -> Result<(), MessageRefusal> {
        let now = Instant::now();
        loop {
            let hall = self.hall(topic);
            let mut hosted = hall.lock();
            if hosted.retired {
                drop(hosted);
                self.forget(topic, &hall);
                continue;
            }
            if hosted.is_closed(now) {
                return Err(MessageRefusal::RoomClosed);
            }
            hosted.closed_until = None;
            hosted.room.handle(now, Input::Subscribe { who: caller.id });
            let refused = hosted.room.poll().is_some();
            debug_assert!(hosted.room.poll().is_none(), "a subscription has one answer at most");
            if refused {
                return Err(MessageRefusal::RoomFull);
            }
            hosted.subscribers.insert(caller.id, Arc::clone(caller));
            return Ok(());
        }
    }

    /// Ends a subscription, if there is one.
    pub fn unsubscribe(&self, caller: &Caller, topic: &TopicName) {
        let Some(hall) = self.existing(topic) else { return };
        let mut hosted = hall.lock();
        hosted.room.handle(Instant::now(), Input::Unsubscribe { who: caller.id });
        debug_assert!(hosted.room.poll().is_none(), "leaving has no answer");
        hosted.subscribers.remove(&caller.id);
        self.retire_if_unused(topic, &hall, hosted);
    }

    /// Queues a message for whoever is subscribed to its topic. The outboxes that it went into are to be flushed.
    pub fn publish(&self, caller: &Caller, message: &Publish<'_>, now: Instant, flush: &mut Flush) {
        let Some(hall) = self.existing(message.topic()) else { return };
        flush.wait_a_turn |= self.is_busy(now);
        let mut hosted = hall.lock();
        if hosted.is_closed(now) {
            self.metrics.refused.inc(MessageRefusal::RoomClosed);
            return;
        }
        hosted.room.handle(now, Input::Publish { from: caller.id, message });
        while let Some(output) = hosted.room.poll() {
            self.perform(&hosted.subscribers, output, flush);
        }
    }

    /// Whether publishes follow each other so closely that it pays to write several at once.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        let now = now.saturating_duration_since(self.started).as_micros();
        let now = u64::try_from(now).unwrap_or(u64::MAX);
        let before = self.last_publish.swap(now, Ordering::Relaxed);
        Duration::from_micros(now.saturating_sub(before)) < BUSY_GAP
    }

    fn perform(&self, subscribers: &ByConnection<Arc<Caller>>, output: Output, flush: &mut Flush) {
        let Output::Deliver { message, to, route } = output else { return };
        let frame = Frame::text(&message);
        let mut most_waiting = 0;
        let mut queued = 0;
        for caller in to.iter().filter_map(|id| subscribers.get(id)) {
            // One that is closing has been counted where it was closed.
            let Ok(outcome) = caller.outbox.push(frame.clone()) else { continue };
            if outcome.flush {
                flush.add(&caller.outbox);
            }
            most_waiting = most_waiting.max(outcome.waiting);
            queued += 1;
        }
        let kind = match route {
            Route::Directed => Sent::Directed,
            Route::Broadcast => Sent::Broadcast,
        };
        self.metrics.sent.add(kind, queued);
        self.metrics.sent_bytes.add(kind, queued * frame.len() as u64);
        self.metrics.fanout.observe(queued as f64);
        self.metrics.note_outbox(most_waiting);
    }

    /// Asks every connection to end, spread evenly over `window`, and waits until that has been said to the last.
    pub async fn close_all(&self, window: Duration) {
        let callers: Vec<Arc<Caller>> =
            self.connections.iter().map(|entry| Arc::clone(entry.value())).collect();
        let start = tokio::time::Instant::now();
        let count = u32::try_from(callers.len()).unwrap_or(u32::MAX).max(1);
        for (nth, caller) in (0u32..).zip(&callers) {
            tokio::time::sleep_until(start + window.mul_f64(f64::from(nth) / f64::from(count))).await;
            caller.outbox.close(Disconnect::Drain);
        }
        // Those that were being upgraded meanwhile.
        for entry in &self.connections {
            entry.value().outbox.close(Disconnect::Drain);
        }
    }

    /// Connections open now.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// The subscribers of each room.
    pub fn room_sizes(&self) -> Vec<usize> {
        let sizes = self.rooms.iter().map(|entry| entry.value().lock().subscribers.len());
        sizes.filter(|size| *size > 0).collect()
    }

    /// Every room as it is now. Costs time and memory in proportion to the rooms.
    pub fn rooms(&self) -> Vec<RoomReport> {
        let now = Instant::now();
        self.rooms.iter().map(|entry| entry.value().lock().report(entry.key(), now)).collect()
    }

    /// One room and its subscribers, oldest connection first.
    pub fn room(&self, topic: &TopicName) -> Option<(RoomReport, Vec<Arc<Caller>>)> {
        let hall = self.existing(topic)?;
        let hosted = hall.lock();
        let mut callers: Vec<_> = hosted.subscribers.values().map(Arc::clone).collect();
        callers.sort_by_key(|caller| caller.id);
        Some((hosted.report(topic, Instant::now()), callers))
    }

    /// Unsubscribes everybody from a room, and for that long lets nobody back in and passes nothing on. Connections
    /// stay open: one that is closed returns at once, and may be in other rooms. Says how many were unsubscribed;
    /// `None` when there is no such room.
    pub fn close_room(&self, topic: &TopicName, closed_for: Duration) -> Option<usize> {
        let hall = self.existing(topic)?;
        let mut hosted = hall.lock();
        if hosted.retired {
            return None;
        }
        let closed = hosted.subscribers.len();
        hosted.room = Room::new(self.rules);
        hosted.subscribers.clear();
        hosted.closed_until = Instant::now().checked_add(closed_for);
        self.retire_if_unused(topic, &hall, hosted);
        Some(closed)
    }

    /// Asks one connection to end; says whether there is such a connection.
    pub fn close_connection(&self, id: u64) -> bool {
        let caller = self.connections.get(&ConnectionId(id)).map(|entry| Arc::clone(entry.value()));
        caller.inspect(|caller| caller.outbox.close(Disconnect::Operator)).is_some()
    }

    fn existing(&self, topic: &TopicName) -> Option<Arc<Hall>> {
        self.rooms.get(topic).map(|entry| Arc::clone(entry.value()))
    }

    fn hall(&self, topic: &TopicName) -> Arc<Hall> {
        if let Some(hall) = self.existing(topic) {
            return hall;
        }
        let entry = self.rooms.entry(topic.clone()).or_insert_with(|| {
            self.metrics.rooms.inc();
            Arc::new(Hall(Mutex::new(Hosted {
                room: Room::new(self.rules),
                subscribers: ByConnection::default(),
                closed_until: None,
                retired: false,
            })))
        });
        Arc::clone(entry.value())
    }

    /// Takes a room that nobody uses out of the map. It is marked first, so that who has just looked it up looks again.
    fn retire_if_unused(&self, topic: &TopicName, hall: &Arc<Hall>, mut hosted: MutexGuard<'_, Hosted>) {
        if hosted.retired || !hosted.subscribers.is_empty() || hosted.is_closed(Instant::now()) {
            return;
        }
        hosted.retired = true;
        drop(hosted);
        self.forget(topic, hall);
    }

    fn forget(&self, topic: &TopicName, hall: &Arc<Hall>) {
        if self.rooms.remove_if(topic, |_, found| Arc::ptr_eq(found, hall)).is_some() {
            self.metrics.rooms.dec();
        }
    }

    /// Forgets rooms that an operator closed, once their time is over.
    pub fn reopen_closed_rooms(&self) {
        let closed = |entry: &Arc<Hall>| entry.lock().closed_until.is_some();
        let halls: Vec<_> = self
            .rooms
            .iter()
            .filter(|entry| closed(entry.value()))
            .map(|entry| (entry.key().clone(), Arc::clone(entry.value())))
            .collect();
        for (topic, hall) in halls {
            self.retire_if_unused(&topic, &hall, hall.lock());
        }
    }
}

impl Hall {
    fn lock(&self) -> MutexGuard<'_, Hosted> {
        self.0.lock().expect("no code that holds this lock panics")
    }
}

impl Hosted {
    fn is_closed(&self, now: Instant) -> bool {
        self.closed_until.is_some_and(|until| now < until)
    }

    fn report(&self, topic: &TopicName, now: Instant) -> RoomReport {
        RoomReport {
            topic: topic.clone(),
            subscribers: self.subscribers.len(),
            published: self.room.published(),
            per_minute: self.room.per_minute(now),
            closed_for: self.closed_until.map(|until| until.saturating_duration_since(now)),
        }
    }
}
