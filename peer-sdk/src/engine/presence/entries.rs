//! The bytes of a Loro `EphemeralStore`: postcard of a list of entries, each a key, perhaps a value, and the
//! millisecond at which its author says it was set.

use std::sync::Arc;

use bytes::Bytes;
use loro::LoroValue;
use serde::{Deserialize, Serialize};

/// The longest update that is read, in bytes.
const MOST: usize = 256 << 10;
/// The longest key, in bytes.
const MOST_KEY: usize = 256;
/// The latest time that JavaScript can count to in milliseconds, but one, so that there is always one past it.
const MAX_STAMP: i64 = (1 << 53) - 2;

/// One entry.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) key: Arc<str>,
    /// `None`: the key is gone.
    pub(super) value: Option<LoroValue>,
    pub(super) stamp: i64,
}

#[derive(Serialize)]
struct Encoded<'a> {
    key: &'a str,
    value: Option<&'a LoroValue>,
    timestamp: i64,
}

#[derive(Deserialize)]
struct Decoded<'a> {
    #[serde(borrow)]
    key: &'a str,
    value: Option<LoroValue>,
    timestamp: i64,
}

/// The entries of an update; `None` if it cannot be read to its end.
pub(super) fn parse(update: &[u8]) -> Option<Vec<Entry>> {
    if update.len() > MOST {
        return None;
    }
    if update.is_empty() {
        return Some(Vec::new());
    }
    let (entries, rest) = postcard::take_from_bytes::<Vec<Decoded<'_>>>(update).ok()?;
    let sound =
        |entry: &Decoded<'_>| entry.key.len() <= MOST_KEY && (0..=MAX_STAMP).contains(&entry.timestamp);
    (rest.is_empty() && entries.iter().all(sound)).then(|| entries.into_iter().map(Entry::from).collect())
}

/// The update that holds these entries.
pub(super) fn join<'a>(entries: impl Iterator<Item = &'a Entry>) -> Bytes {
    let entries: Vec<_> = entries
        .map(|entry| Encoded { key: &entry.key, value: entry.value.as_ref(), timestamp: entry.stamp })
        .collect();
    postcard::to_stdvec(&entries).expect("entries can be written").into()
}

/// How long an entry is, in bytes.
pub(super) fn weight(entry: &Entry) -> usize {
    join(std::iter::once(entry)).len()
}

impl From<Decoded<'_>> for Entry {
    fn from(entry: Decoded<'_>) -> Self {
        Self { key: entry.key.into(), value: entry.value, stamp: entry.timestamp }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use loro::awareness::EphemeralStore;
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::tests::vectors;

    /// An entry as the vectors have it.
    pub(in crate::engine::presence) fn from_json(entry: &Value) -> Entry {
        let value = entry.get("value").map(|value| serde_json::from_value(value.clone()).unwrap());
        Entry { key: entry["key"].as_str().unwrap().into(), value, stamp: entry["stamp"].as_i64().unwrap() }
    }

    pub(in crate::engine::presence) fn to_json(entry: &Entry) -> Value {
        match &entry.value {
            Some(value) => json!({ "key": &*entry.key, "value": value, "stamp": entry.stamp }),
            None => json!({ "key": &*entry.key, "stamp": entry.stamp }),
        }
    }

    #[test]
    fn every_implementation_reads_the_same_entries_and_writes_what_the_others_read() {
        for case in vectors::cases("presence", "cases") {
            let entries: Vec<_> = case["entries"].as_array().unwrap().iter().map(from_json).collect();
            let bytes = vectors::bytes(&case["bytes"]);
            assert_eq!(parse(&bytes).unwrap(), entries);
            // In what order the members of a map are written is left open.
            let written = join(entries.iter());
            assert_eq!(written.len(), bytes.len());
            assert_eq!(parse(&written).unwrap(), entries);
        }
        for case in vectors::cases("presence", "malformed") {
            assert_eq!(parse(&vectors::bytes(&case)), None, "{case}");
        }
    }

    #[test]
    fn loro_and_we_read_each_other() {
        let store = EphemeralStore::new(30_000);
        store.set("a", LoroValue::List(vec![LoroValue::I64(1), LoroValue::Null, "x".into()].into()));
        store.set("gone", 1);
        store.delete("gone");
        let mut entries = parse(&store.encode_all()).unwrap();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(entries.iter().map(|entry| &*entry.key).collect::<Vec<_>>(), ["a", "gone"]);
        assert_eq!(entries[1].value, None);
        let other = EphemeralStore::new(30_000);
        other.apply(&join(entries.iter())).unwrap();
        assert_eq!(other.get("a"), store.get("a"));
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_and_never_believed() {
        let store = EphemeralStore::new(30_000);
        store.set("key", LoroValue::List(vec![LoroValue::Double(0.5), "text".into()].into()));
        let update = store.encode_all();
        for at in 1..update.len() {
            assert_eq!(parse(&update[..at]), None, "cut at {at}");
            for bit in 0..8 {
                let mut flipped = update.clone();
                flipped[at] ^= 1 << bit;
                let _ = parse(&flipped);
            }
        }
        for claim in [&[0xff; 10][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[1, 0xff, 0xff, 0xff, 0x7f, b'k']] {
            assert_eq!(parse(claim), None);
        }
        let deep: Vec<u8> = [&[1, 1, b'k', 1][..], &[5, 1].repeat(100_000), &[0, 2]].concat();
        assert_eq!(parse(&deep), None);
    }
}
