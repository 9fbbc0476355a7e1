//! What a load message carries: who published it, its number, and when it was due.
//!
//! A stamp is 32 hexadecimal digits behind a marker, so it survives a server that re-serialises JSON as well as
//! one that splices it, and a receiver finds it without parsing: it lies where it lay last time.

use memchr::memmem;

/// What stands before a stamp in a message.
const MARKER: &[u8] = b"\"stamp\":\"";
const DIGITS: usize = 32;

/// What one published message says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the client that published it.
    pub sender: u32,
    /// How many that client had published before.
    pub sequence: u32,
    /// When it was due, in nanoseconds since the start of the run. Not when it left: a tester or a server that
    /// falls behind must not hide its own delay.
    pub due: u64,
}

impl Stamp {
    /// The stamp in `text`, looked for first at `hint`, which is then set to where it was.
    pub fn find(text: &[u8], hint: &mut usize) -> Option<Self> {
        let at = *hint;
        if text.get(at..at + MARKER.len()) != Some(MARKER) {
            *hint = memmem::find(text, MARKER)?;
        }
        Self::parse(text.get(*hint + MARKER.len()..)?.get(..DIGITS)?)
    }

    /// Every stamp in `bytes`, wherever it lies.
    pub fn all(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        memmem::find_iter(bytes, MARKER)
            .filter_map(|at| Self::parse(bytes.get(at + MARKER.len()..)?.get(..DIGITS)?))
    }

    /// A text of `len` bytes with this stamp in it; at least [`Stamp::SMALLEST_TEXT`] long.
    #[must_use]
    pub fn text(&self, len: usize) -> String {
        let mut digits = [0; DIGITS];
        self.write(&mut digits);
        let mut text = String::with_capacity(len.max(Self::SMALLEST_TEXT));
        text.push_str("\"stamp\":\"");
        text.extend(digits.map(char::from));
        text.push('"');
        let padding = len.saturating_sub(text.len());
        text.extend((0..padding).map(|place| char::from(b'a' + (place % 26) as u8)));
        text
    }

    /// The fewest bytes that [`Stamp::text`] takes.
    pub const SMALLEST_TEXT: usize = MARKER.len() + DIGITS + 1;

    fn parse(digits: &[u8]) -> Option<Self> {
        let head = hex(digits.get(..16)?)?;
        let due = hex(digits.get(16..)?)?;
        Some(Self { sender: (head >> 32) as u32, sequence: head as u32, due })
    }

    fn write(&self, to: &mut [u8]) {
        let head = (u64::from(self.sender) << 32) | u64::from(self.sequence);
        for (place, byte) in to.iter_mut().enumerate() {
            let (word, nibble) = if place < 16 { (head, place) } else { (self.due, place - 16) };
            *byte = b"0123456789abcdef"[(word >> (60 - 4 * nibble)) as usize & 15];
        }
    }
}

fn hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |value, digit| {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((value << 4) | u64::from(nibble))
    })
}

/// A publish of a fixed size in which only the stamp changes.
#[derive(Debug, Clone)]
pub struct Template {
    text: Vec<u8>,
    stamp_at: usize,
}

impl Template {
    /// A publish on `topic` by `from`, padded to `len` bytes. It is shaped as y-webrtc's are: a `data` object
    /// with a `type` and a `from`. A `len` below [`Template::smallest`] gives the smallest there is.
    #[must_use]
    pub fn new(topic: &str, from: &str, len: usize) -> Self {
        let head = format!(
            r#"{{"type":"publish","topic":"{topic}","data":{{"type":"load","from":"{from}","stamp":""#
        );
        let mut text = head.into_bytes();
        let stamp_at = text.len();
        text.extend_from_slice(&[b'0'; DIGITS]);
        text.extend_from_slice(br#"","pad":""#);
        let padding = len.saturating_sub(text.len() + TAIL.len());
        text.extend((0..padding).map(|place| b'a' + (place % 26) as u8));
        text.extend_from_slice(TAIL);
        Self { text, stamp_at }
    }

    /// The fewest bytes that a publish on `topic` can have.
    #[must_use]
    pub fn smallest(topic: &str, from: &str) -> usize {
        Self::new(topic, from, 0).text.len()
    }

    /// The message with `stamp` in it.
    pub fn stamped(&mut self, stamp: Stamp) -> &[u8] {
        stamp.write(&mut self.text[self.stamp_at..self.stamp_at + DIGITS]);
        &self.text
    }
}

const TAIL: &[u8] = br#""}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { sender: 499, sequence: u32::MAX, due: 12_345_678_901_234 };

    #[test]
    fn all_stamps_among_other_bytes_are_found_and_the_text_is_as_long_as_asked() {
        let text = STAMP.text(120);
        assert_eq!(text.len(), 120);
        assert_eq!(STAMP.text(0).len(), Stamp::SMALLEST_TEXT);
        let other = Stamp { sender: 1, ..STAMP };
        let bytes = [b"\xff\x00", text.as_bytes(), b"\"stamp\":\"cut", other.text(0).as_bytes()].concat();
        assert_eq!(Stamp::all(&bytes).collect::<Vec<_>>(), [STAMP, other]);
    }

    #[test]
    fn a_stamp_is_found_wherever_a_server_moves_it() {
        let mut template = Template::new("room", "me", 600);
        let text = template.stamped(STAMP).to_vec();
        assert_eq!(text.len(), 600);
        let mut hint = 0;
        assert_eq!(Stamp::find(&text, &mut hint), Some(STAMP));
        let moved = [br#"{"clients":50,"#, &text[1..]].concat();
        assert_eq!(Stamp::find(&moved, &mut hint), Some(STAMP));
        assert_eq!(Stamp::find(&text, &mut hint), Some(STAMP));
    }

    #[test]
    fn a_message_without_a_whole_stamp_has_none() {
        let mut hint = 0;
        assert_eq!(Stamp::find(br#"{"type":"pong"}"#, &mut hint), None);
        assert_eq!(Stamp::find(br#"{"stamp":"0123"}"#, &mut hint), None);
        assert_eq!(Stamp::find(br#"{"stamp":"zz23456789abcdef0123456789abcdef"}"#, &mut hint), None);
        let mut far = usize::MAX - 9;
        assert_eq!(Stamp::find(b"{}", &mut far), None);
    }

    #[test]
    fn a_message_is_json() {
        let mut template = Template::new("room", "me", 300);
        let value: serde_json::Value = serde_json::from_slice(template.stamped(STAMP)).unwrap();
        assert_eq!(value["topic"], "room");
        assert_eq!(value["data"]["from"], "me");
    }
}
