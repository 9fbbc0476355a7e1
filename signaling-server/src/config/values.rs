//! The kinds of values a key can have: how each is written, and what is said about a bad one.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Longer than any timer needs, and short enough to be added to any clock.
const MAX_PERIOD: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A length of time of at most 365 days: `"30s"`, `"1m 30s"`, `"500ms"`, or a whole number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(Duration);

impl Period {
    /// A number of seconds.
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// A number of milliseconds.
    pub const fn millis(millis: u64) -> Self {
        Self(Duration::from_millis(millis))
    }

    /// The same length of time, for a timer.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl From<Period> for Duration {
    fn from(period: Period) -> Duration {
        period.0
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = text.parse().ok().map(Duration::from_secs);
        let period = seconds.or_else(|| humantime::parse_duration(text).ok());
        let period = period.ok_or_else(|| expected("a duration such as \"30s\"", text))?;
        if period > MAX_PERIOD {
            return Err(expected("at most 365 days", text));
        }
        Ok(Self(period))
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.0).fmt(f)
    }
}

/// A number of bytes: `"256KiB"`, `"1MiB"`, `"1MB"` (a million), or a whole number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(usize);

impl Size {
    /// A number of bytes.
    pub const fn bytes(bytes: usize) -> Self {
        Self(bytes)
    }

    /// A number of KiB, 1024 bytes each.
    pub const fn kib(kib: usize) -> Self {
        Self(kib * 1024)
    }

    /// The number of bytes.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bytes =
            text.parse::<bytesize::ByteSize>().ok().and_then(|size| usize::try_from(size.as_u64()).ok());
        bytes.map(Self).ok_or_else(|| expected("a size such as \"256KiB\"", text))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(usize, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let exact = UNITS.iter().find(|(unit, _)| self.0 != 0 && self.0.is_multiple_of(*unit));
        match exact {
            Some((unit, name)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

/// An address and port to listen on, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// Do not listen.
    Off,
    /// Listen here.
    At(SocketAddr),
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            _ => text.parse().map(Self::At).map_err(|_| {
                expected("an IP address and a port such as \"127.0.0.1:9464\", or \"off\"", text)
            }),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

/// How many connections there may be in all: `auto`, or a number; 0 means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionCap {
    /// As many as the open-file limit allows, less a reserve.
    Auto,
    /// This many; 0 means no limit.
    At(usize),
}

impl FromStr for ConnectionCap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            _ => text.parse().map(Self::At).map_err(|_| expected("a whole number or \"auto\"", text)),
        }
    }
}

impl fmt::Display for ConnectionCap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::At(connections) => connections.fmt(f),
        }
    }
}

/// Text that is never shown: not by `Debug`, not by a log line, not by `check-config`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for comparing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

/// Reads and writes the value as text, and takes a bare integer for the same text without a unit.
macro_rules! written_as_text {
    ($($kind:ty),+) => {$(
        impl Serialize for $kind {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                text(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )+};
}

written_as_text!(Period, Size, Endpoint, ConnectionCap);

/// An optional path or name, where the empty string stands for none.
pub(super) mod empty_is_none {
    use super::{Deserialize, Deserializer, OptionalText, Serializer};

    pub(crate) fn serialize<T: OptionalText, S: Serializer>(
        value: &Option<T>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.serialize_str(&value.as_ref().map(T::text).unwrap_or_default())
    }

    pub(crate) fn deserialize<'de, T: OptionalText, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(d)?;
        Ok((!text.is_empty()).then(|| T::from(text)))
    }
}

/// What may be left empty.
pub(super) trait OptionalText: From<String> {
    fn text(&self) -> Cow<'_, str>;
}

impl OptionalText for String {
    fn text(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl OptionalText for PathBuf {
    fn text(&self) -> Cow<'_, str> {
        self.to_string_lossy()
    }
}

pub(super) fn socket_addr<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = text(deserializer)?;
    text.parse().map_err(|_| {
        D::Error::custom(expected(
            "an IP address and a port such as \"0.0.0.0:4444\" or \"[::]:4444\"",
            &text,
        ))
    })
}

pub(super) fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| network(text).map_err(D::Error::custom)).collect()
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = text.parse::<IpAddr>().map(IpNet::from);
    address
        .or_else(|_| text.parse())
        .map_err(|_| expected("an address or a network such as \"10.0.0.0/8\" or \"fd00::/8\"", text))
}

fn expected(what: &str, found: &str) -> String {
    format!("expected {what}, found {found:?}")
}

/// Text, or an integer as text.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    struct TextOrInteger;

    impl Visitor<'_> for TextOrInteger {
        type Value = String;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a whole number")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<String, E> {
            Ok(number.to_string())
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<String, E> {
            Ok(number.to_string())
        }
    }

    deserializer.deserialize_any(TextOrInteger)
}
