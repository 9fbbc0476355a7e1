//! What holds for every frame, checked against the published crate `loro-protocol`.

use std::borrow::Cow;

use bytes::Bytes;
use loro_protocol as published;
use proptest::collection::vec;
use proptest::prelude::*;
use wire::sync::{
    Crdt, Fragment, FragmentHeader, Frame, JoinError, Message, Permission, Room, RoomErrorCode, Status,
    Updates, update,
};
use wire::{BatchId, RoomId};

fn bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..200).prop_map(Bytes::from)
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "[a-z\u{0}é😀]{0,20}".prop_map(Cow::Owned)
}

fn room() -> impl Strategy<Value = Room> {
    let id = prop_oneof!["[a-zé]{0,30}", "x{128}"];
    (prop::sample::select(&Crdt::ALL[..]), id)
        .prop_map(|(crdt, id)| Room { crdt, id: RoomId::try_from(id.as_str()).expect("a short id") })
}

fn batch() -> impl Strategy<Value = BatchId> {
    any::<[u8; 8]>().prop_map(BatchId)
}

fn permission() -> impl Strategy<Value = Permission> {
    prop_oneof![Just(Permission::Read), Just(Permission::Write)]
}

fn join_error() -> impl Strategy<Value = JoinError> {
    prop_oneof![
        Just(JoinError::Unknown),
        prop::option::of(bytes()).prop_map(|version| JoinError::VersionUnknown { version }),
        Just(JoinError::AuthFailed),
        prop::option::of(text()).prop_map(|code| JoinError::App { code }),
    ]
}

fn room_error() -> impl Strategy<Value = RoomErrorCode> {
    prop_oneof![
        Just(RoomErrorCode::RejoinSuggested),
        Just(RoomErrorCode::Evicted),
        Just(RoomErrorCode::Unknown)
    ]
}

fn status() -> impl Strategy<Value = Status> {
    prop_oneof![
        Just(Status::Ok),
        Just(Status::Unknown),
        Just(Status::PermissionDenied),
        Just(Status::InvalidUpdate),
        Just(Status::PayloadTooLarge),
        Just(Status::RateLimited),
        Just(Status::FragmentTimeout),
        Just(Status::AppError),
    ]
}

fn message() -> impl Strategy<Value = Message> {
    let header = (batch(), any::<u64>(), any::<u64>());
    let fragment = (batch(), any::<u64>(), bytes());
    prop_oneof![
        (bytes(), bytes()).prop_map(|(auth, version)| Message::JoinRequest { auth, version }),
        (permission(), bytes(), bytes()).prop_map(|(permission, version, extra)| Message::JoinOk {
            permission,
            version,
            extra
        }),
        (join_error(), text()).prop_map(|(error, message)| Message::JoinError { error, message }),
        (batch(), vec(bytes(), 0..5))
            .prop_map(|(batch, updates)| Message::Update { batch, updates: Updates::from_iter(updates) }),
        header.prop_map(|(batch, fragments, len)| Message::FragmentHeader(FragmentHeader {
            batch,
            fragments,
            len
        })),
        fragment.prop_map(|(batch, index, bytes)| Message::Fragment(Fragment { batch, index, bytes })),
        (room_error(), text()).prop_map(|(code, message)| Message::RoomError { code, message }),
        Just(Message::Leave),
        (batch(), status()).prop_map(|(batch, status)| Message::Ack { batch, status }),
    ]
}

fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), prop::option::of(any::<u8>()), 0..3_usize);
    (room(), message(), vec(change, 0..4)).prop_map(|(room, message, changes)| {
        let mut bytes = message.encode(&room).expect("short").to_vec();
        for (at, byte, remove) in changes {
            let at = at.index(bytes.len() + 1);
            let end = bytes.len().min(at + remove);
            bytes.splice(at..end, byte);
        }
        bytes
    })
}

/// What the published crate makes of a frame. It is not asked about updates of which there cannot be so many: it
/// would reserve memory for all of them.
fn judged(frame: &[u8]) -> Option<Result<published::ProtocolMessage, String>> {
    let mut reader = published::bytes::BytesReader::new(frame);
    let envelope =
        reader.read_bytes(4).and_then(|_| reader.read_var_bytes()).and_then(|_| reader.read_byte());
    let believable =
        envelope != Ok(0x03) || reader.read_uleb128().is_ok_and(|count| count <= frame.len() as u64);
    believable.then(|| published::decode(frame))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_frame_comes_back_as_it_was_meant(room in room(), message in message()) {
        let frame = message.encode(&room).expect("short");
        prop_assert_eq!(Frame::decode(&frame), Ok(Frame { room, message }));
    }

    #[test]
    fn the_published_crate_reads_our_frames_and_writes_the_same(room in room(), message in message()) {
        let frame = message.encode(&room).expect("short");
        let theirs = judged(&frame).expect("a true count").expect("a good frame");
        prop_assert_eq!(published::encode(&theirs), Ok(frame.to_vec()));
    }

    #[test]
    fn what_we_accept_the_published_crate_accepts_and_means_the_same(frame in damaged()) {
        let ours = Frame::decode(&Bytes::from(frame.clone()));
        match (ours, judged(&frame)) {
            (Ok(ours), theirs) => {
                let theirs = theirs.expect("a true count").map_err(TestCaseError::fail)?;
                let rewritten = ours.message.encode(&ours.room).expect("no longer than it was");
                prop_assert_eq!(Ok(rewritten.to_vec()), published::encode(&theirs));
            }
            // It is looser: it takes bytes after the end, overlong numbers, and extras that cannot be read.
            (Err(_), Some(Ok(theirs))) => prop_assert_ne!(published::encode(&theirs), Ok(frame)),
            (Err(_), _) => {}
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(bytes in vec(any::<u8>(), 0..60), kind in 0..9_u8) {
        prop_assert!(Frame::decode(&Bytes::from(bytes.clone())).is_err());
        let frame = Bytes::from([&b"%LOR\x01g"[..], &[kind], &bytes].concat());
        if let Ok(frame) = Frame::decode(&frame) {
            prop_assert!(frame.message.encode(&frame.room).is_ok());
        }
    }

    #[test]
    fn updates_are_written_alike_from_slices_and_from_a_message(
        room in room(), batch in batch(), updates in vec(bytes(), 0..5),
    ) {
        let message = Message::Update { batch, updates: updates.iter().collect() };
        prop_assert_eq!(message.encode(&room), update(&room, batch, &updates));
        let Message::Update { updates: collected, .. } = message else { unreachable!() };
        prop_assert_eq!(collected.iter().collect::<Vec<_>>(), updates);
    }
}
