//! What holds for every message, checked against `serde_json` on messages that nobody thought of.

use proptest::collection::vec;
use proptest::prelude::*;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use wire::{Limits, PeerId, Signal, SignalError, TopicName};

/// A member of an object, in the bytes that it is written in.
#[derive(Clone, Debug)]
struct Member {
    key: String,
    colon: String,
    value: String,
    space: String,
}

impl Member {
    fn with_value(&self, value: &str) -> String {
        format!("{}{}{value}{}", self.key, self.colon, self.space)
    }

    fn sets_clients(&self) -> bool {
        serde_json::from_str::<String>(&self.key).is_ok_and(|key| key == "clients")
    }
}

fn space() -> impl Strategy<Value = String> {
    prop_oneof![6 => Just(String::new()), 1 => "[ \t\r\n]{1,3}"]
}

fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => r#""[a-z]{0,3}""#,
        1 => r#""([ !#-\[\]-~éλ😀]|\\["\\/bfnrt]|\\u00[0-9a-fA-F]{2}|\\ud83d\\ude00){0,12}""#,
    ]
}

fn scalar() -> impl Strategy<Value = String> {
    prop_oneof![
        string(),
        r"-?(0|[1-9][0-9]{0,4})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?",
        prop_oneof!["null", "true", "false"],
    ]
}

fn key() -> impl Strategy<Value = String> {
    const KNOWN: [&str; 10] = [
        r#""type""#,
        r#""topics""#,
        r#""topic""#,
        r#""data""#,
        r#""from""#,
        r#""to""#,
        r#""clients""#,
        r#""cl\u0069ents""#,
        r#""\u0074o""#,
        r#""__proto__""#,
    ];
    prop_oneof![3 => prop::sample::select(&KNOWN[..]).prop_map(String::from), 1 => string()]
}

fn members(value: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<Member>> {
    let colon = (space(), space()).prop_map(|(before, after)| format!("{before}:{after}"));
    let member = (key(), colon, value, space());
    vec(member.prop_map(|(key, colon, value, space)| Member { key, colon, value, space }), 0..5)
}

fn object(members: &[Member]) -> String {
    let members: Vec<_> = members.iter().map(|member| member.with_value(&member.value)).collect();
    format!("{{{}}}", members.join(","))
}

fn json() -> impl Strategy<Value = String> {
    scalar().prop_recursive(4, 24, 5, |inner| {
        let array = vec((space(), inner.clone(), space()), 0..5).prop_map(|elements| {
            let elements: Vec<_> = elements.into_iter().map(|(a, value, b)| a + &value + &b).collect();
            format!("[{}]", elements.join(","))
        });
        prop_oneof![array, members(inner).prop_map(|members| object(&members))]
    })
}

/// An object that is often a message of the protocol.
fn message() -> impl Strategy<Value = Vec<Member>> {
    const KINDS: [&str; 8] =
        ["publish", "publish", "publish", "subscribe", "unsubscribe", "ping", "pong", "other"];
    let member = |key: &str, value: String| Member {
        key: format!("\"{key}\""),
        colon: ":".into(),
        value,
        space: String::new(),
    };
    (members(json()), prop::sample::select(&KINDS[..]), string(), any::<prop::sample::Index>()).prop_map(
        move |(mut members, kind, topic, at)| {
            members.insert(at.index(members.len() + 1), member("type", format!("\"{kind}\"")));
            members.insert(at.index(members.len() + 1), member("topic", topic));
            members
        },
    )
}

/// Bytes near to JSON: a document with a few bytes changed, inserted or missing.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![prop::sample::select(&br#"{}[]",:\0-.eu"#[..]), any::<u8>()];
    let change = (any::<prop::sample::Index>(), prop::option::of(byte), 0..3_usize);
    (message(), vec(change, 0..4)).prop_map(|(message, changes)| {
        let mut bytes = object(&message).into_bytes();
        for (at, byte, remove) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + remove);
            bytes.splice(at..end, byte);
        }
        bytes
    })
}

fn parse(message: &[u8]) -> Result<Signal<'_>, SignalError> {
    Signal::parse(message, Limits::default())
}

