//! The bytes of a Loro `EphemeralStore`: postcard of a list of entries, each a key, perhaps a value, and the
//! millisecond at which its author says it was set.
//!
//! They are cut apart and never decoded further: a value that a later version of Loro may know is not ours to judge,
//! except that it has to end where its entry does.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Values may be nested so deep, as in Loro.
const MAX_DEPTH: usize = 512;
/// The latest time that JavaScript can count to in milliseconds, but one, so that there is always one past it: to
/// delete the entry with, and to be sent back to us by those who were told.
pub(super) const MAX_STAMP: i64 = (1 << 53) - 2;

/// One entry, as a slice of what it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: Bytes,
    /// Whether it says that the key is gone.
    pub(super) deleted: bool,
    pub(super) stamp: i64,
    /// All of it.
    pub(super) bytes: Bytes,
    /// How much of it comes before the stamp, which is last.
    head: usize,
}

/// Bytes that are no entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no presence that could be read at byte {at}")]
pub(super) struct Malformed {
    at: usize,
}

/// The entries of an update. Takes time and memory in proportion to its length.
pub(super) fn parse(update: &Bytes) -> Result<Vec<Entry>, Malformed> {
    let mut reader = Reader { whole: update, at: 0 };
    if update.is_empty() {
        return Ok(Vec::new());
    }
    let count = reader.number()?;
    let mut entries = Vec::new();
    // Each takes four bytes at least, so the count can keep us here no longer than the bytes last.
    while entries.len() as u64 != count {
        entries.push(reader.entry()?);
    }
    if reader.at == update.len() { Ok(entries) } else { Err(reader.malformed()) }
}

/// The update that holds these entries.
pub(super) fn join<'a>(entries: impl ExactSizeIterator<Item = &'a Bytes>) -> Bytes {
    let mut out = BytesMut::new();
    put_number(&mut out, entries.len() as u64);
    entries.for_each(|entry| out.put_slice(entry));
    out.freeze()
}

/// The entry that deletes this one.
pub(super) fn deletion(entry: &Entry) -> Entry {
    let stamp = entry.stamp + 1;
    let mut out = BytesMut::new();
    put_number(&mut out, entry.key.len() as u64);
    let key = out.len()..out.len() + entry.key.len();
    out.put_slice(&entry.key);
    out.put_u8(0);
    let head = out.len();
    put_stamp(&mut out, stamp);
    let bytes = out.freeze();
    Entry { key: bytes.slice(key), deleted: true, stamp, bytes, head }
}

impl Entry {
    /// The same, as if it had been set then.
    pub(super) fn stamped(&self, stamp: i64) -> Self {
        let mut out = BytesMut::from(&self.bytes[..self.head]);
        put_stamp(&mut out, stamp);
        let key = self.key_range();
        let bytes = out.freeze();
        Self { key: bytes.slice(key), deleted: self.deleted, stamp, bytes, head: self.head }
    }

    /// The same in bytes of its own, so that it keeps no frame alive.
    pub(super) fn detached(self) -> Self {
        let bytes = Bytes::copy_from_slice(&self.bytes);
        Self { key: bytes.slice(self.key_range()), bytes, ..self }
    }

    /// Where in its bytes the key stands.
    fn key_range(&self) -> Range<usize> {
        let start = self.key.as_ptr() as usize - self.bytes.as_ptr() as usize;
        start..start + self.key.len()
    }
}

struct Reader<'a> {
    whole: &'a Bytes,
    at: usize,
}

