//! The part of a `%LOR` room that leaves the room: [`Work`] on its document.
//!
//! A document is imported into and exported from wherever the shell likes, since that may take long, and within
//! [`catch_unwind`], since it may panic. Meanwhile the room has no document, and queues.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use super::content::{Answer, Content, Job, Opening};
use super::relay::{Stored, parcel};
use super::replica::Replica;

/// The most batches of a log that are left out before the room is given up.
const MOST_SET_ASIDE: usize = 16;

/// What is stored of a `%LOR` room as one update that any Loro library imports, and whether that is all: what waits for
/// updates that nobody has sent is not in it.
///
/// # Errors
///
/// In one line, if it cannot be read.
pub fn whole(stored: Stored) -> Result<(Bytes, bool), String> {
    let jobs = [Job::Open(Opening::new(stored)), Job::Snapshot];
    let done = Work::new(Box::new(Replica::new(u64::MAX)), jobs.into()).run();
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
    replica: Box<Replica>,
    jobs: VecDeque<Job>,
}

/// The document, its answers, and perhaps what broke it.
#[derive(Debug)]
pub struct Done {
    /// `None` if it broke.
    pub(super) replica: Option<Box<Replica>>,
    pub(super) settled: Vec<(Job, Answer)>,
    /// What it broke over.
    pub(super) culprit: Option<Job>,
    /// What came after that.
    pub(super) rest: VecDeque<Job>,
}

impl Work {
    pub(super) fn new(replica: Box<Replica>, jobs: VecDeque<Job>) -> Self {
        Self { replica, jobs }
    }

    /// Whether it may take more than a fraction of a millisecond, and so belongs on a thread that nobody waits for.
    #[must_use]
    pub fn is_heavy(&self) -> bool {
        const MANY_JOBS: usize = 64;
        self.jobs.len() > MANY_JOBS || self.jobs.iter().any(|job| self.replica.is_heavy(job))
    }

    /// Does it. Panics of the document are caught here; each has been reported by the panic hook, which should not
    /// end the process. Needs unwinding panics.
    #[must_use]
    pub fn run(self) -> Box<Done> {
        let Self { mut replica, mut jobs } = self;
        let mut settled = Vec::with_capacity(jobs.len());
        while let Some(job) = jobs.pop_front() {
            // The document is outside of the closure: one that is dropped while unwinding aborts the process.
            match catch_unwind(AssertUnwindSafe(|| replica.perform(&job))) {
                Ok(answer) => settled.push((job, answer)),
                Err(_) => match open_without(&mut replica, job) {
                    Ok(job) => jobs.push_front(job),
                    Err(culprit) => return Done::broken(settled, culprit, jobs),
                },
            }
        }
        Box::new(Done { replica: Some(replica), settled, culprit: None, rest: jobs })
    }
}

impl Done {
    fn broken(settled: Vec<(Job, Answer)>, culprit: Job, rest: VecDeque<Job>) -> Box<Self> {
        Box::new(Self { replica: None, settled, culprit: Some(culprit), rest })
    }
}

/// After a panic: the job to try instead, if it was the log that panicked and there is hope, or else the job.
fn open_without(replica: &mut Replica, job: Job) -> Result<Job, Job> {
    let reading = replica.discard();
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
    pub(super) fn take_replica(&mut self, most: u64) -> Box<Replica> {
        let home = if let Self::Document(replica) = self { replica.take() } else { None };
        home.unwrap_or_else(|| Box::new(Replica::new(most)))
    }

    /// The document is back, if it is.
    pub(super) fn put_replica(&mut self, home: Option<Box<Replica>>) {
        if let Self::Document(replica) = self {
            *replica = home;
        }
    }
}
