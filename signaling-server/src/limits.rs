//! Rates and counts: a token bucket, and what each address and the whole server hold.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crate::address::AddressKey;
use crate::metrics::UpgradeRefusal;

/// Addresses remembered at once. When there are more, those that hold no connection and whose rate has recovered are
/// forgotten; when all others are busy, a new address is refused.
const MAX_ADDRESSES: usize = 100_000;

/// A rate with a burst.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// Units each second in the long run; 0 means no limit.
    pub per_second: f64,
    /// Units at once after a pause.
    pub burst: f64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { per_second: 0.0, burst: 0.0 };
}

/// A token bucket. It may be overdrawn by one charge, so that a charge larger than the burst is not stuck for ever.
#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    rate: Rate,
    level: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    #[must_use]
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self { rate, level: rate.burst, at: now }
    }

    /// Takes `units`, and says how long to wait before the next charge.
    pub fn charge(&mut self, units: f64, now: Instant) -> Duration {
        if self.rate.per_second <= 0.0 {
            return Duration::ZERO;
        }
        self.refill(now);
        self.level -= units;
        if self.level >= 0.0 {
            return Duration::ZERO;
        }
        // A bound on the wait, so that no limit, however small, freezes a connection for hours.
        Duration::from_secs_f64((-self.level / self.rate.per_second).min(60.0))
    }

    /// Takes one unit if there is one.
    pub fn take(&mut self, now: Instant) -> bool {
        if self.rate.per_second <= 0.0 {
            return true;
        }
        self.refill(now);
        let enough = self.level >= 1.0;
        self.level -= f64::from(u8::from(enough));
        enough
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.level >= self.rate.burst
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.level = (self.level + elapsed * self.rate.per_second).min(self.rate.burst);
        self.at = now;
    }
}

/// What may be held, per address and in all. 0 means no limit.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    /// Connections of one address.
    pub per_address: usize,
    /// Connections in all.
    pub total: usize,
    /// Upgrades of one address.
    pub upgrades: Rate,
}

/// Counts the connections there are, by address and in all.
#[derive(Debug)]
pub struct Occupancy {
    caps: Caps,
    total: AtomicUsize,
    addresses: Mutex<HashMap<AddressKey, Address>>,
}

#[derive(Debug)]
struct Address {
    held: usize,
    upgrades: Bucket,
}

/// A connection's place; given back when dropped.
#[derive(Debug)]
pub struct Place {
    occupancy: Arc<Occupancy>,
    address: Option<AddressKey>,
}

impl Occupancy {
    /// Nobody is here yet.
    #[must_use]
    pub fn new(caps: Caps) -> Arc<Self> {
        Arc::new(Self { caps, total: AtomicUsize::new(0), addresses: Mutex::default() })
    }

    /// A place for one more connection. `address` is `None` for those that are exempt from the limits per address.
    pub fn admit(
        self: &Arc<Self>,
        address: Option<AddressKey>,
        now: Instant,
    ) -> Result<Place, UpgradeRefusal> {
        let full = |held| self.caps.total != 0 && held >= self.caps.total;
        if full(self.total.load(Ordering::Relaxed)) {
            return Err(UpgradeRefusal::Full);
        }
        if let Some(address) = address {
            self.admit_address(address, now)?;
        }
        let place = Place { occupancy: Arc::clone(self), address };
        // Counted first and checked again, so that two that come at once do not share the last place.
        if full(self.total.fetch_add(1, Ordering::Relaxed)) {
            return Err(UpgradeRefusal::Full);
        }
        Ok(place)
    }

