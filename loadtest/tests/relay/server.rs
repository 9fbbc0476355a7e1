//! The real server, in this process.

use std::{future::pending, net::SocketAddr, path::Path, sync::mpsc::sync_channel, thread};

use signaling_server::{
    config::{Config, Endpoint, RelayMode},
    server::Server,
};
use tokio::runtime::Builder;

/// Starts one that keeps documents in memory, and its address.
pub(crate) fn in_memory() -> SocketAddr {
    start(|config| config.relay.mode = RelayMode::Memory)
}

/// Starts one that keeps documents in a directory.
pub(crate) fn on_disk(directory: &Path) -> SocketAddr {
    start(|config| {
        config.relay.mode = RelayMode::Disk;
        config.relay.data_dir = Some(directory.to_owned());
    })
}

/// Starts one that lets a connection send two updates a second.
pub(crate) fn stingy() -> SocketAddr {
    start(|config| {
        config.relay.mode = RelayMode::Memory;
        config.limits.enabled = true;
        config.relay.updates_per_second = 2;
        config.relay.updates_burst = 2;
    })
}

/// It runs until the test process ends.
fn start(configure: impl FnOnce(&mut Config) + Send) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut config = Config::default();
    config.server.listen = any;
    config.metrics.listen = Endpoint::At(any);
    config.limits.enabled = false;
    configure(&mut config);
    let (tell, told) = sync_channel(1);
    thread::spawn(move || {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let server = Server::bind(config).await.unwrap();
            tell.send(server.local_addr()).unwrap();
            server.run(pending(), pending()).await;
        });
    });
    told.recv().unwrap()
}
