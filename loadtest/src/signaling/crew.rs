//! The clients of one tester thread: they publish when it is due and book what comes.

use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};

use super::{Settings, connect_all, flood::Pace, peer_id, room_name, subscribe_all};
use crate::{
    accounts::{Accounts, Echo},
    client::Link,
    measure::Latencies,
    stage::{Recent, Stage},
    stamp::{Stamp, Template},
    stop,
    swarm::{Dialect, Errors, Heard, Swarm},
};

/// After the last publish, nothing may come for that long before the rest counts as lost.
const QUIET: Duration = Duration::from_secs(2);
/// And that long at most is waited for the rest.
const DRAIN: Duration = Duration::from_secs(60);

/// What one crew found.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) connected: usize,
    pub(super) published: u64,
    pub(super) accounts: Accounts,
    /// Deliveries that came inside the measured window.
    pub(super) in_window: u64,
    /// Latencies of what was due inside the measured window.
    pub(super) latencies: Latencies,
    /// How late the tester itself published at worst.
    pub(super) late: Duration,
    pub(super) errors: Errors,
}

/// One thread's clients, connected and subscribed.
pub(super) struct Crew {
    swarm: Swarm,
    books: Books,
    order: Vec<usize>,
    /// How many publishes the stage has been told of.
    told: u64,
}

/// What the clients are booked in; apart from the swarm, because it is written while the swarm reads.
struct Books {
    publishers: Vec<Publisher>,
    accounts: Accounts,
    pace: Pace,
    published: u64,
    in_window: u64,
    latencies: Latencies,
    recent: Recent,
    late: Duration,
    origin: Instant,
    from: Instant,
    until: Instant,
}

struct Publisher {
    number: u32,
    template: Template,
    sequence: u32,
    /// Where stamps lie in what this client hears.
    hint: usize,
}

impl Crew {
    /// Connects and subscribes the clients of the rooms that are the `nth` thread's.
    pub(super) fn gather(settings: &Settings, pace: Pace, run: u32, nth: usize) -> io::Result<Self> {
        let Settings { clients, rooms, .. } = *settings;
        let mut swarm = Swarm::new(Dialect::Signaling)?;
        let ours = (0..clients).filter(|client| (client % rooms) as usize % settings.threads == nth);
        let numbers = connect_all(&mut swarm, &settings.target, ours)?;
        subscribe_all(&mut swarm, |who| room_name(run, numbers[who] % rooms))?;
        let mut accounts = Accounts::new(clients, rooms, &numbers, Echo::Own);
        for who in swarm.take_lost() {
            accounts.left(who);
        }
        let publishers = numbers.iter().map(|number| Publisher {
            number: *number,
            template: Template::new(
                &room_name(run, number % rooms),
                &peer_id(run, *number),
                settings.payload,
            ),
            sequence: 0,
            hint: 0,
        });
        let mut order: Vec<_> = (0..numbers.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(settings.seed.wrapping_add(nth as u64)));
        let now = Instant::now();
        let books = Books {
            publishers: publishers.collect(),
            accounts,
            pace,
            published: 0,
            in_window: 0,
            latencies: Latencies::default(),
            recent: Recent::default(),
            late: Duration::ZERO,
            origin: now,
            from: now,
            until: now,
        };
        Ok(Self { swarm, books, order, told: 0 })
    }

    /// Publishes from `origin` to the end of the window, then waits for what is still owed.
    pub(super) fn publish(mut self, settings: &Settings, stage: &Stage, nth: usize) -> io::Result<Tally> {
        let connected = self.swarm.open();
        self.books.origin = stage.origin();
        self.books.from = stage.origin() + settings.warmup;
        self.books.until = self.books.from + settings.duration;
        match self.books.pace {
            Pace::Fixed => self.keep_rate(settings, stage, nth)?,
            Pace::Saturated { window } => self.keep_window(stage, window)?,
        }
        self.drain(stage)?;
        let Books { accounts, published, in_window, latencies, late, .. } = self.books;
        let errors = std::mem::take(self.swarm.errors());
        Ok(Tally { connected, published, accounts, in_window, latencies, late, errors })
    }

