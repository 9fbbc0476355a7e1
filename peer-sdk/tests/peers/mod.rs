//! A real relay on a port of its own, and what tests wait with.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use loro::LoroDoc;
use peer_sdk::Peer;
use serde::Serialize;
use serde::de::DeserializeOwned;
use signaling_server::config::{Config, Endpoint, RelayMode};
use signaling_server::server::Server;
use signaling_server::signaling::Signaling;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// No wait in a test is longer: what takes as long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The signaling server in this process, relaying documents and keeping them in memory.
pub struct Relay {
    pub address: SocketAddr,
    signaling: Arc<Signaling>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Relay {
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn at(address: SocketAddr) -> Self {
        let mut config = Config::default();
        config.relay.mode = RelayMode::Memory;
        Self::with(config, address).await
    }

    /// One that keeps documents in this directory.
    pub async fn on_disk(dir: &Path) -> Self {
        Self::on_disk_at(dir, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    pub async fn on_disk_at(dir: &Path, address: SocketAddr) -> Self {
        let mut config = Config::default();
        config.relay.mode = RelayMode::Disk;
        config.relay.data_dir = Some(dir.to_owned());
        Self::with(config, address).await
    }

    async fn with(mut config: Config, address: SocketAddr) -> Self {
        config.server.listen = address;
        config.metrics.listen = Endpoint::At(SocketAddr::from(([127, 0, 0, 1], 0)));
        let server = Server::bind(config).await.unwrap();
        let address = server.local_addr();
        let signaling = Arc::clone(server.signaling());
        let (stop, stopped) = oneshot::channel();
        let never = std::future::pending();
        let stopped = async {
            let _ = stopped.await;
        };
        Self { address, signaling, stop: Some(stop), task: tokio::spawn(server.run(never, stopped)) }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    /// Ends at once, and forgets everything. Where it was, so that another can take its place.
    pub async fn end(mut self) -> SocketAddr {
        self.signaling.close(Duration::ZERO).await;
        drop(self.stop.take());
        (&mut self.task).await.unwrap();
        self.address
    }
}

pub fn annotate(doc: &LoroDoc, note: &str) {
    doc.get_list("notes").push(note).unwrap();
    doc.commit();
}

pub fn notes(doc: &LoroDoc) -> Vec<String> {
    let notes = doc.get_list("notes").to_vec();
    notes.iter().map(|note| note.as_string().unwrap().to_string()).collect()
}

/// Waits until the document has this note.
pub async fn until_noted(doc: &LoroDoc, note: &str) {
    let (changed, mut changes) = tokio::sync::watch::channel(());
    let _subscription = doc.subscribe_root(Arc::new(move |_| {
        changed.send_replace(());
    }));
    let noted = async {
        while !notes(doc).iter().any(|have| have == note) {
            changes.changed().await.unwrap();
        }
    };
    let waited = tokio::time::timeout(PATIENCE, noted).await;
    assert!(waited.is_ok(), "{note:?} does not come; there is {:?}", notes(doc));
}

/// Waits until so many users are seen.
pub async fn until_online<P: Serialize + DeserializeOwned>(peer: &Peer<P>, count: usize) {
    let mut events = peer.events();
    let seen = async {
        while peer.presence().online().len() != count {
            let _ = tokio::time::timeout(Duration::from_millis(100), events.recv()).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, seen).await;
    assert!(waited.is_ok(), "{} are online, not {count}", peer.presence().online().len());
}

pub async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{what} takes too long"))
}
