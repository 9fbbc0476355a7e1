//! One room in memory, and the way to its members.
//!
//! Whoever brings something enters with the room's lock and does what the room says. Answers of the store and of other
//! threads come by the inbox, which never waits for that lock: who holds it looks into the inbox before and after
//! letting go.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use wire::sync::Room;

use super::{JoinRequest, RelayReport, Relays};
use crate::hub::Caller;
use crate::outbox::{Flush, Outbox};
use crate::room::ByConnection;
use crate::room::relay::{Generation, Input, Relay};

/// One room in memory.
pub(crate) struct Chamber {
    relays: Weak<Relays>,
    name: Room,
    hosted: Mutex<Hosted>,
    /// Answers that the room has asked for, and so no more than that; [`Input::Changed`] comes at an operator's pace.
    inbox: Mutex<VecDeque<Input<'static>>>,
    /// A task is about to look into the inbox.
    scheduled: AtomicBool,
    runtime: Handle,
}

pub(super) struct Hosted {
    pub(super) room: Relay,
    /// Those who have asked to join and have not left: members, and some who were refused.
    pub(super) present: ByConnection<Present>,
    /// When a task will look at the clock.
    timer: Option<Instant>,
    /// Since when nobody is here.
    idle_since: Option<Instant>,
    /// Taken out of the map: whoever still holds it looks the room up again.
    retired: bool,
}

/// Somebody who has asked to join.
pub(super) struct Present {
    caller: Arc<Caller>,
    /// The caller's, so that a delivery need not look there.
    pub(super) outbox: Arc<Outbox>,
}

impl Present {
    fn new(caller: &Arc<Caller>) -> Self {
        Self { caller: Arc::clone(caller), outbox: Arc::clone(&caller.outbox) }
    }
}

impl Chamber {
    pub(super) fn new(relays: Weak<Relays>, room: Relay, runtime: Handle) -> Self {
        Self {
            relays,
            name: room.name().clone(),
            hosted: Mutex::new(Hosted {
                room,
                present: ByConnection::default(),
                timer: None,
                idle_since: None,
                retired: false,
            }),
            inbox: Mutex::default(),
            scheduled: AtomicBool::new(false),
            runtime,
        }
    }

    pub(super) fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub(crate) fn name(&self) -> &Room {
        &self.name
    }

    /// The room hears that somebody asks to join. Not if it is out of the map: then it is to be looked up again.
    pub(super) fn join(
        self: &Arc<Self>,
        relays: &Arc<Relays>,
        caller: &Arc<Caller>,
        request: &JoinRequest,
        now: Instant,
        flush: &mut Flush,
    ) -> bool {
        let mut hosted = self.lock();
        if hosted.retired {
            return false;
        }
        hosted.idle_since = None;
        hosted.present.entry(caller.id).or_insert_with(|| Present::new(caller));
        let JoinRequest { permission, version, author } = request.clone();
        let input = Input::Join { who: caller.id, permission, version, author };
        self.take(relays, &mut hosted, input, now, flush);
        self.settle(relays, hosted, flush);
        true
    }

    /// Something that a connection does, which has joined or asked to.
    pub(crate) fn enter(
        self: &Arc<Self>,
        relays: &Arc<Relays>,
        input: Input<'_>,
        now: Instant,
        flush: &mut Flush,
    ) {
        let mut hosted = self.lock();
        self.take(relays, &mut hosted, input, now, flush);
        self.settle(relays, hosted, flush);
    }

    /// A connection will do nothing more here; `last` is how it goes.
    pub(crate) fn part(
        self: &Arc<Self>,
        relays: &Arc<Relays>,
        caller: &Caller,
        last: Input<'_>,
        now: Instant,
        flush: &mut Flush,
    ) {
        let mut hosted = self.lock();
        self.take(relays, &mut hosted, last, now, flush);
        hosted.present.remove(&caller.id);
        caller.outbox.unfeed(&self.name);
        self.settle(relays, hosted, flush);
    }

    /// An answer to something that the room has asked for. Never blocks, and may be called by whoever holds the room's
    /// lock.
    pub(super) fn answer(self: &Arc<Self>, answer: Input<'static>) {
        self.inbox().push_back(answer);
        // Held: whoever holds it looks into the inbox when it has let go.
        if matches!(self.hosted.try_lock(), Err(TryLockError::WouldBlock)) {
            return;
        }
        self.schedule();
    }

    /// Has a task look into the inbox soon.
    fn schedule(self: &Arc<Self>) {
        if !self.scheduled.swap(true, Ordering::AcqRel) {
            let chamber = Arc::clone(self);
            self.runtime.spawn(async move {
                chamber.scheduled.store(false, Ordering::Release);
                chamber.look();
            });
        }
    }

    /// Takes what is in the inbox.
    fn look(self: &Arc<Self>) {
        let Some(relays) = self.relays.upgrade() else { return };
        self.settle(&relays, self.lock(), &mut Flush::default());
    }