impl Reader<'_> {
    fn malformed(&self) -> Malformed {
        Malformed { at: self.at }
    }

    fn entry(&mut self) -> Result<Entry, Malformed> {
        let start = self.at;
        let key = self.text()?;
        let deleted = match self.byte()? {
            0 => true,
            1 => {
                self.value()?;
                false
            }
            _ => return Err(self.malformed()),
        };
        let head = self.at - start;
        let stamp = self.signed()?;
        let latest = if deleted { MAX_STAMP + 1 } else { MAX_STAMP };
        if !(0..=latest).contains(&stamp) {
            return Err(self.malformed());
        }
        Ok(Entry { key, deleted, stamp, bytes: self.whole.slice(start..self.at), head })
    }

    /// Passes over one value, those within it included.
    fn value(&mut self) -> Result<(), Malformed> {
        // For each list or map around the present value: how many are left in it, and whether each has a key.
        let mut around: Vec<(u64, bool)> = vec![(1, false)];
        while let Some((left, keyed)) = around.last_mut() {
            if *left == 0 {
                around.pop();
                continue;
            }
            *left -= 1;
            if *keyed {
                self.text()?;
            }
            if let Some(within) = self.scalar()? {
                if around.len() > MAX_DEPTH {
                    return Err(self.malformed());
                }
                around.push(within);
            }
        }
        Ok(())
    }

    /// Passes over a value, up to what is within it: how many, and whether each has a key.
    fn scalar(&mut self) -> Result<Option<(u64, bool)>, Malformed> {
        match self.byte()? {
            0 => {}
            1 => self.flag()?,
            2 => self.skip(8)?,
            3 => drop(self.number()?),
            4 => drop(self.text()?),
            5 => return self.number().map(|count| Some((count, false))),
            6 => return self.number().map(|count| Some((count, true))),
            7 => self.container()?,
            8 => drop(self.run()?),
            _ => return Err(self.malformed()),
        }
        Ok(None)
    }

    fn container(&mut self) -> Result<(), Malformed> {
        match self.byte()? {
            0 => drop(self.text()?),
            1 => {
                self.number()?;
                self.number()?;
            }
            _ => return Err(self.malformed()),
        }
        self.skip(1)
    }

    fn flag(&mut self) -> Result<(), Malformed> {
        if self.byte()? > 1 { Err(self.malformed()) } else { Ok(()) }
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        let byte = *self.whole.get(self.at).ok_or(Malformed { at: self.at })?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, len: usize) -> Result<(), Malformed> {
        if self.whole.len() - self.at < len {
            return Err(self.malformed());
        }
        self.at += len;
        Ok(())
    }

    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.malformed())
    }

    fn signed(&mut self) -> Result<i64, Malformed> {
        let number = self.number()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    fn run(&mut self) -> Result<Bytes, Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| self.malformed())?;
        let start = self.at;
        self.skip(len)?;
        Ok(self.whole.slice(start..self.at))
    }

    fn text(&mut self) -> Result<Bytes, Malformed> {
        let run = self.run()?;
        if std::str::from_utf8(&run).is_err() {
            return Err(self.malformed());
        }
        Ok(run)
    }
}

fn put_stamp(out: &mut BytesMut, stamp: i64) {
    // Zigzag: these stamps are not negative.
    put_number(out, (stamp as u64) << 1);
}

fn put_number(out: &mut BytesMut, mut number: u64) {
    while number >= 0x80 {
        out.put_u8(number as u8 | 0x80);
        number >>= 7;
    }
    out.put_u8(number as u8);
}

#[cfg(test)]
mod tests {
    use loro::LoroValue;
    use loro::awareness::EphemeralStore;

    use super::*;

    /// Every kind of value, some within others.
    fn store() -> EphemeralStore {
        let store = EphemeralStore::new(30_000);
        let list = |values: Vec<LoroValue>| LoroValue::List(values.into());
        let all = list(vec![
            LoroValue::Null,
            LoroValue::Bool(true),
            LoroValue::Double(1.5),
            LoroValue::I64(-300),
            LoroValue::String("café".into()),
            LoroValue::Binary(vec![0, 255, 1].into()),
            LoroValue::Map(
                [("x".to_owned(), list(vec![]))]
                    .into_iter()
                    .collect::<std::collections::HashMap<_, _>>()
                    .into(),
            ),
            LoroValue::Container(loro::ContainerID::new_root("notes", loro::ContainerType::Text)),
            LoroValue::Container(loro::ContainerID::new_normal(
                loro::ID::new(u64::MAX, 70_000),
                loro::ContainerType::Map,
            )),
        ]);
        store.set("all", all);
        store.set("ключ", 1);
        store.set("gone", 2);
        store.delete("gone");
        store
    }

