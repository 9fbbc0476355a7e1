//! A hub or relay that we dial, and when.

use std::time::Instant;

use super::backoff::{Backoff, Dice};

#[derive(Debug)]
pub(super) struct Uplink {
    backoff: Backoff,
    /// `None`: it is being dialled, is up, or wants us no more.
    dial_at: Option<Instant>,
    dialling: bool,
}

impl Uplink {
    /// One that is to be dialled at once.
    pub(super) fn new(now: Instant) -> Self {
        Self { backoff: Backoff::default(), dial_at: Some(now), dialling: false }
    }

    /// Whether it is to be dialled now; then it is.
    pub(super) fn dials(&mut self, now: Instant) -> bool {
        let due = self.dial_at.take_if(|at| *at <= now).is_some();
        self.dialling |= due;
        due
    }

    pub(super) fn is_dialling(&self) -> bool {
        self.dialling
    }

    pub(super) fn up(&mut self, now: Instant) {
        self.backoff.up(now);
        self.dialling = false;
        self.dial_at = None;
    }

    /// It is gone, or could not be reached: it is dialled again after a while, if that is of any use.
    pub(super) fn down(&mut self, now: Instant, for_good: bool, dice: &mut Dice) {
        let delay = self.backoff.down(now, dice);
        self.dialling = false;
        self.dial_at = (!for_good).then(|| now + delay);
    }

    /// It is not up: it is dialled at once, whatever it said before.
    pub(super) fn wake(&mut self, now: Instant) {
        self.backoff.reset();
        if !self.dialling {
            self.dial_at = Some(now);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.dial_at
    }
}
