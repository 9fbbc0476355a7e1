//! Connects beside the load: a handshake takes its time, and the others must not wait for it.

use std::{
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use mio::Waker;

use crate::{
    client::{ClientError, Target, Upgraded},
    limits::nth_connection,
};

/// How many handshakes are under way at most.
const THREADS: usize = 8;

/// What became of one wish.
pub(crate) type Connected = (usize, Result<Upgraded, ClientError>);

/// Threads that connect. Each of the clients has one wish at a time, so that neither queue is ever full.
pub(crate) struct Connector {
    wishes: Option<SyncSender<usize>>,
    connected: Receiver<Connected>,
    threads: Vec<JoinHandle<()>>,
}

impl Connector {
    /// For so many clients; `waker` is told whenever there is something to [`take`](Self::take).
    pub(crate) fn new(target: &Target, clients: usize, waker: Waker) -> Self {
        let (wishes, wished) = sync_channel(clients);
        let (tell, connected) = sync_channel(clients);
        let (wished, waker) = (Arc::new(Mutex::new(wished)), Arc::new(waker));
        let threads = (0..THREADS.min(clients.max(1))).map(|_| {
            let (target, wished) = (target.clone(), Arc::clone(&wished));
            let (tell, waker) = (tell.clone(), Arc::clone(&waker));
            thread::spawn(move || work(&target, &wished, &tell, &waker))
        });
        let threads = threads.collect();
        Self { wishes: Some(wishes), connected, threads }
    }

    /// Connects a client, some time soon.
    pub(crate) fn connect(&self, who: usize) {
        let wishes = self.wishes.as_ref().expect("it is there until the end");
        wishes.try_send(who).expect("a client has one wish at a time");
    }

    /// A wish that has become something.
    pub(crate) fn take(&self) -> Option<Connected> {
        self.connected.try_recv().ok()
    }
}

impl Drop for Connector {
    fn drop(&mut self) {
        self.wishes = None;
        for thread in self.threads.drain(..) {
            // One that panicked has said so.
            let _ = thread.join();
        }
    }
}

fn work(target: &Target, wished: &Mutex<Receiver<usize>>, tell: &SyncSender<Connected>, waker: &Waker) {
    loop {
        let wish = wished.lock().expect("nobody panics while waiting").recv();
        let Ok(who) = wish else { return };
        let options = nth_connection(target, u32::try_from(who).unwrap_or(u32::MAX));
        if tell.send((who, Upgraded::open(target, options))).is_err() || waker.wake().is_err() {
            return;
        }
    }
}
