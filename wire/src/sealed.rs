//! `%ELO`: updates that only their readers can decrypt.
//!
//! Such an update is a container of records. Each has a header in the clear, which says what it covers, so that a
//! server can tell who lacks it, and a body that is AES-GCM ciphertext, with the header as additional data. Keys are
//! none of this module's business, and none of the server's.

use std::fmt;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::sync::Status;
use crate::varint::{self, ReadError, Reader};

/// The longest peer id in a header, in bytes.
pub const MAX_PEER: usize = 64;
/// The longest key id in a header, in bytes.
pub const MAX_KEY_ID: usize = 64;
/// How long a nonce is, in bytes.
pub const IV: usize = 12;

const SPAN: u8 = 0x00;
const SNAPSHOT: u8 = 0x01;

/// What is wrong with a container or a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SealedError {
    /// One of its fields.
    #[error(transparent)]
    Field(#[from] ReadError),
    /// A record that is neither a span nor a snapshot.
    #[error("record is of the unknown kind {0:#04x}")]
    UnknownKind(u8),
    /// A span that ends where it starts, or before.
    #[error("span from {start} to {end} is empty")]
    EmptySpan {
        /// Its first counter.
        start: u64,
        /// The counter after its last.
        end: u64,
    },
    /// A nonce of another length than [`IV`].
    #[error("nonce is {len} bytes, not {IV}")]
    BadIv {
        /// Its length in bytes.
        len: usize,
    },
    /// A peer id longer than [`MAX_PEER`].
    #[error("peer id is {len} bytes, limit is {MAX_PEER}")]
    PeerTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A key id longer than [`MAX_KEY_ID`].
    #[error("key id is {len} bytes, limit is {MAX_KEY_ID}")]
    KeyIdTooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// A snapshot's version that does not name its peers in the order of their bytes, each once.
    #[error("version of a snapshot is not in order")]
    Unordered,
}

impl SealedError {
    /// What to tell the sender of an update that holds this.
    pub fn status(&self) -> Status {
        Status::InvalidUpdate
    }
}

/// Reads the records of an update, each checked; what they hold are slices of `container`.
///
/// An error is the last item. Nothing is allocated for records that are not asked for.
pub fn records(container: &Bytes) -> Records<'_> {
    Records { reader: Reader::new(container), left: None, over: false }
}

/// Iterates over the [`records`] of an update.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    reader: Reader<'a>,
    /// How many are to come, once that has been read.
    left: Option<u64>,
    over: bool,
}

impl Records<'_> {
    fn advance(&mut self) -> Result<Option<Record>, SealedError> {
        let left = self.left.map_or_else(|| self.reader.number(), Ok)?;
        if left == 0 {
            self.reader.end()?;
            return Ok(None);
        }
        self.left = Some(left - 1);
        Record::parse(self.reader.bytes()?).map(Some)
    }
}

impl Iterator for Records<'_> {
    type Item = Result<Record, SealedError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let record = self.advance();
        self.over = !matches!(record, Ok(Some(_)));
        record.transpose()
    }
}

/// The update that holds these records, each as [`Record::encode`] or [`Record::bytes`] gave it.
pub fn container(records: &[impl AsRef<[u8]>]) -> Bytes {
    let len: usize = records.iter().map(|record| varint::run_len(record.as_ref().len())).sum();
    let mut out = BytesMut::with_capacity(varint::number_len(records.len() as u64) + len);
    varint::put_number(&mut out, records.len() as u64);
    records.iter().for_each(|record| varint::put_run(&mut out, record.as_ref()));
    out.freeze()
}

/// A record, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it covers.
    pub covers: Covers,
    /// Which key it is encrypted with, in the application's own terms; text of at most [`MAX_KEY_ID`] bytes.
    pub key_id: Bytes,
    /// The nonce.
    pub iv: [u8; IV],
    /// The header as it stands: the additional data of the encryption.
    pub header: Bytes,
    /// The ciphertext and its tag.
    pub ciphertext: Bytes,
    /// The whole record as it stands, for sending on in another [`container`].
    pub bytes: Bytes,
}

/// What a record covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Covers {
    /// Some changes of one peer.
    Span(Span),
    /// The whole document, at a version.
    Snapshot(Version),
}

/// A run of changes of one peer: not empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Who made them, at most [`MAX_PEER`] bytes. Published clients write the decimal digits of a Loro peer id.
    pub peer: Bytes,
    /// The counter of the first.
    pub start: u64,
    /// The counter after the last.
    pub end: u64,
}

/// How many changes of each peer a snapshot holds, in the order of the peers' bytes, each peer once.
#[derive(Clone, PartialEq, Eq)]
pub struct Version {
    count: usize,
    /// So many `varBytes` and `varUint`, and nothing else.
    body: Bytes,
}

