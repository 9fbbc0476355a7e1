//! The real server, in this process.

#![allow(dead_code, reason = "not every test needs every kind of server")]

use std::{
    future::pending,
    net::SocketAddr,
    path::Path,
    sync::mpsc::sync_channel,
    thread::{self, JoinHandle},
};

use signaling_server::{
    config::{Config, Endpoint, RelayMode},
    server::Server,
};
use tokio::{runtime::Builder, sync::oneshot};

/// A server that can be stopped.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Running {
    /// Ends it without a goodbye and waits until it is gone.
    pub(crate) fn stop(self) {
        self.stop.send(()).unwrap();
        self.thread.join().unwrap();
    }
}

/// Starts one that keeps documents in memory, and its address.
pub(crate) fn in_memory() -> SocketAddr {
    start(any(), |config| config.relay.mode = RelayMode::Memory).address
}

/// Starts one that keeps documents in a directory.
pub(crate) fn on_disk(directory: &Path) -> SocketAddr {
    stored(any(), directory).address
}

/// Starts one that lets a connection send two updates a second.
pub(crate) fn stingy() -> SocketAddr {
    let configure = |config: &mut Config| {
        config.relay.mode = RelayMode::Memory;
        config.limits.enabled = true;
        config.relay.updates_per_second = 2;
        config.relay.updates_burst = 2;
    };
    start(any(), configure).address
}

/// Starts one that keeps documents in a directory, at an address.
pub(crate) fn stored(listen: SocketAddr, directory: &Path) -> Running {
    start(listen, |config| {
        config.relay.mode = RelayMode::Disk;
        config.relay.data_dir = Some(directory.to_owned());
    })
}

/// A free port of this machine.
pub(crate) fn any() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// It runs until it is stopped, or the test process ends.
pub(crate) fn start(listen: SocketAddr, configure: impl FnOnce(&mut Config) + Send) -> Running {
    let mut config = Config::default();
    config.server.listen = listen;
    config.metrics.listen = Endpoint::At(any());
    config.limits.enabled = false;
    configure(&mut config);
    let (tell, told) = sync_channel(1);
    let (stop, stopped) = oneshot::channel();
    let thread = thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::bind(config).await.unwrap();
            tell.send((server.local_addr(), server.metrics_addr().unwrap())).unwrap();
            // Whoever lets go of the handle lets the server run.
            let stop = async {
                if stopped.await.is_err() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = server.run(pending(), pending()) => {}
                () = stop => {}
            }
        });
    });
    let (address, metrics) = told.recv().unwrap();
    Running { address, metrics, stop, thread }
}
