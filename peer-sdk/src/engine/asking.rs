//! Whom to ask for what others have announced: each thing of one at a time.

use std::time::{Duration, Instant};

use loro::VersionVector;

use super::Engine;
use super::link::Link;
use super::replica::{exceeds, raise};
use super::vocabulary::LinkId;

/// How long to wait for something that was asked for before somebody else is asked.
const PATIENCE: Duration = Duration::from_secs(2);

/// What was asked of whom, and until when nobody else is asked for the same.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) link: LinkId,
    version: VersionVector,
    pub(super) until: Instant,
}

impl Engine {
    /// Asks for what others have announced.
    pub(super) fn ask_around(&mut self, now: Instant) {
        let ours = self.replica.version();
        let links = &self.links;
        for ask in &mut self.asks {
            if links.get(&ask.link).is_some_and(Link::is_receiving) {
                ask.until = now + PATIENCE;
            }
        }
        self.asks.retain(|ask| ask.until > now && exceeds(&ask.version, ours));
        let mut expected = ours.clone();
        self.asks.iter().for_each(|ask| raise(&mut expected, &ask.version));
        let is_channel = |id: &LinkId| matches!(id, LinkId::Channel(_));
        for id in self.links.keys().copied().filter(is_channel).collect::<Vec<_>>() {
            if !self.links.get(&id).is_some_and(|link| link.is_worth_asking(&expected)) {
                continue;
            }
            let version = self.with_link(now, id, |link, hands| {
                link.ask(hands);
                Ok(link.theirs().clone())
            });
            if let Some(version) = version {
                raise(&mut expected, &version);
                self.asks.push(Ask { link: id, version, until: now + PATIENCE });
            }
        }
    }
}
