//! How long an update is once it is unpacked. A snapshot of Loro is packed with LZ4, which makes up to 255 bytes of one:
//! a small update may be more than the memory of the machine, and Loro unpacks whatever it is given.
//!
//! The update is searched for LZ4 frames, wherever they may be, and what they would unpack to is added up without
//! unpacking it.

/// Where a Loro update says how it is encoded, and what it says if nothing in it is packed.
pub(super) const MODE: std::ops::Range<usize> = 20..22;
pub(super) const PLAIN: [u8; 2] = [0, 4];

const MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// That of an older form, which readers take too.
const LEGACY_MAGIC: [u8; 4] = 0x184c_2102_u32.to_le_bytes();

/// The length of an update, unpacked: never less than that, and more only if it is made to look so.
pub(super) fn unpacked_len(update: &[u8]) -> u64 {
    let packed = update.len() as u64;
    if update.get(MODE) == Some(&PLAIN[..]) {
        return packed;
    }
    let mut total = packed;
    // Frames lie beside each other. Ones that are made to lie within each other would cost their square.
    let mut left = 2 * update.len();
    for at in 0..update.len() {
        let rest = &update[at..];
        let frame = if rest.starts_with(&MAGIC) {
            Frame::begin(rest)
        } else if rest.starts_with(&LEGACY_MAGIC) {
            Some(Frame { rest: &rest[LEGACY_MAGIC.len()..], checksums: false })
        } else {
            None
        };
        for block in frame.into_iter().flatten() {
            let Some(next) = left.checked_sub(block.len()) else { return u64::MAX };
            left = next;
            total = total.saturating_add(block.unpacked_len());
        }
    }
    total
}

/// The blocks of a frame.
struct Frame<'a> {
    rest: &'a [u8],
    /// Each block is followed by four bytes.
    checksums: bool,
}

enum Block<'a> {
    Packed(&'a [u8]),
    Plain(&'a [u8]),
}

impl<'a> Frame<'a> {
    fn begin(frame: &'a [u8]) -> Option<Self> {
        let flags = *frame.get(MAGIC.len())?;
        let has = |bit: u8| usize::from(flags >> bit & 1);
        // Two bytes of flags and one that checks them, and perhaps a length and the name of a dictionary.
        let header = MAGIC.len() + 3 + 8 * has(3) + 4 * has(0);
        Some(Self { rest: frame.get(header..)?, checksums: has(4) == 1 })
    }
}

impl<'a> Iterator for Frame<'a> {
    type Item = Block<'a>;

    fn next(&mut self) -> Option<Block<'a>> {
        const PLAIN: u32 = 1 << 31;
        let (len, rest) = self.rest.split_first_chunk()?;
        let len = u32::from_le_bytes(*len);
        let (block, rest) = rest.split_at_checked((len & !PLAIN) as usize).filter(|_| len != 0)?;
        self.rest = if self.checksums { rest.get(4..)? } else { rest };
        Some(if len & PLAIN == 0 { Block::Packed(block) } else { Block::Plain(block) })
    }
}

impl Block<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Packed(block) | Self::Plain(block) => block.len(),
        }
    }

    fn unpacked_len(&self) -> u64 {
        match self {
            Self::Plain(block) => block.len() as u64,
            Self::Packed(block) => sequences(block),
        }
    }
}

/// What a packed block unpacks to: runs of bytes as they are, each followed by a repetition of what came before.
fn sequences(block: &[u8]) -> u64 {
    let (mut bytes, mut total) = (block, 0_u64);
    while let Some((token, rest)) = bytes.split_first() {
        bytes = rest;
        let plain = length(token >> 4, &mut bytes);
        total = total.saturating_add(plain);
        // The last sequence is a run alone. What is cut short unpacks to no more than this.
        let after = usize::try_from(plain).ok().and_then(|plain| bytes.get(plain..)?.get(2..));
        let Some(after) = after else { return total };
        bytes = after;
        total = total.saturating_add(4 + length(token & 15, &mut bytes));
    }
    total
}

/// Four bits, and if all are set as many bytes more as are full, and one.
fn length(bits: u8, bytes: &mut &[u8]) -> u64 {
    let mut length = u64::from(bits);
    if bits == 15 {
        while let Some((more, rest)) = bytes.split_first() {
            *bytes = rest;
            length += u64::from(*more);
            if *more != 255 {
                break;
            }
        }
    }
    length
}

#[cfg(test)]
mod tests {
    use loro::{ExportMode, LoroDoc};

    use super::*;

    fn snapshot(doc: &LoroDoc) -> Vec<u8> {
        doc.commit();
        doc.export(ExportMode::Snapshot).unwrap()
    }

    #[test]
    fn a_snapshot_is_as_long_as_what_it_unpacks_to() {
        for len in [1 << 10, 1 << 20, 5 << 20] {
            let doc = LoroDoc::new();
            doc.get_map("m").insert("zeros", vec![0_u8; len]).unwrap();
            let snapshot = snapshot(&doc);
            let unpacked = usize::try_from(unpacked_len(&snapshot)).unwrap();
            // The value is in it twice: in the history, and in the state.
            assert!((len..2 * len + len / 100 + 20_000).contains(&unpacked), "{len}: {unpacked}");
            assert!(len < 1 << 20 || snapshot.len() < len / 50, "{}", snapshot.len());
        }
    }

    #[test]
    fn an_ordinary_document_is_somewhat_longer_unpacked_and_an_update_is_not() {
        let doc = LoroDoc::new();
        let text = doc.get_text("t");
        for line in 0..2_000 {
            text.push_str(&format!("line {line} of what people write in earnest\n")).unwrap();
            doc.commit();
        }
        let snapshot = snapshot(&doc);
        let unpacked = unpacked_len(&snapshot);
        let factor = unpacked as f64 / snapshot.len() as f64;
        assert!((1.0..10.0).contains(&factor), "{} to {unpacked}", snapshot.len());
        let update = doc.export(ExportMode::all_updates()).unwrap();
        assert_eq!(unpacked_len(&update), update.len() as u64);
    }

    #[test]
    fn frames_within_frames_are_not_read_for_ever() {
        let mut nested = Vec::new();
        for _ in 0..2_000 {
            // A plain block of all that follows.
            let block = 1_u32 << 31 | nested.len() as u32;
            nested = [&MAGIC[..], &[0x40, 0x40, 0], &block.to_le_bytes(), &nested].concat();
        }
        assert_eq!(unpacked_len(&nested), u64::MAX);
        for cut in 0..200 {
            let _ = unpacked_len(&nested[..cut]);
        }
    }

    #[test]
    fn what_is_damaged_is_read_to_its_end_and_no_further() {
        let doc = LoroDoc::new();
        doc.get_text("t").insert(0, &"ab".repeat(3000)).unwrap();
        let good = snapshot(&doc);
        for at in 0..good.len() {
            let _ = unpacked_len(&good[..at]);
            let mut flipped = good.clone();
            flipped[at] ^= 0xff;
            let _ = unpacked_len(&flipped);
        }
    }
}
