//! Updates and frames that are made to do harm.

use bytes::Bytes;
use loro::{ExportMode, LoroDoc};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use wire::fragment::{FRAGMENT, Split};
use wire::id::BatchId;
use wire::sync::{self, Crdt, JoinError, Message, Permission, RoomErrorCode, Status};
use xxhash_rust::xxh32::xxh32;

use super::peer::{Peer, room};
use super::process::Process;
use super::rooms::in_memory;
use super::support::TestServer;

/// Two peers that keep in step, while a stranger does what it likes elsewhere.
struct Others {
    ana: Peer,
    ben: Peer,
    rounds: u32,
}

impl Others {
    async fn new(server: &TestServer) -> Self {
        let (ana, ben) = (Peer::joined(server, "others").await, Peer::joined(server, "others").await);
        Self { ana, ben, rounds: 0 }
    }

    async fn notice_nothing(&mut self) {
        self.rounds += 1;
        let value = self.rounds.to_string();
        self.ana.edit_acked("round", &value).await;
        self.ben.until(|ben| ben.note("round").as_deref() == Some(&value)).await;
    }
}

/// Updates with one to four bytes changed, whose checksum is right all the same.
fn mutated(seed: u64, count: usize) -> Vec<Vec<u8>> {
    let mut random = StdRng::seed_from_u64(seed);
    let doc = LoroDoc::new();
    let (text, list, map) = (doc.get_text("t"), doc.get_movable_list("l"), doc.get_map("m"));
    for n in 0..40 {
        text.insert(n % (text.len_unicode() + 1), "héllo").unwrap();
        list.insert(0, i64::try_from(n).unwrap()).unwrap();
        map.insert(&n.to_string(), n % 3 == 0).unwrap();
        if n % 4 == 3 {
            text.delete(0, 3).unwrap();
            list.mov(0, 1).unwrap();
        }
    }
    doc.commit();
    let sources = [doc.export(ExportMode::all_updates()).unwrap(), doc.export(ExportMode::Snapshot).unwrap()];
    let mutate = |_| {
        let mut update = sources[random.random_range(0..sources.len())].clone();
        for _ in 0..random.random_range(1..=4) {
            let at = random.random_range(22..update.len());
            update[at] ^= 1 << random.random_range(0..8);
        }
        seal(&mut update);
        update
    };
    (0..count).map(mutate).collect()
}

fn seal(update: &mut [u8]) {
    // loro's header: 4 bytes of magic, 12 of zeros, then this over all that follows it.
    let checksum = xxh32(&update[20..], u32::from_le_bytes(*b"LORO"));
    update[16..20].copy_from_slice(&checksum.to_le_bytes());
}

/// Short updates that say of something in them that it is there billions of times: Loro reserves memory for all of it,
/// which ends the process.
fn lies() -> Vec<Vec<u8>> {
    let doc = LoroDoc::new();
    doc.get_map("m").insert("k", vec![1]).unwrap();
    doc.commit();
    let update = doc.export(ExportMode::all_updates()).unwrap();
    // Behind the header one block: how many changes there are is its fifth number, then come runs behind their lengths.
    let (header, block) = (&update[..22], &update[23..]);
    let (mut runs, mut rest) = (Vec::new(), &block[5..]);
    while let Some((len, more)) = rest.split_first() {
        let (run, more) = more.split_at(usize::from(*len));
        runs.push(run);
        rest = more;
    }
    let lie = |changes: &[u8], nth: usize, run: &[u8]| {
        let mut block = [&block[..4], changes].concat();
        for (index, honest) in runs.iter().enumerate() {
            let run = if index == nth { run } else { honest };
            block.push(run.len() as u8);
            block.extend(run);
        }
        let mut update = [header, &[block.len() as u8], &block].concat();
        seal(&mut update);
        update
    };
    let dependencies = [&runs[0][..9], &[1, 1, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1, 0, 0, 0, 0]].concat();
    let map = [8, 0x80, 0x80, 0x80, 0x80, 1];
    vec![lie(&[0xff, 0xff, 0xff, 0xff, 0x0f], 0, runs[0]), lie(&[1], 0, &dependencies), lie(&[1], 7, &map)]
}

#[tokio::test]
async fn an_update_that_lies_about_how_much_it_holds_is_refused_and_the_process_lives() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let mut eve = Peer::connect(&server.url(), room(Crdt::Loro, "plan")).await;
    eve.enter().await;
    for lie in lies() {
        assert!(lie.len() < 100);
        let batch = eve.send(&lie).await;
        assert_eq!(eve.ack(batch).await, Status::InvalidUpdate);
    }
    eve.edit_acked("honest", "edit").await;
}

