//! The y-webrtc signaling dialect: JSON messages of a type each, of which one, `publish`, carries a payload.
//!
//! The reference server parses a message, sets its `clients` and serialises it again. Here the message stays as it
//! came and the number is spliced into it, so that to a client that parses the result there is no difference, and
//! none to one that looks at the bytes beyond those of the number.

use std::borrow::Cow;
use std::ops::Range;

use bytes::BufMut;
use thiserror::Error;

use crate::id::{PeerId, TopicName};
use crate::json::{Fault, Scanner, Text};

/// The answer to [`Signal::Ping`], a text message.
pub const PONG: &[u8] = br#"{"type":"pong"}"#;

/// How much a message may ask of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How many arrays and objects may be open within each other, the message itself included. Default 64; above
    /// [`Limits::MAX_DEPTH`] it counts as that.
    pub depth: usize,
}

impl Limits {
    /// The deepest nesting that can be allowed.
    pub const MAX_DEPTH: usize = crate::json::MAX_DEPTH;
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 64 }
    }
}

/// Why a message is not JSON that anybody may act on. The reference server dies of the first two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SignalError {
    /// Not UTF-8, and so not JSON. Text messages are UTF-8 already; pass binary ones through [`repair`] first.
    #[error("message is not UTF-8 from byte {at}")]
    NotUtf8 {
        /// Offset of the first byte that is wrong.
        at: usize,
    },
    /// Not what `JSON.parse` accepts.
    #[error("message is not JSON from byte {at}")]
    NotJson {
        /// Offset of the first byte that does not fit; the message's length if it ended too soon.
        at: usize,
    },
    /// Nested beyond [`Limits::depth`].
    #[error("message is nested deeper than {limit}")]
    TooDeep {
        /// The limit that applied.
        limit: usize,
    },
}

/// What a client says to a signaling server.
#[derive(Clone, Debug)]
pub enum Signal<'a> {
    /// Wants what is published on these topics.
    Subscribe(Topics<'a>),
    /// Wants it no longer.
    Unsubscribe(Topics<'a>),
    /// Wants this message sent to the subscribers of a topic.
    Publish(Publish<'a>),
    /// Wants a [`PONG`].
    Ping,
    /// Says nothing.
    Pong,
    /// JSON, but nothing that the protocol knows, or a `publish` without a topic: to be ignored without a word.
    Ignored,
}

impl<'a> Signal<'a> {
    /// Reads a message as the reference server would.
    ///
    /// It must be JSON exactly as `JSON.parse` has it, from the first byte to the last. Of keys that occur twice,
    /// compared as decoded, the last counts. One pass, without recursion; all that is allocated are the decoded
    /// names of a `publish`, and 16 bytes for each `clients` that it carries already.
    pub fn parse(message: &'a [u8], limits: Limits) -> Result<Self, SignalError> {
        if let Err(error) = std::str::from_utf8(message) {
            return Err(SignalError::NotUtf8 { at: error.valid_up_to() });
        }
        let fields = Fields::read(message, limits.depth).map_err(|fault| match fault {
            Fault::Syntax(at) => SignalError::NotJson { at },
            Fault::TooDeep => SignalError::TooDeep { limit: limits.depth.min(Limits::MAX_DEPTH) },
        })?;
        Ok(fields.into_signal(message))
    }
}

/// A binary message as the reference server reads it: whatever is not UTF-8 replaced by U+FFFD, each maximal part
/// by one, as Node and browsers do. Borrows if there is nothing to replace; else at most three times as long.
pub fn repair(message: &[u8]) -> Cow<'_, [u8]> {
    match String::from_utf8_lossy(message) {
        Cow::Borrowed(_) => Cow::Borrowed(message),
        Cow::Owned(repaired) => Cow::Owned(repaired.into_bytes()),
    }
}

/// What was found in a message, not yet decoded.
#[derive(Default)]
struct Fields<'a> {
    kind: Option<Text<'a>>,
    topics: Option<&'a [u8]>,
    topic: Option<Text<'a>>,
    outer: Ends<'a>,
    data: Ends<'a>,
    clients: Vec<Range<usize>>,
    closing_brace: usize,
}

/// Who sends, and to whom.
#[derive(Clone, Copy, Default)]
struct Ends<'a> {
    from: Option<Text<'a>>,
    to: Option<Text<'a>>,
}

