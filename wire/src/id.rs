//! The names that strangers choose: topics and peers.
//!
//! Both are JSON strings as JavaScript sees them: sequences of UTF-16 code units, kept here as
//! [WTF-8](https://simonsapin.github.io/wtf-8/), which is UTF-8 with room for lone surrogates. Two names are equal
//! exactly if JavaScript's `===` says so, however they were escaped; nothing is normalised, and `""`, `__proto__`
//! and NUL are names like any other. A clone shares the bytes.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

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
}
