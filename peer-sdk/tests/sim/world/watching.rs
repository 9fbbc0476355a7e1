//! What there is to see of a world.

use peer_sdk::engine::{Engine, LinkId, Output};
use wire::sync::Frame;

use super::{Side, World};

/// What has crossed the network.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) frames: u64,
    /// Messages with updates of the document, and their bytes.
    pub(crate) updates: u64,
    pub(crate) bytes: u64,
    pub(crate) signals: u64,
}

impl World {
    /// Shows what is done when `SIM_TRACE` is set, for whoever looks into a seed.
    pub(super) fn trace(&self, peer: usize, output: &Output) {
        if std::env::var_os("SIM_TRACE").is_none() {
            return;
        }
        let at = self.now.duration_since(self.start).as_secs_f64();
        match output {
            Output::Send { link, frame } => {
                eprintln!(
                    "{at:8.3} {peer} {link}: {} bytes, {:?}",
                    frame.len(),
                    Frame::decode(frame).map(|f| f.message)
                );
            }
            Output::Append { .. } | Output::Compact { .. } => {}
            other => eprintln!("{at:8.3} {peer} {other:?}"),
        }
    }

    /// How many links there are.
    pub(crate) fn links(&self) -> usize {
        self.conns.len()
    }

    /// The peers at the other ends of a peer's data channels.
    pub(crate) fn neighbours(&self, peer: usize) -> Vec<usize> {
        let channels = self
            .by_link
            .iter()
            .filter(|((owner, link), _)| *owner == peer && matches!(link, LinkId::Channel(_)));
        let mut others: Vec<_> = channels
            .flat_map(|(_, conn)| self.conns[conn].sides)
            .filter_map(|side| match side {
                Side::Peer { peer: other, .. } if other != peer => Some(other),
                _ => None,
            })
            .collect();
        others.sort_unstable();
        others
    }

    pub(crate) fn notes(&self, peer: usize) -> Vec<String> {
        let notes = self.peers[peer].up.as_ref().unwrap().doc.get_list("notes").to_vec();
        notes.iter().map(|note| note.as_string().unwrap().to_string()).collect()
    }

    pub(crate) fn engine(&self, peer: usize) -> &Engine {
        &self.peers[peer].up.as_ref().unwrap().engine
    }
}