    #[test]
    fn what_loro_encodes_is_cut_apart_and_put_together_again() {
        let update = Bytes::from(store().encode_all());
        let entries = parse(&update).unwrap();
        let mut keys: Vec<_> = entries.iter().map(|entry| (entry.key.clone(), entry.deleted)).collect();
        keys.sort();
        assert_eq!(keys, [("all".into(), false), ("gone".into(), true), ("ключ".into(), false)]);
        assert_eq!(join(entries.iter().map(|entry| &entry.bytes)), update);
    }

    #[test]
    fn a_detached_entry_is_the_same_entry() {
        let update = Bytes::from(store().encode_all());
        for entry in parse(&update).unwrap() {
            assert_eq!(entry.clone().detached(), entry);
        }
    }

    #[test]
    fn an_entry_is_deleted_one_past_its_own_stamp_and_loro_agrees() {
        let (author, other) = (EphemeralStore::new(30_000), EphemeralStore::new(30_000));
        author.set("k", "v");
        let update = Bytes::from(author.encode_all());
        other.apply(&update).unwrap();
        let entry = parse(&update).unwrap().remove(0);
        let gone = deletion(&entry);
        assert_eq!(gone.stamp, entry.stamp + 1);
        let update = join([&gone.bytes].into_iter());
        assert_eq!(parse(&update).unwrap(), [gone]);
        other.apply(&update).unwrap();
        assert_eq!(other.get("k"), None);
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_and_never_believed() {
        let update = store().encode_all();
        for at in 0..update.len() {
            let cut = Bytes::copy_from_slice(&update[..at]);
            assert_eq!(parse(&cut).is_ok(), at == 0, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = update.clone();
                flipped[at] ^= 1 << bit;
                let flipped = Bytes::from(flipped);
                if let Ok(entries) = parse(&flipped) {
                    assert_eq!(join(entries.iter().map(|entry| &entry.bytes)).len(), flipped.len());
                }
            }
        }
        for claim in [&[0xff; 10][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[1, 0xff, 0xff, 0xff, 0x7f, b'k']] {
            assert!(parse(&Bytes::copy_from_slice(claim)).is_err());
        }
    }

    #[test]
    fn values_nest_as_deep_as_loro_reads_them_and_no_deeper() {
        for (depth, fits) in [(MAX_DEPTH, true), (MAX_DEPTH + 1, false), (100_000, false)] {
            let mut update = vec![1, 1, b'k', 1];
            update.extend([5, 1].repeat(depth));
            update.extend([0, 2]);
            assert_eq!(parse(&update.into()).is_ok(), fits, "{depth}");
        }
    }

    #[test]
    fn stamps_beyond_what_clocks_can_show_are_refused() {
        for (stamp, fits) in
            [(0, true), (MAX_STAMP, true), (MAX_STAMP + 1, false), (-1, false), (i64::MAX, false)]
        {
            let mut out = BytesMut::from(&[1, 1, b'k', 1, 0][..]);
            put_number(&mut out, ((stamp << 1) ^ (stamp >> 63)) as u64);
            assert_eq!(parse(&out.freeze()).is_ok(), fits, "{stamp}");
        }
    }

    #[test]
    fn what_deletes_the_latest_entry_of_all_may_be_sent_back_to_us() {
        let mut out = BytesMut::from(&[1, 1, b'k', 1, 0][..]);
        put_stamp(&mut out, MAX_STAMP);
        let gone = deletion(&parse(&out.freeze()).unwrap()[0]);
        assert_eq!(parse(&join([&gone.bytes].into_iter())).unwrap(), std::slice::from_ref(&gone));
        let later = join([&gone.stamped(gone.stamp + 1).bytes].into_iter());
        assert!(parse(&later).is_err());
    }

    #[test]
    fn an_entry_with_another_stamp_is_otherwise_the_same_to_loro() {
        let (author, other) = (EphemeralStore::new(30_000), EphemeralStore::new(30_000));
        author.set("k", vec![1, 2]);
        let entry = parse(&author.encode_all().into()).unwrap().remove(0);
        let gone = deletion(&entry);
        let again = entry.stamped(gone.stamp + 1);
        assert_eq!(parse(&join([&again.bytes].into_iter())).unwrap(), std::slice::from_ref(&again));
        for entry in [entry, gone, again] {
            other.apply(&join([&entry.bytes].into_iter())).unwrap();
        }
        assert_eq!(other.get("k"), author.get("k"));
    }
}
