//! How much memory an update would take, told without reading it as Loro does.
//!
//! Loro reserves memory by counts that stand in the update, and repeats what is written once as often as it is told:
//! 87 bytes end the process of whoever imports them. So what is to be imported is looked at first: an update is a row
//! of blocks, each with some changes of one peer, and a block is a few runs of bytes, some of which are tables whose
//! columns are written as runs. No more is read than how long these runs are.
//!
//! What makes no sense here makes none to Loro either. The other way round is Loro's to find out.

mod expansion;

use std::ops::Bound;

use bytes::Bytes;
use loro_kv_store::MemKvStore;
use loro_kv_store::mem_store::MemKvConfig;

use expansion::{MODE, PLAIN, unpacked_len};

/// How an update says that it is a snapshot.
const SNAPSHOT: [u8; 2] = [0, 3];
/// What comes before the blocks.
const HEADER: usize = 22;
/// What a snapshot has in place of a state if it has none.
const NO_STATE: &[u8] = b"E";
/// What each row of a table is counted as, in bytes.
const ROW: u64 = 24;
/// Values may be nested so deep: who lets go of deeper ones runs out of stack.
const MAX_DEPTH: usize = 512;
/// In a snapshot, changes are kept under a peer and a counter; there are other keys.
const BLOCK_KEY: usize = 12;

/// Not an update, or one that lies about itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// About how much memory an update takes, in bytes: at least as much as it is long. Not looked into further if that is
/// more than `most`.
///
/// # Errors
///
/// When it is no update, or claims more than it holds.
pub fn weigh(update: &Bytes, most: u64) -> Result<u64, Malformed> {
    let unpacked = unpacked_len(update);
    if unpacked > most {
        return Ok(unpacked);
    }
    let rows = match update.get(MODE) {
        Some(mode) if mode == PLAIN => rows_of_updates(update.get(HEADER..).unwrap_or_default())?,
        Some(mode) if mode == SNAPSHOT => rows_of_snapshot(update)?,
        // Loro knows no other.
        _ => 0,
    };
    Ok(unpacked.saturating_add(rows.saturating_mul(ROW)))
}

fn rows_of_updates(body: &[u8]) -> Result<u64, Malformed> {
    let (mut reader, mut rows) = (Reader(body), 0_u64);
    while !reader.0.is_empty() {
        rows = rows.saturating_add(rows_of_block(reader.run()?)?);
    }
    Ok(rows)
}

fn rows_of_snapshot(update: &Bytes) -> Result<u64, Malformed> {
    let mut rest = update.get(HEADER..).ok_or(Malformed)?;
    let [history, state, before] = [section(&mut rest)?, section(&mut rest)?, section(&mut rest)?];
    // Loro would compute the state then, which may take it for ever. What it exports has one, unless its history is cut.
    if state == NO_STATE && before.is_empty() {
        return Err(Malformed);
    }
    if history.is_empty() {
        return Ok(0);
    }
    let packed = update.slice_ref(history);
    let mut history = MemKvStore::new(MemKvConfig::default());
    history.import_all(packed).map_err(|_| Malformed)?;
    let blocks = history.scan(Bound::Unbounded, Bound::Unbounded).filter(|(key, _)| key.len() == BLOCK_KEY);
    let mut rows = 0_u64;
    for (_, block) in blocks {
        rows = rows.saturating_add(rows_of_block(&block)?);
    }
    Ok(rows)
}

/// A part of a snapshot, behind its length.
fn section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (len, after) = rest.split_first_chunk().ok_or(Malformed)?;
    let (section, after) = after.split_at_checked(u32::from_le_bytes(*len) as usize).ok_or(Malformed)?;
    *rest = after;
    Ok(section)
}

/// Rows of all tables of a block.
fn rows_of_block(block: &[u8]) -> Result<u64, Malformed> {
    let mut reader = Reader(block);
    // Where its counters and its clock start, and how far they go.
    for _ in 0..4 {
        reader.number()?;
    }
    let changes = reader.number()?;
    let header = reader.run()?;
    // All but the last say in the header how long they are.
    if changes == 0 || changes > header.len() as u64 + 1 {
        return Err(Malformed);
    }
    let dependencies = dependencies(header, changes)?;
    // When the changes were made, and what their authors say about them; the containers; the keys.
    for _ in 0..3 {
        reader.run()?;
    }
    let positions = positions(reader.run()?)?;
    let [containers, places, kinds, lengths] = columns(reader.run()?)?;
    let operations = [containers, places, lengths].map(|column| values(column, Each::Number));
    let deletions = columns::<3>(reader.run()?)?.map(|column| values(column, Each::Number));
    written(kinds, reader.run()?)?;
    let kinds = values(kinds, Each::Byte);
    let most = operations.into_iter().chain(deletions).fold(kinds, u64::max);
    Ok([changes, dependencies, positions, most].into_iter().fold(0, u64::saturating_add))
}

