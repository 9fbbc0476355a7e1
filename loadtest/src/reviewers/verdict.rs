//! The end of a day: is everything in place, and is it right?

use loro::LoroDoc;

use super::{
    author::shows,
    person::Person,
    room::{Piece, Room},
    scene::Scene,
};
use crate::{relay::document::equal, report::Report};

/// Of each kind of fault, so many are told in full; all are counted.
const TOLD: usize = 3;

impl Scene {
    /// Whether everybody who is to be there is there, has everything, has all acks, and sees everybody.
    pub(super) fn is_settled(&self) -> bool {
        self.people.iter().all(|person| !person.stays || self.is_in_place(person))
    }

    fn is_in_place(&self, person: &Person) -> bool {
        let room = &self.rooms[person.room];
        let has_all = || (0..room.seats()).all(|seat| person.holds.of(seat) >= room.promised_by(seat));
        person.is_present()
            && person.owed.is_none()
            && person.unacked.is_empty()
            && has_all()
            && self.misjudged(person).next().is_none()
    }

    /// The seats about which somebody is wrong, and whether it sees them.
    fn misjudged(&self, person: &Person) -> impl Iterator<Item = (u32, bool)> {
        let own = person.seat;
        let room = &self.rooms[person.room];
        let seats = (0..).zip(&room.members).filter(move |(seat, _)| *seat != own);
        let seen = seats.map(|(seat, who)| (seat, person.sees_seat(seat), self.people[*who].is_present()));
        seen.filter(|(_, sees, there)| sees != there).map(|(seat, sees, _)| (seat, sees))
    }
}

/// What is wrong at the end.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    documents: u64,
    unequal: u64,
    /// Annotations that were acknowledged and that a document does not show.
    lost: u64,
    /// Annotations that nobody knows the fate of.
    unacked: u64,
    /// Those who are seen and have left.
    ghosts: u64,
    /// Those who are there and are not seen.
    unseen: u64,
    /// Those who never got in, or never got all.
    stuck: u64,
    told: Vec<String>,
}

impl Verdict {
    /// Makes everybody's document from what each has received, and compares.
    pub(super) fn of(scene: &Scene, seed: u64) -> Self {
        let mut verdict = Self::default();
        for (nth, room) in scene.rooms.iter().enumerate() {
            verdict.room(scene, room, &format!("room {nth}, seed {seed}"));
        }
        for disorder in &scene.disorder {
            verdict.told.push(format!("seed {seed}, {disorder}"));
        }
        verdict
    }

    fn room(&mut self, scene: &Scene, room: &Room, label: &str) {
        let here: Vec<_> = scene
            .people
            .iter()
            .filter(|person| std::ptr::eq(&scene.rooms[person.room], room) && person.stays)
            .collect();
        let expected = self.whole(room, label);
        for person in here {
            let name = name(person);
            if !person.is_present() || person.owed.is_some() {
                self.stuck += 1;
                let has =
                    if person.is_present() { "never got all that the server has" } else { "is not let in" };
                self.tell(self.stuck, format!("{label}: {name} {has}"));
                continue;
            }
            self.unacked += person.unacked.len() as u64;
            if !person.unacked.is_empty() {
                let count = person.unacked.len();
                self.tell(
                    self.unacked,
                    format!("{label}: {count} annotations of {name} were never acknowledged"),
                );
            }
            self.document(room, person, &expected, label);
            self.presence(scene, person, label);
        }
    }

    /// What everybody should have: all that anybody received or wrote, and the server kept.
    fn whole(&mut self, room: &Room, label: &str) -> LoroDoc {
        let whole = LoroDoc::new();
        let all = room.all_pieces();
        let updates: Vec<_> = all.map(|piece| room.bytes(piece).to_vec()).collect();
        if let Err(error) = whole.import_batch(&updates) {
            self.told.push(format!("{label}: what came cannot be imported: {error}"));
        }
        whole
    }

    fn document(&mut self, room: &Room, person: &Person, expected: &LoroDoc, label: &str) {
        let document = LoroDoc::new();
        let updates: Vec<_> =
            person.received.iter().map(|piece: &Piece| room.bytes(*piece).to_vec()).collect();
        if let Err(error) = document.import_batch(&updates) {
            let name = name(person);
            self.told.push(format!("{label}: what {name} received cannot be imported: {error}"));
        }
        self.documents += 1;
        let mut missing = room
            .annotations
            .iter()
            .filter(|annotation| annotation.acked && !shows(&document, annotation.seat, annotation.sequence));
        if let Some(first) = missing.next() {
            let count = 1 + missing.count() as u64;
            self.lost += count;
            let (name, seat, sequence) = (name(person), first.seat, first.sequence);
            self.tell(
                self.lost,
                format!(
                    "{label}: {name} lacks {count} acknowledged annotations, the first is number {sequence} of reviewer {seat}"
                ),
            );
        }
        if !equal(&document, expected) {
            self.unequal += 1;
            self.tell(
                self.unequal,
                format!("{label}: the document of {} is not that of the others", name(person)),
            );
        }
    }

    fn presence(&mut self, scene: &Scene, person: &Person, label: &str) {
        for (seat, sees) in scene.misjudged(person) {
            let count = if sees { &mut self.ghosts } else { &mut self.unseen };
            *count += 1;
            let count = *count;
            let what =
                if sees { "sees reviewer {seat}, who has left" } else { "does not see reviewer {seat}" };
            let what = what.replace("{seat}", &seat.to_string());
            self.tell(count, format!("{label}: {} {what}", name(person)));
        }
    }

    /// Tells a fault if it is one of the first of its kind.
    fn tell(&mut self, count: u64, fault: String) {
        if count <= TOLD as u64 || self.told.is_empty() {
            self.told.push(fault);
        }
    }

    /// Adds the figures to `report`.
    pub(super) fn describe(&self, report: &mut Report) {
        report.count("documents_compared", self.documents);
        report.count("documents_unequal", self.unequal);
        report.count("lost", self.lost);
        report.count("acks_missing", self.unacked);
        report.count("ghosts", self.ghosts);
        report.count("unseen", self.unseen);
        report.count("stuck", self.stuck);
    }

    /// Says in `report` what of this makes a run a failed one.
    pub(super) fn judge(&self, report: &mut Report) {
        for (count, what) in [
            (self.lost, "acknowledged annotations are missing in a document"),
            (self.unequal, "documents differ from the others of their room"),
            (self.unacked, "annotations were never acknowledged"),
            (self.ghosts, "times somebody is seen who has left"),
            (self.unseen, "times somebody is not seen who is there"),
            (self.stuck, "reviewers were not let in, or did not get everything"),
        ] {
            if count > 0 {
                report.fail(format!("{count} {what}"));
            }
        }
        self.told.iter().for_each(|fault| report.fail(fault.clone()));
        if self.documents == 0 {
            report.fail("no document could be looked at".to_owned());
        }
    }
}

fn name(person: &Person) -> String {
    if person.newcomer { "a newcomer".to_owned() } else { format!("reviewer {}", person.seat) }
}
