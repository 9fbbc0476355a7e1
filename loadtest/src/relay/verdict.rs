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
    /// Edits that were acknowledged and that a document has not, or cannot show since it lacks an earlier one.
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
        let written = self.all_that_was_written(books, room);
        for who in members {
            let document = books.members[*who].author.document();
            self.import(document, &books.updates_of(*who));
            self.compare(books, members, &written, document);
        }
        if settings.newcomer {
            match newcomer(settings, room) {
                Ok(document) => self.compare(books, members, &written, &document),
                Err(error) => self.broken.push(format!("a newcomer got no document: {error:#}")),
            }
        }
    }

    /// What everybody should have, put together from the authors themselves.
    fn all_that_was_written(&mut self, books: &Books, room: &Room) -> LoroDoc {
        let written = LoroDoc::new();
        let authors = books.members.iter().filter(|member| member.room == *room);
        let own: Vec<_> = authors.map(|member| member.author.everything()).collect();
        self.import(&written, &own);
        written
    }

    fn import(&mut self, document: &LoroDoc, updates: &[Vec<u8>]) {
        if let Err(error) = document.import_batch(updates) {
            self.broken.push(format!("what a reader received cannot be imported: {error}"));
        }
    }

    fn compare(&mut self, books: &Books, members: &[usize], written: &LoroDoc, document: &LoroDoc) {
        self.documents += 1;
        self.unequal += u64::from(!document::equal(written, document));
        let version = document.oplog_vv();
        for who in members {
            let has = version.get(&books.members[*who].author.peer()).copied().unwrap_or(0);
            let promised = books.promised(*who);
            self.missing += promised.saturating_sub(usize::try_from(has).unwrap_or(0)) as u64;
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
            report.fail(format!("{} documents differ from what was written", self.unequal));
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
