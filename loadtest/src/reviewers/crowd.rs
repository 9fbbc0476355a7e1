//! The reviewers' day, act by act.

use std::{
    io,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use loro::LoroDoc;
use rand::Rng;

use super::{
    Settings,
    agenda::{Act, Agenda, backoff},
    figures::Day,
    person::{Person, Place},
    room::Room,
    scene::Scene,
    verdict::Verdict,
};
use crate::{
    chance::{about, some_time},
    client::Link,
    connector::{Connected, Connector},
    frame::Opcode,
    measure::process::Process,
    relay::{Protocol, document::Grown, visitor::Visitor},
    stage::Stage,
    stop,
    swarm::{Dialect, Swarm},
};
use wire::sync::Message;

/// Who does not move shows that often that it is there; stores of Loro forget after 30 s.
const RENEW: Duration = Duration::from_secs(15);
/// When the day is over: how long nothing may happen before what is missing counts as missing, ...
const QUIET: Duration = Duration::from_secs(5);
/// ... and how long is waited at most.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often is looked whether everything is in place then.
const LOOK: Duration = Duration::from_millis(50);
/// One of so many goes home before the others.
const GOES_HOME: u32 = 10;

/// All reviewers of a run, and what they are about to do.
pub(super) struct Crowd<'a> {
    settings: &'a Settings,
    stage: &'a Stage,
    swarm: Swarm,
    connector: Connector,
    scene: Scene,
    agenda: Agenda,
    /// Connections that are open, and nobody is behind them.
    half_open: Vec<Link>,
    day_is_over: bool,
    /// The tester's memory before anybody was there.
    memory: Option<u64>,
}

impl<'a> Crowd<'a> {
    /// Puts a plan into every room. Nobody has come yet.
    pub(super) fn gather(settings: &'a Settings, stage: &'a Stage) -> anyhow::Result<Self> {
        let memory = own_memory();
        let (count, rooms, run) = (settings.count(), settings.rooms, rand::random::<u32>());
        let (mut plans, mut people) = (Vec::new(), Vec::new());
        for nth in 0..rooms {
            let members = (nth..count).step_by(rooms as usize).map(|number| number as usize).collect();
            let room = Room::new(&format!("loadtest-{run:08x}-{nth}"), members);
            write_plan(settings, &room, settings.seed.wrapping_add(nth.into()))?;
            plans.push(room);
        }
        for number in 0..count + rooms {
            // Behind the last seats come the newcomers, one for each room.
            let (room, seat) =
                if number < count { (number % rooms, number / rooms) } else { (number - count, u32::MAX) };
            let seats = plans[room as usize].seats();
            let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(number.into());
            people.push(Person::new(room as usize, seat.min(seats), seats, seed));
        }
        let swarm = Swarm::new(Dialect::Both)?;
        let connector = Connector::new(&settings.target, people.len(), swarm.waker()?);
        let scene = Scene::new(people, plans, settings.payload);
        let (agenda, half_open) = (Agenda::default(), Vec::new());
        Ok(Self { settings, stage, swarm, connector, scene, agenda, half_open, day_is_over: false, memory })
    }

    /// Lives through the day, and looks at what is left of it.
    pub(super) fn live(mut self) -> anyhow::Result<Day> {
        let origin = self.stage.origin();
        self.scene.origin = origin;
        self.note_arrivals(origin);
        let until = origin + self.settings.ramp.length();
        while Instant::now() < until && !stop::is_asked() {
            self.act();
            self.turn(stop::soon(self.agenda.next_at().map_or(until, |next| next.min(until))))?;
        }
        let grown = own_memory().zip(self.memory).map(|(now, before)| now.saturating_sub(before));
        // Nobody begins anything any more, and whoever is away comes back.
        self.day_is_over = true;
        self.half_open.clear();
        self.settle()?;
        self.send_some_home();
        self.settle()?;
        self.let_newcomers_in();
        self.settle()?;
        let verdict = Verdict::of(&self.scene, self.settings.seed);
        let present = self.scene.present();
        let errors = std::mem::take(self.swarm.errors());
        Ok(Day { counts: self.scene.counts, verdict, errors, present, tester_grown: grown })
    }

    fn note_arrivals(&mut self, origin: Instant) {
        let count = self.settings.count() as usize;
        for who in 0..count {
            for (at, comes) in self.settings.ramp.crossings(who as f64 + 1.0) {
                self.agenda.note(origin + at, who, if comes { Act::Arrive } else { Act::Depart });
            }
        }
        if let Some(every) = self.settings.habits.storm_every {
            self.agenda.note(origin + every, 0, Act::Storm);
        }
    }

