//! Bytes that the published programs exchanged, and bytes that nobody should send.

use std::borrow::Cow;

use bytes::Bytes;
use wire::sync::{
    Crdt, Fault, FragmentHeader, Frame, FrameError, FrameTooLong, JoinError, MAX_FRAME, Message, Permission,
    Remedy, Room, RoomErrorCode, Status, Updates, ack, leave, update,
};
use wire::{BatchId, ReadError, RoomId, sealed};

fn hex(text: &str) -> Bytes {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn room(crdt: Crdt, id: &str) -> Room {
    Room { crdt, id: RoomId::try_from(id).expect("a short id") }
}

fn decoded(text: &str) -> Frame {
    Frame::decode(&hex(text)).expect("a good frame")
}

fn refused(bytes: &[u8]) -> FrameError {
    Frame::decode(&Bytes::copy_from_slice(bytes)).expect_err("a bad frame")
}

fn name(message: &Message) -> &'static str {
    match message {
        Message::JoinRequest { .. } => "JoinRequest",
        Message::JoinOk { .. } => "JoinResponseOk",
        Message::JoinError { .. } => "JoinError",
        Message::Update { .. } => "DocUpdate",
        Message::FragmentHeader(_) => "DocUpdateFragmentHeader",
        Message::Fragment(_) => "DocUpdateFragment",
        Message::RoomError { .. } => "RoomError",
        Message::Leave => "Leave",
        Message::Ack { .. } => "Ack",
    }
}

#[test]
fn every_frame_of_the_published_programs_is_read_and_written_again_byte_for_byte() {
    let mut frames = 0;
    for line in include_str!("golden/loro.txt").lines() {
        let [_, "->" | "<-", said, len, bytes] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
        if said == "?" || bytes.starts_with("head=") {
            continue;
        }
        let bytes = hex(bytes);
        assert_eq!(format!("{}B", bytes.len()), len, "{line}");
        let frame = Frame::decode(&bytes).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(name(&frame.message), said, "{line}");
        assert_eq!(frame.message.encode(&frame.room), Ok(bytes), "{line}");
        frames += 1;
    }
    assert_eq!(frames, 37, "frames in golden/loro.txt");
}

#[test]
fn a_join_carries_what_the_client_shows_and_what_it_has() {
    let Frame { room: joined, message } = decoded("254c4f5201670003746f6b0100");
    assert_eq!(joined, room(Crdt::Loro, "g"));
    assert_eq!(joined.to_string(), "%LOR/g");
    assert_eq!(message, Message::JoinRequest { auth: "tok".into(), version: hex("00") });
    assert_eq!(
        decoded("254c4f52016701057772697465010000").message,
        Message::JoinOk { permission: Permission::Write, version: hex("00"), extra: Bytes::new() }
    );
}

#[test]
fn an_update_is_a_slice_of_the_frame_that_it_came_in() {
    let frame = hex("254c4f5201670301076761726261676500000000000000ff");
    let Ok(Frame { message: Message::Update { batch, updates }, .. }) = Frame::decode(&frame) else {
        panic!("no update");
    };
    assert_eq!(batch, BatchId::from(0xff));
    let [update] = updates.iter().collect::<Vec<_>>().try_into().expect("one update");
    assert_eq!(update, "garbage");
    assert!(frame.as_ptr_range().contains(&update.as_ptr()));
}

#[test]
fn the_header_of_fragments_is_a_claim_about_them() {
    let expected = FragmentHeader { batch: BatchId::from(0xba15), fragments: 2, len: 307_297 };
    assert_eq!(decoded("254c4f52016604000000000000ba1502e1e012").message, Message::FragmentHeader(expected));
}

#[test]
fn what_the_protocol_says_in_one_byte_is_read_and_written_as_that_byte() {
    let here = room(Crdt::Loro, "g");
    for (status, code) in [
        (Status::Ok, 0x00),
        (Status::Unknown, 0x01),
        (Status::PermissionDenied, 0x03),
        (Status::InvalidUpdate, 0x04),
        (Status::PayloadTooLarge, 0x05),
        (Status::RateLimited, 0x06),
        (Status::FragmentTimeout, 0x07),
        (Status::AppError, 0x7f),
    ] {
        let frame = ack(&here, BatchId::from(9), status);
        assert_eq!(frame, hex(&format!("254c4f520167080000000000000009{code:02x}")));
        let message = Message::Ack { batch: BatchId::from(9), status };
        assert_eq!(Frame::decode(&frame).map(|frame| frame.message), Ok(message));
    }
    for (code, byte) in
        [(RoomErrorCode::RejoinSuggested, 1), (RoomErrorCode::Evicted, 2), (RoomErrorCode::Unknown, 0x7f)]
    {
        let message = Message::RoomError { code, message: "x".into() };
        let frame = message.encode(&here).expect("short");
        assert_eq!(frame, hex(&format!("254c4f52016706{byte:02x}0178")));
        assert_eq!(Frame::decode(&frame).map(|frame| frame.message), Ok(message));
    }
    assert_eq!(leave(&here), hex("254c4f52016707"));
}

