//! `%YJS`, `%YAW` and `%FLO`: relayed without a look, the newest updates kept for newcomers.
//!
//! A newcomer gets what fits into the backlog: for a document that has outgrown it, the rest has to come from another
//! member, as it would without a server.

use std::collections::VecDeque;

use bytes::Bytes;

use super::ConnectionId;
use super::content::{Answer, Job, Taken};
use super::relay::parcel;

/// What each update is counted as beyond its bytes.
const OVERHEAD: usize = 64;

/// The newest updates of a room, the oldest first.
#[derive(Debug)]
pub(super) struct Blind {
    backlog: VecDeque<(ConnectionId, Bytes)>,
    /// Bytes of `backlog`, and what they may be.
    len: usize,
    most: usize,
    /// Updates are about their senders, and mean nothing once these are gone.
    personal: bool,
}

impl Blind {
    /// What is kept stays when its sender leaves.
    pub(super) fn documents(most: usize) -> Self {
        Self { backlog: VecDeque::new(), len: 0, most, personal: false }
    }

    /// What is kept goes with its sender.
    pub(super) fn awareness(most: usize) -> Self {
        Self { personal: true, ..Self::documents(most) }
    }

    pub(super) fn clear(&mut self) {
        self.backlog.clear();
        self.len = 0;
    }

    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match job {
            Job::Open(_) => Answer::Opened { set_aside: Vec::new() },
            Job::Join { .. } => Answer::Joined { version: Bytes::new(), updates: self.updates() },
            Job::Batch(batch) => {
                batch.updates.iter().for_each(|update| self.keep(batch.receipt.who, update));
                Answer::Taken(Taken::all(batch.updates.len()))
            }
            Job::Snapshot => Answer::Snapshot(parcel::pack(&self.updates())),
        }
    }

    pub(super) fn leave(&mut self, who: ConnectionId) {
        if self.personal {
            self.backlog.retain(|(sender, _)| *sender != who);
            self.len = self.backlog.iter().map(|(_, update)| weight(update)).sum();
        }
    }

    fn updates(&self) -> Vec<Bytes> {
        self.backlog.iter().map(|(_, update)| update.clone()).collect()
    }

    fn keep(&mut self, from: ConnectionId, update: &Bytes) {
        self.len += weight(update);
        self.backlog.push_back((from, Bytes::copy_from_slice(update)));
        while self.len > self.most {
            let Some((_, oldest)) = self.backlog.pop_front() else { return };
            self.len -= weight(&oldest);
        }
    }
}

fn weight(update: &Bytes) -> usize {
    update.len() + OVERHEAD
}
