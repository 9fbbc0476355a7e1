//! What happens to the machine that nobody tells us: it gets into another network, or was asleep.
//!
//! Looked for once a second. A system would tell of its addresses by itself, each system in its own way; a second is soon
//! enough, and what nobody uses costs little.

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often to look.
const LOOK: Duration = Duration::from_secs(1);

/// So much more than our clock, which stands still while the machine sleeps, the clock on the wall has to have moved on.
const SLEPT: Duration = Duration::from_secs(5);

/// What has happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The machine has other addresses than before.
    Moved,
    /// The machine was asleep, or its clock was set, which does not matter.
    Slept,
}

/// Whether the machine still has this address.
#[cfg_attr(
    not(any(feature = "webrtc", feature = "websocket")),
    allow(dead_code, reason = "nothing is connected")
)]
pub(crate) fn is_here(address: IpAddr) -> bool {
    let bound = UdpSocket::bind((address, 0));
    !bound.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrNotAvailable)
}

/// The machine around us.
#[derive(Debug)]
pub(crate) struct Surroundings {
    tick: Interval,
    seen: Sight,
}

/// What is seen of the machine at one time.
#[derive(Clone, Debug)]
struct Sight {
    at: Instant,
    wall: SystemTime,
    addresses: BTreeSet<IpAddr>,
}

impl Surroundings {
    pub(crate) fn new() -> Self {
        let mut tick = interval(LOOK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { tick, seen: Sight::now() }
    }

    /// The next change. Can be cancelled without losing one.
    pub(crate) async fn changed(&mut self) -> Change {
        loop {
            self.tick.tick().await;
            let before = std::mem::replace(&mut self.seen, Sight::now());
            if let Some(change) = self.seen.since(&before) {
                return change;
            }
        }
    }
}

impl Sight {
    fn now() -> Self {
        Self { at: Instant::now(), wall: SystemTime::now(), addresses: addresses() }
    }

    fn since(&self, before: &Self) -> Option<Change> {
        let on_the_wall = self.wall.duration_since(before.wall).unwrap_or_default();
        let awake = self.at.saturating_duration_since(before.at);
        if on_the_wall >= awake + SLEPT {
            return Some(Change::Slept);
        }
        (self.addresses != before.addresses).then_some(Change::Moved)
    }
}

/// The machine's addresses, but for those that only it can reach.
#[cfg(feature = "webrtc")]
fn addresses() -> BTreeSet<IpAddr> {
    let interfaces = rtc::shared::ifaces::ifaces().unwrap_or_default();
    let ips = interfaces.iter().filter_map(|interface| interface.addr).map(|address| address.ip());
    ips.filter(|ip| !ip.is_loopback()).collect()
}

/// Not known without the part that asks the system.
#[cfg(not(feature = "webrtc"))]
fn addresses() -> BTreeSet<IpAddr> {
    BTreeSet::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(addresses: &[&str]) -> Sight {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Sight { addresses, ..Sight::now() }
    }

    fn later(before: &Sight, awake: Duration, on_the_wall: Duration) -> Sight {
        Sight { at: before.at + awake, wall: before.wall + on_the_wall, addresses: before.addresses.clone() }
    }

    #[test]
    fn a_machine_that_was_asleep_is_noticed_and_a_slow_one_is_not() {
        let before = sight(&["192.0.2.1"]);
        assert_eq!(later(&before, LOOK, LOOK).since(&before), None);
        assert_eq!(later(&before, LOOK * 60, LOOK * 60).since(&before), None);
        assert_eq!(later(&before, LOOK, LOOK + SLEPT).since(&before), Some(Change::Slept));
        // The clock on the wall is set back.
        let set_back = Sight { wall: before.wall - LOOK * 3600, ..later(&before, LOOK, LOOK) };
        assert_eq!(set_back.since(&before), None);
    }

    #[test]
    fn another_address_is_a_move_and_so_is_one_less() {
        let before = sight(&["192.0.2.1", "2001:db8::1"]);
        assert_eq!(sight(&["2001:db8::1", "192.0.2.1"]).since(&before), None);
        assert_eq!(sight(&["192.0.2.7", "2001:db8::1"]).since(&before), Some(Change::Moved));
        assert_eq!(sight(&["192.0.2.1"]).since(&before), Some(Change::Moved));
    }

    #[test]
    fn only_an_address_of_this_machine_is_here() {
        assert!(is_here("127.0.0.1".parse().unwrap()));
        assert!(is_here("0.0.0.0".parse().unwrap()));
        assert!(!is_here("192.0.2.1".parse().unwrap()));
    }
}
