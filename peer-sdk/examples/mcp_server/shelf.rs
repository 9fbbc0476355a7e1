//! All plans of one agent: each a peer with a file, in a room of the hub.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use loro::Subscription;
use peer_sdk::Peer;
use peer_sdk::adapter::websocket::Hub;
use tokio::sync::{Mutex, watch};

use crate::plan::ways::Ways;
use crate::plan::{self, Reviewer};

/// Plans that are open at once at most: each holds its document in memory.
const MOST: usize = 256;

/// One plan that is open.
pub(crate) struct Open {
    pub(crate) peer: Peer<Reviewer>,
    /// Counts the changes of the document, our own included.
    pub(crate) revision: watch::Receiver<u64>,
    _subscription: Subscription,
}

/// The plans, by their ids, which are the names of their rooms and files.
pub(crate) struct Shelf {
    pub(crate) name: String,
    dir: PathBuf,
    hub: Hub,
    ways: Ways,
    invitation: Invitation,
    plans: Mutex<BTreeMap<String, Arc<Open>>>,
}

impl Shelf {
    /// Opens every plan of the directory.
    pub(crate) async fn open(
        dir: PathBuf,
        name: String,
        hub: Hub,
        ways: Ways,
        invitation: Invitation,
    ) -> Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| format!("{} cannot be made", dir.display()))?;
        let shelf = Self { name, dir, hub, ways, invitation, plans: Mutex::default() };
        let mut ids = Vec::new();
        for file in std::fs::read_dir(&shelf.dir)? {
            let path = file?.path();
            let id = path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
            ids.extend(id.filter(|_| path.extension().is_some_and(|extension| extension == "db")));
        }
        for id in ids {
            if let Err(error) = shelf.start(&id).await {
                eprintln!("plan {id} is left alone: {error:#}");
            }
        }
        Ok(shelf)
    }

    /// Makes a plan with these steps, and says what it is called.
    pub(crate) async fn create(&self, title: &str, steps: &[(String, String)]) -> Result<String> {
        let id = format!("plan-{:016x}", rand::random::<u64>());
        let open = self.start(&id).await?;
        let steps = steps.iter().map(|(title, text)| (title.as_str(), text.as_str()));
        plan::create(open.peer.document(), title, steps)?;
        open.peer.stored().await?;
        Ok(id)
    }

    /// The plan of this id.
    pub(crate) async fn get(&self, id: &str) -> Result<Arc<Open>> {
        let plans = self.plans.lock().await;
        plans
            .get(id)
            .cloned()
            .with_context(|| format!("there is no plan {id:?}; list_plans names those there are"))
    }

    /// Every plan.
    pub(crate) async fn all(&self) -> Vec<(String, Arc<Open>)> {
        self.plans.lock().await.iter().map(|(id, open)| (id.clone(), Arc::clone(open))).collect()
    }

    /// What to share so that others review a plan.
    pub(crate) fn link(&self, id: &str) -> String {
        self.invitation.link(id)
    }

    /// Where the hub can be dialled by a program, with its token.
    pub(crate) fn hub(&self) -> String {
        self.hub.url()
    }

    async fn start(&self, id: &str) -> Result<Arc<Open>> {
        let mut plans = self.plans.lock().await;
        ensure!(plans.len() < MOST, "{MOST} plans are open, which is the limit");
        let file = self.dir.join(format!("{id}.db"));
        let me = Reviewer { name: self.name.clone(), cursor: None, agent: true };
        let builder = self.ways.peer(id, Some(file))?.hub(&self.hub).user(&self.name).presence(me);
        let peer = builder.start().await?;
        let (changed, revision) = watch::channel(0);
        let subscription = peer.document().subscribe_root(Arc::new(move |_| {
            changed.send_modify(|revision| *revision += 1);
        }));
        let open = Arc::new(Open { peer, revision, _subscription: subscription });
        plans.insert(id.to_owned(), Arc::clone(&open));
        Ok(open)
    }

    /// Lets everybody have what is left, and says goodbye.
    pub(crate) async fn close(&self) {
        for (_, open) in self.all().await {
            open.peer.close().await;
        }
    }
}

/// What stands in every link.
pub(crate) struct Invitation {
    page: String,
    rest: String,
}

impl Invitation {
    /// Without a page, links have only what a page would be given.
    pub(crate) fn new(hub: &Hub, page: Option<&str>, ways: &Ways) -> Self {
        let mut rest = String::new();
        let hubs = std::iter::once(hub.url()).chain(ways.hub.iter().cloned());
        let named = |name: &'static str| move |value: String| (name, value);
        let values = hubs.map(named("hub"));
        let values = values.chain(ways.signal.iter().cloned().map(named("signal")));
        let values = values.chain(ways.ice.iter().cloned().map(named("ice")));
        let values = values.chain(ways.password.iter().cloned().map(named("password")));
        for (name, value) in values {
            let _ = write!(rest, "&{name}={}", encode(&value));
        }
        Self { page: page.unwrap_or_default().to_owned(), rest }
    }

    fn link(&self, id: &str) -> String {
        format!("{}#room={}{}", self.page, encode(id), self.rest)
    }
}

/// As `encodeURIComponent` does it.
fn encode(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.!~*'()".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