/// How many changes of others those of a block build on.
fn dependencies(header: &[u8], changes: u64) -> Result<u64, Malformed> {
    let mut reader = Reader(header);
    let peers = reader.number()?;
    let peers = usize::try_from(peers).ok().and_then(|peers| peers.checked_mul(8)).ok_or(Malformed)?;
    reader.0 = reader.0.get(peers..).ok_or(Malformed)?;
    for _ in 1..changes {
        reader.number()?;
    }
    // Whether each builds on the one before it: how often not, how often so, and so on.
    let mut told = 0_u64;
    while told < changes {
        told = told.saturating_add(reader.number()?);
    }
    let (mut told, mut dependencies) = (0, 0_u64);
    while told < changes {
        let (length, literal) = reader.length()?;
        let taken = length.min(changes - told);
        for _ in 0..if literal { taken } else { 1 } {
            let each = reader.number()?;
            dependencies =
                dependencies.saturating_add(if literal { each } else { each.saturating_mul(taken) });
        }
        told += taken;
    }
    // Each takes a bit at least of what follows.
    if dependencies > 8 * (reader.0.len() as u64 + 1) { Err(Malformed) } else { Ok(dependencies) }
}

/// Positions in a tree: each is so many bytes of the one before it, and some more. In rows of so many bytes.
fn positions(table: &[u8]) -> Result<u64, Malformed> {
    let [shared, rest] = columns(table)?;
    let (mut reader, mut longest) = (Reader(shared), 0);
    while let Ok((length, literal)) = reader.length() {
        for _ in 0..if literal { length } else { 1 } {
            longest = longest.max(reader.number()?);
        }
    }
    // There are no more of them than bytes that tell how they end, and none is longer than all of these.
    let (most, longest) = (rest.len() as u64, longest.min(rest.len() as u64));
    let count = values(shared, Each::Number).min(most);
    Ok(count.saturating_add(count.saturating_mul(longest) / ROW).saturating_add(values(shared, Each::Number)))
}

/// The columns of a table, which may be missing altogether.
fn columns<const N: usize>(table: &[u8]) -> Result<[&[u8]; N], Malformed> {
    let mut columns = [&[][..]; N];
    if table.is_empty() {
        return Ok(columns);
    }
    let mut reader = Reader(table);
    if reader.number()? != 1 || reader.number()? != N as u64 {
        return Err(Malformed);
    }
    for column in &mut columns {
        *column = reader.run()?;
    }
    Ok(columns)
}

/// What each value of a column is.
#[derive(Clone, Copy)]
enum Each {
    Number,
    Byte,
}

/// How many values a column holds. One that is cut short ends there.
fn values(column: &[u8], each: Each) -> u64 {
    let (mut reader, mut total) = (Reader(column), 0_u64);
    while let Ok((length, literal)) = reader.length() {
        total = total.saturating_add(length);
        for _ in 0..if literal { length } else { 1 } {
            let value = match each {
                Each::Byte => reader.byte().map(drop),
                Each::Number => reader.skip_number(),
            };
            if value.is_err() {
                return total;
            }
        }
    }
    total
}