/// Whether it is JSON by the judgement of `serde_json`, which lets lone surrogates and any number pass if it need
/// not convert them.
fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn encoded(signal: &Signal<'_>, clients: usize) -> Option<String> {
    let Signal::Publish(publish) = signal else { return None };
    let mut out = Vec::new();
    publish.encode(clients, &mut out);
    assert_eq!(out.len(), publish.encoded_len(clients));
    Some(String::from_utf8(out).expect("UTF-8 stays UTF-8"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_is_accepted(json in json()) {
        prop_assert!(parse(json.as_bytes()).is_ok());
    }

    #[test]
    fn damaged_json_is_accepted_or_refused_as_serde_json_does(bytes in damaged()) {
        prop_assert_eq!(parse(&bytes).is_ok(), is_json(&bytes), "{}", String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn arbitrary_bytes_are_accepted_or_refused_as_serde_json_does(bytes in vec(any::<u8>(), 0..40)) {
        prop_assert_eq!(parse(&bytes).is_ok(), is_json(&bytes));
        let repaired = wire::repair(&bytes);
        let still_refused = matches!(parse(&repaired), Err(SignalError::NotUtf8 { .. }));
        prop_assert!(!still_refused);
    }

    #[test]
    fn a_message_means_what_its_decoded_fields_say(members in message()) {
        let message = object(&members);
        let Ok(Value::Object(fields)) = serde_json::from_str(&message) else { return Ok(()) };
        let empty = Map::new();
        let data = fields.get("data").and_then(Value::as_object).unwrap_or(&empty);
        let names: Vec<_> = fields.get("topics").and_then(Value::as_array).into_iter().flatten()
            .filter_map(Value::as_str).map(TopicName::from).collect();
        match parse(message.as_bytes()).expect("serde_json accepted it") {
            Signal::Publish(publish) => {
                prop_assert_eq!(text(&fields, "type"), Some("publish"));
                let topic = publish.topic().as_bytes();
                prop_assert_eq!(Some(topic), text(&fields, "topic").map(str::as_bytes));
                let sender = text(&fields, "from").or(text(data, "from"));
                prop_assert_eq!(publish.sender().map(PeerId::as_bytes), sender.map(str::as_bytes));
                let receiver = text(&fields, "to").or(text(data, "to"));
                prop_assert_eq!(publish.receiver().map(PeerId::as_bytes), receiver.map(str::as_bytes));
            }
            Signal::Subscribe(topics) => {
                prop_assert_eq!(text(&fields, "type"), Some("subscribe"));
                prop_assert_eq!(topics.into_iter().collect::<Vec<_>>(), names);
            }
            Signal::Unsubscribe(topics) => {
                prop_assert_eq!(text(&fields, "type"), Some("unsubscribe"));
                prop_assert_eq!(topics.into_iter().collect::<Vec<_>>(), names);
            }
            Signal::Ping => prop_assert_eq!(text(&fields, "type"), Some("ping")),
            Signal::Pong => prop_assert_eq!(text(&fields, "type"), Some("pong")),
            Signal::Ignored => match text(&fields, "type") {
                Some("publish") => prop_assert!(text(&fields, "topic").is_none_or(str::is_empty)),
                kind => prop_assert!(!matches!(kind, Some("subscribe" | "unsubscribe" | "ping" | "pong"))),
            },
        }
    }

    #[test]
    fn a_splice_sets_clients_and_leaves_every_other_byte_alone(members in message(), clients in any::<usize>()) {
        let message = object(&members);
        let Some(delivered) = encoded(&parse(message.as_bytes()).expect("built as JSON"), clients) else {
            return Ok(());
        };
        let number = clients.to_string();
        let mut expected: Vec<_> = members.iter()
            .map(|member| member.with_value(if member.sets_clients() { &number } else { &member.value }))
            .collect();
        if !members.iter().any(Member::sets_clients) {
            expected.push(format!("\"clients\":{number}"));
        }
        prop_assert_eq!(&delivered, &format!("{{{}}}", expected.join(",")));

        if let Ok(mut fields) = serde_json::from_str::<Map<String, Value>>(&message) {
            fields.insert("clients".into(), clients.into());
            prop_assert_eq!(serde_json::from_str::<Map<String, Value>>(&delivered).ok(), Some(fields));
        }
    }
}