    /// This thread's share of the publishes a second, one client after the other.
    fn keep_rate(&mut self, settings: &Settings, stage: &Stage, nth: usize) -> io::Result<()> {
        let all = settings.rate.times().skip(nth).step_by(settings.threads);
        let origin = self.books.origin;
        let mut dues = all.map(|due| origin + due).peekable();
        let mut turns = self.order.clone().into_iter().cycle();
        while let Some(due) = dues.peek().copied().filter(|_| !stop::is_asked()) {
            while let Some(due) = dues.next_if(|due| *due <= Instant::now()) {
                let Some(who) = turns.next() else { return Ok(()) };
                self.publish_one(who, due);
            }
            self.turn(stop::soon(due), stage)?;
        }
        while Instant::now() < self.books.until && !stop::is_asked() {
            self.turn(stop::soon(self.books.until), stage)?;
        }
        Ok(())
    }

    /// `window` publishes of everybody to begin with; every one that comes back is followed by another.
    fn keep_window(&mut self, stage: &Stage, window: u32) -> io::Result<()> {
        for _ in 0..window {
            for who in self.order.clone() {
                self.publish_one(who, Instant::now());
            }
        }
        while Instant::now() < self.books.until && !stop::is_asked() {
            self.turn(stop::soon(self.books.until), stage)?;
        }
        Ok(())
    }

    fn drain(&mut self, stage: &Stage) -> io::Result<()> {
        // Earlier than planned when an early end was asked for.
        self.books.until = self.books.until.min(Instant::now());
        let give_up = Instant::now() + DRAIN;
        let mut quiet_at = Instant::now() + QUIET;
        while !self.books.accounts.is_settled() && self.swarm.open() > 0 {
            let now = Instant::now();
            if now >= quiet_at.min(give_up) {
                break;
            }
            if self.turn(quiet_at, stage)? > 0 {
                quiet_at = now + QUIET;
            }
        }
        Ok(())
    }

    fn publish_one(&mut self, who: usize, due: Instant) {
        if !self.swarm.is_open(who) {
            return;
        }
        self.books.late = self.books.late.max(due.elapsed());
        let text = self.books.next_publish(who, due);
        self.swarm.send(who, text);
    }

    /// One turn of the swarm; how many deliveries it brought.
    fn turn(&mut self, until: Instant, stage: &Stage) -> io::Result<u64> {
        let before = self.books.accounts.delivered;
        self.swarm.turn(until, |heard| self.books.heard(heard))?;
        for who in self.swarm.take_lost() {
            self.books.accounts.left(who);
        }
        let delivered = self.books.accounts.delivered - before;
        stage.delivered.fetch_add(delivered, Relaxed);
        let published = std::mem::replace(&mut self.told, self.books.published);
        stage.published.fetch_add(self.books.published - published, Relaxed);
        stage.take_in(&mut self.books.recent, self.swarm.errors().total());
        Ok(delivered)
    }
}

impl Books {
    /// The next message of a client, booked as published.
    fn next_publish(&mut self, who: usize, due: Instant) -> &[u8] {
        self.published += 1;
        self.accounts.published(who);
        let due = u64::try_from(due.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let publisher = &mut self.publishers[who];
        let stamp = Stamp { sender: publisher.number, sequence: publisher.sequence, due };
        publisher.sequence += 1;
        publisher.template.stamped(stamp)
    }

    fn heard(&mut self, heard: Heard<'_>) {
        let Heard { who, at, message, link, .. } = heard;
        let publisher = &mut self.publishers[who];
        let Some(stamp) = Stamp::find(message, &mut publisher.hint) else { return };
        let own = stamp.sender == publisher.number;
        self.accounts.heard(who, stamp);
        if self.from <= at && at < self.until {
            self.in_window += 1;
        }
        let due = self.origin + Duration::from_nanos(stamp.due);
        let latency = u64::try_from(at.saturating_duration_since(due).as_nanos()).unwrap_or(u64::MAX);
        self.recent.record(latency);
        if self.from <= due && due < self.until {
            self.latencies.record(latency);
        }
        if own && at < self.until {
            self.echoed(who, link);
        }
    }

    /// A client's own publish came back.
    fn echoed(&mut self, who: usize, link: &mut Link) {
        if matches!(self.pace, Pace::Saturated { .. }) {
            let text = self.next_publish(who, Instant::now());
            link.send(text);
        }
    }
}