    /// Connections there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn admit_address(&self, key: AddressKey, now: Instant) -> Result<(), UpgradeRefusal> {
        let mut addresses = self.lock();
        if !addresses.contains_key(&key) && addresses.len() >= MAX_ADDRESSES {
            addresses.retain(|_, address| address.held > 0 || !address.upgrades.is_full(now));
            if addresses.len() >= MAX_ADDRESSES {
                return Err(UpgradeRefusal::Full);
            }
        }
        let fresh = || Address { held: 0, upgrades: Bucket::new(self.caps.upgrades, now) };
        let address = addresses.entry(key).or_insert_with(fresh);
        if !address.upgrades.take(now) {
            return Err(UpgradeRefusal::Rate);
        }
        if self.caps.per_address != 0 && address.held >= self.caps.per_address {
            return Err(UpgradeRefusal::AddressFull);
        }
        address.held += 1;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AddressKey, Address>> {
        self.addresses.lock().expect("no code that holds this lock panics")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.occupancy.total.fetch_sub(1, Ordering::Relaxed);
        let Some(key) = self.address else { return };
        let mut addresses = self.occupancy.lock();
        let Some(address) = addresses.get_mut(&key) else { return };
        address.held = address.held.saturating_sub(1);
        if address.held == 0 && address.upgrades.is_full(Instant::now()) {
            addresses.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    const RATE: Rate = Rate { per_second: 10.0, burst: 5.0 };

    fn caps(per_address: usize, total: usize) -> Caps {
        Caps { per_address, total, upgrades: Rate::UNLIMITED }
    }

    fn key(text: &str) -> Option<AddressKey> {
        Some(AddressKey::from(text.parse::<IpAddr>().unwrap()))
    }

    #[test]
    fn a_burst_passes_and_then_the_rate_holds() {
        let now = Instant::now();
        let mut bucket = Bucket::new(RATE, now);
        for _ in 0..5 {
            assert_eq!(bucket.charge(1.0, now), Duration::ZERO);
        }
        assert_eq!(bucket.charge(1.0, now), Duration::from_millis(100));
        assert_eq!(bucket.charge(1.0, now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn a_charge_above_the_burst_waits_and_passes() {
        let now = Instant::now();
        let mut bucket = Bucket::new(RATE, now);
        assert_eq!(bucket.charge(15.0, now), Duration::from_secs(1));
        assert_eq!(bucket.charge(0.0, now + Duration::from_secs(1)), Duration::ZERO);
    }

    #[test]
    fn an_address_holds_so_many_and_gets_its_place_back() {
        let occupancy = Occupancy::new(caps(2, 0));
        let now = Instant::now();
        let first = occupancy.admit(key("192.0.2.1"), now).unwrap();
        let _second = occupancy.admit(key("192.0.2.1"), now).unwrap();
        assert_eq!(occupancy.admit(key("192.0.2.1"), now).unwrap_err(), UpgradeRefusal::AddressFull);
        assert!(occupancy.admit(key("192.0.2.2"), now).is_ok());
        assert!(occupancy.admit(None, now).is_ok(), "an exempt address is not counted");
        drop(first);
        assert!(occupancy.admit(key("192.0.2.1"), now).is_ok());
    }

    #[test]
    fn the_whole_server_holds_so_many() {
        let occupancy = Occupancy::new(caps(0, 1));
        let now = Instant::now();
        let only = occupancy.admit(None, now).unwrap();
        assert_eq!(occupancy.admit(None, now).unwrap_err(), UpgradeRefusal::Full);
        drop(only);
        assert!(occupancy.admit(None, now).is_ok());
        assert_eq!(occupancy.total(), 0);
    }

    #[test]
    fn upgrades_of_one_address_have_a_rate() {
        let occupancy = Occupancy::new(Caps { per_address: 0, total: 0, upgrades: RATE });
        let now = Instant::now();
        for _ in 0..5 {
            occupancy.admit(key("192.0.2.1"), now).unwrap();
        }
        assert_eq!(occupancy.admit(key("192.0.2.1"), now).unwrap_err(), UpgradeRefusal::Rate);
        assert!(occupancy.admit(key("192.0.2.2"), now).is_ok());
        assert!(occupancy.admit(key("192.0.2.1"), now + Duration::from_secs(1)).is_ok());
    }

    #[test]
    fn addresses_that_left_are_forgotten() {
        let occupancy = Occupancy::new(caps(1, 0));
        drop(occupancy.admit(key("192.0.2.1"), Instant::now()).unwrap());
        assert!(occupancy.lock().is_empty());
    }
}
