//! A machine for one peer, which can be cut off from everything.

use std::{
    future::Future,
    io,
    thread::{self, JoinHandle},
    time::Instant,
};

use tokio::{
    runtime::{Builder, Handle},
    sync::mpsc,
    task,
};

/// A thread on which all of one peer runs. Dropping it ends what runs there.
#[derive(Debug)]
pub(super) struct Machine {
    handle: Handle,
    /// Until when it is cut off. `None` once it is switched off.
    orders: Option<mpsc::Sender<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl Machine {
    /// Files that one has open with a peer on it that has no connections: its event loop, and the way to the server.
    pub(super) const FILES: u64 = 6;

    /// Switches one on.
    ///
    /// # Errors
    /// When the system gives no thread or no descriptors for it.
    pub(super) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        // One order at a time: see `cut_off`.
        let (orders, mut told) = mpsc::channel::<Instant>(1);
        let thread = thread::Builder::new().name("machine".to_owned()).spawn(move || {
            runtime.block_on(async move {
                while let Some(until) = told.recv().await {
                    // Nothing else runs on this thread meanwhile, which is the point: sockets are neither read nor
                    // written, and nobody is told.
                    thread::sleep(until.saturating_duration_since(Instant::now()));
                }
            });
        })?;
        Ok(Self { handle, orders: Some(orders), thread: Some(thread) })
    }

    /// Runs something there.
    pub(super) fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> task::JoinHandle<T> {
        self.handle.spawn(task)
    }

    /// Lets nothing in or out until then. One that is still to be cut off by an earlier order does not take another.
    pub(super) fn cut_off(&self, until: Instant) {
        if let Some(orders) = &self.orders {
            // Full: it is about to be cut off anyway.
            let _ = orders.try_send(until);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // It only panics where a task of the peer did, which that peer's own handles tell.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_runs_on_a_machine_that_is_cut_off_and_everything_goes_on_behind_it() {
        let machine = Machine::start().unwrap();
        let until = Instant::now() + Duration::from_millis(300);
        machine.cut_off(until);
        let (tell, mut told) = mpsc::channel(64);
        machine.run(async move {
            while tell.send(Instant::now()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        // It may have begun before the order came through, and no more than that.
        told.blocking_recv().unwrap();
        assert!(told.blocking_recv().unwrap() >= until);
    }
}