impl Version {
    /// Each peer, and the counter after its last change.
    pub fn iter(&self) -> impl Iterator<Item = (Bytes, u64)> + '_ {
        let mut reader = Reader::new(&self.body);
        (0..self.count).map_while(move |_| Some((reader.bytes().ok()?, reader.number().ok()?)))
    }

    /// Of how many peers.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether it is of none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn read(reader: &mut Reader<'_>, record: &Bytes) -> Result<Self, SealedError> {
        let claimed = reader.number()?;
        let start = reader.at();
        let (mut count, mut before) = (0, None);
        while count as u64 != claimed {
            let peer = reader.run()?;
            check_peer(peer.len())?;
            reader.number()?;
            let peer = &record[peer];
            if before.is_some_and(|before| before >= peer) {
                return Err(SealedError::Unordered);
            }
            before = Some(peer);
            count += 1;
        }
        Ok(Self { count, body: record.slice(start..reader.at()) })
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Record {
    /// Reads one record, which must be all of `record`.
    pub fn parse(record: Bytes) -> Result<Self, SealedError> {
        let mut reader = Reader::new(&record);
        let covers = match reader.byte()? {
            SPAN => Covers::Span(Span::read(&mut reader)?),
            SNAPSHOT => Covers::Snapshot(Version::read(&mut reader, &record)?),
            unknown => return Err(SealedError::UnknownKind(unknown)),
        };
        let key_id = reader.text()?.len();
        if key_id > MAX_KEY_ID {
            return Err(SealedError::KeyIdTooLong { len: key_id });
        }
        let key_id = record.slice(reader.at() - key_id..reader.at());
        let iv = reader.run()?;
        let iv = record[iv.clone()].try_into().map_err(|_| SealedError::BadIv { len: iv.len() })?;
        let header = record.slice(..reader.at());
        let ciphertext = reader.bytes()?;
        reader.end()?;
        Ok(Self { covers, key_id, iv, header, ciphertext, bytes: record })
    }

    /// The record of this header, as [`span_header`] or [`snapshot_header`] gave it, and what was encrypted with it.
    pub fn encode(header: &[u8], ciphertext: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(header.len() + varint::run_len(ciphertext.len()));
        out.put_slice(header);
        varint::put_run(&mut out, ciphertext);
        out.freeze()
    }
}

impl Span {
    fn read(reader: &mut Reader<'_>) -> Result<Self, SealedError> {
        let (peer, start, end) = (reader.bytes()?, reader.number()?, reader.number()?);
        Self { peer, start, end }.checked()
    }

    fn checked(self) -> Result<Self, SealedError> {
        check_peer(self.peer.len())?;
        match (self.start, self.end) {
            (start, end) if end <= start => Err(SealedError::EmptySpan { start, end }),
            _ => Ok(self),
        }
    }
}

fn check_peer(len: usize) -> Result<(), SealedError> {
    if len > MAX_PEER { Err(SealedError::PeerTooLong { len }) } else { Ok(()) }
}

/// The header of a record that covers some changes of one peer, to be authenticated by the encryption.
pub fn span_header(span: &Span, key_id: &str, iv: [u8; IV]) -> Result<Bytes, SealedError> {
    let Span { peer, start, end } = span.clone().checked()?;
    let mut out = BytesMut::new();
    out.put_u8(SPAN);
    varint::put_run(&mut out, &peer);
    varint::put_number(&mut out, start);
    varint::put_number(&mut out, end);
    put_key(&mut out, key_id, iv)?;
    Ok(out.freeze())
}

/// The header of a record that covers the whole document, to be authenticated by the encryption. Peers are put in
/// order; of one that is named twice the higher counter counts.
pub fn snapshot_header<P: AsRef<[u8]>>(
    version: impl IntoIterator<Item = (P, u64)>,
    key_id: &str,
    iv: [u8; IV],
) -> Result<Bytes, SealedError> {
    let mut version: Vec<_> = version.into_iter().collect();
    version.sort_by(|(a, x), (b, y)| a.as_ref().cmp(b.as_ref()).then(y.cmp(x)));
    version.dedup_by(|(a, _), (b, _)| a.as_ref() == b.as_ref());
    let mut out = BytesMut::new();
    out.put_u8(SNAPSHOT);
    varint::put_number(&mut out, version.len() as u64);
    for (peer, counter) in version {
        check_peer(peer.as_ref().len())?;
        varint::put_run(&mut out, peer.as_ref());
        varint::put_number(&mut out, counter);
    }
    put_key(&mut out, key_id, iv)?;
    Ok(out.freeze())
}

fn put_key(out: &mut BytesMut, key_id: &str, iv: [u8; IV]) -> Result<(), SealedError> {
    if key_id.len() > MAX_KEY_ID {
        return Err(SealedError::KeyIdTooLong { len: key_id.len() });
    }
    varint::put_run(out, key_id.as_bytes());
    varint::put_run(out, &iv);
    Ok(())
}