    /// Does what is due.
    fn act(&mut self) {
        while let Some((due, who, act)) = self.agenda.take(Instant::now()) {
            if !self.day_is_over {
                self.scene.counts.late = self.scene.counts.late.max(due.elapsed());
            }
            match act {
                Act::Arrive => self.arrive(due, who),
                Act::Return if self.scene.people[who].stays => self.connect(due, who),
                _ if self.day_is_over => {}
                Act::Return => {}
                Act::Depart => self.depart(who),
                Act::Move => self.step(due, who),
                Act::Annotate => self.annotate(due, who),
                Act::Lose => self.lose(due, who),
                Act::Storm => self.storm(due),
            }
        }
    }

    fn arrive(&mut self, due: Instant, who: usize) {
        let habits = &self.settings.habits;
        let person = &mut self.scene.people[who];
        person.stays = true;
        self.scene.counts.arrivals += u64::from(!person.newcomer);
        if !std::mem::replace(&mut person.begun, true) && !person.newcomer {
            let first = about(&mut person.random, habits.cursor_every.unwrap_or(RENEW));
            self.agenda.note(due + first, who, Act::Move);
            for (every, act) in [(habits.annotate_every, Act::Annotate), (habits.lose_every, Act::Lose)] {
                if let Some(every) = every {
                    self.agenda.note(due + some_time(&mut person.random, every), who, act);
                }
            }
        }
        self.connect(due, who);
    }

    fn connect(&mut self, due: Instant, who: usize) {
        let person = &mut self.scene.people[who];
        if person.place == Place::Away {
            (person.place, person.due) = (Place::Connecting, due);
            self.connector.connect(who);
        }
    }

    fn step(&mut self, due: Instant, who: usize) {
        if let Some(frame) = self.scene.step(who, due) {
            self.swarm.send(who, &frame);
        }
        let pause = self.settings.habits.cursor_every.unwrap_or(RENEW);
        let pause = about(&mut self.scene.people[who].random, pause);
        self.agenda.note(due + pause, who, Act::Move);
    }

    fn annotate(&mut self, due: Instant, who: usize) {
        if self.scene.people[who].stays
            && let Some(frame) = self.scene.annotate(who, due)
        {
            self.swarm.send(who, &frame);
        }
        if let Some(every) = self.settings.habits.annotate_every {
            let pause = some_time(&mut self.scene.people[who].random, every);
            self.agenda.note(due + pause, who, Act::Annotate);
        }
    }

    /// The network is gone: the server sees the connection end, or nothing at all.
    fn lose(&mut self, due: Instant, who: usize) {
        let habits = &self.settings.habits;
        let person = &mut self.scene.people[who];
        let unseen = person.random.random_bool(habits.half_open);
        let (away, until_next) = (
            about(&mut person.random, habits.away),
            some_time(&mut person.random, habits.lose_every.unwrap_or(RENEW)),
        );
        self.agenda.note(due + until_next, who, Act::Lose);
        if !person.is_present() {
            return;
        }
        self.scene.counts.lost_network += 1;
        self.scene.counts.half_open += u64::from(unseen);
        let link = self.drop_link(who);
        self.half_open.extend(link.filter(|_| unseen));
        self.agenda.note(due + away, who, Act::Return);
    }

    fn storm(&mut self, due: Instant) {
        for who in 0..self.scene.people.len() {
            if self.scene.people[who].is_present() {
                self.scene.counts.lost_network += 1;
                drop(self.drop_link(who));
                let pause = backoff(&mut self.scene.people[who].random, 0);
                self.agenda.note(due + pause, who, Act::Return);
            }
        }
        if let Some(every) = self.settings.habits.storm_every {
            self.agenda.note(due + every, 0, Act::Storm);
        }
    }

    fn drop_link(&mut self, who: usize) -> Option<Link> {
        self.scene.gone(who);
        self.swarm.take_out(who)
    }

    /// Closes the page: leaves presence, then the connection.
    fn depart(&mut self, who: usize) {
        let person = &mut self.scene.people[who];
        person.stays = false;
        let room = &self.scene.rooms[person.room];
        if person.is_present()
            && let Ok(leave) = Message::Leave.encode(&room.presence)
        {
            self.swarm.send(who, &leave);
        }
        // What is still being connected is dropped when it is there.
        if person.place != Place::Connecting {
            self.swarm.close(who);
            self.scene.gone(who);
        }
    }

    /// Some go home, one half of them without a word.
    fn send_some_home(&mut self) {
        for room in 0..self.scene.rooms.len() {
            let seats = self.scene.rooms[room].seats();
            for seat in (0..seats).filter(|seat| goes_home(*seat, seats)) {
                let who = self.scene.rooms[room].members[seat as usize];
                self.go_home(who, (seat / GOES_HOME).is_multiple_of(2));
            }
        }
    }