#[test]
fn join_errors_carry_what_their_reason_asks_for() {
    let text = |text: &'static str| Cow::Borrowed(text);
    for (error, bytes) in [
        (JoinError::Unknown, "00 026e6f"),
        (JoinError::VersionUnknown { version: None }, "01 026e6f"),
        (JoinError::VersionUnknown { version: Some(hex("0102")) }, "01 026e6f 020102"),
        (JoinError::AuthFailed, "02 026e6f"),
        (JoinError::App { code: None }, "7f 026e6f"),
        (JoinError::App { code: Some(text("quota")) }, "7f 026e6f 0571756f7461"),
    ] {
        let message = Message::JoinError { error, message: text("no") };
        let frame = message.encode(&room(Crdt::Ephemeral, "g")).expect("short");
        assert_eq!(frame, hex(&format!("25455048 0167 02 {bytes}")));
        assert_eq!(Frame::decode(&frame).map(|frame| frame.message), Ok(message));
    }
}

#[test]
fn codes_that_nobody_knows_yet_are_read_as_unknown() {
    let ack = decoded("254c4f520167080000000000000009 42").message;
    assert_eq!(ack, Message::Ack { batch: BatchId::from(9), status: Status::Unknown });
    let Message::RoomError { code, .. } = decoded("254c4f520167 06 42 00").message else {
        panic!("no error")
    };
    assert_eq!(code, RoomErrorCode::Unknown);
    let Message::JoinError { error, .. } = decoded("254c4f520167 02 42 00").message else {
        panic!("no error")
    };
    assert_eq!(error, JoinError::Unknown);
}

#[test]
fn a_later_version_may_add_to_joins_and_errors_but_not_to_updates() {
    for frame in ["00 00 00", "01 0472656164 00 00", "02 02 00", "06 01 00", "07"] {
        assert!(Frame::decode(&hex(&format!("254c4f520167 {frame} 2a"))).is_ok(), "{frame}");
    }
    let updates = ["03 00 0000000000000009", "04 0000000000000009 02 03", "05 0000000000000009 00 00"];
    for frame in updates.into_iter().chain(["08 0000000000000009 00"]) {
        let error = Frame::decode(&hex(&format!("254c4f520167 {frame} 2a"))).expect_err("too long");
        assert_eq!(error.fault, Fault::Field(ReadError::Trailing { len: 1 }), "{frame}");
    }
}

#[test]
fn the_seven_kinds_of_room_are_told_by_their_first_bytes() {
    for (crdt, magic) in Crdt::ALL.into_iter().zip(["%LOR", "%EPH", "%EPS", "%ELO", "%YJS", "%YAW", "%FLO"]) {
        let frame = leave(&room(crdt, "g"));
        assert!(frame.starts_with(magic.as_bytes()));
        assert_eq!(Frame::decode(&frame).map(|frame| frame.room), Ok(room(crdt, "g")));
    }
}

#[test]
fn a_frame_without_a_room_is_answered_by_a_close() {
    let closes = |bytes: &[u8], expected: Fault| {
        let FrameError { fault, remedy } = refused(bytes);
        assert_eq!((fault, remedy), (expected, Remedy::Close), "{}", bytes.escape_ascii());
    };
    let truncated = |at| Fault::Field(ReadError::Truncated { at });
    closes(&[1, 2, 3], truncated(0));
    closes(b"%", truncated(0));
    closes(b"%XYZ\x01g\x07", Fault::UnknownCrdt(*b"%XYZ"));
    closes(b"%LOR", truncated(4));
    closes(b"%LOR\x02g", truncated(4));
    closes(b"%LOR\x01g", truncated(6));
    closes(b"%LOR\x01\xff\x07", Fault::Field(ReadError::NotText { at: 5 }));
    closes(b"%LOR\x01g\x09", Fault::UnknownType(9));
    closes(b"%LOR\x01g\x08\0\0\0\0\0\0\0\x01", truncated(15));
    let long = [b"%LOR\x81\x01", &[b'x'; 129][..], b"\x07"].concat();
    assert_eq!(refused(&long).to_string(), "room id is 129 bytes, limit is 128");
    assert_eq!(refused(&long).remedy, Remedy::Close);
}

