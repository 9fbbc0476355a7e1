//! The names that strangers choose: topics and peers of y-webrtc, rooms and batches of the Loro Protocol.
//!
//! The first two are JSON strings as JavaScript sees them: sequences of UTF-16 code units, kept here as
//! [WTF-8](https://simonsapin.github.io/wtf-8/), which is UTF-8 with room for lone surrogates. Two names are equal
//! exactly if JavaScript's `===` says so, however they were escaped; nothing is normalised, and `""`, `__proto__`
//! and NUL are names like any other. A clone shares the bytes.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use thiserror::Error;

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<[u8]>);

        impl $name {
            /// Takes bytes that are WTF-8 because they were decoded from a JSON string.
            pub(crate) fn from_wtf8(bytes: impl Into<Arc<[u8]>>) -> Self {
                Self(bytes.into())
            }

            /// The name in WTF-8; plain UTF-8 unless it holds a lone surrogate.
            pub fn as_bytes(&self) -> &[u8] {
                &self.0
            }

            /// Length in bytes of WTF-8.
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether this is the empty name.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }

            /// For people to read: what is not Unicode shows as U+FFFD, so different names may look alike.
            pub fn to_string_lossy(&self) -> Cow<'_, str> {
                String::from_utf8_lossy(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(name: &str) -> Self {
                Self(name.as_bytes().into())
            }
        }

        impl Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:?})"), self.to_string_lossy())
            }
        }
    };
}

name! {
    /// The name of a y-webrtc topic, that is of a signaling room.
    TopicName
}

name! {
    /// What a y-webrtc peer calls itself in `from`, and is called in `to`.
    ///
    /// Nobody vouches for it: y-webrtc draws one for each room object and says "do not assume unique".
    PeerId
}

/// The longest [`RoomId`], in bytes.
pub const MAX_ROOM_ID: usize = 128;

/// The name of a room of the Loro Protocol: UTF-8, at most [`MAX_ROOM_ID`] bytes. A clone shares the text, which is
/// its own: it keeps no frame alive.
///
/// Rooms of different [`Crdt`](crate::sync::Crdt) may have the same id; [`Room`](crate::sync::Room) tells them apart.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoomId(Arc<str>);

/// A room id that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("room id is {len} bytes, limit is {MAX_ROOM_ID}")]
pub struct RoomIdTooLong {
    /// Its length in bytes.
    pub len: usize,
}

impl RoomId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for RoomId {
    type Error = RoomIdTooLong;

    fn try_from(id: &str) -> Result<Self, RoomIdTooLong> {
        match id.len() {
            len if len > MAX_ROOM_ID => Err(RoomIdTooLong { len }),
            _ => Ok(Self(id.into())),
        }
    }
}

impl Borrow<str> for RoomId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RoomId({:?})", &*self.0)
    }
}

/// What an update is called by its sender, who is told by this name what became of it.
///
/// Unique only among the updates that one sender has under way in one room; the sender mints it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub [u8; 8]);

impl From<u64> for BatchId {
    /// The number's bytes, the highest first, so that ids made by counting sort by age.
    fn from(number: u64) -> Self {
        Self(number.to_be_bytes())
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchId({self})")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_map_of_names_is_searched_with_plain_bytes() {
        let map = HashMap::from([(TopicName::from("räum"), 1)]);
        assert_eq!(map.get("räum".as_bytes()), Some(&1));
        assert_eq!(map.get(&b"raum"[..]), None);
    }

    #[test]
    fn a_name_shows_readably_even_with_a_lone_surrogate() {
        assert_eq!(format!("{:?}", TopicName::from("a\0b")), r#"TopicName("a\0b")"#);
        let odd = PeerId::from_wtf8(&b"x\xed\xa0\x80"[..]);
        assert!(odd.to_string_lossy().starts_with("x\u{fffd}"));
        assert_eq!(odd.len(), 4);
    }

    #[test]
    fn a_clone_shares_the_bytes() {
        let name = TopicName::from("room");
        assert!(std::ptr::eq(name.as_bytes(), name.clone().as_bytes()));
    }

    #[test]
    fn a_room_id_is_measured_in_bytes() {
        assert_eq!(RoomId::try_from("é".repeat(64).as_str()).map(|id| id.as_str().len()), Ok(128));
        assert_eq!(RoomId::try_from("é".repeat(65).as_str()), Err(RoomIdTooLong { len: 130 }));
        assert_eq!(RoomId::try_from("").map(|id| id.to_string()), Ok(String::new()));
    }

    #[test]
    fn a_batch_id_reads_as_the_number_that_it_was_made_of() {
        assert_eq!(BatchId::from(0xba04).to_string(), "000000000000ba04");
        assert_eq!(BatchId::from(1).0, [0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
