//! The storage, on a thread of its own.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::adapter::Storage;
use crate::engine::{Input, Output, StoreFailed, Ticket};

/// Writes one thing after the other. The engine asks for one at a time, so the queues never fill.
#[derive(Debug)]
pub(crate) struct Disk {
    writes: Option<mpsc::Sender<Output>>,
    answers: mpsc::Receiver<Input>,
    trouble: Arc<Mutex<Option<String>>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// A room without storage keeps nothing, and says that it does: what it would keep is in memory anyway.
    pub(crate) fn new(room: String, storage: Option<Box<dyn Storage>>) -> Self {
        let (writes, mut asked) = mpsc::channel(1);
        let (answer, answers) = mpsc::channel(1);
        let trouble = Arc::new(Mutex::new(None));
        let shown = Arc::clone(&trouble);
        let mut storage = storage;
        let thread = tokio::task::spawn_blocking(move || {
            while let Some(write) = asked.blocking_recv() {
                let Some((ticket, result)) = perform(&mut storage, &room, write) else { continue };
                let why = result.as_ref().err().cloned();
                *shown.lock().unwrap_or_else(PoisonError::into_inner) = why;
                let result = result.map_err(|_| StoreFailed);
                if answer.blocking_send(Input::Stored { ticket, result }).is_err() {
                    return;
                }
            }
        });
        Self { writes: Some(writes), answers, trouble, thread: Some(thread) }
    }

    pub(crate) fn write(&mut self, write: Output) {
        if let Some(writes) = &self.writes {
            writes.try_send(write).expect("the engine waits for an answer before it writes again");
        }
    }

    /// The next answer. Can be cancelled without losing one.
    pub(crate) async fn answer(&mut self) -> Input {
        match self.answers.recv().await {
            Some(answer) => answer,
            None => std::future::pending().await,
        }
    }

    /// Why the last write failed, if it did.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends what is under way, and closes the storage.
    pub(crate) async fn close(&mut self) {
        self.writes = None;
        self.answers.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.await;
        }
    }
}

fn perform(
    storage: &mut Option<Box<dyn Storage>>,
    room: &str,
    write: Output,
) -> Option<(Ticket, Result<(), String>)> {
    let (ticket, result) = match (write, storage) {
        (Output::Append { ticket, .. } | Output::Compact { ticket, .. }, None) => (ticket, Ok(())),
        (Output::Append { ticket, update }, Some(storage)) => (ticket, storage.append(room, &update)),
        (Output::Compact { ticket, snapshot }, Some(storage)) => (ticket, storage.compact(room, &snapshot)),
        _ => return None,
    };
    Some((ticket, result.map_err(|error| error.to_string())))
}
