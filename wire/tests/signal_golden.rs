//! Bytes in, bytes out: what the reference server does with a message, row by row.

use wire::{Limits, PONG, PeerId, Publish, Signal, SignalError, TopicName, TopicTooLong, repair};

fn parse(message: &[u8]) -> Result<Signal<'_>, SignalError> {
    Signal::parse(message, Limits::default())
}

fn published(message: &str) -> Publish<'_> {
    match parse(message.as_bytes()) {
        Ok(Signal::Publish(publish)) => publish,
        other => panic!("{message} is {other:?}"),
    }
}

/// What subscribers of a topic with this many of them get.
fn delivered(message: &str, clients: usize) -> String {
    let publish = published(message);
    let mut out = Vec::new();
    publish.encode(clients, &mut out);
    assert_eq!(out.len(), publish.encoded_len(clients), "encoded_len of {message}");
    String::from_utf8(out).expect("a message that was UTF-8 stays UTF-8")
}

fn is_ignored(message: &str) -> bool {
    matches!(parse(message.as_bytes()), Ok(Signal::Ignored))
}

fn subscribed(message: &str) -> Vec<TopicName> {
    match parse(message.as_bytes()) {
        Ok(Signal::Subscribe(topics)) => topics.into_iter().collect(),
        other => panic!("{message} is {other:?}"),
    }
}

fn names<const N: usize>(names: [&str; N]) -> Vec<TopicName> {
    names.map(TopicName::from).into()
}

#[test]
fn a_publish_gets_clients_before_its_closing_brace() {
    let announce = r#"{"type":"publish","topic":"room","data":{"type":"announce","from":"ana"}}"#;
    assert_eq!(
        delivered(announce, 2),
        r#"{"type":"publish","topic":"room","data":{"type":"announce","from":"ana"},"clients":2}"#
    );
}

