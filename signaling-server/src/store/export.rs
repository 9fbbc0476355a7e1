//! A room as a file, to keep, to carry elsewhere, or to look into with ordinary tools.
//!
//! The file is text, one JSON object a line, each with one key that says what the line is:
//!
//! ```text
//! {"room":{"format":1,"crdt":"%LOR","id":"plan","exported_at":"2026-01-31T12:00:00Z"}}
//! {"snapshot":{"payload":"bG9ybw…"}}
//! {"batch":{"seq":17,"stored_at":"2026-01-31T11:59:58.250Z","author":"ana","id":"00000000000000a1","kind":0,"payload":"…"}}
//! {"end":{"batches":1}}
//! ```
//!
//! `room` comes first, `snapshot` is missing if there is none, a `batch` stands for each batch of the log in its
//! order, and `end` is last, so that a file that was cut short is found out. Payloads are base64, in the standard
//! alphabet with padding, and are what the store holds byte for byte: the payload of a batch of kind 0 is one update; a
//! batch of kind 1 and a snapshot hold several, each behind its length in eight bytes, the lowest first.

use std::io::{self, BufRead, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use wire::sync::{Crdt, Room};
use wire::{BatchId, RoomId};

use super::{Author, Batch, Generation, Kind, Loaded, Logged, MAX_AUTHOR, RoomSize, Seq};

/// What this server writes, and the newest that it reads.
const FORMAT: u32 = 1;

/// A room read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exported {
    /// Which room it was.
    pub room: Room,
    /// What it held; its generation means nothing here.
    pub loaded: Loaded,
}

/// Why a file is not read as a room.
#[derive(Debug, Error)]
pub enum ExportError {
    /// It can not be read at all.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is from a newer server.
    #[error("format is {0}, this server reads up to {FORMAT}")]
    Newer(u32),
    /// A line is not what it should be.
    #[error("line {line}: {problem}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// It ends before its end.
    #[error("file ends after line {lines}, without its end")]
    CutShort {
        /// How many lines there are.
        lines: usize,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Room { format: u32, crdt: String, id: String, exported_at: String },
    Snapshot { payload: String },
    Batch { seq: u32, stored_at: String, author: String, id: String, kind: u8, payload: String },
    End { batches: u64 },
}

/// Writes a room.
///
/// # Errors
///
/// Those of `out`.
pub fn write(out: &mut impl Write, room: &Room, loaded: &Loaded, now: SystemTime) -> io::Result<()> {
    let mut put = |line: &Line| {
        serde_json::to_writer(&mut *out, line)?;
        out.write_all(b"\n")
    };
    put(&Line::Room {
        format: FORMAT,
        crdt: String::from_utf8_lossy(&room.crdt.magic()).into_owned(),
        id: room.id.as_str().to_owned(),
        exported_at: humantime::format_rfc3339_seconds(now).to_string(),
    })?;
    if let Some(snapshot) = &loaded.snapshot {
        put(&Line::Snapshot { payload: STANDARD.encode(snapshot) })?;
    }
    for logged in &loaded.log {
        put(&line(logged))?;
    }
    put(&Line::End { batches: loaded.log.len() as u64 })
}

fn line(logged: &Logged) -> Line {
    let Logged { seq, stored_at, batch } = logged;
    Line::Batch {
        seq: seq.0,
        stored_at: humantime::format_rfc3339_millis(*stored_at).to_string(),
        author: batch.author.as_str().to_owned(),
        id: batch.id.to_string(),
        kind: batch.kind.0,
        payload: STANDARD.encode(&batch.payload),
    }
}

/// Reads a room.
///
/// # Errors
///
/// At the first line that is not as it should be; a file with anything missing is refused.
pub fn read(file: impl BufRead) -> Result<Exported, ExportError> {
    let mut reading = Reading::default();
    for (index, text) in file.lines().enumerate() {
        let problem = |problem: String| ExportError::Line { line: index + 1, problem };
        let line = serde_json::from_str(&text?).map_err(|error| problem(error.to_string()))?;
        if let Line::Room { format, .. } = line
            && format > FORMAT
        {
            return Err(ExportError::Newer(format));
        }
        reading.take(line).map_err(problem)?;
        reading.lines = index + 1;
    }
    match reading {
        Reading { room: Some(room), has_ended: true, snapshot, log, .. } => {
            let size = RoomSize {
                snapshot: snapshot.as_ref().map_or(0, |snapshot| snapshot.len() as u64),
                log: log.iter().map(|logged| logged.batch.weight()).sum(),
                batches: log.len() as u64,
            };
            let loaded = Loaded { generation: Generation(0), snapshot, log, size };
            Ok(Exported { room, loaded })
        }
        Reading { lines, .. } => Err(ExportError::CutShort { lines }),
    }
}

#[derive(Default)]
struct Reading {
    room: Option<Room>,
    snapshot: Option<Bytes>,
    log: Vec<Logged>,
    has_ended: bool,
    lines: usize,
}

impl Reading {
    fn take(&mut self, line: Line) -> Result<(), String> {
        match line {
            _ if self.has_ended => Err("it comes after the end".to_owned()),
            Line::Room { crdt, id, .. } if self.room.is_none() => {
                self.room = Some(room(&crdt, &id)?);
                Ok(())
            }
            _ if self.room.is_none() => Err("expected \"room\" first".to_owned()),
            Line::Room { .. } => Err("there is a second \"room\"".to_owned()),
            Line::Snapshot { payload } if self.snapshot.is_none() && self.log.is_empty() => {
                self.snapshot = Some(decoded(&payload)?);
                Ok(())
            }
            Line::Snapshot { .. } => Err("expected \"snapshot\" once, before any \"batch\"".to_owned()),
            Line::Batch { seq, stored_at, author, id, kind, payload } => {
                let logged = Logged {
                    seq: self.following(seq)?,
                    stored_at: time(&stored_at)?,
                    batch: Batch {
                        author: whole_author(&author)?,
                        id: batch_id(&id)?,
                        kind: Kind(kind),
                        payload: decoded(&payload)?,
                    },
                };
                self.log.push(logged);
                Ok(())
            }
            Line::End { batches } if batches == self.log.len() as u64 => {
                self.has_ended = true;
                Ok(())
            }
            Line::End { batches } => {
                Err(format!("expected {batches} batches before it, found {}", self.log.len()))
            }
        }
    }