#[tokio::test]
async fn updates_that_pass_the_checksum_and_break_the_import_disturb_nobody_else() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.limits.enabled = false;
    })
    .await;
    let mut others = Others::new(&server).await;
    let corpus = mutated(4, 3_000);
    let mut statuses = std::collections::BTreeMap::new();
    for (nth, updates) in corpus.chunks(100).enumerate() {
        // Its own rooms: what is taken there may be nonsense for whoever reads it.
        let mut eve = Peer::connect(&server.url(), room(Crdt::Loro, &format!("target {}", nth % 3))).await;
        eve.blind = true;
        eve.join(b"").await;
        for update in updates {
            let batch = eve.send(update).await;
            let status = eve.ack(batch).await;
            *statuses.entry(status as u8).or_insert(0) += 1;
            if status == Status::InvalidUpdate {
                // Put out, if it broke the document: it comes back.
                eve.settle().await;
                let is_out =
                    |said: &Message| matches!(said, Message::RoomError { code: RoomErrorCode::Evicted, .. });
                if eve.said.iter().any(is_out) {
                    eve.said.clear();
                    eve.join(b"").await;
                }
            }
        }
        others.notice_nothing().await;
    }
    println!("of {} mutated updates, by status: {statuses:?}", corpus.len());
    assert!(statuses.get(&(Status::InvalidUpdate as u8)).is_some_and(|count| *count > 100), "{statuses:?}");
    // The rooms recover: an honest edit is taken, and a newcomer gets it.
    for nth in 0..3 {
        let id = format!("target {nth}");
        let mut honest = Peer::connect(&server.url(), room(Crdt::Loro, &id)).await;
        honest.blind = true;
        honest.join(b"").await;
        honest.doc.set_peer_id(1_000 + nth).unwrap();
        let batch = honest.edit("honest", "edit").await;
        assert_eq!(honest.ack(batch).await, Status::Ok);
        let mut newcomer = Peer::connect(&server.url(), room(Crdt::Loro, &id)).await;
        newcomer.blind = true;
        newcomer.join(b"").await;
        newcomer.settle().await;
        assert!(!newcomer.updates.is_empty());
    }
}

/// One frame of every kind, as a valid session has them.
fn session() -> Vec<(Crdt, Bytes)> {
    let name = |crdt| room(crdt, "target");
    let encode = |crdt, message: Message| (crdt, message.encode(&name(crdt)).unwrap());
    let doc = LoroDoc::new();
    doc.get_text("t").insert(0, "hello").unwrap();
    let update = Bytes::from(doc.export(ExportMode::all_updates()).unwrap());
    let presence = loro::awareness::EphemeralStore::new(30_000);
    presence.set("ana", "here");
    let mut frames = Vec::new();
    for crdt in Crdt::ALL {
        let auth = Bytes::from_static(b"token");
        frames.push(encode(crdt, Message::JoinRequest { auth, version: doc.oplog_vv().encode().into() }));
        let payload = if crdt == Crdt::Ephemeral { presence.encode_all().into() } else { update.clone() };
        frames
            .push((crdt, sync::update(&name(crdt), BatchId::from(1), &[payload.clone(), payload]).unwrap()));
        let target = name(crdt);
        let parts = Split::new(&target, BatchId::from(2), &update, update.len() / 2);
        frames.extend(parts.map(|frame| (crdt, frame)));
        frames.push(encode(crdt, Message::Ack { batch: BatchId::from(1), status: Status::FragmentTimeout }));
        let code = RoomErrorCode::RejoinSuggested;
        frames.push(encode(crdt, Message::RoomError { code, message: "again".into() }));
        let (permission, version) = (Permission::Write, Bytes::from_static(&[0]));
        frames.push(encode(crdt, Message::JoinOk { permission, version, extra: Bytes::new() }));
        let error = JoinError::App { code: Some("code".into()) };
        frames.push(encode(crdt, Message::JoinError { error, message: "no".into() }));
        frames.push(encode(crdt, Message::Leave));
    }
    frames
}

#[tokio::test]
async fn a_frame_of_any_kind_that_is_cut_or_flipped_anywhere_disturbs_nobody_else() {
    let server = TestServer::with(|config| {
        in_memory(config);
        config.limits.enabled = false;
    })
    .await;
    let mut others = Others::new(&server).await;
    let mut sent = 0;
    for (crdt, frame) in session() {
        let mut eve = newcomer(&server, crdt).await;
        for at in 0..frame.len() {
            let mut flipped = frame.to_vec();
            flipped[at] ^= 1 << (at % 8);
            for bad in [frame.slice(..at), flipped.into()] {
                sent += 1;
                // A frame whose room cannot be told ends the connection, and no other.
                if eve.try_say_raw(bad).await.is_err() || (at % 16 == 15 && !eve.is_open().await) {
                    eve = newcomer(&server, crdt).await;
                }
            }
        }
        others.notice_nothing().await;
    }
    println!("{sent} malformed frames");
    assert!(sent > 3_000, "{sent}");
    assert_eq!(server.metric(r#"signaling_relay_quarantined_total"#).await, 0.0);
}

async fn newcomer(server: &TestServer, crdt: Crdt) -> Peer {
    let mut eve = Peer::connect(&server.url(), room(crdt, "target")).await;
    eve.blind = true;
    eve.enter().await;
    eve
}

#[tokio::test]
async fn an_update_over_the_limit_is_refused_at_its_header() {
    let server = TestServer::with(in_memory).await;
    let mut ana = Peer::joined(&server, "plan").await;
    let len = (64 << 20) + 1;
    let header = sync::FragmentHeader { batch: BatchId::from(5), fragments: len / FRAGMENT as u64 + 1, len };
    ana.say(&Message::FragmentHeader(header)).await;
    assert_eq!(ana.ack(BatchId::from(5)).await, Status::PayloadTooLarge);
    // One frame beyond the protocol's limit is refused too, and the connection stays.
    let long = sync::MAX_FRAME + 100 - 30;
    let mut frame = Vec::from(&b"%LOR\x04plan\x03\x01"[..]);
    frame.extend([0x80 | (long & 0x7f) as u8, 0x80 | (long >> 7 & 0x7f) as u8, (long >> 14) as u8]);
    frame.extend(vec![0; long]);
    frame.extend(BatchId::from(6).0);
    ana.say_raw(frame.into()).await;
    assert_eq!(ana.ack(BatchId::from(6)).await, Status::PayloadTooLarge);
    ana.edit_acked("a", "b").await;
}
