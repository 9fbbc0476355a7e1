//! The application's document: how its edits reach the engine, and the engine's news reach it.
//!
//! Both ways it is a difference. Imports into a document that is open may take seconds; they happen on a thread that
//! may block, and hold up nothing but themselves.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use loro::{ExportMode, LoroDoc, VersionVector};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::spawn_blocking;

use crate::driver::{Command, Shared};
use crate::engine::missing;
use crate::peer::Event;

/// Everything that a document has and somebody with this version lacks; `None` if nothing. What is edited and not
/// committed yet is committed first.
#[must_use]
pub fn difference(doc: &LoroDoc, version: &VersionVector) -> Option<Bytes> {
    doc.commit();
    let spans = missing(&doc.oplog_vv(), version);
    if spans.is_empty() {
        return None;
    }
    let update = doc.export(ExportMode::updates_in_range(spans));
    Some(update.expect("changes that are here can be exported").into())
}

/// Carries edits and news between the document and the driver.
pub(crate) struct Worker {
    doc: LoroDoc,
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    /// What the engine has of what the document has.
    known: VersionVector,
}

impl Worker {
    pub(crate) fn new(
        doc: LoroDoc,
        commands: mpsc::Sender<Command>,
        shared: Arc<Shared>,
        known: VersionVector,
    ) -> Self {
        Self { doc, commands, shared, known }
    }

    /// Runs until the driver is gone. `edits` rings when the application commits.
    pub(crate) async fn run(mut self, edits: Arc<Notify>) {
        loop {
            let more = tokio::select! {
                biased;
                () = edits.notified() => self.push().await,
                () = self.shared.news.notified() => self.pull().await,
            };
            if more.is_none() {
                return;
            }
        }
    }

    /// Gives the engine what was edited.
    pub(crate) async fn push(&mut self) -> Option<()> {
        let (doc, known) = (self.doc.clone(), self.known.clone());
        let edited = self.apart(move || Some((difference(&doc, &known)?, doc.oplog_vv()))).await?;
        let Some((update, version)) = edited else { return Some(()) };
        let (done, answer) = oneshot::channel();
        self.commands.send(Command::Edited(update, version, done)).await.ok()?;
        self.known = answer.await.ok()?;
        Some(())
    }

    /// Gives the document what others have edited.
    async fn pull(&mut self) -> Option<()> {
        loop {
            let doc = self.doc.clone();
            let version = self.apart(move || doc.oplog_vv()).await?;
            let (done, answer) = oneshot::channel();
            self.commands.send(Command::Pull(version, done)).await.ok()?;
            let (update, known) = answer.await.ok()?;
            let Some(update) = update else { return Some(()) };
            self.known = known;
            let doc = self.doc.clone();
            let imported = self.apart(move || doc.import(&update).map_err(|error| error.to_string())).await?;
            if let Err(why) = imported {
                let _ = self.shared.events.send(Event::DocumentBroken(why));
                return Some(());
            }
        }
    }

    /// Does something with the document on a thread that may block; `None` if it panics, and then it is of no more use.
    async fn apart<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        // The document is outside of the closure that may panic: one dropped while unwinding aborts the process.
        let keep = self.doc.clone();
        let done = spawn_blocking(move || {
            let done = catch_unwind(AssertUnwindSafe(act));
            drop(keep);
            done
        });
        match done.await {
            Ok(Ok(done)) => Some(done),
            _ => {
                let _ = self.shared.events.send(Event::DocumentBroken("the document panicked".to_owned()));
                None
            }
        }
    }
}