/// Passes over what the operations of these kinds have written.
fn written(kinds: &[u8], values: &[u8]) -> Result<(), Malformed> {
    let (mut kinds, mut values) = (Reader(kinds), Reader(values));
    while let Ok((length, literal)) = kinds.length() {
        let repeated = if literal { None } else { Some(kinds.byte()?) };
        for _ in 0..length {
            let kind = repeated.map_or_else(|| kinds.byte(), Ok)?;
            if !values.written(kind)? && repeated.is_some() {
                // Nothing is written, however often.
                break;
            }
        }
    }
    Ok(())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// Seven bits a byte, the lowest first.
    fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// A number of any size.
    fn skip_number(&mut self) -> Result<(), Malformed> {
        while self.byte()? & 0x80 != 0 {}
        Ok(())
    }

    /// A length and so many bytes.
    fn run(&mut self) -> Result<&'a [u8], Malformed> {
        let len = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        let (run, rest) = self.0.split_at_checked(len).ok_or(Malformed)?;
        self.0 = rest;
        Ok(run)
    }

    fn skip(&mut self, len: usize) -> Result<(), Malformed> {
        self.0 = self.0.get(len..).ok_or(Malformed)?;
        Ok(())
    }

    fn skip_numbers(&mut self, count: usize) -> Result<(), Malformed> {
        (0..count).try_for_each(|_| self.skip_number())
    }

    /// Passes over what one operation has written. Whether that is anything at all.
    fn written(&mut self, kind: u8) -> Result<bool, Malformed> {
        match kind & 0x7f {
            // Nothing, true, false, and what is deleted is said elsewhere.
            0..=2 | 8 | 9 => return Ok(false),
            3 | 7 | 10 => self.skip_number()?,
            4 => self.skip(8)?,
            11 => self.value()?,
            // A mark: what it does at its edges, its length, its key, its value.
            12 => {
                self.skip(1)?;
                self.skip_numbers(2)?;
                self.value()?;
            }
            // A node that is moved: itself, whether to the top, its position, its parent.
            13 => {
                self.skip_number()?;
                let top = self.byte()? != 0;
                self.skip_numbers(if top { 1 } else { 2 })?;
            }
            14 => self.skip_numbers(3)?,
            15 => {
                self.skip_numbers(2)?;
                self.value()?;
            }
            16 => {
                self.skip_numbers(3)?;
                let top = self.byte()? != 0;
                self.skip_numbers(if top { 0 } else { 2 })?;
            }
            // Text, bytes, and kinds that are yet to come.
            _ => drop(self.run()?),
        }
        Ok(true)
    }

    /// Passes over a value, those within it included.
    fn value(&mut self) -> Result<(), Malformed> {
        // For each list or map around the present value: how many are left in it, and whether each has a key.
        let mut around = vec![(1, false)];
        while let Some((left, keyed)) = around.last_mut() {
            if *left == 0 {
                around.pop();
                continue;
            }
            *left -= 1;
            if *keyed {
                self.skip_number()?;
            }
            match self.byte()? {
                0..=2 => {}
                3 => self.skip_number()?,
                4 => self.skip(8)?,
                5 | 6 => drop(self.run()?),
                kind @ (7 | 8) => {
                    let (count, keyed) = (self.number()?, kind == 8);
                    // Each takes a byte at least, and another for its key.
                    if count > self.0.len() as u64 / (1 + u64::from(keyed)) || around.len() >= MAX_DEPTH {
                        return Err(Malformed);
                    }
                    around.push((count, keyed));
                }
                9 => self.skip(1)?,
                _ => return Err(Malformed),
            }
        }
        Ok(())
    }

    /// How many values follow, and whether each is written, or one for all.
    fn length(&mut self) -> Result<(u64, bool), Malformed> {
        let number = self.number()?;
        match (number >> 1, number & 1) {
            (0, 0) => Err(Malformed),
            (length, 0) => Ok((length, false)),
            // Zigzag: one more than half of it, below zero.
            (length, _) => Ok((length + 1, true)),
        }
    }
}

#[cfg(test)]
mod tests {
    use loro::{ExportMode, LoroDoc, LoroMap};

    use super::*;

    /// The next of a fixed row of numbers.
    fn next(state: &mut u64, below: usize) -> usize {
        *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (*state >> 33) as usize % below
    }

