//! Frames that are damaged, too long, too many, or never end.

use super::super::presence::tests::shown;
use super::super::replica::tests::POISON;
use super::*;
use wire::fragment::FragmentLimits;
use wire::id::BatchId;
use wire::sync::{Fragment, FragmentHeader, JoinError, RoomErrorCode, Status, Updates};

fn batch() -> BatchId {
    BatchId::from(9)
}

/// A frame of every kind, about the document, presence, rooms that we are not in, and rooms that we know nothing of.
fn frames() -> Vec<Bytes> {
    let doc = LoroDoc::new();
    doc.get_text("t").push_str("from a stranger").unwrap();
    doc.commit();
    let update = doc.export(ExportMode::all_updates()).unwrap();
    let half = Bytes::copy_from_slice(&update[..update.len() / 2]);
    let header = FragmentHeader { batch: batch(), fragments: 2, len: update.len() as u64 };
    let app = JoinError::App { code: Some("no".into()) };
    let unknown = JoinError::VersionUnknown { version: Some(Bytes::from_static(&[1, 2, 3])) };
    let refusal = |error| Message::JoinError { error, message: "because".into() };
    let wrong = |code| Message::RoomError { code, message: "because".into() };
    let messages = [
        asking(&version(&[(1, 5), (2, 7)])),
        showing(&version(&[(1, 5)])),
        refusal(JoinError::Unknown),
        refusal(unknown),
        refusal(JoinError::AuthFailed),
        refusal(app),
        Message::Update { batch: batch(), updates: Updates::from_iter([&update, &half.to_vec()]) },
        Message::Update { batch: batch(), updates: Updates::from_iter([shown("eve", 1)]) },
        Message::FragmentHeader(header),
        Message::Fragment(Fragment { batch: batch(), index: 0, bytes: half }),
        wrong(RoomErrorCode::RejoinSuggested),
        wrong(RoomErrorCode::Evicted),
        wrong(RoomErrorCode::Unknown),
        Message::Leave,
        Message::Ack { batch: batch(), status: Status::Ok },
        Message::Ack { batch: BatchId::from(1), status: Status::InvalidUpdate },
    ];
    let kinds = Crdt::ALL.map(|crdt| Room { crdt, ..room() });
    let rooms = kinds.into_iter().chain([another()]);
    rooms.flat_map(|room| messages.clone().map(|message| message.encode(&room).unwrap())).collect()
}

fn hear_on_every_link(bench: &mut Bench, frame: &Bytes) {
    for joined in [false, true] {
        for link in bench.links() {
            if joined {
                bench.join(link);
            }
            let outputs = bench.hear(link, frame.clone());
            let why = cut(&outputs, link);
            assert_eq!(why.is_none(), bench.is_up(link), "{frame:?}");
            bench.tell(Input::Down { link, end: End::Lost });
        }
    }
}

#[test]
fn every_frame_cut_short_at_every_byte_ends_its_own_link_at_most() {
    let mut bench = Bench::new();
    for frame in frames() {
        for len in 0..=frame.len() {
            hear_on_every_link(&mut bench, &frame.slice(..len));
        }
    }
    bench.assert_good();
}

#[test]
fn every_frame_with_a_byte_changed_ends_its_own_link_at_most() {
    let mut bench = Bench::new();
    for frame in frames() {
        for at in 0..frame.len() {
            for change in [0x01, 0x80, 0xff] {
                let mut bytes = frame.to_vec();
                bytes[at] ^= change;
                hear_on_every_link(&mut bench, &bytes.into());
            }
        }
    }
    bench.assert_good();
}

#[test]
fn a_frame_longer_than_the_protocol_has_ends_its_link() {
    let mut bench = Bench::new();
    for link in bench.links() {
        bench.join(link);
        let mut long = sync::leave(&room()).to_vec();
        long.resize(sync::MAX_FRAME + 1, 0);
        let outputs = bench.hear(link, long);
        assert_eq!(cut(&outputs, link), Some(Reason::Garbage));
    }
    bench.assert_good();
}