    fn go_home(&mut self, who: usize, without_a_word: bool) {
        let person = &self.scene.people[who];
        // Who has something that the server may not have yet stays until it has.
        if !person.unacked.is_empty() || !person.is_present() {
            return;
        }
        if without_a_word {
            self.scene.people[who].stays = false;
            drop(self.drop_link(who));
        } else {
            self.depart(who);
        }
    }

    fn let_newcomers_in(&mut self) {
        for who in self.settings.count() as usize..self.scene.people.len() {
            self.arrive(Instant::now(), who);
        }
    }

    /// Waits until everybody is there, has everything and sees everybody, or until nothing happens any more.
    fn settle(&mut self) -> io::Result<()> {
        let give_up = Instant::now() + PATIENCE;
        let mut quiet_at = Instant::now() + QUIET;
        let mut before = 0;
        while !self.scene.is_settled() {
            let now = Instant::now();
            let counts = &self.scene.counts;
            let happened =
                counts.delivered + counts.sights + counts.acked + counts.found_kept + self.scene.present();
            if std::mem::replace(&mut before, happened) != happened {
                quiet_at = now + QUIET;
            }
            if now >= give_up || (now >= quiet_at && !self.agenda.expects_somebody()) {
                break;
            }
            self.act();
            self.turn(now + LOOK)?;
        }
        Ok(())
    }

    /// One turn of the swarm, and what follows from it.
    fn turn(&mut self, until: Instant) -> io::Result<()> {
        let Self { swarm, scene, .. } = self;
        swarm.turn(until, |heard| scene.heard(heard))?;
        for who in self.swarm.take_lost() {
            self.scene.gone(who);
            self.try_again(who);
        }
        while let Some(connected) = self.connector.take() {
            self.connected(connected)?;
        }
        self.tell_the_stage();
        Ok(())
    }

    fn connected(&mut self, (who, connection): Connected) -> io::Result<()> {
        let stays = self.scene.people[who].stays;
        match connection {
            Ok(connection) if stays => {
                self.swarm.seat(who, connection)?;
                self.greet(who);
            }
            Ok(_) => self.scene.gone(who),
            Err(error) => {
                self.swarm.errors().add(&error);
                self.scene.gone(who);
                self.try_again(who);
            }
        }
        Ok(())
    }

    fn greet(&mut self, who: usize) {
        let person = &self.scene.people[who];
        if !person.newcomer {
            let topic = &self.scene.rooms[person.room].topic;
            let subscribe = format!(r#"{{"type":"subscribe","topics":["{topic}"]}}"#);
            let announce = format!(
                r#"{{"type":"publish","topic":"{topic}","data":{{"type":"announce","from":"reviewer-{who}"}}}}"#
            );
            self.swarm.send_as(who, Opcode::Text, subscribe.as_bytes());
            self.swarm.send_as(who, Opcode::Text, announce.as_bytes());
        }
        for frame in self.scene.greeting(who) {
            self.swarm.send(who, &frame);
        }
    }

    /// After a connection that broke or was refused: as the published clients do.
    fn try_again(&mut self, who: usize) {
        let person = &mut self.scene.people[who];
        if person.stays {
            let pause = backoff(&mut person.random, person.tries);
            person.tries += 1;
            self.agenda.note(Instant::now() + pause, who, Act::Return);
        }
    }

    fn tell_the_stage(&mut self) {
        let counts = &mut self.scene.counts;
        let stage = self.stage;
        stage.delivered.store(counts.delivered + counts.sights + counts.announces, Relaxed);
        stage.published.store(counts.annotations + counts.moves, Relaxed);
        stage.present.store(self.swarm.open() as u64, Relaxed);
        stage.reconnects.store(counts.came_back, Relaxed);
        stage.take_in(&mut counts.recent, self.swarm.errors().total());
    }
}

/// Who has closed the page when the others are counted: every tenth, or the last of three or more.
fn goes_home(seat: u32, seats: u32) -> bool {
    if seats > GOES_HOME { seat % GOES_HOME == GOES_HOME - 1 } else { seats > 2 && seat == seats - 1 }
}

fn write_plan(settings: &Settings, room: &Room, seed: u64) -> anyhow::Result<()> {
    let plan = Grown::new(settings.document, seed);
    let mut planner = Visitor::open(&settings.target, Protocol::V1, room.document.clone())?;
    planner.join(&LoroDoc::new())?;
    planner.write(&plan.updates)?;
    planner.close();
    Ok(())
}

fn own_memory() -> Option<u64> {
    Process::own().ok()?.resident().ok()
}
