//! The end of a run: every reader's document is made, and all documents of a room must be the same.

use loro::LoroDoc;
use wire::sync::Room;

use super::{Settings, books::Books, document, visitor::Visitor};
use crate::report::Report;

/// What the documents say.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    documents: u64,
    unequal: u64,
    /// Edits that were acknowledged and are missing in a document, counted once for each.
    missing: u64,
    broken: Vec<String>,
}

impl Verdict {
    /// Imports what the members in `open` received into their own documents and compares them room by room, with
    /// what a newcomer gets as well.
    pub(super) fn of(settings: &Settings, books: &Books, open: &[usize]) -> Self {
        let mut verdict = Self::default();
        for first in 0..settings.rooms {
            let here = |who: &&usize| books.members[**who].number % settings.rooms == first;
            let members: Vec<_> = open.iter().filter(here).copied().collect();
            if let Some(one) = members.first() {
                verdict.room(settings, books, &members, &books.members[*one].room);
            }
        }
        verdict
    }

    fn room(&mut self, settings: &Settings, books: &Books, members: &[usize], room: &Room) {
        let mut model: Option<LoroDoc> = None;
        for who in members {
            let document = books.members[*who].author.document().clone();
            if let Err(error) = document.import_batch(&books.updates_of(*who)) {
                self.broken.push(format!("what a reader received cannot be imported: {error}"));
            }
            self.compare(books, members, &mut model, document);
        }
        if settings.newcomer {
            match newcomer(settings, room) {
                Ok(document) => self.compare(books, members, &mut model, document),
                Err(error) => self.broken.push(format!("a newcomer got no document: {error:#}")),
            }
        }
    }

    fn compare(&mut self, books: &Books, members: &[usize], model: &mut Option<LoroDoc>, document: LoroDoc) {
        self.documents += 1;
        let version = document.oplog_vv();
        for who in members {
            let has = version.get(&books.members[*who].author.peer()).copied().unwrap_or(0);
            let promised = books.promised(*who);
            self.missing += promised.saturating_sub(usize::try_from(has).unwrap_or(0)) as u64;
        }
        match model {
            Some(model) => self.unequal += u64::from(!document::equal(model, &document)),
            None => *model = Some(document),
        }
    }

    /// Adds the figures to `report`.
    pub(super) fn describe(&self, report: &mut Report) {
        report.count("documents_compared", self.documents);
        report.count("documents_unequal", self.unequal);
        report.count("acked_edits_missing", self.missing);
    }

    /// Says in `report` what of this makes a run a failed one.
    pub(super) fn judge(&self, report: &mut Report) {
        if self.unequal > 0 {
            report.fail(format!("{} documents differ from the others of their room", self.unequal));
        }
        if self.missing > 0 {
            report.fail(format!("{} acknowledged edits are missing in a document", self.missing));
        }
        self.broken.iter().for_each(|broken| report.fail(broken.clone()));
    }
}

fn newcomer(settings: &Settings, room: &Room) -> anyhow::Result<LoroDoc> {
    let document = LoroDoc::new();
    let mut visitor = Visitor::open(settings, room.clone())?;
    visitor.join(&document)?;
    visitor.close();
    Ok(document)
}
