//! The clients of a run: they write when it is due, and book what comes.

use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::ensure;
use bytes::Bytes;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use wire::sync::Message;

use super::{
    Settings,
    books::{Books, Member},
    flood::Pace,
    room,
};
use crate::{
    client::{Options, Upgraded},
    stage::Stage,
    stop,
    swarm::{Dialect, Errors, Swarm},
};

/// After the last edit, nothing may come for that long before the rest counts as lost.
const QUIET: Duration = Duration::from_secs(3);
/// And that long at most is waited for the rest.
const DRAIN: Duration = Duration::from_secs(60);
/// How long the server may take to let everybody in.
const JOINING: Duration = Duration::from_secs(30);

/// Clients that have joined their rooms.
pub(super) struct Crew {
    swarm: Swarm,
    books: Books,
    /// Who writes, in turn.
    writers: Vec<usize>,
    /// How many edits the stage has been told of.
    told: u64,
}

/// What a crew found.
pub(super) struct Tally {
    pub(super) connected: usize,
    pub(super) books: Books,
    /// The members whose connection lasted.
    pub(super) open: Vec<usize>,
    pub(super) errors: Errors,
}

impl Crew {
    /// Connects the clients and lets them join.
    pub(super) fn gather(settings: &Settings, pace: Pace, run: u32) -> anyhow::Result<Self> {
        let Settings { rooms, protocol, payload, .. } = *settings;
        let clients = settings.clients * rooms;
        let mut swarm = Swarm::new(Dialect::Relay)?;
        let mut members = Vec::new();
        for number in 0..clients {
            match Upgraded::open(&settings.target, Options::default()) {
                Ok(connection) => {
                    swarm.add(connection)?;
                    members.push(Member::new(number, room(run, number % rooms)));
                }
                Err(error) => swarm.errors().add(&error),
            }
        }
        // The first seats of every room write.
        let writes = |member: &Member| member.number / rooms < settings.writers;
        let mut writers: Vec<_> = (0..members.len()).filter(|who| writes(&members[*who])).collect();
        writers.shuffle(&mut StdRng::seed_from_u64(settings.seed));
        let books = Books::new((clients, rooms), members, (protocol, pace, payload));
        let mut crew = Self { swarm, books, writers, told: 0 };
        crew.join(settings)?;
        Ok(crew)
    }

    fn join(&mut self, settings: &Settings) -> anyhow::Result<()> {
        for (who, member) in self.books.members.iter().enumerate() {
            let join = Message::JoinRequest { auth: Bytes::new(), version: Bytes::from_static(&[0]) };
            self.swarm.send(who, &settings.protocol.frame(&member.room, &join)?);
        }
        let deadline = Instant::now() + JOINING;
        while self.joining() > 0 && self.books.counts.refused_joins == 0 && Instant::now() < deadline {
            let Self { swarm, books, .. } = self;
            swarm.turn(deadline, |heard| books.heard(&heard))?;
        }
        for who in self.swarm.take_lost() {
            self.books.accounts.left(who);
        }
        let refused = self.books.counts.refused_joins;
        ensure!(refused == 0, "the server refused {refused} joins");
        ensure!(self.joining() == 0, "{} joins were not answered within {JOINING:?}", self.joining());
        Ok(())
    }

    fn joining(&self) -> usize {
        let waits = |who: &usize| !self.books.members[*who].joined && self.swarm.is_open(*who);
        (0..self.books.members.len()).filter(waits).count()
    }

    /// Writes from the stage's origin to the end of the window, then waits for what is still owed.
    pub(super) fn write(mut self, settings: &Settings, pace: Pace, stage: &Stage) -> io::Result<Tally> {
        let connected = self.swarm.open();
        let origin = stage.origin();
        let from = origin + settings.warmup;
        let until = from + settings.duration;
        self.books.start(origin, from, until);
        match pace {
            Pace::Fixed => self.keep_rate(settings, stage, until)?,
            Pace::Saturated { window } => self.keep_window(stage, window, until)?,
        }
        self.drain(stage)?;
        let errors = std::mem::take(self.swarm.errors());
        let open = (0..self.books.members.len()).filter(|who| self.swarm.is_open(*who)).collect();
        Ok(Tally { connected, books: self.books, open, errors })
    }

    /// So many edits a second, one writer after the other.
    fn keep_rate(&mut self, settings: &Settings, stage: &Stage, until: Instant) -> io::Result<()> {
        let mut dues = settings.rate.times().map(|due| stage.origin() + due).peekable();
        let mut turns = self.writers.clone().into_iter().cycle();
        while let Some(due) = dues.peek().copied().filter(|_| !stop::is_asked()) {
            while let Some(due) = dues.next_if(|due| *due <= Instant::now()) {
                let Some(who) = turns.next() else { return Ok(()) };
                self.write_one(who, due);
            }
            self.turn(stop::soon(due), stage)?;
        }
        while Instant::now() < until && !stop::is_asked() {
            self.turn(stop::soon(until), stage)?;
        }
        Ok(())
    }

    /// `window` edits of every writer to begin with; each that has reached everybody is followed by another.
    fn keep_window(&mut self, stage: &Stage, window: u32, until: Instant) -> io::Result<()> {
        for _ in 0..window {
            for who in self.writers.clone() {
                self.write_one(who, Instant::now());
            }
        }
        while Instant::now() < until && !stop::is_asked() {
            self.turn(stop::soon(until), stage)?;
            for who in std::mem::take(&mut self.books.arrived) {
                self.write_one(who, Instant::now());
            }
        }
        Ok(())
    }

    fn drain(&mut self, stage: &Stage) -> io::Result<()> {
        self.books.end_by(Instant::now());
        let give_up = Instant::now() + DRAIN;
        let mut quiet_at = Instant::now() + QUIET;
        while !self.books.is_settled() && self.swarm.open() > 0 {
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

    fn write_one(&mut self, who: usize, due: Instant) {
        if !self.swarm.is_open(who) {
            return;
        }
        self.books.counts.late = self.books.counts.late.max(due.elapsed());
        let frame = self.books.next_edit(who, due);
        self.swarm.send(who, &frame);
    }

    /// One turn of the swarm; how many deliveries and acks it brought.
    fn turn(&mut self, until: Instant, stage: &Stage) -> io::Result<u64> {
        let Self { swarm, books, told, .. } = self;
        let (delivered, acked) = (books.accounts.delivered, books.counts.acked);
        swarm.turn(until, |heard| books.heard(&heard))?;
        for who in swarm.take_lost() {
            books.accounts.left(who);
        }
        let delivered = books.accounts.delivered - delivered;
        stage.delivered.fetch_add(delivered, Relaxed);
        let published = std::mem::replace(told, books.counts.published);
        stage.published.fetch_add(books.counts.published - published, Relaxed);
        stage.take_in(&mut books.recent, swarm.errors().total());
        Ok(delivered + books.counts.acked - acked)
    }
}
