//! The real signaling server, in this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use signaling_server::config::{Config, Endpoint};
use signaling_server::server::Server;
use signaling_server::signaling::Signaling;
use tokio::sync::oneshot;

/// A server on a port of its own. Ends when dropped.
pub struct TestServer {
    pub address: SocketAddr,
    signaling: Arc<Signaling>,
    _end: oneshot::Sender<()>,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// A server with what `configure` changes.
    pub async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.metrics.listen = Endpoint::Off;
        configure(&mut config);
        let server = Server::bind(config).await.unwrap();
        let (end, ended) = oneshot::channel::<()>();
        let address = server.local_addr();
        let signaling = Arc::clone(server.signaling());
        let gone = async { drop(ended.await) };
        let task = tokio::spawn(server.run(std::future::pending(), gone));
        Self { address, signaling, _end: end, task: Some(task) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// How many connections it has.
    pub fn connections(&self) -> usize {
        self.signaling.hub().connections()
    }

    /// Ends it at once, and waits until its port is free.
    pub async fn stop(mut self) {
        let task = self.task.take().unwrap();
        self.signaling.close(Duration::ZERO).await;
        drop(self);
        task.await.unwrap();
    }
}