    /// One edit of some kind.
    fn edit(doc: &LoroDoc, state: &mut u64) {
        let (text, list) = (doc.get_text("text"), doc.get_movable_list("list"));
        let (map, tree) = (doc.get_map("map"), doc.get_tree("tree"));
        match next(state, 12) {
            0..=2 => text.insert(next(state, text.len_unicode() + 1), "héllo").unwrap(),
            3 if text.len_unicode() > 4 => text.delete(next(state, text.len_unicode() - 3), 2).unwrap(),
            4 if text.len_unicode() > 4 => text.mark(1..3, "bold", true).unwrap(),
            5 => list.insert(next(state, list.len() + 1), "x").unwrap(),
            6 if list.len() > 1 => list.mov(0, next(state, list.len())).unwrap(),
            7 if !list.is_empty() => list.set(next(state, list.len()), 7).unwrap(),
            8 => drop(map.insert_container(&format!("kéy {}", next(state, 300)), LoroMap::new()).unwrap()),
            9 => {
                let nested = map.ensure_mergeable_list("nested").unwrap();
                nested.push(vec![next(state, 255) as u8; next(state, 400)]).unwrap();
                nested.delete(0, usize::from(nested.len() > 3)).unwrap();
            }
            10 => {
                tree.enable_fractional_index(0);
                let nodes = tree.nodes();
                let node = tree.create(nodes.get(next(state, nodes.len() + 1)).copied()).unwrap();
                if next(state, 3) == 0 {
                    tree.delete(node).unwrap();
                }
            }
            _ => map.insert(&next(state, 1000).to_string(), next(state, 1 << 20) as f64 / 3.0).unwrap(),
        }
        if next(state, 4) == 0 {
            doc.set_next_commit_message("why");
        }
        doc.commit();
    }

    #[test]
    fn whatever_people_write_is_let_through_and_weighs_little_more_than_it_is_long() {
        let mut state = 1;
        let docs: Vec<_> = (0..4).map(|_| LoroDoc::new()).collect();
        for round in 0..200 {
            let doc = &docs[next(&mut state, docs.len())];
            let before = doc.oplog_vv();
            for _ in 0..=next(&mut state, 20) {
                edit(doc, &mut state);
            }
            let news = Bytes::from(doc.export(ExportMode::updates(&before)).unwrap());
            let weight = weigh(&news, u64::MAX);
            assert!(
                weight.as_ref().is_ok_and(|weight| *weight < 40 * news.len() as u64),
                "{round}: {weight:?}"
            );
            if round % 3 == 0 {
                let other = &docs[next(&mut state, docs.len())];
                other.import(&doc.export(ExportMode::updates(&other.oplog_vv())).unwrap()).unwrap();
            }
            if round % 20 == 0 {
                for mode in [ExportMode::all_updates(), ExportMode::Snapshot] {
                    let whole = Bytes::from(doc.export(mode).unwrap());
                    let weight = weigh(&whole, u64::MAX);
                    let usual = whole.len() as u64..60 * whole.len() as u64;
                    assert!(
                        weight.as_ref().is_ok_and(|weight| usual.contains(weight)),
                        "{round}: {weight:?}"
                    );
                }
            }
        }
        let empty = LoroDoc::new();
        for mode in [ExportMode::all_updates(), ExportMode::Snapshot] {
            assert!(weigh(&empty.export(mode).unwrap().into(), u64::MAX).is_ok());
        }
    }

    /// A block, taken apart: the five numbers that it begins with, and its runs.
    struct Parts {
        numbers: Vec<u64>,
        runs: Vec<Vec<u8>>,
    }

    fn put(out: &mut Vec<u8>, mut number: u64) {
        while number >= 0x80 {
            out.push(number as u8 | 0x80);
            number >>= 7;
        }
        out.push(number as u8);
    }

    impl Parts {
        /// Of an update that deletes and inserts a little.
        fn new() -> Self {
            let doc = LoroDoc::new();
            doc.get_text("t").insert(0, "hello").unwrap();
            doc.get_text("t").delete(1, 1).unwrap();
            doc.commit();
            Self::of(&doc.export(ExportMode::all_updates()).unwrap())
        }

        fn of(update: &[u8]) -> Self {
            let mut reader = Reader(Reader(&update[HEADER..]).run().unwrap());
            let numbers = (0..5).map(|_| reader.number().unwrap()).collect();
            let runs = (0..8).map(|_| reader.run().unwrap().to_vec()).collect();
            assert!(reader.0.is_empty());
            Self { numbers, runs }
        }

        fn update(&self) -> Bytes {
            let mut block = Vec::new();
            self.numbers.iter().for_each(|number| put(&mut block, *number));
            for run in &self.runs {
                put(&mut block, run.len() as u64);
                block.extend(run);
            }
            let mut update = vec![0; HEADER];
            update[..4].copy_from_slice(b"loro");
            update[MODE].copy_from_slice(&PLAIN);
            put(&mut update, block.len() as u64);
            update.extend(block);
            let checksum = xxhash_rust::xxh32::xxh32(&update[20..], u32::from_le_bytes(*b"LORO"));
            update[16..20].copy_from_slice(&checksum.to_le_bytes());
            update.into()
        }
    }

