//! A scanner of JSON text: checks it as strictly as `JSON.parse` does, and hands out spans instead of values.
//!
//! It goes over the text once, from left to right, without recursion and without allocating. Numbers are checked,
//! never converted; strings are checked, and decoded only when asked ([`Text`]).

use std::ops::Range;

/// The deepest nesting that any caller can allow.
pub(crate) const MAX_DEPTH: usize = u128::BITS as usize;

/// Why the scanner stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The byte at this offset is not what the grammar asks for; the text's length if it ended too soon.
    Syntax(usize),
    /// One array or object too many was opened.
    TooDeep,
}

type Scan<T> = Result<T, Fault>;

/// A place in a JSON text.
#[derive(Clone, Debug)]
pub(crate) struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Open,
}

/// The arrays and objects that are open around a place: one bit each, the innermost in the lowest place.
#[derive(Clone, Debug)]
struct Open {
    kinds: u128,
    depth: usize,
    limit: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array = 0,
    Object = 1,
}

impl Open {
    fn push(&mut self, container: Container) -> Scan<()> {
        if self.depth >= self.limit {
            return Err(Fault::TooDeep);
        }
        self.kinds = self.kinds << 1 | container as u128;
        self.depth += 1;
        Ok(())
    }

    fn pop(&mut self) {
        self.kinds >>= 1;
        self.depth -= 1;
    }

    fn innermost(&self) -> Container {
        if self.kinds & 1 == 1 { Container::Object } else { Container::Array }
    }
}

impl<'a> Scanner<'a> {
    /// Stands at the first byte that is not white space. Opening more than `depth` (at most [`MAX_DEPTH`]) arrays
    /// and objects within each other is a fault.
    pub(crate) fn new(text: &'a [u8], depth: usize) -> Self {
        let open = Open { kinds: 0, depth: 0, limit: depth.min(MAX_DEPTH) };
        let mut scanner = Self { text, at: 0, open };
        scanner.space();
        scanner
    }

    /// The byte that comes next.
    pub(crate) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    /// How many bytes have been read.
    pub(crate) fn at(&self) -> usize {
        self.at
    }