#[test]
fn who_never_speaks_our_protocol_is_foreign() {
    let mut bench = Bench::new();
    for link in bench.links() {
        let outputs = bench.hear(link, &b"\x00\x01 something that Yjs says"[..]);
        assert_eq!(cut(&outputs, link), Some(Reason::Foreign));
    }
    bench.assert_good();
}

#[test]
fn who_speaks_of_rooms_that_were_never_joined_is_told_and_then_cut() {
    let mut bench = Bench::new();
    for link in [bench.guest(), bench.channel()] {
        bench.join(link);
        let frame = asking(&[]).encode(&another()).unwrap();
        let outputs = bench.hear(link, frame.clone());
        let told = outputs.iter().any(|said| match said {
            Output::Send { frame, .. } => {
                let said = sync::Frame::decode(frame).unwrap();
                said.room == another() && matches!(said.message, Message::JoinError { .. })
            }
            _ => false,
        });
        assert!(told, "{outputs:?}");
        let why = (0..100).find_map(|_| cut(&bench.hear(link, frame.clone()), link));
        assert_eq!(why, Some(Reason::Garbage));
    }
    bench.assert_good();
}

#[test]
fn updates_before_joining_are_refused_and_then_the_link_is_cut() {
    let mut bench = Bench::new();
    let link = bench.guest();
    let doc = LoroDoc::new();
    doc.get_text("t").push_str("uninvited").unwrap();
    doc.commit();
    let update = doc.export(ExportMode::all_updates()).unwrap();
    let frame = sync::update(&room(), batch(), &[update]).unwrap();
    let why = (0..100).find_map(|_| cut(&bench.hear(link, frame.clone()), link));
    assert_eq!(why, Some(Reason::Garbage));
    assert!(!bench.engine.version().includes_vv(&doc.oplog_vv()));
    bench.assert_good();
}

#[test]
fn fragments_that_are_never_finished_are_held_to_the_cap_and_let_go() {
    let mut bench = Bench::new();
    let limits = FragmentLimits::default();
    for link in bench.links() {
        bench.join(link);
        let part = Bytes::from(vec![7; 200 << 10]);
        let mut why = None;
        for number in 0..200_u64 {
            let header = FragmentHeader { batch: BatchId::from(number), fragments: 40, len: 8 << 20 };
            let header = Message::FragmentHeader(header).encode(&room()).unwrap();
            why = why.or(cut(&bench.hear(link, header), link));
            for index in 0..3 {
                let fragment = Fragment { batch: BatchId::from(number), index, bytes: part.clone() };
                let fragment = Message::Fragment(fragment).encode(&room()).unwrap();
                why = why.or(cut(&bench.hear(link, fragment), link));
            }
            if why.is_some() {
                break;
            }
            assert!(bench.weight(link)[0] <= limits.pending);
        }
        assert_eq!(why, Some(Reason::Garbage), "fragments of what was refused are no fragments");
    }
    let link = bench.guest();
    bench.join(link);
    let header = FragmentHeader { batch: batch(), fragments: 40, len: 8 << 20 };
    bench.hear(link, Message::FragmentHeader(header).encode(&room()).unwrap());
    assert_eq!(bench.weight(link)[0], 8 << 20);
    let outputs = bench.wait(limits.patience);
    assert_eq!(bench.weight(link)[0], 0);
    let timeout = sync::ack(&room(), batch(), Status::FragmentTimeout);
    assert!(outputs.contains(&Output::Send { link, frame: timeout }));
    bench.assert_good();
}

#[test]
fn headers_that_announce_the_impossible_reserve_nothing() {
    let mut bench = Bench::new();
    let link = bench.guest();
    bench.join(link);
    for (fragments, len) in [(u64::MAX, u64::MAX), (1, u64::MAX), (u64::MAX, 1), (0, 0), (1 << 31, 1 << 40)] {
        let header = FragmentHeader { batch: batch(), fragments, len };
        let outputs = bench.hear(link, Message::FragmentHeader(header).encode(&room()).unwrap());
        assert_eq!(cut(&outputs, link), None);
        assert_eq!(bench.weight(link)[0], 0, "{fragments} of {len}");
    }
    bench.assert_good();
}

