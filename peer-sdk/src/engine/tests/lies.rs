//! Versions that are not true, answers that nobody asked for, and silence.

use super::*;
use wire::id::BatchId;
use wire::sync::{Frame, Status};

fn questions(outputs: &[Output], to: LinkId) -> usize {
    let asks = |output: &&Output| match output {
        Output::Send { link, frame } if *link == to => {
            let said = Frame::decode(frame).unwrap();
            said.room == room() && matches!(said.message, Message::JoinRequest { .. })
        }
        _ => false,
    };
    outputs.iter().filter(asks).count()
}

#[test]
fn who_claims_what_it_does_not_have_is_asked_once_and_not_waited_for() {
    let mut bench = Bench::new();
    let link = bench.channel();
    bench.join(link);
    let lie = version(&[(1, i32::MAX), (2, 1), (u64::MAX, 77)]);
    let mut asked = questions(&bench.hear(link, showing(&lie).encode(&room()).unwrap()), link);
    assert_eq!(asked, 1);
    assert!(!bench.engine.is_caught_up(), "it may yet come");
    bench.hear(link, showing(&lie).encode(&room()).unwrap());
    for _ in 0..20 {
        asked += questions(&bench.wait(Duration::from_secs(1)), link);
    }
    assert_eq!(asked, 1);
    assert!(bench.engine.is_caught_up());
    assert_eq!(bench.engine.version().len(), 0, "claims are no edits");
    bench.assert_good();
}

#[test]
fn an_update_whose_forerunners_are_lost_is_not_asked_about_without_end() {
    let mut bench = Bench::new();
    let doc = LoroDoc::new();
    doc.get_text("t").push_str("lost").unwrap();
    doc.commit();
    let before = doc.oplog_vv();
    doc.get_text("t").push_str("left").unwrap();
    doc.commit();
    let orphan = doc.export(ExportMode::updates(&before)).unwrap();
    let orphan = sync::update(&room(), BatchId::from(1), &[orphan]).unwrap();
    let link = bench.uplink();
    bench.join(link);
    let mut asked = 0;
    bench.hear(link, orphan.clone());
    for _ in 0..300 {
        for _ in 0..questions(&bench.wait(Duration::from_secs(1)), link) {
            asked += 1;
            bench.join(link);
            bench.hear(link, orphan.clone());
        }
    }
    assert!((3..=20).contains(&asked), "{asked} times in five minutes");
    assert!(bench.engine.is_caught_up());
    bench.assert_good();
}

#[test]
fn versions_that_make_no_sense_are_versions_of_nothing() {
    let mut bench = Bench::new();
    bench.assert_good();
    let negative = version(&[(7, -5), (8, i32::MIN)]);
    for lie in [&[][..], &[0], &[0xff; 64], &negative] {
        for link in [bench.guest(), bench.channel()] {
            let outputs = bench.hear(link, asking(lie).encode(&room()).unwrap());
            assert_eq!(cut(&outputs, link), None);
            let brought = outputs.iter().any(|output| match output {
                Output::Send { link: to, frame } if *to == link => {
                    matches!(Frame::decode(frame).unwrap().message, Message::Update { .. })
                }
                _ => false,
            });
            assert!(brought, "everything is sent to who has nothing: {lie:?}");
            bench.tell(Input::Down { link, end: End::Lost });
        }
    }
}

#[test]
fn a_version_of_very_many_peers_costs_no_more_than_its_length() {
    let mut bench = Bench::new();
    let link = bench.channel();
    let many: Vec<_> = (0..18_000).map(|peer| (u64::MAX - peer, 3)).collect();
    let frame = asking(&version(&many)).encode(&room()).unwrap();
    for _ in 0..3 {
        assert_eq!(cut(&bench.hear(link, frame.clone()), link), None);
    }
    bench.assert_good();
}

#[test]
fn answers_that_nobody_asked_for_end_the_link_when_they_are_many() {
    let mut bench = Bench::new();
    let guest = bench.guest();
    let frame = showing(&version(&[(3, 3)])).encode(&room()).unwrap();
    let why = (0..100).find_map(|_| cut(&bench.hear(guest, frame.clone()), guest));
    assert_eq!(why, Some(Reason::Garbage));
    let uplink = bench.uplink();
    let frame = asking(&[]).encode(&room()).unwrap();
    let why = (0..100).find_map(|_| cut(&bench.hear(uplink, frame.clone()), uplink));
    assert_eq!(why, Some(Reason::Garbage));
    bench.assert_good();
}

#[test]
fn acknowledgements_of_what_was_never_sent_change_nothing() {
    let mut bench = Bench::new();
    let link = bench.channel();
    bench.join(link);
    for number in 0..10_000 {
        for status in [Status::Ok, Status::PermissionDenied, Status::RateLimited, Status::AppError] {
            let outputs = bench.hear(link, sync::ack(&room(), BatchId::from(number), status));
            assert_eq!(outputs, []);
        }
    }
    bench.assert_good();
}

#[test]
fn who_is_silent_after_it_has_connected_is_let_go() {
    let mut bench = Bench::new();
    let [_, channel, uplink] = bench.links();
    let mut cuts = Vec::new();
    for _ in 0..60 {
        for output in bench.wait(Duration::from_secs(1)) {
            if let Output::Cut { link, reason } = output {
                cuts.push((link, reason));
            }
        }
    }
    cuts.sort_by_key(|(link, _)| *link);
    assert_eq!(cuts, [(uplink, Reason::Silent), (channel, Reason::Foreign)]);
    bench.assert_good();
}

#[test]
fn random_bytes_behind_a_true_beginning_never_panic() {
    let mut bench = Bench::new();
    let mut dice = Dice::new(11);
    for round in 0..3_000 {
        let mut frame = match round % 3 {
            0 => b"%LOR\x04plan".to_vec(),
            1 => b"%EPH\x04plan".to_vec(),
            _ => b"%".to_vec(),
        };
        frame.extend((0..dice.below(80)).map(|_| dice.below(256) as u8));
        for link in bench.links() {
            if round % 2 == 0 {
                bench.join(link);
            }
            cut(&bench.hear(link, frame.clone()), link);
            bench.tell(Input::Down { link, end: End::Lost });
        }
    }
    bench.assert_good();
}
