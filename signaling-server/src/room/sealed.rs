//! Logs that are never looked into: `%ELO` rooms, and `%LOR` rooms that are kept opaque.
//!
//! Both keep everything and hand it out as it came. A `%ELO` record says in the clear what it covers, so a newcomer
//! gets only what it lacks. Nobody vouches for what a record says: it may make its own writer miss something, but it
//! never takes the place of somebody else's record.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use loro::VersionVector;
use wire::fragment::FRAGMENT;
use wire::sealed::{self, Covers, Record};
use wire::sync::Status;

use super::content::{Answer, Job, Opening, Taken};
use super::document::LIGHT;
use super::relay::parcel;

/// A Loro peer. Other names of peers are passed on but appear in no version.
type Peer = u64;

/// The records of a `%ELO` room, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    records: Vec<Bytes>,
    /// What each record covers: nothing that could be compared, or some changes of some peers.
    covers: Vec<Vec<(Peer, u64)>>,
    coverage: HashMap<Peer, Coverage>,
    known: HashSet<Bytes>,
    /// Bytes of `records`.
    len: usize,
}

impl Sealed {
    /// Whether to look for what somebody lacks, and to copy it, may take long enough for others to notice.
    pub(super) fn is_heavy_for_newcomers(&self) -> bool {
        self.len as u64 > LIGHT
    }

    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match job {
            Job::Open(opening) => opened(opening, |update| self.add(update)),
            Job::Join { version, .. } => {
                Answer::Joined { version: self.version(), updates: self.missing(version) }
            }
            Job::Batch(batch) => Answer::Taken(taken(&batch.updates, |update| self.add(update))),
            Job::Snapshot => Answer::Snapshot(parcel::pack(&containers(&self.records))),
        }
    }

    /// Says whether there is something new in it.
    fn add(&mut self, update: &Bytes) -> Option<bool> {
        let records = sealed::records(update).collect::<Result<Vec<_>, _>>().ok()?;
        let mut news = false;
        for record in records {
            news |= self.add_record(&record);
        }
        Some(news)
    }

    fn add_record(&mut self, record: &Record) -> bool {
        // Published clients send a snapshot whenever they join with nothing to say.
        if matches!(record.covers, Covers::Snapshot(_)) && self.holds(&record.covers) {
            return false;
        }
        let bytes = Bytes::copy_from_slice(&record.bytes);
        if !self.known.insert(bytes.clone()) {
            return false;
        }
        let spans = spans(&record.covers);
        for (peer, start, end) in &spans {
            self.coverage.entry(*peer).or_default().add(*start, *end);
        }
        self.len += bytes.len();
        self.covers.push(spans.into_iter().map(|(peer, _, end)| (peer, end)).collect());
        self.records.push(bytes);
        true
    }

    /// Whether all that these cover is here, as records say.
    fn holds(&self, covers: &Covers) -> bool {
        let Covers::Snapshot(version) = covers else { return false };
        version.iter().all(|(peer, counter)| {
            let coverage = peer_id(&peer).and_then(|peer| self.coverage.get(&peer));
            counter == 0 || coverage.is_some_and(|coverage| coverage.unbroken() >= counter)
        })
    }

    /// How far each peer's changes are here without a hole.
    fn version(&self) -> Bytes {
        let ends = self.coverage.iter().filter_map(|(peer, coverage)| {
            let end = i32::try_from(coverage.unbroken()).ok().filter(|end| *end > 0)?;
            Some((*peer, end))
        });
        ends.collect::<VersionVector>().encode().into()
    }

    /// The records that somebody with this version lacks.
    fn missing(&self, version: &[u8]) -> Vec<Bytes> {
        let theirs = VersionVector::decode(version).unwrap_or_default();
        let lacks = |(peer, end): &(Peer, u64)| {
            let known = theirs.get(peer).map_or(0, |known| u64::try_from(*known).unwrap_or(0));
            *end > known
        };
        let records = self.records.iter().zip(&self.covers);
        let missing = records.filter(|(_, covers)| covers.is_empty() || covers.iter().any(lacks));
        containers(&missing.map(|(record, _)| record.clone()).collect::<Vec<_>>())
    }
}

/// What a record covers, as far as that can be compared.
fn spans(covers: &Covers) -> Vec<(Peer, u64, u64)> {
    match covers {
        Covers::Span(span) => {
            peer_id(&span.peer).map(|peer| (peer, span.start, span.end)).into_iter().collect()
        }
        Covers::Snapshot(version) => {
            version.iter().filter_map(|(peer, end)| Some((peer_id(&peer)?, 0, end))).collect()
        }
    }
}

fn peer_id(peer: &[u8]) -> Option<Peer> {
    std::str::from_utf8(peer).ok()?.parse().ok()
}

/// The records in as few updates as fit into a frame each.
fn containers(records: &[Bytes]) -> Vec<Bytes> {
    let mut containers = Vec::new();
    let mut rest = records;
    while !rest.is_empty() {
        let mut len = 0;
        let fit = rest.iter().take_while(|record| {
            len += record.len() + 5;
            len <= FRAGMENT - 16
        });
        let (now, later) = rest.split_at(fit.count().max(1));
        containers.push(sealed::container(now));
        rest = later;
    }
    containers
}