    fn following(&self, seq: u32) -> Result<Seq, String> {
        let last = self.log.last().map_or(Seq::ZERO, |logged| logged.seq);
        match Seq(seq) {
            // The place after it has to be one, too.
            seq if seq > last && seq < Seq(u32::MAX) => Ok(seq),
            seq => Err(format!("seq is {seq}, after {last}")),
        }
    }
}

fn room(crdt: &str, id: &str) -> Result<Room, String> {
    let known = Crdt::ALL.into_iter().find(|known| known.magic() == crdt.as_bytes());
    let crdt = known.ok_or_else(|| format!("crdt is {crdt:?}, which is no kind of room"))?;
    Ok(Room { crdt, id: RoomId::try_from(id).map_err(|error| error.to_string())? })
}

fn whole_author(text: &str) -> Result<Author, String> {
    match text.len() {
        0..=MAX_AUTHOR => Ok(Author::from(text)),
        len => Err(format!("author is {len} bytes, limit is {MAX_AUTHOR}")),
    }
}

fn batch_id(text: &str) -> Result<BatchId, String> {
    let number = (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok()).flatten();
    number.map(BatchId::from).ok_or_else(|| format!("id is {text:?}, expected 16 hexadecimal digits"))
}

fn decoded(payload: &str) -> Result<Bytes, String> {
    STANDARD.decode(payload).map(Bytes::from).map_err(|error| format!("payload is no base64: {error}"))
}

/// A time that the store can keep: in whole milliseconds, since 1970.
fn time(text: &str) -> Result<SystemTime, String> {
    let time = humantime::parse_rfc3339(text).map_err(|error| format!("stored_at is {text:?}: {error}"))?;
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_millis() * 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exported() -> Exported {
        let batch = |id, text: &'static [u8]| Batch {
            author: Author::from("ana \u{1f98a}\n"),
            id: BatchId::from(id),
            kind: Kind(3),
            payload: Bytes::from_static(text),
        };
        let at = UNIX_EPOCH + Duration::from_millis(1_769_860_800_250);
        let logged = |seq, batch: Batch| Logged { seq: Seq(seq), stored_at: at, batch };
        let log = vec![logged(2, batch(1, b"\0one")), logged(5, batch(u64::MAX, b""))];
        let size = RoomSize { snapshot: 8, log: 4 + 2 * super::super::BATCH_OVERHEAD, batches: 2 };
        let snapshot = Some(Bytes::from_static(b"snapshot"));
        let room = Room { crdt: Crdt::Sealed, id: RoomId::try_from("a \"room\"\u{1}").unwrap() };
        Exported { room, loaded: Loaded { generation: Generation(0), snapshot, log, size } }
    }