#[derive(Clone, Copy)]
enum Key {
    Type,
    Topics,
    Topic,
    Data,
    From,
    To,
    Clients,
}

impl Key {
    fn of(text: Text<'_>) -> Option<Self> {
        match text.word(&mut [0; 16])? {
            b"type" => Some(Self::Type),
            b"topics" => Some(Self::Topics),
            b"topic" => Some(Self::Topic),
            b"data" => Some(Self::Data),
            b"from" => Some(Self::From),
            b"to" => Some(Self::To),
            b"clients" => Some(Self::Clients),
            _ => None,
        }
    }
}

impl<'a> Fields<'a> {
    fn read(message: &'a [u8], depth: usize) -> Result<Self, Fault> {
        let mut fields = Self::default();
        let mut scanner = Scanner::new(message, depth);
        if scanner.peek() == Some(b'{') {
            scanner.object(|scanner, key| fields.read_member(scanner, key, message))?;
            fields.closing_brace = scanner.at() - 1;
        } else {
            scanner.skip()?;
        }
        scanner.end()?;
        Ok(fields)
    }

    fn read_member(
        &mut self,
        scanner: &mut Scanner<'a>,
        key: Text<'a>,
        message: &'a [u8],
    ) -> Result<(), Fault> {
        match Key::of(key) {
            Some(Key::Type) => self.kind = scanner.string_or_skip()?,
            Some(Key::Topics) => self.topics = Some(&message[scanner.skip()?]),
            Some(Key::Topic) => self.topic = scanner.string_or_skip()?,
            Some(Key::Data) => self.data = Ends::read(scanner)?,
            Some(Key::From) => self.outer.from = scanner.string_or_skip()?,
            Some(Key::To) => self.outer.to = scanner.string_or_skip()?,
            Some(Key::Clients) => self.clients.push(scanner.skip()?),
            None => {
                scanner.skip()?;
            }
        }
        Ok(())
    }

    fn into_signal(self, message: &'a [u8]) -> Signal<'a> {
        let topics = Topics { array: self.topics.unwrap_or_default() };
        let mut buffer = [0; 16];
        match self.kind.and_then(|kind| kind.word(&mut buffer)) {
            Some(b"publish") => self.into_publish(message).map_or(Signal::Ignored, Signal::Publish),
            Some(b"subscribe") => Signal::Subscribe(topics),
            Some(b"unsubscribe") => Signal::Unsubscribe(topics),
            Some(b"ping") => Signal::Ping,
            Some(b"pong") => Signal::Pong,
            _ => Signal::Ignored,
        }
    }

    fn into_publish(self, message: &'a [u8]) -> Option<Publish<'a>> {
        let topic = self.topic.filter(|topic| !topic.is_empty())?;
        let peer = |text: Text<'_>| PeerId::from_wtf8(text.decode());
        Some(Publish {
            message,
            topic: TopicName::from_wtf8(topic.decode()),
            sender: self.outer.from.or(self.data.from).map(peer),
            receiver: self.outer.to.or(self.data.to).map(peer),
            clients: self.clients,
            closing_brace: self.closing_brace,
        })
    }
}

impl<'a> Ends<'a> {
    /// Reads any value; finds something only in an object.
    fn read(scanner: &mut Scanner<'a>) -> Result<Self, Fault> {
        let mut ends = Self::default();
        if scanner.peek() != Some(b'{') {
            scanner.skip()?;
            return Ok(ends);
        }
        scanner.object(|scanner, key| {
            match Key::of(key) {
                Some(Key::From) => ends.from = scanner.string_or_skip()?,
                Some(Key::To) => ends.to = scanner.string_or_skip()?,
                _ => {
                    scanner.skip()?;
                }
            }
            Ok(())
        })?;
        Ok(ends)
    }
}

/// The topics that a message names: in its order, repeats included, what is not a string left out.
///
/// Costs nothing until iterated; each step reads on in the message. `topics` that is missing or not an array is no
/// topics.
#[derive(Clone, Copy, Debug)]
pub struct Topics<'a> {
    /// The value of `topics`, checked; empty if there was none.
    array: &'a [u8],
}

/// A topic name that [`Topics::within`] did not decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("topic name is {len} bytes, limit is {limit}")]
pub struct TopicTooLong {
    /// Its length in bytes, decoded.
    pub len: usize,
    /// The limit that was given.
    pub limit: usize,
}

impl<'a> Topics<'a> {
    /// The names, of which those longer than `limit` bytes are refused before anything is allocated for them.
    pub fn within(self, limit: usize) -> impl Iterator<Item = Result<TopicName, TopicTooLong>> + use<'a> {
        self.texts().map(move |text| match text.decoded_len() {
            len if len > limit => Err(TopicTooLong { len, limit }),
            _ => Ok(TopicName::from_wtf8(text.decode())),
        })
    }

