//! When the other side of an open connection is asked whether it is there, and when the crate's loop has to wake up.
//!
//! The crate checks by the clock, and the side that did not offer once more whenever it is checked. Most of that says
//! nothing new: who has just been heard is there. So while all is well, only what is needed goes out: after some time
//! in which nothing came, one of the two asks, and the answer tells both. When it is missing, the other side is asked
//! several times a second, so that a packet that is lost is no interruption, and one who is gone is missed in time.

use std::time::{Duration, Instant};

use super::packet::Packet;
use super::{Role, Settings};

/// How often somebody is asked who does not answer.
const PROBE: Duration = Duration::from_millis(300);

/// How much later than the answerer the initiator asks. The crate has the answerer ask back whenever it is asked.
const SECOND: f64 = 1.2;

/// Nobody is asked as late as that, of the time after which a silence is an interruption.
const LATEST: f64 = 0.7;

/// When the crate acknowledges data that came alone; a little later, so that it is due by then.
const ACKNOWLEDGES: Duration = Duration::from_millis(205);

/// What was sent is sent again after so long at the earliest.
const REPEATS: Duration = Duration::from_secs(1);

/// How long after the last word about it a way counts as found.
const AGREED: Duration = Duration::from_secs(2);

/// How often the other side is asked in any case, since a round trip is only measured so.
const MEASURE: Duration = Duration::from_secs(15);

/// One side's view of an open connection.
#[derive(Debug)]
pub(super) struct Checks {
    /// How long nothing may come until the other side is asked.
    patience: Duration,
    probe: Duration,
    /// A way is found and nothing is negotiated. If not, the crate does as it likes.
    calm: bool,
    negotiated: Option<Instant>,
    /// When the other side has asked or answered last.
    heard: Option<Instant>,
    asked: Option<Instant>,
    /// When it was first asked of late without having been heard since.
    asked_in_vain: Option<Instant>,
    /// When an acknowledgement of ours is to go.
    owes_at: Option<Instant>,
    /// Since when something of ours is not acknowledged.
    owed_since: Option<Instant>,
}

impl Checks {
    pub(super) fn new(role: Role, settings: &Settings) -> Self {
        let patience = match role {
            Role::Answerer => settings.keepalive,
            Role::Initiator => settings.keepalive.mul_f64(SECOND),
        };
        let patience = patience.min(settings.interrupted_after.mul_f64(LATEST));
        Self {
            patience,
            probe: probe(settings),
            calm: false,
            negotiated: None,
            heard: None,
            asked: None,
            asked_in_vain: None,
            owes_at: None,
            owed_since: None,
        }
    }

    /// Something is negotiated, or there is no way.
    pub(super) fn negotiates(&mut self, now: Instant) {
        self.calm = false;
        self.negotiated = Some(now);
    }

    /// There is a way.
    pub(super) fn has_way(&mut self, now: Instant) {
        self.calm |= self.negotiated.is_none_or(|at| now >= at + AGREED);
    }

    pub(super) fn is_calm(&self) -> bool {
        self.calm
    }

    pub(super) fn came(&mut self, now: Instant, packet: Packet) {
        if packet == Packet::Data {
            self.owes_at = Some(now + ACKNOWLEDGES);
        }
        // Data is a sign of life, too, but none that the crate counts.
        if matches!(packet, Packet::Check | Packet::Answer) {
            self.heard = Some(now);
        }
        if packet != Packet::Other {
            self.asked_in_vain = None;
        }
    }

    /// Whether a packet is to go out.
    pub(super) fn lets_out(&mut self, now: Instant, packet: Packet) -> bool {
        if packet != Packet::Check {
            return true;
        }
        let is_fresh = self.asked.is_some_and(|at| now < at + MEASURE);
        let is_needless = self.calm && is_fresh && self.left(now).is_some();
        if !is_needless {
            self.asked = Some(now);
            self.asked_in_vain.get_or_insert(now);
        }
        !is_needless
    }

    /// Whether the other side was asked long enough ago to have answered, and has said nothing.
    pub(super) fn has_asked_in_vain(&self, now: Instant) -> bool {
        self.asked_in_vain.is_some_and(|at| now >= at + 2 * self.probe)
    }

    /// Something is sent.
    pub(super) fn sends(&mut self, now: Instant) {
        self.owed_since.get_or_insert(now);
    }

    /// Everything that was sent is acknowledged.
    pub(super) fn settled(&mut self) {
        self.owed_since = None;
    }

    pub(super) fn is_owed(&self) -> bool {
        self.owed_since.is_some()
    }

    /// How long to sleep, where the crate would sleep for this time, which it does never for longer than 200 ms.
    pub(super) fn pause(&mut self, now: Instant, asked: Duration) -> Duration {
        if !self.calm {
            return asked;
        }
        let left = |at: Instant| at.checked_duration_since(now).filter(|left| !left.is_zero());
        let asks = self.left(now).unwrap_or(self.probe);
        let acknowledges = self.owes_at.and_then(left);
        if acknowledges.is_none() {
            self.owes_at = None;
        }
        // Once something may have to be sent again, the crate knows best.
        let repeats = self.owed_since.map(|since| left(since + REPEATS).unwrap_or(asked));
        let earliest = [acknowledges, repeats].into_iter().flatten().fold(asks, Duration::min);
        asked.max(earliest)
    }

    /// How long nothing need come yet.
    fn left(&self, now: Instant) -> Option<Duration> {
        let left = (self.heard? + self.patience).checked_duration_since(now);
        left.filter(|left| !left.is_zero())
    }
}