    fn take(
        self: &Arc<Self>,
        relays: &Arc<Relays>,
        hosted: &mut Hosted,
        input: Input<'_>,
        now: Instant,
        flush: &mut Flush,
    ) {
        hosted.room.handle(now, input);
        let mut done = VecDeque::new();
        loop {
            while let Some(output) = hosted.room.poll() {
                done.extend(self.perform(relays, &hosted.present, output, flush));
            }
            let Some(work) = done.pop_front() else { return };
            hosted.room.handle(now, Input::Done(work));
        }
    }

    /// Takes what is in the inbox, sets the clock, and lets go.
    fn settle<'a>(
        self: &'a Arc<Self>,
        relays: &Arc<Relays>,
        mut hosted: MutexGuard<'a, Hosted>,
        flush: &mut Flush,
    ) {
        loop {
            loop {
                let Some(answer) = self.inbox().pop_front() else { break };
                self.take(relays, &mut hosted, answer, Instant::now(), flush);
            }
            self.set_clock(&mut hosted);
            if hosted.present.is_empty() && hosted.idle_since.is_none() {
                hosted.idle_since = Some(Instant::now());
            }
            drop(hosted);
            if self.inbox().is_empty() {
                return;
            }
            hosted = match self.hosted.try_lock() {
                Ok(hosted) => hosted,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return,
            };
        }
    }

    fn set_clock(self: &Arc<Self>, hosted: &mut Hosted) {
        let Some(due) = hosted.room.deadline() else { return };
        if hosted.timer.is_some_and(|timer| timer <= due) {
            return;
        }
        hosted.timer = Some(due);
        let chamber = Arc::downgrade(self);
        self.runtime.spawn(async move {
            tokio::time::sleep_until(due.into()).await;
            if let Some(chamber) = chamber.upgrade() {
                chamber.ring(due);
            }
        });
    }

    fn ring(self: &Arc<Self>, due: Instant) {
        let Some(relays) = self.relays.upgrade() else { return };
        let mut flush = Flush::default();
        let mut hosted = self.lock();
        hosted.timer = hosted.timer.filter(|timer| *timer != due);
        self.take(&relays, &mut hosted, Input::Tick, Instant::now(), &mut flush);
        self.settle(&relays, hosted, &mut flush);
    }

    /// Marks the room as out of the map if nobody has been in it for so long, and says whether it did.
    pub(super) fn retire_if_idle(self: &Arc<Self>, now: Instant, idle_after: Duration) -> bool {
        self.look_at(|hosted| {
            let since = hosted.idle_since.map(|since| now.saturating_duration_since(since));
            let long = since.is_some_and(|idle| idle >= idle_after);
            hosted.retired |=
                long && hosted.present.is_empty() && hosted.room.is_idle() && self.inbox().is_empty();
            hosted.retired
        })
    }

    pub(super) fn generation(self: &Arc<Self>) -> Option<Generation> {
        self.look_at(|hosted| hosted.room.generation())
    }

    pub(super) fn report(self: &Arc<Self>) -> RelayReport {
        self.look_at(|hosted| RelayReport {
            room: self.name.clone(),
            members: hosted.room.members(),
            entries: hosted.room.entries(),
            stored: hosted.room.stored(),
        })
    }

    pub(super) fn callers(self: &Arc<Self>) -> Vec<Arc<Caller>> {
        let mut callers: Vec<_> = self
            .look_at(|hosted| hosted.present.values().map(|present| Arc::clone(&present.caller)).collect());
        callers.sort_by_key(|caller| caller.id);
        callers
    }

    /// Looks at the room without bringing it anything. What is answered meanwhile is left to a task.
    fn look_at<T>(self: &Arc<Self>, look: impl FnOnce(&mut Hosted) -> T) -> T {
        let seen = look(&mut self.lock());
        if !self.inbox().is_empty() {
            self.schedule();
        }
        seen
    }

    /// A room whose code has panicked is used on: those who leave it must not panic in turn, for that would end the
    /// process.
    fn lock(&self) -> MutexGuard<'_, Hosted> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn inbox(&self) -> MutexGuard<'_, VecDeque<Input<'static>>> {
        self.inbox.lock().expect("no code that holds this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use wire::id::RoomId;
    use wire::sync::Crdt;

    use super::*;
    use crate::config::{LimitsConfig, RelayConfig, RelayMode};
    use crate::metrics::Metrics;

    #[tokio::test]
    async fn an_answer_that_comes_while_somebody_looks_at_the_room_is_taken() {
        let config = RelayConfig { mode: RelayMode::Memory, ..RelayConfig::default() };
        let relays =
            Relays::open(&config, &LimitsConfig::default(), &Arc::new(Metrics::new())).unwrap().unwrap();
        let chamber = relays.chamber(&Room { crdt: Crdt::Loro, id: RoomId::try_from("r").unwrap() });
        chamber.look_at(|_| chamber.answer(Input::Tick));
        let taken = async {
            while !chamber.inbox().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), taken).await.expect("somebody looks into the inbox");
    }
}