/// Which of one peer's changes are there: runs that neither overlap nor touch, in order.
#[derive(Debug, Default)]
struct Coverage {
    runs: Vec<(u64, u64)>,
}

impl Coverage {
    fn add(&mut self, start: u64, end: u64) {
        let first = self.runs.partition_point(|run| run.1 < start);
        let after = self.runs.partition_point(|run| run.0 <= end);
        let joined = self.runs[first..after]
            .iter()
            .fold((start, end), |run, other| (run.0.min(other.0), run.1.max(other.1)));
        self.runs.splice(first..after, [joined]);
    }

    /// How many there are before the first hole.
    fn unbroken(&self) -> u64 {
        self.runs.first().map_or(0, |run| if run.0 == 0 { run.1 } else { 0 })
    }
}

/// The updates of a `%LOR` room that is not looked into.
#[derive(Debug, Default)]
pub(super) struct Opaque {
    updates: Vec<Bytes>,
    /// Clients that are told of no version send everything each time they join.
    known: HashSet<Bytes>,
}

impl Opaque {
    /// Whether to list all that there is may take long enough for others to notice: nothing is copied.
    pub(super) fn is_heavy_for_newcomers(&self) -> bool {
        const MANY: usize = 4096;
        self.updates.len() > MANY
    }

    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match job {
            Job::Open(opening) => opened(opening, |update| self.add(update)),
            Job::Join { .. } => {
                Answer::Joined { version: Bytes::from_static(&[0]), updates: self.updates.clone() }
            }
            Job::Batch(batch) => Answer::Taken(taken(&batch.updates, |update| self.add(update))),
            Job::Snapshot => Answer::Snapshot(parcel::pack(&self.updates)),
        }
    }

    fn add(&mut self, update: &Bytes) -> Option<bool> {
        if !is_intact(update) {
            return None;
        }
        let update = Bytes::copy_from_slice(update);
        let news = self.known.insert(update.clone());
        if news {
            self.updates.push(update);
        }
        Some(news)
    }
}

/// Whether these are the bytes of a Loro update whose checksum is right.
fn is_intact(update: &[u8]) -> bool {
    const BODY: usize = 20;
    let Some((header, body)) = update.split_at_checked(BODY) else { return false };
    let Some((rest, checksum)) = header.split_last_chunk::<4>() else { return false };
    let seed = u32::from_le_bytes(*b"LORO");
    rest.starts_with(b"loro")
        && body.len() >= 2
        && xxhash_rust::xxh32::xxh32(body, seed) == u32::from_le_bytes(*checksum)
}

fn opened(opening: &Opening, add: impl FnMut(&Bytes) -> Option<bool>) -> Answer {
    match read(opening, add) {
        Ok(()) => Answer::Opened { set_aside: Vec::new() },
        Err(reason) => Answer::Unreadable(reason),
    }
}

fn read(opening: &Opening, mut add: impl FnMut(&Bytes) -> Option<bool>) -> Result<(), String> {
    for part in opening.snapshot()? {
        add(&part).ok_or("the stored snapshot is damaged")?;
    }
    for (seq, updates) in opening.log() {
        for update in updates? {
            add(&update).ok_or_else(|| format!("batch {} of the log is damaged", seq.0))?;
        }
    }
    Ok(())
}

fn taken(updates: &[Bytes], mut add: impl FnMut(&Bytes) -> Option<bool>) -> Taken {
    let mut news = false;
    for (index, update) in updates.iter().enumerate() {
        match add(update) {
            Some(new) => news |= new,
            None => return Taken { news, ..Taken::refused_after(index, Status::InvalidUpdate) },
        }
    }
    Taken { news, ..Taken::all(updates.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coverage_joins_what_touches_and_remembers_holes() {
        let mut coverage = Coverage::default();
        coverage.add(5, 8);
        assert_eq!(coverage.unbroken(), 0);
        coverage.add(0, 3);
        assert_eq!(coverage.unbroken(), 3);
        coverage.add(10, 12);
        coverage.add(3, 5);
        assert_eq!(coverage.runs, [(0, 8), (10, 12)]);
        coverage.add(2, 20);
        assert_eq!(coverage.runs, [(0, 20)]);
        coverage.add(0, 1);
        assert_eq!(coverage.runs, [(0, 20)]);
    }

    #[test]
    fn containers_fit_into_frames_and_lose_nothing() {
        let record =
            Record::encode(&sealed::snapshot_header([("1", 1)], "k", [0; 12]).unwrap(), &[7; 50_000]);
        let records = vec![record; 20];
        let containers = containers(&records);
        assert!(containers.iter().all(|container| container.len() <= FRAGMENT));
        let back: usize = containers.iter().map(|container| sealed::records(container).count()).sum();
        assert_eq!((containers.len(), back), (5, 20));
    }

    #[test]
    fn an_update_is_intact_if_its_checksum_is() {
        let doc = loro::LoroDoc::new();
        doc.get_text("t").insert(0, "hi").unwrap();
        let update = doc.export(loro::ExportMode::all_updates()).unwrap();
        assert!(is_intact(&update));
        for at in 0..update.len() {
            let mut damaged = update.clone();
            damaged[at] ^= 1;
            // Twelve bytes of the header mean nothing.
            assert_eq!(is_intact(&damaged), (4..16).contains(&at), "byte {at}");
            assert!(!is_intact(&update[..at]));
        }
    }
}
