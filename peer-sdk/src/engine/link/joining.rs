//! Versions, shown and seen: joining, and exchanging them again.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use loro::VersionVector;
use wire::sync::{JoinError, Message, Permission, RoomErrorCode};

use super::{EXCHANGE, Hands, JOIN, JOIN_TRIES, Join, Link, Owe, PACE, Stage};
use crate::engine::replica::claimed;
use crate::engine::vocabulary::{Event, Output, Reason};

impl Link {
    /// Asks: shows our version, wants what is missing.
    pub(in crate::engine) fn ask(&mut self, hands: &mut Hands<'_>) {
        let tries = self.join.map_or(0, |join| join.tries) + 1;
        self.join = Some(Join { deadline: hands.now + JOIN, tries, mark: self.inflight.mark() });
        self.joined_at = Some(hands.now);
        self.exchange_at = None;
        self.asked = Some(self.theirs.clone());
        self.awaited_until = Some(hands.now + JOIN);
        self.tree.wanted(&self.theirs, hands.replica.version());
        self.ask_from(hands.replica.version().clone(), hands);
    }

    fn ask_from(&mut self, version: VersionVector, hands: &mut Hands<'_>) {
        let asking =
            |version: Vec<u8>| Message::JoinRequest { auth: self.auth.clone(), version: version.into() };
        // A version of more peers than fit into a frame: who is shown an empty one sends more than we lack.
        let frame = asking(version.encode())
            .encode(&self.document)
            .or_else(|_| asking(vec![0]).encode(&self.document))
            .expect("credentials are short");
        self.shown = version;
        self.send(frame, hands.out);
    }

    /// Shows our version.
    pub(super) fn show(&mut self, extra: &Bytes, hands: &mut Hands<'_>) {
        let permission = Permission::Write;
        let ok = |version: Vec<u8>| {
            let extra = extra.clone();
            Message::JoinOk { permission, version: version.into(), extra }.encode(&self.document)
        };
        let version = hands.replica.version();
        let frame = ok(version.encode()).or_else(|_| ok(vec![0])).expect("a short answer fits into a frame");
        self.shown = version.clone();
        self.send(frame, hands.out);
    }

    /// Exchanges versions as soon as it is polite.
    pub(super) fn exchange_soon(&mut self, now: Instant) {
        let pace = PACE.saturating_mul(1 << self.fruitless.min(5)).min(EXCHANGE);
        let soon = self.joined_at.map_or(now, |last| now.max(last + pace));
        if self.asks || self.is_channel() {
            self.exchange_at = Some(self.exchange_at.map_or(soon, |at| at.min(soon)));
        }
    }

    /// Exchanges versions in a while, if what is missing has not come by another way meanwhile.
    pub(super) fn reconcile_later(&mut self, hands: &mut Hands<'_>) {
        if !self.is_channel() {
            return self.reconcile(hands);
        }
        self.exchange_soon(hands.now + PACE);
    }

    /// Has the other end show its version and bring what we lack: by asking if that is our part, else by suggesting it.
    pub(super) fn reconcile(&mut self, hands: &mut Hands<'_>) {
        if self.asks || self.is_channel() {
            return self.exchange_soon(hands.now);
        }
        let pace = PACE.saturating_mul(1 << self.fruitless.min(5)).min(EXCHANGE);
        if self.suggested_at.is_none_or(|last| hands.now >= last + pace) {
            self.suggested_at = Some(hands.now);
            let message = Cow::Borrowed("join again to exchange what is missing");
            let message = Message::RoomError { code: RoomErrorCode::RejoinSuggested, message };
            self.say(&message, &self.document.clone(), hands.out);
        }
    }

    /// The document was made anew: what was shown and promised may not be there any more.
    pub(in crate::engine) fn start_over(&mut self, hands: &mut Hands<'_>) {
        self.receipts.clear();
        self.shown = VersionVector::default();
        if self.is_live() {
            self.reconcile(hands);
        }
    }

    pub(super) fn asked(&mut self, version: &Bytes, hands: &mut Hands<'_>) -> Result<(), Reason> {
        if self.is_uplink() {
            return self.strike();
        }
        self.enter(claimed(version), hands);
        self.tree.lacks(hands.replica.version(), &self.theirs);
        if !self.is_channel() {
            // Guests may never acknowledge anything: what they have not shown is sent again.
            self.inflight.clear();
        }
        self.show(&Bytes::new(), hands);
        self.owe(Owe::All);
        Ok(())
    }

    /// A version of the other end is known.
    fn enter(&mut self, theirs: VersionVector, hands: &mut Hands<'_>) {
        self.theirs = theirs;
        self.strikes = 0;
        if self.stage == Stage::Strange {
            self.stage = Stage::Live;
            hands.out.push_back(Output::Event(Event::Joined(self.id)));
        }
        if self.join.is_none() {
            let rhythm = hands.dice.between(EXCHANGE.mul_f64(0.8), EXCHANGE.mul_f64(1.2));
            self.exchange_at = self.asks.then(|| hands.now + rhythm);
        }
    }

    pub(super) fn shown_to_us(
        &mut self,
        permission: Permission,
        version: &Bytes,
        hands: &mut Hands<'_>,
    ) -> Result<(), Reason> {
        let theirs = claimed(version);
        let Some(join) = self.join.take() else {
            if !self.is_channel() || !self.is_live() {
                return self.strike();
            }
            self.theirs = theirs;
            return Ok(());
        };
        self.inflight.settle(join.mark, &theirs);
        // It brings what it shows without being asked again.
        self.asked = Some(theirs.clone());
        self.enter(theirs, hands);
        self.may_write = permission == Permission::Write;
        if !self.may_write {
            hands.out.push_back(Output::Event(Event::ReadOnly(self.id)));
        }
        self.owe(Owe::All);
        if !self.present && self.asks {
            let message = Message::JoinRequest { auth: self.auth.clone(), version: Bytes::new() };
            self.say(&message, &self.presence.clone(), hands.out);
        }
        Ok(())
    }

    pub(super) fn turned_away(&mut self, error: &JoinError, hands: &mut Hands<'_>) -> Result<(), Reason> {
        match error {
            JoinError::AuthFailed => Err(Reason::AuthFailed),
            JoinError::VersionUnknown { .. } if self.join.is_some_and(|join| join.tries <= JOIN_TRIES) => {
                if let Some(join) = &mut self.join {
                    join.tries += 1;
                }
                self.ask_from(VersionVector::default(), hands);
                Ok(())
            }
            _ => Err(Reason::JoinRefused),
        }
    }

    pub(super) fn room_error(&mut self, code: RoomErrorCode, hands: &mut Hands<'_>) -> Result<(), Reason> {
        match code {
            RoomErrorCode::Evicted => return Err(Reason::Evicted),
            RoomErrorCode::RejoinSuggested => {
                self.held_until = None;
                self.exchange_soon(hands.now);
            }
            RoomErrorCode::Unknown => {}
        }
        Ok(())
    }
}