#[test]
fn an_update_of_very_many_nothings_is_refused() {
    let mut bench = Bench::new();
    let link = bench.guest();
    bench.join(link);
    let nothings = Updates::from_iter(std::iter::repeat_n([], 200_000));
    let outputs =
        bench.hear(link, Message::Update { batch: batch(), updates: nothings }.encode(&room()).unwrap());
    let refusal = sync::ack(&room(), batch(), Status::PayloadTooLarge);
    assert!(outputs.contains(&Output::Send { link, frame: refusal }));
    bench.assert_good();
}

#[test]
fn updates_that_build_on_nothing_do_not_pile_up() {
    let mut bench = Bench::new();
    let link = bench.guest();
    bench.join(link);
    let doc = LoroDoc::new();
    doc.get_text("t").push_str("never sent").unwrap();
    doc.commit();
    let mut filler = 1_u64;
    for number in 0..300 {
        let before = doc.oplog_vv();
        let noise: String = std::iter::repeat_with(|| {
            filler = filler.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            char::from(b'!' + (filler >> 58) as u8)
        })
        .take(200 << 10)
        .collect();
        doc.get_text("t").push_str(&noise).unwrap();
        doc.commit();
        let update = doc.export(ExportMode::updates(&before)).unwrap();
        let outputs = bench.hear(link, sync::update(&room(), BatchId::from(number), &[update]).unwrap());
        if let Some(why) = cut(&outputs, link) {
            assert_eq!(why, Reason::TooSlow);
            break;
        }
        assert!(bench.engine.replica.is_within_bounds());
    }
    bench.assert_good();
}

#[test]
fn who_asks_without_end_and_takes_nothing_is_cut() {
    let mut bench = Bench::new();
    for link in [bench.guest(), bench.channel()] {
        let frame = asking(&[]).encode(&room()).unwrap();
        let mut why = None;
        for _ in 0..1_000_000 {
            why = cut(&bench.hear(link, frame.clone()), link);
            if why.is_some() {
                break;
            }
            assert!(bench.weight(link)[2] <= MOST_UNSENT + sync::MAX_FRAME);
        }
        assert_eq!(why, Some(Reason::TooSlow));
    }
    bench.assert_good();
}

#[test]
fn an_update_that_breaks_the_document_ends_its_link_and_the_others_stay() {
    let mut bench = Bench::new();
    bench.assert_good();
    let [guest, channel, uplink] = bench.links();
    for link in [guest, channel, uplink] {
        bench.join(link);
    }
    for link in [guest, channel, uplink] {
        let outputs = bench.hear(link, sync::update(&room(), batch(), &[POISON]).unwrap());
        assert_eq!(cut(&outputs, link), Some(Reason::Hostile));
        assert!(outputs.contains(&Output::Restore));
        bench.assert_good();
    }
    assert_eq!(bench.engine.status().garbage, 3);
}

#[test]
fn presence_beyond_the_caps_is_ignored_and_garbage_ends_the_link() {
    let mut bench = Bench::new();
    let link = bench.channel();
    bench.join(link);
    bench.hear(link, asking(&[]).encode(&presence()).unwrap());
    for number in 0..10_000 {
        let update = shown(&format!("session {number}"), 1_000);
        let outputs = bench.hear(link, sync::update(&presence(), batch(), &[update]).unwrap());
        assert_eq!(cut(&outputs, link), None);
        let (keys, bytes) = bench.engine.presence.weight();
        assert!(keys <= 4097 && bytes <= 4 << 20, "{keys} keys, {bytes} bytes");
    }
    let large = shown("large", MAX_PRESENCE + 1);
    bench.hear(link, sync::update(&presence(), batch(), &[large]).unwrap());
    assert!(!bench.engine.online(bench.now).iter().any(|online| online.session == "large"));
    let garbage = sync::update(&presence(), batch(), &[b"no presence at all"]).unwrap();
    let why = (0..100).find_map(|_| cut(&bench.hear(link, garbage.clone()), link));
    assert_eq!(why, Some(Reason::Garbage));
    assert!(bench.engine.status().garbage > 30);
    bench.assert_good();
}