    /// Only white space may be left.
    pub(crate) fn end(&mut self) -> Scan<()> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { self.syntax() }
    }

    /// Reads an object; `member` is called with each key and must read the value, which comes next.
    pub(crate) fn object(&mut self, mut member: impl FnMut(&mut Self, Text<'a>) -> Scan<()>) -> Scan<()> {
        let mut more = self.open_object()?;
        while more {
            let key = self.key()?;
            member(self, key)?;
            more = self.more()?;
        }
        Ok(())
    }

    /// Reads `[` and says whether an element comes next.
    pub(crate) fn open_array(&mut self) -> Scan<bool> {
        self.expect(b'[')?;
        self.open.push(Container::Array)?;
        self.space();
        Ok(!self.close(b']'))
    }

    /// Reads `{` and says whether a key comes next.
    fn open_object(&mut self) -> Scan<bool> {
        self.expect(b'{')?;
        self.open.push(Container::Object)?;
        self.space();
        Ok(!self.close(b'}'))
    }

    /// After a value inside an array or object: reads on to the next element or key, or past the closing bracket.
    pub(crate) fn more(&mut self) -> Scan<bool> {
        self.space();
        if self.eat(b',') {
            self.space();
            return Ok(true);
        }
        let bracket = match self.open.innermost() {
            Container::Array => b']',
            Container::Object => b'}',
        };
        if self.close(bracket) { Ok(false) } else { self.syntax() }
    }

    /// Reads a key and the colon; stands at the value.
    fn key(&mut self) -> Scan<Text<'a>> {
        let key = self.string()?;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    /// Reads any value; its text if it is a string.
    pub(crate) fn string_or_skip(&mut self) -> Scan<Option<Text<'a>>> {
        if self.peek() == Some(b'"') {
            return self.string().map(Some);
        }
        self.skip()?;
        Ok(None)
    }

    /// Reads any value, however deep, and says where it stood.
    pub(crate) fn skip(&mut self) -> Scan<Range<usize>> {
        let (start, outside) = (self.at, self.open.depth);
        loop {
            if self.opens_or_skips_scalar()? {
                continue;
            }
            while self.open.depth > outside && !self.next_value()? {}
            if self.open.depth == outside {
                return Ok(start..self.at);
            }
        }
    }

    /// Reads a scalar or an empty container whole, of others the opening bracket (and the first key): true if
    /// another value comes next.
    fn opens_or_skips_scalar(&mut self) -> Scan<bool> {
        match self.peek() {
            Some(b'"') => self.string().map(|_| false),
            Some(b'{') => {
                let more = self.open_object()?;
                if more {
                    self.key()?;
                }
                Ok(more)
            }
            Some(b'[') => self.open_array(),
            Some(b'-' | b'0'..=b'9') => self.number().map(|()| false),
            Some(b't') => self.literal(b"true").map(|()| false),
            Some(b'f') => self.literal(b"false").map(|()| false),
            Some(b'n') => self.literal(b"null").map(|()| false),
            _ => self.syntax(),
        }
    }

    /// After a value: on to the next one in the same container (true), or out of the container.
    fn next_value(&mut self) -> Scan<bool> {
        let container = self.open.innermost();
        let more = self.more()?;
        if more && container == Container::Object {
            self.key()?;
        }
        Ok(more)
    }

    fn number(&mut self) -> Scan<()> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            if !self.eat(b'+') {
                self.eat(b'-');
            }
            self.digits()?;
        }
        Ok(())
    }

    fn digits(&mut self) -> Scan<()> {
        let digits = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += digits;
        if digits > 0 { Ok(()) } else { self.syntax() }
    }

    fn literal(&mut self, word: &[u8]) -> Scan<()> {
        for &byte in word {
            self.expect(byte)?;
        }
        Ok(())
    }

    fn string(&mut self) -> Scan<Text<'a>> {
        self.expect(b'"')?;
        let (start, mut at, mut escaped) = (self.at, self.at, false);
        loop {
            at = plain_until(self.text, at);
            match self.text.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at = escape_end(self.text, at)?;
                }
                _ => return Err(Fault::Syntax(at)),
            }
        }
        self.at = at + 1;
        Ok(Text { raw: &self.text[start..at], escaped })
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn close(&mut self, bracket: u8) -> bool {
        let closes = self.eat(bracket);
        if closes {
            self.open.pop();
        }
        closes
    }

    fn expect(&mut self, byte: u8) -> Scan<()> {
        if self.eat(byte) { Ok(()) } else { self.syntax() }
    }

    fn syntax<T>(&self) -> Scan<T> {
        Err(Fault::Syntax(self.at))
    }
}

/// The offset, at or after `at`, of the first byte that a string cannot hold as it is: a quote, a backslash or a
/// control character; the text's length if there is none.
fn plain_until(text: &[u8], at: usize) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let mut rest = text.get(at..).unwrap_or_default();
    // Eight bytes at a time: a top bit is set in `found` for each byte that stops us, and perhaps for bytes after
    // it, never before it, so its lowest one counts.
    while let Some((eight, after)) = rest.split_first_chunk::<8>() {
        let word = u64::from_le_bytes(*eight);
        let (quote, backslash) = (word ^ (ONES * b'"' as u64), word ^ (ONES * b'\\' as u64));
        let found = word.wrapping_sub(ONES * 0x20) & !word
            | quote.wrapping_sub(ONES) & !quote
            | backslash.wrapping_sub(ONES) & !backslash;
        if found & TOPS != 0 {
            return text.len() - rest.len() + (found & TOPS).trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let stops = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    text.len() - rest.len() + rest.iter().position(stops).unwrap_or(rest.len())
}

/// The offset after the escape that starts with the backslash at `at`.
fn escape_end(text: &[u8], at: usize) -> Scan<usize> {
    match text.get(at + 1) {
        Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(at + 2),
        Some(b'u') => {
            let digits = text.iter().skip(at + 2).take(4).take_while(|byte| byte.is_ascii_hexdigit()).count();
            if digits == 4 { Ok(at + 6) } else { Err(Fault::Syntax(at + 2 + digits)) }
        }
        _ => Err(Fault::Syntax(at + 1)),
    }
}

/// A JSON string that has been checked: what stands between its quotes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a> {
    raw: &'a [u8],
    escaped: bool,
}