    #[test]
    fn a_block_put_together_again_is_one_that_loro_takes() {
        let update = Parts::new().update();
        assert!(LoroDoc::new().import(&update).is_ok());
        assert!(weigh(&update, u64::MAX).is_ok_and(|weight| weight < 1000));
    }

    #[test]
    fn counts_that_would_reserve_more_than_there_is_are_seen_through() {
        let mut many_changes = Parts::new();
        many_changes.numbers[4] = u64::from(u32::MAX);
        assert_eq!(weigh(&many_changes.update(), u64::MAX), Err(Malformed));

        // One peer, one change, which does not build on itself but on so many others.
        let mut many_dependencies = Parts::new();
        let mut header = many_dependencies.runs[0][..9].to_vec();
        header.push(1);
        header.push(1);
        put(&mut header, 1 << 40);
        header.extend([0; 4]);
        many_dependencies.runs[0] = header;
        assert_eq!(weigh(&many_dependencies.update(), u64::MAX), Err(Malformed));
    }

    #[test]
    fn what_is_written_once_and_meant_a_billion_times_weighs_so_much() {
        let billion = 1_000_000_000;
        let run = || {
            let mut column = Vec::new();
            put(&mut column, billion << 1);
            column.push(0);
            column
        };
        for (table, columns) in [(4, 2), (5, 4), (6, 3)] {
            let mut parts = Parts::new();
            let mut bytes = vec![1, columns];
            for _ in 0..columns {
                put(&mut bytes, run().len() as u64);
                bytes.extend(run());
            }
            parts.runs[table] = bytes;
            let update = parts.update();
            assert!(update.len() < 200);
            assert!(weigh(&update, u64::MAX).is_ok_and(|weight| weight > billion), "table {table}");
        }
    }

    #[test]
    fn values_that_claim_more_than_is_there_or_are_nested_without_end_are_refused() {
        let doc = LoroDoc::new();
        doc.get_map("m").insert("k", vec![vec![1, 2], vec![]]).unwrap();
        doc.commit();
        let update = doc.export(ExportMode::all_updates()).unwrap();
        let good = Parts::of(&update);
        assert!(weigh(&good.update(), u64::MAX).is_ok());
        let with = |values: Vec<u8>| {
            let mut parts = Parts::of(&update);
            parts.runs[7] = values;
            weigh(&parts.update(), u64::MAX)
        };
        let mut list = vec![7];
        put(&mut list, 1 << 28);
        let mut map = vec![8];
        put(&mut map, 1 << 28);
        assert_eq!((with(list), with(map)), (Err(Malformed), Err(Malformed)));
        let nested = |depth| [[7, 1].repeat(depth), vec![0]].concat();
        assert!(with(nested(MAX_DEPTH - 1)).is_ok());
        assert_eq!(with(nested(100_000)), Err(Malformed));
    }

    #[test]
    fn a_snapshot_whose_state_would_have_to_be_computed_is_refused_unless_its_history_is_cut() {
        let doc = LoroDoc::new();
        doc.get_text("t").insert(0, "hello").unwrap();
        doc.commit();
        let snapshot = doc.export(ExportMode::Snapshot).unwrap();
        let mut rest = &snapshot[HEADER..];
        let history = section(&mut rest).unwrap();
        let mut without = snapshot[..HEADER].to_vec();
        for part in [history, NO_STATE, b""] {
            without.extend((part.len() as u32).to_le_bytes());
            without.extend(part);
        }
        assert_eq!(weigh(&without.into(), u64::MAX), Err(Malformed));
        let cut = doc.export(ExportMode::shallow_snapshot(&doc.oplog_frontiers())).unwrap();
        assert!(weigh(&cut.into(), u64::MAX).is_ok());
    }

    #[test]
    fn bytes_that_are_changed_anywhere_are_weighed_or_refused_in_no_time() {
        let update = Parts::new().update();
        for at in 0..update.len() {
            let _ = weigh(&update.slice(..at), u64::MAX);
            for byte in [0x00, 0x7f, 0x80, 0xff] {
                let mut changed = update.to_vec();
                changed[at] = byte;
                let _ = weigh(&changed.into(), u64::MAX);
            }
        }
    }
}
