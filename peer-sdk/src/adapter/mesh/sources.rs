//! The STUN and TURN servers for the next connection.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::adapter::ice::{IceServer, IceSource};

/// How long a connection waits for the answer of the source. The other side waits for our offer meanwhile.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a source that does not answer is not asked again.
const REST: Duration = Duration::from_secs(20);

/// Those that are always used, and those that a source has. A clone knows what the others know.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    fixed: Vec<IceServer>,
    source: Option<IceSource>,
    rests_until: Arc<Mutex<Option<Instant>>>,
}

impl Sources {
    pub(super) fn new(fixed: Vec<IceServer>, source: Option<IceSource>) -> Self {
        Self { fixed, source, rests_until: Arc::default() }
    }

    /// Whether the list may differ from one time to the next.
    pub(super) fn may_change(&self) -> bool {
        self.source.is_some()
    }

    /// The servers of now; if the source does not answer soon, those that it had, as long as they are valid.
    pub(super) async fn servers(&self) -> Vec<IceServer> {
        let Some(source) = &self.source else { return self.fixed.clone() };
        let answer = match self.rests() {
            true => None,
            false => self.ask(source).await,
        };
        let of_source = match answer {
            Some(servers) => servers,
            None => source.kept().await,
        };
        self.fixed.iter().cloned().chain(of_source).collect()
    }

    async fn ask(&self, source: &IceSource) -> Option<Vec<IceServer>> {
        match timeout(PATIENCE, source.servers()).await {
            Ok(Ok(servers)) => return Some(servers),
            Ok(Err(error)) => self.rest(&error.to_string()),
            Err(_) => self.rest("it takes too long"),
        }
        None
    }

    fn rests(&self) -> bool {
        let until = *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner);
        until.is_some_and(|until| Instant::now() < until)
    }

    fn rest(&self, reason: &str) {
        tracing::warn!(reason, "no ICE servers from their source");
        *self.rests_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + REST);
    }
}
