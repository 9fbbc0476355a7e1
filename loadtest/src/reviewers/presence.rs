//! Presence as the reviewers of a load test write it: Loro's entries, whose values are texts.
//!
//! Written and read by hand, so that a reviewer holds eight bytes for each other one and not a store. A test compares
//! it with Loro's own.

use crate::stamp::Stamp;

/// What every key starts with; the seat follows in hexadecimal.
const KEY: &str = "reviewer-";
/// The tag of a text among Loro's values.
const TEXT: u8 = 4;

/// What an update says about one reviewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sight {
    /// Whose presence it is.
    pub(super) seat: u32,
    /// The millisecond at which it was set; the latest wins.
    pub(super) millisecond: i64,
    /// What is in it; `None` when it says that the reviewer is gone.
    pub(super) stamp: Option<Stamp>,
}

/// The update that says where a reviewer is: `stamp` holds which move this is, and the rest is as long as a cursor.
pub(super) fn encode(seat: u32, millisecond: i64, stamp: Stamp) -> Vec<u8> {
    let mut out = vec![1];
    put_text(&mut out, &format!("{KEY}{seat:08x}"));
    out.extend([1, TEXT]);
    put_text(&mut out, &stamp.text(Stamp::SMALLEST_TEXT + 40));
    // Zigzag: no time here is before 1970.
    put_number(&mut out, millisecond.unsigned_abs() << 1);
    out
}

/// The entries of an update; `None` when it is none that a reviewer wrote, or a server about reviewers.
pub(super) fn parse(update: &[u8]) -> Option<Vec<Sight>> {
    let mut rest = update;
    let count = if rest.is_empty() { 0 } else { number(&mut rest)? };
    let mut sights = Vec::new();
    for _ in 0..count {
        sights.push(sight(&mut rest)?);
    }
    rest.is_empty().then_some(sights)
}

fn sight(rest: &mut &[u8]) -> Option<Sight> {
    let key = std::str::from_utf8(text(rest)?).ok()?;
    let seat = u32::from_str_radix(key.strip_prefix(KEY)?, 16).ok()?;
    let stamp = match byte(rest)? {
        0 => None,
        1 if byte(rest)? == TEXT => Some(Stamp::all(text(rest)?).next()?),
        _ => return None,
    };
    let millisecond = i64::try_from(number(rest)? >> 1).ok()?;
    Some(Sight { seat, millisecond, stamp })
}

fn byte(rest: &mut &[u8]) -> Option<u8> {
    rest.split_off_first().copied()
}

fn text<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let len = usize::try_from(number(rest)?).ok()?;
    rest.split_off(..len)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = byte(rest)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_number(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_number(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use std::time::{SystemTime, UNIX_EPOCH};

    use loro::{LoroValue, awareness::EphemeralStore};

    use super::*;

    const STAMP: Stamp = Stamp { sender: 7, sequence: 3, due: 9 };

    fn now() -> i64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
    }

    #[test]
    fn a_store_of_loro_reads_what_is_written_here() {
        let store = EphemeralStore::new(30_000);
        store.apply(&encode(300, now(), STAMP)).unwrap();
        let Some(LoroValue::String(text)) = store.get("reviewer-0000012c") else { panic!("no text") };
        assert_eq!(Stamp::all(text.as_bytes()).collect::<Vec<_>>(), [STAMP]);
    }

    #[test]
    fn what_a_store_of_loro_writes_is_read_here_deletions_too() {
        let store = EphemeralStore::new(30_000);
        store.apply(&encode(1, now(), STAMP)).unwrap();
        store.apply(&encode(2, now(), STAMP)).unwrap();
        let mut seen = parse(&store.encode_all()).unwrap();
        seen.sort_by_key(|sight| sight.seat);
        assert_eq!(
            seen.iter().map(|sight| (sight.seat, sight.stamp)).collect::<Vec<_>>(),
            [(1, Some(STAMP)), (2, Some(STAMP))]
        );
        store.delete("reviewer-00000001");
        let gone = parse(&store.encode("reviewer-00000001")).unwrap();
        assert_eq!((gone[0].seat, gone[0].stamp), (1, None));
        assert!(gone[0].millisecond >= seen[0].millisecond);
    }

    #[test]
    fn damaged_and_foreign_bytes_are_none() {
        let good = encode(1, 1_700_000_000_000, STAMP);
        assert!(parse(&good).is_some());
        assert_eq!(parse(&[]), Some(Vec::new()));
        for cut in 1..good.len() {
            assert_eq!(parse(&good[..cut]), None, "{cut} bytes");
        }
        assert_eq!(parse(&[&good[..], &[0]].concat()), None);
        assert_eq!(parse(&[255; 20]), None);
        let store = EphemeralStore::new(30_000);
        store.set("somebody", "else");
        assert_eq!(parse(&store.encode_all()), None);
    }
}