/// How often the crate is to check when it wakes up and is let.
pub(super) fn probe(settings: &Settings) -> Duration {
    PROBE.min(settings.keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn settings() -> Settings {
        Settings { keepalive: ms(1500), interrupted_after: ms(2500), ..Settings::default() }
    }

    /// The checks of a connection at rest, over which something was just heard and measured.
    fn at_rest(role: Role) -> (Checks, Instant) {
        let now = Instant::now();
        let mut checks = Checks::new(role, &settings());
        checks.has_way(now);
        assert!(checks.lets_out(now, Packet::Check), "the first check is a measurement");
        checks.came(now, Packet::Answer);
        (checks, now)
    }

    /// Milliseconds after which the other side is asked, if the crate would check at every wake.
    fn asks(checks: &mut Checks, begin: Instant, until: Duration) -> Vec<u64> {
        let mut asks = Vec::new();
        let mut now = begin;
        while now < begin + until {
            now += checks.pause(now, ms(1)).max(STEP);
            if checks.lets_out(now, Packet::Check) {
                asks.push((now - begin).as_millis() as u64);
            }
        }
        asks
    }

    #[test]
    fn who_is_heard_is_not_asked() {
        let (mut checks, begin) = at_rest(Role::Answerer);
        for second in 0..10 {
            let now = begin + Duration::from_secs(second);
            checks.came(now, Packet::Check);
            assert!(!checks.lets_out(now + ms(900), Packet::Check), "{second}");
            assert!(checks.lets_out(now + ms(900), Packet::Answer), "and is answered");
            assert_eq!(checks.pause(now + ms(900), ms(200)), ms(600));
        }
    }

    #[test]
    fn a_silence_is_asked_into_ever_again_and_by_both() {
        let (mut answerer, begin) = at_rest(Role::Answerer);
        assert_eq!(asks(&mut answerer, begin, ms(2500)), [1500, 1800, 2100, 2400, 2700]);
        let (mut initiator, begin) = at_rest(Role::Initiator);
        assert_eq!(asks(&mut initiator, begin, ms(2400)), [1750, 2050, 2350, 2650]);
        // An answer ends it.
        initiator.came(begin + ms(2650), Packet::Answer);
        assert_eq!(initiator.pause(begin + ms(2650), ms(200)), ms(1750));
    }

    #[test]
    fn nobody_is_missed_who_was_hardly_asked() {
        let (mut checks, begin) = at_rest(Role::Answerer);
        // Something keeps us from running for a while.
        let late = begin + ms(2600);
        assert!(!checks.has_asked_in_vain(late));
        assert!(checks.lets_out(late, Packet::Check));
        assert!(!checks.has_asked_in_vain(late + PROBE));
        assert!(checks.has_asked_in_vain(late + 2 * PROBE));
        checks.came(late + 2 * PROBE, Packet::Answer);
        assert!(!checks.has_asked_in_vain(late + 9 * PROBE));
    }

    #[test]
    fn who_sends_data_is_asked_all_the_same_as_the_crate_does_not_count_it() {
        let (mut checks, begin) = at_rest(Role::Answerer);
        checks.came(begin + ms(1400), Packet::Data);
        assert!(checks.lets_out(begin + ms(1500), Packet::Check));
    }

    #[test]
    fn what_comes_from_a_server_is_no_sign_of_the_other_side() {
        let (mut checks, begin) = at_rest(Role::Answerer);
        checks.came(begin + ms(1400), Packet::Other);
        assert_eq!(checks.pause(begin + ms(1400), ms(50)), ms(100));
    }

    #[test]
    fn the_round_trip_is_measured_now_and_then() {
        let (mut checks, begin) = at_rest(Role::Initiator);
        let mut measured = 0;
        for step in 1..=60 {
            let now = begin + ms(step * 500);
            checks.came(now, Packet::Check);
            measured += u32::from(checks.lets_out(now, Packet::Check));
        }
        assert_eq!(measured, 2, "in half a minute");
    }

    #[test]
    fn what_is_due_is_done_in_time() {
        let (mut checks, begin) = at_rest(Role::Answerer);
        checks.came(begin, Packet::Data);
        assert_eq!(checks.pause(begin, ms(10)), ACKNOWLEDGES, "an acknowledgement");
        assert_eq!(checks.pause(begin + ACKNOWLEDGES, ms(10)), ms(1295));
        let sent = begin + ms(300);
        checks.sends(sent);
        checks.sends(sent + ms(100));
        assert_eq!(checks.pause(sent + ms(100), ms(10)), ms(900), "what may be lost");
        assert_eq!(checks.pause(sent + REPEATS, ms(10)), ms(10));
        assert!(checks.is_owed());
        checks.settled();
        assert_eq!(checks.pause(sent + REPEATS, ms(10)), ms(200));
    }

    #[test]
    fn the_crate_does_as_it_likes_until_a_way_is_agreed_on() {
        let now = Instant::now();
        let mut checks = Checks::new(Role::Initiator, &settings());
        checks.came(now, Packet::Answer);
        for _ in 0..2 {
            assert!(checks.lets_out(now, Packet::Check));
            assert_eq!(checks.pause(now, ms(50)), ms(50));
        }
        checks.negotiates(now);
        checks.has_way(now + AGREED - STEP);
        assert!(!checks.is_calm(), "somebody may still be looking for another");
        checks.has_way(now + AGREED);
        assert!(checks.is_calm());
        checks.negotiates(now + AGREED);
        assert!(!checks.is_calm());
    }

    #[test]
    fn nobody_is_asked_too_late_to_answer() {
        let hasty = Settings { keepalive: ms(9000), interrupted_after: ms(1000), ..Settings::default() };
        assert_eq!(Checks::new(Role::Initiator, &hasty).patience, ms(700));
        assert_eq!(probe(&Settings { keepalive: ms(100), ..hasty }), ms(100));
    }
}
