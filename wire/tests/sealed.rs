//! Records of `%ELO` updates: the vector of the specification, and what is refused.

use bytes::Bytes;
use wire::sealed::{Covers, Record, SealedError, Span, container, records, snapshot_header, span_header};
use wire::{ReadError, sync::Status};

const IV: [u8; 12] = [0x86, 0xbc, 0xad, 0x09, 0xd5, 0xe7, 0xe3, 0xd7, 0x05, 0x03, 0xa5, 0x7e];

fn span(peer: &'static [u8], start: u64, end: u64) -> Span {
    Span { peer: Bytes::from_static(peer), start, end }
}

fn read(update: impl Into<Bytes>) -> Result<Vec<Record>, SealedError> {
    records(&update.into()).collect()
}

#[test]
fn the_header_of_a_span_is_the_one_of_the_specification() {
    let header = span_header(&span(&[1, 2, 3, 4], 1, 3), "k1", IV).expect("good");
    assert_eq!(
        header,
        b"\x00\x04\x01\x02\x03\x04\x01\x03\x02k1\x0c\x86\xbc\xad\x09\xd5\xe7\xe3\xd7\x05\x03\xa5\x7e"[..]
    );
    let record = Record::parse(Record::encode(&header, b"ciphertext and tag")).expect("good");
    assert_eq!(record.covers, Covers::Span(span(&[1, 2, 3, 4], 1, 3)));
    assert_eq!((record.header, &record.ciphertext[..], record.iv), (header, &b"ciphertext and tag"[..], IV));
}

#[test]
fn the_version_of_a_snapshot_is_put_in_order() {
    let header = snapshot_header([("7", 3), ("10", 1), ("7", 9)], "k", IV).expect("good");
    let record = Record::parse(Record::encode(&header, b"")).expect("good");
    let Covers::Snapshot(version) = record.covers else { panic!("no snapshot") };
    let version: Vec<_> = version.iter().collect();
    assert_eq!(version, [("10".into(), 1), ("7".into(), 9)]);
}

#[test]
fn an_update_is_a_container_of_records() {
    let one = Record::encode(&span_header(&span(b"1", 0, 2), "k", IV).expect("good"), b"one");
    let two = Record::encode(&snapshot_header([("1", 2)], "k", IV).expect("good"), b"two");
    let both = read(container(&[&one, &two])).expect("good");
    assert_eq!(both.iter().map(|record| record.bytes.clone()).collect::<Vec<_>>(), [one.clone(), two]);
    assert_eq!(read(container(&[b""; 0])), Ok(vec![]));

    let mut items = Vec::from(container(&[&one[..], b"\x02"]));
    assert_eq!(read(items.clone()), Err(SealedError::UnknownKind(2)));
    items.truncate(items.len() - 2);
    let cut: Vec<_> = records(&items.into()).collect();
    assert!(matches!(cut[..], [Ok(_), Err(SealedError::Field(ReadError::Truncated { .. }))]), "{cut:?}");
    assert_eq!(read(&b"\x00more"[..]), Err(SealedError::Field(ReadError::Trailing { len: 4 })));
}

#[test]
fn a_record_that_breaks_a_rule_is_an_invalid_update() {
    let refused = |record: &[u8]| Record::parse(Bytes::copy_from_slice(record)).expect_err("bad");
    let iv = b"\x0c............\x00";
    let with_iv = |start: &[u8]| refused(&[start, iv].concat());
    let long = [b'p'; 65];
    assert_eq!(with_iv(b"\x00\x01p\x05\x05\x01k"), SealedError::EmptySpan { start: 5, end: 5 });
    assert_eq!(
        with_iv(&[b"\x00\x41", &long[..], b"\x00\x01\x01k"].concat()),
        SealedError::PeerTooLong { len: 65 }
    );
    assert_eq!(
        with_iv(&[b"\x01\x01\x41", &long[..], b"\x01\x01k"].concat()),
        SealedError::PeerTooLong { len: 65 }
    );
    assert_eq!(
        with_iv(&[b"\x00\x01p\x00\x01\x41", &long[..]].concat()),
        SealedError::KeyIdTooLong { len: 65 }
    );
    assert_eq!(with_iv(b"\x01\x02\x01q\x01\x01p\x01\x01k"), SealedError::Unordered);
    assert_eq!(with_iv(b"\x01\x02\x01p\x01\x01p\x02\x01k"), SealedError::Unordered);
    assert_eq!(refused(b"\x00\x01p\x00\x01\x01k\x0b...........\x00"), SealedError::BadIv { len: 11 });
    assert_eq!(with_iv(b"\x00\x01p\x00\x01\x01\xff"), SealedError::Field(ReadError::NotText { at: 6 }));
    assert_eq!(refused(b""), SealedError::Field(ReadError::Truncated { at: 0 }));
    assert_eq!(with_iv(b"\x02"), SealedError::UnknownKind(2));
    assert_eq!(refused(b"").status(), Status::InvalidUpdate);
}

#[test]
fn a_count_of_records_or_peers_is_not_believed() {
    let claim = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert!(read(Bytes::from_static(claim)).is_err());
    assert!(Record::parse([b"\x01", &claim[..]].concat().into()).is_err());
}

#[test]
fn a_header_that_would_be_refused_is_not_written() {
    assert_eq!(span_header(&span(b"1", 2, 2), "k", IV), Err(SealedError::EmptySpan { start: 2, end: 2 }));
    assert_eq!(
        span_header(&span(b"1", 0, 2), &"k".repeat(65), IV),
        Err(SealedError::KeyIdTooLong { len: 65 })
    );
    assert_eq!(snapshot_header([([0; 65], 1)], "k", IV), Err(SealedError::PeerTooLong { len: 65 }));
}