    fn texts(self) -> Texts<'a> {
        let mut scanner = Scanner::new(self.array, Limits::MAX_DEPTH);
        let more = scanner.open_array().unwrap_or(false);
        Texts { scanner, more }
    }
}

impl<'a> IntoIterator for Topics<'a> {
    type Item = TopicName;
    type IntoIter = TopicNames<'a>;

    fn into_iter(self) -> TopicNames<'a> {
        TopicNames(self.texts())
    }
}

/// Iterates over [`Topics`].
#[derive(Clone, Debug)]
pub struct TopicNames<'a>(Texts<'a>);

impl Iterator for TopicNames<'_> {
    type Item = TopicName;

    fn next(&mut self) -> Option<TopicName> {
        self.0.next().map(|text| TopicName::from_wtf8(text.decode()))
    }
}

/// The strings in an array that has been checked before, so that what would be a fault can only be its end.
#[derive(Clone, Debug)]
struct Texts<'a> {
    scanner: Scanner<'a>,
    more: bool,
}

impl<'a> Iterator for Texts<'a> {
    type Item = Text<'a>;

    fn next(&mut self) -> Option<Text<'a>> {
        while self.more {
            let text = self.scanner.string_or_skip().ok()?;
            self.more = self.scanner.more().ok()?;
            if text.is_some() {
                return text;
            }
        }
        None
    }
}

/// A message for the subscribers of a topic.
#[derive(Clone, Debug)]
pub struct Publish<'a> {
    message: &'a [u8],
    topic: TopicName,
    sender: Option<PeerId>,
    receiver: Option<PeerId>,
    /// Where the values of `clients` stand, in order; nearly always there are none.
    clients: Vec<Range<usize>>,
    closing_brace: usize,
}

impl Publish<'_> {
    /// The topic; never empty, for nobody can publish to `""`.
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Who claims to send: a string `from` beside `topic`, else the `from` in `data`.
    ///
    /// The one in `data` is what y-webrtc clients send in rooms without a password; the outer one is a hint of
    /// ours for rooms with one, whose `data` nobody can read.
    pub fn sender(&self) -> Option<&PeerId> {
        self.sender.as_ref()
    }

    /// Whom it is for: a string `to` beside `topic`, else the `to` in `data`; `None` is everybody.
    pub fn receiver(&self) -> Option<&PeerId> {
        self.receiver.as_ref()
    }

    /// The length in bytes of what [`encode`](Self::encode) will write.
    pub fn encoded_len(&self, clients: usize) -> usize {
        let number = decimal_len(clients);
        if self.clients.is_empty() {
            return self.message.len() + INSERT.len() + number;
        }
        let replaced: usize = self.clients.iter().map(Range::len).sum();
        self.message.len() - replaced + number * self.clients.len()
    }

    /// Writes the message as its subscribers get it, a text message: `clients` set to this number, wherever the
    /// message has it or else at the end, and every other byte as it came. Nested `clients` are payload.
    ///
    /// The result is UTF-8, for the message was.
    pub fn encode(&self, clients: usize, out: &mut impl BufMut) {
        let (mut number, mut at) = ([0; 20], 0);
        let number = decimal(clients, &mut number);
        for value in &self.clients {
            out.put_slice(&self.message[at..value.start]);
            out.put_slice(number);
            at = value.end;
        }
        if self.clients.is_empty() {
            out.put_slice(&self.message[..self.closing_brace]);
            out.put_slice(INSERT);
            out.put_slice(number);
            at = self.closing_brace;
        }
        out.put_slice(&self.message[at..]);
    }
}

/// Goes before the closing brace of a message without `clients`, which has a `topic` at least.
const INSERT: &[u8] = br#","clients":"#;

fn decimal_len(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

fn decimal(mut number: usize, buffer: &mut [u8; 20]) -> &[u8] {
    let len = decimal_len(number);
    for digit in buffer[..len].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    &buffer[..len]
}