    fn written(exported: &Exported) -> String {
        let mut file = Vec::new();
        write(&mut file, &exported.room, &exported.loaded, UNIX_EPOCH).unwrap();
        String::from_utf8(file).unwrap()
    }

    #[test]
    fn a_room_comes_back_as_it_was() {
        let room = exported();
        assert_eq!(read(written(&room).as_bytes()).unwrap(), room);
        let bare = Exported {
            loaded: Loaded { snapshot: None, log: Vec::new(), size: RoomSize::default(), ..room.loaded },
            ..room
        };
        assert_eq!(read(written(&bare).as_bytes()).unwrap(), bare);
    }

    #[test]
    fn the_file_is_as_documented() {
        let file = written(&exported());
        let lines: Vec<&str> = file.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"room":{"format":1,"crdt":"%ELO","id":"a \"room\"\u0001","exported_at":"1970-01-01T00:00:00Z"}}"#
        );
        assert_eq!(lines[1], r#"{"snapshot":{"payload":"c25hcHNob3Q="}}"#);
        assert_eq!(
            lines[2],
            r#"{"batch":{"seq":2,"stored_at":"2026-01-31T12:00:00.250Z","author":"ana 🦊\n","id":"0000000000000001","kind":3,"payload":"AG9uZQ=="}}"#
        );
        assert_eq!(lines[4], r#"{"end":{"batches":2}}"#);
    }

    #[test]
    fn a_file_that_was_cut_short_anywhere_is_refused() {
        let file = written(&exported());
        // Without the last newline nothing is missing.
        for len in 0..file.len() - 1 {
            let Some(start) = file.get(..len) else { continue };
            assert!(read(start.as_bytes()).is_err(), "{len}");
        }
    }

    #[test]
    fn a_line_that_is_not_as_it_should_be_is_named() {
        let file = written(&exported());
        for (from, to, problem) in [
            (r#""format":1"#, r#""format":2"#, "format is 2, this server reads up to 1"),
            ("%ELO", "%XYZ", "line 1: crdt is \"%XYZ\", which is no kind of room"),
            ("c25hcHNob3Q=", "?", "line 2: payload is no base64: Invalid symbol 63, offset 0."),
            (r#""seq":5"#, r#""seq":2"#, "line 4: seq is 2, after 2"),
            (r#""seq":5"#, r#""seq":4294967295"#, "line 4: seq is 4294967295, after 2"),
            ("0000000000000001", "1", "line 3: id is \"1\", expected 16 hexadecimal digits"),
            (r#""batches":2"#, r#""batches":3"#, "line 5: expected 3 batches before it, found 2"),
            ("{\"end\"", "{}\n{\"end\"", "line 5: expected value at line 1 column 2"),
        ] {
            let changed = file.replacen(from, to, 1);
            assert_ne!(changed, file, "{from}");
            assert_eq!(read(changed.as_bytes()).unwrap_err().to_string(), problem);
        }
    }
}
