//! Does what a room says.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::chamber::{Chamber, Present};
use super::{Relays, keeping};
use crate::frame::Frame;
use crate::metrics::{Disconnect, Sent};
use crate::outbox::Flush;
use crate::room::document::{Done, Work};
use crate::room::relay::{Audience, Backfill, Entry, Event, Input, Output, Reply, Ticket};
use crate::room::{ByConnection, ConnectionId};
use crate::store;

type Everybody = ByConnection<Present>;

impl Chamber {
    /// Does what the room says. Work that is done at once comes back.
    pub(super) fn perform(
        self: &Arc<Self>,
        relays: &Arc<Relays>,
        present: &Everybody,
        output: Output,
        flush: &mut Flush,
    ) -> Option<Box<Done>> {
        match output {
            Output::Reply { to, reply, frame } => reply_to(relays, present, to, reply, &frame, flush),
            Output::Relay { frames, to, arrived } => pass_on(relays, present, &frames, &to, arrived, flush),
            Output::Backfill { to, backfill } => self.backfill(relays, present, to, backfill),
            Output::Work(work) if work.is_heavy() => self.send_away(relays, *work),
            Output::Work(work) => return Some(work.run()),
            Output::Load => self.load(relays),
            Output::Append { ticket, entry } => self.append(relays, ticket, entry),
            Output::Compact { ticket, generation, through, snapshot } => {
                let compaction = keeping::compaction(generation, through, snapshot);
                let chamber = Arc::clone(self);
                let told = store::Reply::new(move |result| {
                    chamber.answer(Input::Compacted { ticket, result: keeping::written(&result) });
                });
                relays.store.compact(self.name(), compaction, told);
            }
            Output::Event(event) => relays.note(&event),
        }
        None
    }

    fn backfill(&self, relays: &Relays, present: &Everybody, to: ConnectionId, backfill: Backfill) {
        let Some(Present { outbox, .. }) = present.get(&to) else { return };
        match relays.backfills.admit(backfill, outbox, Instant::now()) {
            Some(under_way) => outbox.feed(self.name(), Box::new(under_way)),
            // It comes back in a while, when there may be room.
            None => outbox.close(Disconnect::Busy),
        }
    }

    fn send_away(self: &Arc<Self>, relays: &Relays, work: Work) {
        let chamber = Arc::clone(self);
        let turn = Arc::clone(&relays.heavy).acquire_owned();
        self.runtime().spawn(async move {
            let permit = turn.await.expect("the semaphore is never closed");
            let done = tokio::task::spawn_blocking(move || work.run()).await;
            drop(permit);
            // Otherwise the process is ending.
            if let Ok(done) = done {
                chamber.answer(Input::Done(done));
            }
        });
    }

    fn load(self: &Arc<Self>, relays: &Arc<Relays>) {
        let chamber = Arc::clone(self);
        let store = Arc::clone(&relays.store);
        let turn = Arc::clone(&relays.loads).acquire_owned();
        self.runtime().spawn(async move {
            let permit = turn.await.expect("the semaphore is never closed");
            let room = chamber.name().clone();
            let loaded = tokio::task::spawn_blocking(move || keeping::stored(store.load(&room))).await;
            drop(permit);
            let loaded = loaded.unwrap_or_else(|_| Err("the server is stopping".to_owned()));
            chamber.answer(Input::Loaded(loaded));
        });
    }

    fn append(self: &Arc<Self>, relays: &Relays, ticket: Ticket, entry: Entry) {
        let chamber = Arc::clone(self);
        let told = store::Reply::new(move |result| {
            chamber.answer(Input::Appended { ticket, result: keeping::written(&result) });
        });
        relays.store.append(self.name(), keeping::batch(entry), told);
    }
}

fn reply_to(
    relays: &Relays,
    present: &Everybody,
    to: ConnectionId,
    reply: Reply,
    frame: &Bytes,
    flush: &mut Flush,
) {
    relays.metrics.relay.note_reply(reply);
    let Some(Present { outbox, .. }) = present.get(&to) else { return };
    let frame = Frame::binary(frame);
    let len = frame.len();
    // Closed: it is ending, and counted as such.
    let Ok(queued) = outbox.push(frame) else { return };
    if queued.flush {
        flush.add(outbox);
    }
    relays.metrics.sent.inc(Sent::Relay);
    relays.metrics.sent_bytes.add(Sent::Relay, len as u64);
}

fn pass_on(
    relays: &Relays,
    present: &Everybody,
    frames: &[Bytes],
    to: &Audience,
    arrived: Instant,
    flush: &mut Flush,
) {
    let frames: Vec<Frame> = frames.iter().map(|frame| Frame::binary(frame)).collect();
    let bytes: usize = frames.iter().map(Frame::len).sum();
    let (mut receivers, mut most_waiting) = (0, 0);
    for Present { outbox, .. } in to.iter().filter_map(|id| present.get(&id)) {
        // Closed: it is ending, and gets what it misses when it joins again.
        let Ok(queued) = outbox.push_update(&frames) else { continue };
        if queued.flush {
            flush.add(outbox);
        }
        most_waiting = most_waiting.max(queued.waiting);
        receivers += 1;
    }
    let metrics = &relays.metrics;
    metrics.sent.add(Sent::Relay, receivers * frames.len() as u64);
    metrics.sent_bytes.add(Sent::Relay, receivers * bytes as u64);
    metrics.note_outbox(most_waiting);
    metrics.relay.delivered(arrived, receivers);
}

impl Relays {
    fn note(&self, event: &Event) {
        let metrics = &self.metrics.relay;
        match event {
            Event::Pending => metrics.pending.inc(),
            Event::Quarantined => {
                metrics.quarantined.inc();
                tracing::warn!("an update broke a document, which is loaded again without it");
            }
            Event::SetAside(batches) => {
                metrics.set_aside.inc_by(batches.len() as u64);
                tracing::error!(
                    batches = batches.len(),
                    "stored batches break their document and were left out; the next compaction drops them"
                );
            }
            Event::Unreadable(reason) => {
                metrics.unreadable.inc();
                tracing::error!(%reason, "a room cannot be opened; nothing of it was changed");
            }
            Event::GapOpened => {
                metrics.gaps.inc();
                tracing::error!("the store does not keep what it is given; updates of a room are refused");
            }
            Event::GapClosed => tracing::info!("the store keeps a room again"),
        }
    }
}
