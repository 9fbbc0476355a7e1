//! What peers say to each other on a topic, and how it stands in a server's frame.

use serde_json::{Value, json};

use super::{Key, PasswordProblem};

/// The longest peer id that is taken from a stranger, in bytes. y-webrtc's have 36.
pub const MAX_PEER_ID: usize = 128;

/// What a peer says.
#[derive(Clone, Debug, PartialEq)]
pub enum Envelope {
    /// I am here. Whoever wants to connect sends an offer.
    Announce {
        /// Who, by the id of this room and run.
        from: String,
    },
    /// A signal for one peer.
    Signal {
        /// Who.
        from: String,
        /// For whom.
        to: String,
        /// Of a peer that has offered: when it did, in milliseconds, and a random fraction. Where two peers offer to each
        /// other, the larger one stands.
        token: Option<f64>,
        /// What [`webrtc`](crate::adapter::webrtc) makes of it.
        signal: Value,
    },
}

/// What came in a frame of a server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    Published {
        topic: String,
        data: Value,
    },
    /// An answer to a ping, or something newer than we are.
    Other,
}

impl Frame {
    /// Reads a frame. Whatever makes no sense is [`Frame::Other`]: the server is there, and that is all it says.
    pub(super) fn parse(text: &str) -> Self {
        let Ok(Value::Object(mut fields)) = serde_json::from_str(text) else { return Self::Other };
        if fields.get("type").and_then(Value::as_str) != Some("publish") {
            return Self::Other;
        }
        match (fields.remove("topic"), fields.remove("data")) {
            (Some(Value::String(topic)), Some(data)) => Self::Published { topic, data },
            _ => Self::Other,
        }
    }
}

impl Envelope {
    /// Reads what was published on a topic with this key, if any.
    pub(super) fn open(data: Value, key: Option<&Key>) -> Result<Option<Self>, PasswordProblem> {
        match (data, key) {
            (Value::String(sealed), Some(key)) => {
                key.open(&sealed).map(|data| Self::parse(&data)).ok_or(PasswordProblem::Different)
            }
            (Value::String(_), None) => Err(PasswordProblem::Missing),
            (data, None) => Ok(Self::parse(&data)),
            (data, Some(_)) if Self::parse(&data).is_some() => Err(PasswordProblem::Superfluous),
            _ => Ok(None),
        }
    }

    fn parse(data: &Value) -> Option<Self> {
        let id = |name: &str| {
            let id = data.get(name)?.as_str()?;
            (1..=MAX_PEER_ID).contains(&id.len()).then(|| id.to_owned())
        };
        let from = id("from")?;
        match data.get("type")?.as_str()? {
            "announce" => Some(Self::Announce { from }),
            "signal" => Some(Self::Signal {
                from,
                to: id("to")?,
                token: data.get("token").and_then(Value::as_f64),
                signal: data.get("signal").filter(|signal| signal.is_object())?.clone(),
            }),
            _ => None,
        }
    }

    fn ids(&self) -> (&str, Option<&str>) {
        match self {
            Self::Announce { from } => (from, None),
            Self::Signal { from, to, .. } => (from, Some(to)),
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Announce { from } => json!({"type": "announce", "from": from}),
            Self::Signal { from, to, token: Some(token), signal } => {
                json!({"to": to, "from": from, "type": "signal", "token": token, "signal": signal})
            }
            Self::Signal { from, to, token: None, signal } => {
                json!({"to": to, "from": from, "type": "signal", "signal": signal})
            }
        }
    }

    /// The frame that publishes it.
    pub(super) fn publish(&self, topic: &str, key: Option<&Key>, directed: bool) -> String {
        let data = self.to_json();
        let frame = match (key, self.ids()) {
            (None, _) => json!({"type": "publish", "topic": topic, "data": data}),
            (Some(key), (from, Some(to))) if directed => {
                json!({"type": "publish", "topic": topic, "from": from, "to": to, "data": key.seal(&data)})
            }
            (Some(key), (from, None)) if directed => {
                json!({"type": "publish", "topic": topic, "from": from, "data": key.seal(&data)})
            }
            (Some(key), _) => json!({"type": "publish", "topic": topic, "data": key.seal(&data)}),
        };
        frame.to_string()
    }
}

/// The frame that subscribes topics.
pub(super) fn subscribe<'a>(topics: impl IntoIterator<Item = &'a str>) -> String {
    json!({"type": "subscribe", "topics": topics.into_iter().collect::<Vec<_>>()}).to_string()
}

/// The frame that unsubscribes a topic.
pub(super) fn unsubscribe(topic: &str) -> String {
    json!({"type": "unsubscribe", "topics": [topic]}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signal() -> Envelope {
        let signal = json!({"type": "renegotiate", "renegotiate": true});
        Envelope::Signal { from: "a".into(), to: "b".into(), token: Some(1_763_888_400_123.456_8), signal }
    }

    fn read(frame: &str, key: Option<&Key>) -> Result<Option<Envelope>, PasswordProblem> {
        match Frame::parse(frame) {
            Frame::Published { topic, data } if topic == "room" => Envelope::open(data, key),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_published_is_read_with_its_token_to_the_last_bit() {
        let key = Key::derive_now("password", "room");
        for message in [signal(), Envelope::Announce { from: "a".into() }] {
            assert_eq!(read(&message.publish("room", None, true), None), Ok(Some(message.clone())));
            for directed in [true, false] {
                let frame = message.publish("room", Some(&key), directed);
                assert_eq!(read(&frame, Some(&key)), Ok(Some(message.clone())));
                assert_eq!(frame.contains(r#""from":"a""#), directed);
            }
        }
    }

    #[test]
    fn passwords_that_do_not_fit_are_told_apart() {
        let (key, other) = (Key::derive_now("password", "room"), Key::derive_now("other", "room"));
        let sealed = signal().publish("room", Some(&key), false);
        assert_eq!(read(&sealed, Some(&other)), Err(PasswordProblem::Different));
        assert_eq!(read(&sealed, None), Err(PasswordProblem::Missing));
        assert_eq!(
            read(&signal().publish("room", None, false), Some(&key)),
            Err(PasswordProblem::Superfluous)
        );
    }

    #[test]
    fn junk_is_passed_over() {
        for frame in ["", "null", "[]", "{", r#"{"type":"pong"}"#, r#"{"type":"publish","topic":7,"data":1}"#]
        {
            assert_eq!(Frame::parse(frame), Frame::Other, "{frame}");
        }
        assert_eq!(Frame::parse(&"[".repeat(100_000)), Frame::Other);
        let long = "x".repeat(MAX_PEER_ID + 1);
        for data in [
            json!(null),
            json!([1]),
            json!({"type": "announce"}),
            json!({"type": "announce", "from": ""}),
            json!({"type": "announce", "from": long}),
            json!({"type": "signal", "from": "a", "signal": {}}),
            json!({"type": "signal", "from": "a", "to": "b", "signal": "offer"}),
            json!({"type": "new", "from": "a"}),
        ] {
            assert_eq!(Envelope::open(data.clone(), None), Ok(None), "{data}");
        }
    }
}
