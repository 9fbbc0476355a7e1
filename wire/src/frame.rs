//! Which dialect a WebSocket message speaks.

/// How a WebSocket message was labelled by its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A text message (opcode 1). The WebSocket layer has checked that it is UTF-8.
    Text,
    /// A binary message (opcode 2).
    Binary,
}

/// The keepalive of the Loro Protocol: bare words in text messages, beside any room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Keepalive {
    /// `ping`: the other end wants a `pong`.
    Ping,
    /// `pong`: the other end is alive.
    Pong,
}

impl Keepalive {
    /// The text message that says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Pong => "pong",
        }
    }
}

/// What a message should be read as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// y-webrtc signaling: JSON, or what a careless client takes for it. Read it with
    /// [`Signal::parse`](crate::Signal::parse).
    Signal,
    /// A frame of the Loro Protocol.
    Loro,
    /// A keepalive of the Loro Protocol.
    Keepalive(Keepalive),
}

impl Dialect {
    /// Tells the dialect from the label and the first bytes; never looks further, never fails.
    ///
    /// No two dialects overlap: neither `ping`, `pong` nor anything that starts with `%` is JSON.
    pub fn of(kind: Kind, payload: &[u8]) -> Self {
        match (kind, payload) {
            (Kind::Text, b"ping") => Self::Keepalive(Keepalive::Ping),
            (Kind::Text, b"pong") => Self::Keepalive(Keepalive::Pong),
            (Kind::Binary, [b'%', ..]) => Self::Loro,
            _ => Self::Signal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_words_are_a_keepalive_only_as_whole_text_messages() {
        assert_eq!(Dialect::of(Kind::Text, b"ping"), Dialect::Keepalive(Keepalive::Ping));
        assert_eq!(Dialect::of(Kind::Text, b"pong"), Dialect::Keepalive(Keepalive::Pong));
        for (kind, payload) in [
            (Kind::Binary, &b"ping"[..]),
            (Kind::Text, b"ping "),
            (Kind::Text, b"pin"),
            (Kind::Text, b"\"ping\""),
        ] {
            assert_eq!(Dialect::of(kind, payload), Dialect::Signal, "{kind:?} {payload:?}");
        }
    }

    #[test]
    fn a_percent_sign_starts_a_loro_frame_only_in_a_binary_message() {
        assert_eq!(Dialect::of(Kind::Binary, b"%LOR\x01g"), Dialect::Loro);
        assert_eq!(Dialect::of(Kind::Binary, b"%"), Dialect::Loro);
        assert_eq!(Dialect::of(Kind::Text, b"%LOR"), Dialect::Signal);
        assert_eq!(Dialect::of(Kind::Binary, b" %LOR"), Dialect::Signal);
    }

    #[test]
    fn everything_else_is_signaling_empty_messages_too() {
        assert_eq!(Dialect::of(Kind::Text, b""), Dialect::Signal);
        assert_eq!(Dialect::of(Kind::Binary, b""), Dialect::Signal);
        assert_eq!(Dialect::of(Kind::Binary, br#"{"type":"ping"}"#), Dialect::Signal);
    }
}