#[test]
fn a_join_that_cannot_be_read_is_answered_by_a_join_error() {
    assert_eq!(refused(b"%LOR\x01g\x00\x05ab").remedy, Remedy::JoinError(room(Crdt::Loro, "g")));
}

#[test]
fn an_update_that_cannot_be_read_is_answered_by_an_ack_with_its_batch() {
    let answer = |status| Remedy::Ack(room(Crdt::Loro, "g"), BatchId(*b"12345678"), status);
    for bytes in [
        &b"%LOR\x01g\x03\x02\x01x12345678"[..],
        b"%LOR\x01g\x03\x00.12345678",
        b"%LOR\x01g\x03\xff\xff\xff\xff\xff\xff\xff\xff\xff\x0112345678",
        b"%LOR\x01g\x0412345678",
        b"%LOR\x01g\x0412345678\x80\x00\x01",
        b"%LOR\x01g\x0512345678\x01\x05abcd",
    ] {
        assert_eq!(refused(bytes).remedy, answer(Status::InvalidUpdate), "{}", bytes.escape_ascii());
    }
    let mut long = [&b"%LOR\x01g\x03\x01\xff\xff\x0f"[..], &vec![0; (1 << 18) - 1]].concat();
    long.extend_from_slice(b"12345678");
    let error = refused(&long);
    assert_eq!(error.remedy, answer(Status::PayloadTooLarge));
    assert_eq!(error.to_string(), format!("frame is {} bytes, limit is 262144", long.len()));
    assert_eq!(refused(b"%LOR\x01g\x031234567").remedy, Remedy::Close);
}

#[test]
fn a_count_of_updates_is_not_believed() {
    for count in ["8080808020", "ffffffffffffffffff01", "8080808004"] {
        let frame = hex(&format!("254c4f520167 03 {count} 0102030405060708"));
        assert!(matches!(Frame::decode(&frame), Err(FrameError { fault: Fault::Field(_), .. })), "{count}");
    }
    let empty = update(&room(Crdt::Loro, "g"), BatchId::from(1), &vec![b""; 200_000]).expect("one byte each");
    let Ok(Frame { message: Message::Update { updates, .. }, .. }) = Frame::decode(&empty) else { panic!() };
    assert_eq!((updates.len(), updates.iter().count(), updates.total_len()), (200_000, 200_000, 200_000));
}

#[test]
fn a_frame_is_as_long_as_it_may_be_and_no_longer() {
    let here = room(Crdt::Loro, "g");
    let fits = vec![7; MAX_FRAME - 19];
    let frame = update(&here, BatchId::from(1), &[&fits]).expect("just fits");
    assert_eq!(frame.len(), MAX_FRAME);
    assert!(Frame::decode(&frame).is_ok());
    let padded = [&leave(&here)[..], &vec![7; MAX_FRAME - 6]].concat();
    assert_eq!(refused(&padded).fault, Fault::TooLong { len: MAX_FRAME + 1 });
    assert!(Frame::decode(&padded[..MAX_FRAME].to_vec().into()).is_ok());
    let longer = [fits, vec![7]].concat();
    assert_eq!(update(&here, BatchId::from(1), &[&longer]), Err(FrameTooLong { len: MAX_FRAME + 1 }));
    let message = Message::Update { batch: BatchId::from(1), updates: Updates::from_iter([&longer]) };
    assert_eq!(message.encode(&here), Err(FrameTooLong { len: MAX_FRAME + 1 }));
}

#[test]
fn an_encrypted_update_shows_its_header_and_nothing_else() {
    let line =
        include_str!("golden/loro.txt").lines().find(|line| line.contains("DocUpdate 139B")).expect("there");
    let Message::Update { updates, .. } = decoded(line.rsplit(' ').next().expect("bytes")).message else {
        panic!()
    };
    let container = updates.iter().next().expect("one update");
    let [record] =
        sealed::records(&container).collect::<Result<Vec<_>, _>>().expect("good").try_into().expect("one");
    let span = sealed::Span { peer: "1".into(), start: 0, end: 2 };
    assert_eq!(record.covers, sealed::Covers::Span(span.clone()));
    assert_eq!((&record.key_id[..], record.iv), (&b"k1"[..], [0x0c; 12]));
    assert_eq!(sealed::span_header(&span, "k1", [0x0c; 12]), Ok(record.header.clone()));
    assert_eq!(sealed::Record::encode(&record.header, &record.ciphertext), record.bytes);
    assert_eq!(sealed::container(&[record.bytes]), container);
}