#[test]
fn every_number_of_clients_is_written_out_in_full() {
    let message = r#"{"type":"publish","topic":"t"}"#;
    for clients in [0, 1, 9, 10, 99, 100, 65_536, usize::MAX] {
        let expected = format!(r#"{{"type":"publish","topic":"t","clients":{clients}}}"#);
        assert_eq!(delivered(message, clients), expected);
    }
}

#[test]
fn a_clients_that_the_sender_set_is_overwritten_where_it_stands() {
    assert_eq!(
        delivered(r#"{"clients":99,"type":"publish","topic":"t","x":1}"#, 3),
        r#"{"clients":3,"type":"publish","topic":"t","x":1}"#
    );
    assert_eq!(
        delivered(r#"{"type":"publish", "clients" : {"deep":[1,{"clients":5}]} , "topic":"t"}"#, 12),
        r#"{"type":"publish", "clients" : 12 , "topic":"t"}"#
    );
}

#[test]
fn of_many_clients_each_is_overwritten_however_its_key_is_written() {
    assert_eq!(
        delivered(r#"{"clients":"a","type":"publish","cl\u0069ents":null,"topic":"t","clients":[1]}"#, 7),
        r#"{"clients":7,"type":"publish","cl\u0069ents":7,"topic":"t","clients":7}"#
    );
}

#[test]
fn a_clients_inside_the_payload_is_payload() {
    assert_eq!(
        delivered(r#"{"type":"publish","topic":"t","data":{"clients":1},"clients2":4}"#, 5),
        r#"{"type":"publish","topic":"t","data":{"clients":1},"clients2":4,"clients":5}"#
    );
}

#[test]
fn numbers_escapes_surrogates_key_order_and_white_space_arrive_as_they_were_sent() {
    let (before, after) = (
        concat!(
            " {\t\"z\" : 1.0 ,\r\n\"type\":\"publish\",\"topic\":\"t\",\"data\":{\"token\":1763895522123.4567,",
            r#""exact":0.1e-7,"big":123456789012345678901234567890,"minus":-0,"far":1e999,"sdp":"v=0\r\n\/\u00e9é😀","#,
            r#""lone":"\ud800","turned":"\udc00\ud83d","pair":"\ud83d\ude00","nul":"\u0000"},"a":[ ] "#,
        ),
        "} \n",
    );
    assert_eq!(delivered(&format!("{before}{after}"), 50), format!("{before},\"clients\":50{after}"));
}

#[test]
fn proto_and_constructor_are_ordinary_names_and_keys() {
    assert_eq!(
        delivered(
            r#"{"type":"publish","topic":"__proto__","__proto__":{"clients":1},"constructor":null}"#,
            1
        ),
        r#"{"type":"publish","topic":"__proto__","__proto__":{"clients":1},"constructor":null,"clients":1}"#
    );
    assert_eq!(
        subscribed(r#"{"type":"subscribe","topics":["__proto__","constructor"]}"#),
        names(["__proto__", "constructor"])
    );
}

#[test]
fn topic_names_are_what_javascript_sees() {
    assert_eq!(
        subscribed(
            r#"{"type":"subscribe","topics":["😀","\ud83d\ude00","a\u0000b","\"\\\/\b\f\n\r\t","","é"]}"#
        ),
        names(["😀", "😀", "a\0b", "\"\\/\u{8}\u{c}\n\r\t", "", "é"])
    );
    assert_eq!(published(r#"{"type":"publish","topic":"\u0072oom"}"#).topic(), &TopicName::from("room"));
}

#[test]
fn a_pair_of_surrogates_is_one_character_from_the_first_to_the_last() {
    let message = r#"{"type":"subscribe","topics":["\ud800\udc00","\uDBFF\uDFFF","\ud7ff\ue000"]}"#;
    assert_eq!(subscribed(message), names(["\u{10000}", "\u{10ffff}", "\u{d7ff}\u{e000}"]));
}

#[test]
fn lone_surrogates_are_names_of_their_own() {
    let topics = subscribed(
        r#"{"type":"subscribe","topics":["\ud800","\udfff","\ud800x","\ude00\ud83d","\ud83d\ud83d\ude00"]}"#,
    );
    let bytes: Vec<_> = topics.iter().map(TopicName::as_bytes).collect();
    assert_eq!(
        bytes,
        [
            &b"\xed\xa0\x80"[..],
            b"\xed\xbf\xbf",
            b"\xed\xa0\x80x",
            b"\xed\xb8\x80\xed\xa0\xbd",
            b"\xed\xa0\xbd\xf0\x9f\x98\x80",
        ]
    );
    let message = r#"{"type":"publish","topic":"\ud800"}"#;
    assert_eq!(published(message).topic(), &topics[0]);
}

#[test]
fn what_is_not_a_string_in_topics_is_skipped_and_repeats_are_kept() {
    let message = r#"{"type":"subscribe","topics":[1,"a",null,["b"],{"c":"d"},"a",true, "e" ]}"#;
    assert_eq!(subscribed(message), names(["a", "a", "e"]));
}

#[test]
fn topics_that_are_missing_empty_or_no_array_are_none() {
    for topics in ["", r#","topics":[]"#, r#","topics":[ ]"#] {
        assert_eq!(subscribed(&format!(r#"{{"type":"subscribe"{topics}}}"#)), []);
    }
    for topics in ["null", "false", "0", r#""""#, r#""room""#, r#"{"0":"room","length":1}"#, "true", "7"] {
        assert_eq!(subscribed(&format!(r#"{{"type":"subscribe","topics":{topics}}}"#)), []);
    }
}

#[test]
fn topic_names_beyond_a_limit_are_measured_as_decoded_and_refused() {
    let message = br#"{"type":"unsubscribe","topics":["abcd","\u0061bcd","abcde","\u00e9\u00e9\u00e9"]}"#;
    let Ok(Signal::Unsubscribe(topics)) = parse(message) else { panic!("no unsubscribe") };
    let [abcd, same, long, accents] = topics.within(4).collect::<Vec<_>>().try_into().expect("four strings");
    assert_eq!((abcd, same), (Ok("abcd".into()), Ok("abcd".into())));
    assert_eq!(long, Err(TopicTooLong { len: 5, limit: 4 }));
    assert_eq!(accents, Err(TopicTooLong { len: 6, limit: 4 }));
}

#[test]
fn of_keys_that_occur_twice_the_last_counts() {
    let message = r#"{"type":"ping","topic":"a","type":"publish","t\u006fpic":"b"}"#;
    assert_eq!(published(message).topic(), &TopicName::from("b"));
    assert!(matches!(parse(br#"{"type":"publish","topic":"t","type":"ping"}"#), Ok(Signal::Ping)));
    assert!(is_ignored(r#"{"type":"publish","topic":"t","topic":5}"#));
    assert!(is_ignored(r#"{"type":"ping","type":null}"#));
    assert_eq!(subscribed(r#"{"type":"subscribe","topics":["a"],"topics":["b"]}"#), names(["b"]));
    assert_eq!(subscribed(r#"{"type":"subscribe","topics":["a"],"topics":3}"#), []);
}

#[test]
fn a_publish_without_a_topic_that_is_a_string_and_not_empty_is_ignored() {
    for topic in ["", r#","topic":"""#, r#","topic":null"#, r#","topic":1"#, r#","topic":["t"]"#] {
        assert!(is_ignored(&format!(r#"{{"type":"publish"{topic}}}"#)), "{topic}");
    }
}

#[test]
fn ping_and_pong_are_heard_whatever_else_they_carry() {
    assert!(matches!(parse(br#"{"type":"ping"}"#), Ok(Signal::Ping)));
    assert!(matches!(parse(br#" { "x" : [1] , "type" : "\u0070ing" } "#), Ok(Signal::Ping)));
    assert!(matches!(parse(br#"{"type":"pong"}"#), Ok(Signal::Pong)));
    assert!(matches!(parse(PONG), Ok(Signal::Pong)));
}

#[test]
fn json_that_says_nothing_to_the_protocol_is_ignored() {
    for junk in [
        "null",
        "1",
        "-0.5e+3",
        r#""publish""#,
        "true",
        "false",
        "[]",
        r#"[{"type":"ping"}]"#,
        "{}",
        r#"{"type":null}"#,
        r#"{"type":""}"#,
        r#"{"type":1}"#,
        r#"{"type":["ping"]}"#,
        r#"{"type":"Ping"}"#,
        r#"{"type":"pings"}"#,
        r#"{"typ\u0000e":"ping"}"#,
        r#"{"data":{"type":"ping"}}"#,
    ] {
        assert!(is_ignored(junk), "{junk}");
    }
}

#[test]
fn sender_and_receiver_stand_outside_or_else_in_the_data() {
    type Case = (&'static str, Option<&'static str>, Option<&'static str>);
    const CASES: [Case; 12] = [
        (r#""data":{"type":"announce","from":"ana"}"#, Some("ana"), None),
        (r#""data":{"to":"ben","from":"ana"}"#, Some("ana"), Some("ben")),
        (r#""data":"AAdBRVMtR0NN""#, None, None),
        (r#""data":"AAdBRVMtR0NN","to":"ben","from":"ana""#, Some("ana"), Some("ben")),
        (r#""to":"cyd","data":{"to":"ben","from":"ana"}"#, Some("ana"), Some("cyd")),
        (r#""from":"cyd","data":{"to":"ben","from":"ana"}"#, Some("cyd"), Some("ben")),
        (r#""from":7,"to":null,"data":{"to":"ben","from":"ana"}"#, Some("ana"), Some("ben")),
        (r#""data":{"to":1,"from":["ana"]}"#, None, None),
        (r#""data":{"to":"ben","to":1}"#, None, None),
        (r#""data":{"to":"ben"},"data":[]"#, None, None),
        (r#""data":{"signal":{"to":"ben"}}"#, None, None),
        (r#""data":{"to":"b\u0065n"}"#, None, Some("ben")),
    ];
    for (fields, sender, receiver) in CASES {
        let message = format!(r#"{{"type":"publish","topic":"t",{fields}}}"#);
        let publish = published(&message);
        assert_eq!(publish.sender(), sender.map(PeerId::from).as_ref(), "sender of {fields}");
        assert_eq!(publish.receiver(), receiver.map(PeerId::from).as_ref(), "receiver of {fields}");
    }
}

#[test]
fn what_json_parse_refuses_is_refused_at_the_byte_that_does_not_fit() {
    for (message, at) in [
        ("", 0),
        (" ", 1),
        ("{", 1),
        ("}", 0),
        ("{a:1}", 1),
        ("{'a':1}", 1),
        (r#"{"a"}"#, 4),
        (r#"{"a":}"#, 5),
        (r#"{"a":1,}"#, 7),
        (r#"{"a":1"#, 6),
        (r#"{"a":1 "b":2}"#, 7),
        ("{} {}", 3),
        ("[1,]", 3),
        ("[,1]", 1),
        ("[1}", 2),
        ("01", 1),
        ("-", 1),
        ("+1", 0),
        (".5", 0),
        ("1.", 2),
        ("1.e5", 2),
        ("1e", 2),
        ("1e+", 3),
        ("0x10", 1),
        ("NaN", 0),
        ("Infinity", 0),
        ("undefined", 0),
        ("tru", 3),
        ("nulL", 3),
        ("truefalse", 4),
        (r#"""#, 1),
        (r#""\"#, 2),
        (r#""\x41""#, 2),
        (r#""\u12g4""#, 5),
        (r#""\u123"#, 6),
        ("\"a\tb\"", 2),
        ("\"a\nb\"", 2),
        ("\"01234567\u{0}\"", 9),
        ("\"0123456789abcde\u{1f}\"", 16),
        ("\u{feff}{}", 0),
        ("\u{a0}{}", 0),
        ("\u{c}{}", 0),
        ("/**/{}", 0),
        ("{}\0", 2),
    ] {
        assert_eq!(parse(message.as_bytes()).err(), Some(SignalError::NotJson { at }), "{message:?}");
    }
}

#[test]
fn what_json_parse_accepts_is_accepted() {
    for message in [
        "\t\n\r 0 \t\n\r",
        "-0",
        "1E5",
        "1e-5",
        "0.0",
        "\"\u{7f}\u{80}\u{2028}\"",
        r#""\ud800""#,
        r#"{"":0,"":1}"#,
    ] {
        assert!(is_ignored(message), "{message:?}");
    }
}

#[test]
fn no_escapes_are_known_but_those_of_json() {
    for byte in 0..=127_u8 {
        let message = [b'"', b'\\', byte, b'0', b'0', b'e', b'9', b'"'];
        assert_eq!(parse(&message).is_ok(), br#""\/bfnrtu"#.contains(&byte), "{}", byte.escape_ascii());
    }
}

#[test]
fn nesting_ends_at_the_limit_wherever_it_stands() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    assert!(is_ignored(&nested(64)));
    assert_eq!(parse(nested(65).as_bytes()).err(), Some(SignalError::TooDeep { limit: 64 }));

    let within_data = |depth: usize| format!(r#"{{"type":"ping","data":{{"x":{}}}}}"#, nested(depth));
    assert!(matches!(parse(within_data(62).as_bytes()), Ok(Signal::Ping)));
    assert!(matches!(parse(within_data(63).as_bytes()), Err(SignalError::TooDeep { .. })));

    let deep = |depth: usize, limit| Signal::parse(nested(depth).as_bytes(), Limits { depth: limit }).err();
    assert_eq!(deep(1, 0), Some(SignalError::TooDeep { limit: 0 }));
    assert_eq!(deep(128, 1_000), None);
    assert_eq!(deep(129, 1_000), Some(SignalError::TooDeep { limit: Limits::MAX_DEPTH }));
}

#[test]
fn ten_megabytes_of_brackets_are_refused_at_the_first_too_many() {
    for opening in [&b"["[..], br#"{"a":"#] {
        let message = opening.repeat(10_000_000 / opening.len());
        assert_eq!(parse(&message).err(), Some(SignalError::TooDeep { limit: 64 }));
    }
}

#[test]
fn a_million_topics_can_be_left_unread() {
    let message = format!(r#"{{"type":"subscribe","topics":[{}"t"]}}"#, r#""t","#.repeat(999_999));
    let Ok(Signal::Subscribe(topics)) = parse(message.as_bytes()) else { panic!("no subscribe") };
    assert_eq!(topics.into_iter().take(3).count(), 3);
    assert_eq!(topics.within(0).count(), 1_000_000);
}

#[test]
fn bytes_that_are_not_utf8_are_refused_until_they_are_repaired() {
    let message = b"{\"type\":\"publish\",\"topic\":\"a\xffb\",\"data\":\"\xe2\x82\"}";
    assert_eq!(parse(message).err(), Some(SignalError::NotUtf8 { at: 28 }));

    let repaired = repair(message);
    let Ok(Signal::Publish(publish)) = parse(&repaired) else { panic!("no publish") };
    assert_eq!(publish.topic(), &TopicName::from("a\u{fffd}b"));
    let mut out = Vec::new();
    publish.encode(1, &mut out);
    let expected = "{\"type\":\"publish\",\"topic\":\"a\u{fffd}b\",\"data\":\"\u{fffd}\",\"clients\":1}";
    assert_eq!(out, expected.as_bytes());
}

#[test]
fn errors_say_what_was_refused_and_where() {
    let said = |message: &[u8]| parse(message).expect_err("bad").to_string();
    assert_eq!(said(b"\xff"), "message is not UTF-8 from byte 0");
    assert_eq!(said(b"{]"), "message is not JSON from byte 1");
    assert_eq!(said(&[b'['; 65]), "message is nested deeper than 64");
}
