//! The labels of the series: closed sets, each value with its name.

use crate::access::Refusal;

/// A label's values: a closed set, each with its name in the exposition.
pub trait Label: Copy + 'static {
    /// Every value, in the order of [`index`](Self::index).
    const ALL: &'static [Self];
    /// The label's name.
    const NAME: &'static str;
    /// The value's name.
    fn name(self) -> &'static str;
    /// The value's place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! label {
    ($(#[$doc:meta])* $type:ident, $label:literal, { $($(#[$vdoc:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[$vdoc])* $variant,)+ }

        impl Label for $type {
            const ALL: &'static [Self] = &[$(Self::$variant,)+];
            const NAME: &'static str = $label;
            fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// What a received message was.
    Received, "kind", {
        /// `subscribe`
        Subscribe = "subscribe",
        /// `unsubscribe`
        Unsubscribe = "unsubscribe",
        /// `publish`
        Publish = "publish",
        /// The client's keepalive.
        Ping = "ping",
        /// Valid JSON that means nothing here.
        Ignored = "ignored",
        /// Not JSON.
        Malformed = "malformed",
        /// Nested more deeply than is allowed.
        TooDeep = "too_deep",
        /// Loro Protocol: a request to join.
        Join = "join",
        /// Loro Protocol: an update, or the first word of one that comes in fragments.
        Update = "update",
        /// Loro Protocol: a fragment.
        Fragment = "fragment",
        /// Loro Protocol: anything else.
        Loro = "loro",
    }
}

label! {
    /// What a sent message was.
    Sent, "kind", {
        /// A publish that went to the receiver it names, and its echo.
        Directed = "directed",
        /// A publish that went to the whole room.
        Broadcast = "broadcast",
        /// The answer to a client's ping.
        Pong = "pong",
        /// Anything of the Loro Protocol.
        Relay = "relay",
    }
}

/// Why an upgrade was answered in HTTP instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeRefusal {
    /// 400: not a WebSocket handshake.
    BadHandshake,
    /// 401 or 403: who asks may not come in.
    Access(Refusal),
    /// 429: the address opens connections too fast.
    Rate,
    /// 429: the address holds too many connections.
    AddressFull,
    /// 503: the server holds as many connections as it may.
    Full,
    /// 503: the server is draining.
    Draining,
}

impl From<Refusal> for UpgradeRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Access(refusal)
    }
}

impl Label for UpgradeRefusal {
    const ALL: &'static [Self] = &{
        let mut all = [Self::BadHandshake; 5 + Refusal::ALL.len()];
        (all[1], all[2], all[3], all[4]) = (Self::Rate, Self::AddressFull, Self::Full, Self::Draining);
        let mut nth = 0;
        while nth < Refusal::ALL.len() {
            all[5 + nth] = Self::Access(Refusal::ALL[nth]);
            nth += 1;
        }
        all
    };
    const NAME: &'static str = "reason";

    fn name(self) -> &'static str {
        match self {
            Self::BadHandshake => "bad_handshake",
            Self::Access(refusal) => refusal.label(),
            Self::Rate => "rate",
            Self::AddressFull => "address_full",
            Self::Full => "full",
            Self::Draining => "draining",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|label| *label == self).expect("every refusal is in the list")
    }
}

label! {
    /// Why a connection was dropped before any WebSocket.
    SocketRefusal, "reason", {
        /// More open sockets than the server may hold.
        Full = "full",
        /// No complete request within the handshake deadline.
        HandshakeDeadline = "handshake_deadline",
        /// The TLS handshake failed.
        Tls = "tls",
        /// No valid PROXY header from a proxy that must send one.
        ProxyHeader = "proxy_header",
        /// Not HTTP.
        Http = "http",
    }
}

label! {
    /// Why part of a message had no effect.
    MessageRefusal, "reason", {
        /// The token does not allow this topic.
        TopicNotAllowed = "topic_not_allowed",
        /// A publish by a token that may only read.
        ReadOnly = "read_only",
        /// The connection has as many topics as it may.
        TooManyTopics = "too_many_topics",
        /// The topic's name is too long.
        TopicTooLong = "topic_too_long",
        /// The room has as many subscribers as it may.
        RoomFull = "room_full",
        /// An operator has closed the room.
        RoomClosed = "room_closed",
        /// The connection has not shown a token yet.
        NoToken = "no_token",
    }
}

label! {
    /// Why a connection ended.
    Disconnect, "reason", {
        /// The client closed it.
        Client = "client",
        /// The network did: the end of the stream, or an error.
        Network = "network",
        /// No pong, nor anything else, in time.
        Timeout = "timeout",
        /// What waited for it outgrew the outbound queue.
        SlowConsumer = "slow_consumer",
        /// A write made no progress in time.
        WriteDeadline = "write_deadline",
        /// It broke RFC 6455.
        Protocol = "protocol",
        /// A message over the limit.
        TooLarge = "too_large",
        /// A text message that is not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// It showed no token in time.
        NoToken = "no_token",
        /// More is on its way to newcomers than there is memory for.
        Busy = "busy",
        /// Its token expired.
        TokenExpired = "token_expired",
        /// An operator closed it.
        Operator = "operator",
        /// The server went away.
        Drain = "drain",
    }
}

label! {
    /// What became of a request to join a room.
    Join, "outcome", {
        /// It is in.
        Ok = "ok",
        /// Its token does not open the room, or is not valid.
        AuthFailed = "auth_failed",
        /// The connection is in as many rooms as it may be.
        TooManyRooms = "too_many_rooms",
        /// The room is full, has too much to do, or cannot be read.
        Room = "room",
        /// The request was malformed.
        Malformed = "malformed",
        /// The relay is off.
        Off = "off",
    }
}

label! {
    /// What became of an update.
    AckStatus, "status", {
        /// Taken, and stored where it is to be stored.
        Ok = "ok",
        /// Not stored, for a reason of the server's.
        Unknown = "unknown",
        /// Its sender is no member, or may only read.
        PermissionDenied = "permission_denied",
        /// It cannot be read.
        InvalidUpdate = "invalid_update",
        /// It, or the room with it, is too large.
        PayloadTooLarge = "payload_too_large",
        /// Its sender sends too many.
        RateLimited = "rate_limited",
        /// Its fragments did not come in time.
        FragmentTimeout = "fragment_timeout",
    }
}

label! {
    /// What a member was told.
    RoomErrorKind, "code", {
        /// To join again.
        RejoinSuggested = "rejoin_suggested",
        /// That it is out.
        Evicted = "evicted",
        /// Something else.
        Unknown = "unknown",
    }
}
