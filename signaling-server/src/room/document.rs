//! The part of a room that leaves it: [`Work`] on its document.
//!
//! A document is opened, imported into and exported from wherever the shell likes, since that may take long, and within
//! [`catch_unwind`], since Loro may panic. Meanwhile the room has no document, and queues.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::content::{Answer, Content, Job, Opening};
use super::relay::{Seq, Stored, parcel};
use super::replica::Replica;
use super::sealed::{Opaque, Sealed};

/// A job that reads or writes no more bytes than this takes well under a millisecond.
pub(super) const LIGHT: u64 = 64 << 10;
/// The most batches of a log that are left out before the room is given up.
const MOST_SET_ASIDE: usize = 16;

/// A document as a room keeps it.
#[derive(Debug)]
pub(super) enum Document {
    Imported(Replica),
    Opaque(Opaque),
    Sealed(Sealed),
}

/// How a room keeps its document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As a Loro document.
    Imported,
    /// As updates that nobody looks into.
    Opaque,
    /// As records that nobody can look into.
    Sealed,
}

impl Document {
    /// An empty one, of a room that may take so much.
    fn new(kind: Kind, most: u64) -> Self {
        match kind {
            Kind::Imported => Self::Imported(Replica::new(most)),
            Kind::Opaque => Self::Opaque(Opaque::default()),
            Kind::Sealed => Self::Sealed(Sealed::default()),
        }
    }

    /// Whether a job may take long enough for others to notice.
    fn is_heavy(&self, job: &Job) -> bool {
        match job {
            Job::Open(opening) => opening.len() > LIGHT,
            Job::Batch(batch) => batch.len as u64 > LIGHT,
            Job::Snapshot => true,
            Job::Join { version, .. } => match self {
                Self::Imported(replica) => replica.is_heavy_for(version),
                Self::Opaque(opaque) => opaque.is_heavy_for_newcomers(),
                Self::Sealed(sealed) => sealed.is_heavy_for_newcomers(),
            },
        }
    }

    fn perform(&mut self, job: &Job) -> Answer {
        match self {
            Self::Imported(replica) => replica.perform(job),
            Self::Opaque(opaque) => opaque.perform(job),
            Self::Sealed(sealed) => sealed.perform(job),
        }
    }

    /// Throws what it has away after a panic. Says where the log was being read.
    fn discard(&mut self) -> Option<Seq> {
        match self {
            Self::Imported(replica) => return replica.discard(),
            Self::Opaque(opaque) => *opaque = Opaque::default(),
            Self::Sealed(sealed) => *sealed = Sealed::default(),
        }
        None
    }
}

/// What is stored of a `%LOR` room as one update that any Loro library imports, and whether that is all: what waits for
/// updates that nobody has sent is not in it.
///
/// # Errors
///
/// In one line, if it cannot be read.
pub fn whole(stored: Stored) -> Result<(Bytes, bool), String> {
    let jobs = [Job::Open(Opening::new(stored)), Job::Snapshot];
    let done = Work::new(Box::new(Document::new(Kind::Imported, u64::MAX)), jobs.into()).run();
    let mut parts = Vec::new();
    for (_, answer) in done.settled {
        match answer {
            Answer::Unreadable(reason) => return Err(reason),
            Answer::Snapshot(snapshot) => parts = parcel::unpack(snapshot).unwrap_or_default(),
            _ => {}
        }
    }
    let is_all = parts.len() == 1;
    parts
        .into_iter()
        .next()
        .map(|document| (document, is_all))
        .ok_or_else(|| "the document breaks when it is read".into())
}

/// Jobs for a document, and the document.
#[derive(Debug)]
pub struct Work {
    document: Box<Document>,
    jobs: VecDeque<Job>,
}

/// The document, its answers, and perhaps what broke it.
#[derive(Debug)]
pub struct Done {
    /// `None` if it broke.
    pub(super) document: Option<Box<Document>>,
    pub(super) settled: Vec<(Job, Answer)>,
    /// What it broke over.
    pub(super) culprit: Option<Job>,
    /// What came after that.
    pub(super) rest: VecDeque<Job>,
}

impl Work {
    pub(super) fn new(document: Box<Document>, jobs: VecDeque<Job>) -> Self {
        Self { document, jobs }
    }

    /// Whether it may take more than a fraction of a millisecond, and so belongs on a thread that nobody waits for.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        const MANY_JOBS: usize = 64;
        self.jobs.len() > MANY_JOBS || self.jobs.iter().any(|job| self.document.is_heavy(job))
    }

    /// Does it. Panics of the document are caught here; each has been reported by the panic hook, which should not
    /// end the process. Needs unwinding panics.
    #[must_use]
    pub fn run(self) -> Box<Done> {
        let Self { mut document, mut jobs } = self;
        let mut settled = Vec::with_capacity(jobs.len());
        while let Some(job) = jobs.pop_front() {
            // The document is outside of the closure: one that is dropped while unwinding aborts the process.
            match catch_unwind(AssertUnwindSafe(|| document.perform(&job))) {
                Ok(answer) => settled.push((job, answer)),
                Err(_) => match open_without(&mut document, job) {
                    Ok(job) => jobs.push_front(job),
                    Err(culprit) => return Done::broken(settled, culprit, jobs),
                },
            }
        }
        Box::new(Done { document: Some(document), settled, culprit: None, rest: jobs })
    }
}

impl Done {
    fn broken(settled: Vec<(Job, Answer)>, culprit: Job, rest: VecDeque<Job>) -> Box<Self> {
        Box::new(Self { document: None, settled, culprit: Some(culprit), rest })
    }
}

/// After a panic: the job to try instead, if it was the log that panicked and there is hope, or else the job.
fn open_without(document: &mut Document, job: Job) -> Result<Job, Job> {
    let reading = document.discard();
    match (job, reading) {
        (Job::Open(mut opening), Some(culprit)) if opening.set_aside.len() < MOST_SET_ASIDE => {
            opening.set_aside.push(culprit);
            Ok(Job::Open(opening))
        }
        (job, _) => Err(job),
    }
}

impl Content {
    /// The document, to be worked on: an empty one if there is none yet, of a room that may take so much.
    pub(super) fn take_document(&mut self, most: u64) -> Option<Box<Document>> {
        let Self::Document { kind, home } = self else { return None };
        Some(home.take().unwrap_or_else(|| Box::new(Document::new(*kind, most))))
    }

    /// The document is back, if it is.
    pub(super) fn put_document(&mut self, document: Option<Box<Document>>) {
        if let Self::Document { home, .. } = self {
            *home = document;
        }
    }
}
