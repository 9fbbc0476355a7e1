//! Presence on its way: what comes over one link goes on over the others.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use wire::id::PeerId;

use super::link::Link;
use super::presence::{Changes, Malformed, News};
use super::vocabulary::{Event, LinkId, Output};
use super::{BEAT, Engine};

/// How long it may take until others are told that somebody is still there. Over six peers it takes well under the time
/// after which one is gone that is not heard of.
const ROUTINE: Duration = Duration::from_secs(2);

impl Engine {
    /// The sessions that show themselves.
    pub(super) fn present(&self) -> BTreeSet<PeerId> {
        if self.config.channels == 0 {
            return BTreeSet::new();
        }
        self.presence.sessions().map(PeerId::from).collect()
    }

    /// Tells a link of all presence, and of ours first, alone: so a hub knows whose it is.
    pub(super) fn introduce(&mut self, now: Instant, id: LinkId) {
        let own = self.presence.own_key();
        let mut all = self.presence.keys();
        if self.presence.is_present() {
            for update in self.presence.updates(&own, id) {
                if let Some(link) = self.links.get_mut(&id) {
                    link.tell_presence(&update, &mut self.outputs);
                }
            }
            all.retain(|key| !own.contains(key));
        }
        self.presence_at.get_or_insert(now);
        if let Some(link) = self.links.get_mut(&id) {
            link.news_of.extend(all);
        }
    }

    pub(super) fn hear_presence(&mut self, now: Instant, id: LinkId, update: &[u8]) {
        let direct = match id {
            LinkId::Channel(n) => self.mesh.peer(n).map(|peer| peer.to_string_lossy().into_owned()),
            LinkId::Uplink(_) => self.links.get(&id).and_then(Link::host),
            LinkId::Guest(_) => None,
        };
        match self.presence.receive(now, id, direct.as_deref(), update) {
            Ok(News { changes, .. }) if changes.is_empty() => {}
            Ok(News { changes, is_urgent }) => {
                if is_urgent {
                    self.outputs.push_back(Output::Event(Event::Presence));
                }
                self.spread(now, &changes, if is_urgent { BEAT / 2 } else { ROUTINE });
            }
            Err(Malformed) => {
                self.garbage += 1;
                self.with_link(now, id, |link, _| link.bad_presence());
            }
        }
    }

    /// Has every link told of these keys, within this time.
    fn spread(&mut self, now: Instant, changes: &Changes, within: Duration) {
        let at = now + self.dice.between(within / 2, within);
        self.presence_at = Some(self.presence_at.map_or(at, |before| before.min(at)));
        for link in self.links.values_mut().filter(|link| link.is_present()) {
            link.news_of.extend(changes.iter().cloned());
        }
    }

    pub(super) fn flush_presence(&mut self, now: Instant) {
        self.presence.has_hub(self.links.keys().any(|link| !matches!(link, LinkId::Channel(_))));
        let (changes, left) = self.presence.keep_time(now);
        if left {
            self.outputs.push_back(Output::Event(Event::Presence));
        }
        if !changes.is_empty() {
            self.spread(now, &changes, Duration::ZERO);
        }
        if self.presence_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        for (id, link) in &mut self.links {
            if !link.has_room() {
                self.presence_at = Some(now + BEAT);
                continue;
            }
            let keys = std::mem::take(&mut link.news_of);
            for update in self.presence.updates(&keys, *id) {
                link.tell_presence(&update, &mut self.outputs);
            }
        }
    }
}