/// A stretch of a decoded string.
enum Piece<'a> {
    Plain(&'a [u8]),
    Unit { wtf8: [u8; 4], len: usize },
}

impl Piece<'_> {
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Unit { wtf8, len } => &wtf8[..*len],
        }
    }
}

impl<'a> Text<'a> {
    /// What it decodes to, if it is not escaped or fits into the buffer: enough to recognise a word.
    pub(crate) fn word<'b>(self, buffer: &'b mut [u8; 16]) -> Option<&'b [u8]>
    where
        'a: 'b,
    {
        if !self.escaped {
            return Some(self.raw);
        }
        let mut len = 0;
        for piece in self.pieces() {
            let piece = piece.as_bytes();
            buffer.get_mut(len..len + piece.len())?.copy_from_slice(piece);
            len += piece.len();
        }
        Some(&buffer[..len])
    }

    /// Whether it is the empty string.
    pub(crate) fn is_empty(self) -> bool {
        self.raw.is_empty()
    }

    /// How many bytes of WTF-8 it decodes to. Does not allocate.
    pub(crate) fn decoded_len(self) -> usize {
        if self.escaped { self.pieces().map(|piece| piece.as_bytes().len()).sum() } else { self.raw.len() }
    }

    /// Decodes it to WTF-8, in one allocation if nothing in it is escaped.
    pub(crate) fn decode(self) -> std::sync::Arc<[u8]> {
        if !self.escaped {
            return self.raw.into();
        }
        let mut decoded = Vec::with_capacity(self.raw.len());
        self.pieces().for_each(|piece| decoded.extend_from_slice(piece.as_bytes()));
        decoded.into()
    }

    fn pieces(self) -> impl Iterator<Item = Piece<'a>> {
        let mut rest = self.raw;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (piece, after) = match rest.iter().position(|&byte| byte == b'\\') {
                Some(0) => unescape(rest),
                Some(at) => (Piece::Plain(&rest[..at]), &rest[at..]),
                None => (Piece::Plain(rest), &[][..]),
            };
            rest = after;
            Some(piece)
        })
    }
}

/// Decodes the escape that `raw` starts with; a high surrogate takes a low one that follows along.
fn unescape(raw: &[u8]) -> (Piece<'_>, &[u8]) {
    let Some(unit) = unicode_escape(raw) else {
        let (byte, after) = match raw {
            [_, byte, after @ ..] => (*byte, after),
            _ => (b'\\', &[][..]),
        };
        return (code_point(simple_escape(byte).into()), after);
    };
    let after = &raw[6..];
    if let (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) = (unit, unicode_escape(after)) {
        return (code_point(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00)), &after[6..]);
    }
    (code_point(unit), after)
}

/// The code unit, if `raw` starts with `\u` and four hexadecimal digits.
fn unicode_escape(raw: &[u8]) -> Option<u32> {
    let digits = raw.strip_prefix(br"\u")?.get(..4)?;
    digits.iter().try_fold(0, |unit, &digit| Some(unit << 4 | char::from(digit).to_digit(16)?))
}

fn simple_escape(byte: u8) -> u8 {
    match byte {
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        itself => itself,
    }
}

/// Encodes a code point, surrogates included, as WTF-8.
fn code_point<'a>(code: u32) -> Piece<'a> {
    let mut wtf8 = [0; 4];
    let len = match char::from_u32(code) {
        Some(char) => char.encode_utf8(&mut wtf8).len(),
        None => {
            let low_six = |bits: u32| 0x80 | (bits & 0x3f) as u8;
            wtf8[..3].copy_from_slice(&[0xe0 | (code >> 12 & 0xf) as u8, low_six(code >> 6), low_six(code)]);
            3
        }
    };
    Piece::Unit { wtf8, len }
}
