//! What every store promises.

use std::time::SystemTime;

use proptest::prelude::*;
use signaling_server::store::memory::MemoryStore;
use signaling_server::store::{BATCH_OVERHEAD, MAX_AUTHOR, RoomSize, Usage};
use tempfile::TempDir;

use super::*;

type Make = fn(Caps) -> Made;

struct Made {
    store: Box<dyn Store>,
    /// Removed after the store has let go of it.
    _dir: Option<TempDir>,
}

fn in_memory(caps: Caps) -> Made {
    Made { store: Box::new(MemoryStore::new(caps, nobody())), _dir: None }
}

fn on_disk(caps: Caps) -> Made {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(Options { caps, ..options(dir.path()) }).unwrap();
    Made { store: Box::new(store), _dir: Some(dir) }
}

macro_rules! held_by_both {
    ($($promise:ident,)+) => {
        mod memory {
            $(#[test] fn $promise() { super::$promise(super::in_memory); })+
        }
        mod disk {
            $(#[test] fn $promise() { super::$promise(super::on_disk); })+
        }
    };
}

held_by_both! {
    nothing_is_stored_of_a_room_that_nobody_wrote_to,
    batches_come_back_in_order_as_they_were,
    every_name_and_every_length_can_be_stored,
    the_same_id_under_another_type_is_another_room,
    a_snapshot_takes_the_place_of_what_it_contains_and_of_nothing_else,
    a_place_is_not_used_again_when_the_log_was_emptied,
    a_room_can_begin_with_a_snapshot,
    a_snapshot_of_another_life_of_the_room_is_refused,
    one_batch_is_cut,
    all_batches_of_one_author_are_cut,
    a_snapshot_is_cut,
    a_deleted_room_is_gone_and_begins_another_life,
    caps_refuse_what_is_over_them_and_nothing_else,
    usage_adds_up,
    rooms_that_nobody_used_are_swept_unless_they_are_live_or_were_loaded,
    writers_do_not_disturb_each_other,
}

fn nothing_is_stored_of_a_room_that_nobody_wrote_to(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    assert_eq!(store.load(&room("a")), Ok(None));
    assert_eq!(store.info(&room("a")), Ok(None));
    assert_eq!(store.list(), Ok(Vec::new()));
    assert_eq!(store.usage(), Usage::default());
    assert_eq!(store.deleted(&room("a")), Err(StoreError::NoSuchRoom));
    assert_eq!(store.cut_out(&room("a"), Cut::Snapshot), Err(StoreError::NoSuchRoom));
}

fn batches_come_back_in_order_as_they_were(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let before = SystemTime::now();
    let sent: Vec<Batch> = (0..20)
        .map(|n| Batch {
            author: Author::from(["ana", "ben", ""][n % 3]),
            id: BatchId::from(u64::MAX - n as u64),
            kind: Kind(n as u8),
            payload: Bytes::from(vec![n as u8; n * 1000]),
        })
        .collect();
    let written: Vec<Written> =
        sent.iter().map(|batch| store.appended(&room("a"), batch.clone()).unwrap()).collect();
    let loaded = store.loaded(&room("a"));
    let got: Vec<Batch> = loaded.log.iter().map(|logged| logged.batch.clone()).collect();
    assert_eq!(got, sent);
    let places: Vec<Seq> = loaded.log.iter().map(|logged| logged.seq).collect();
    assert_eq!(places, (1..=20).map(Seq).collect::<Vec<_>>());
    assert_eq!(written.iter().map(|written| written.seq).collect::<Vec<_>>(), places);
    assert!(written.iter().all(|written| written.generation == loaded.generation));
    assert_eq!((written[19].size, loaded.snapshot), (loaded.size, None));
    for logged in &loaded.log {
        let whole_millisecond = Duration::from_millis(1);
        assert!(logged.stored_at + whole_millisecond >= before && logged.stored_at <= SystemTime::now());
    }
}

fn every_name_and_every_length_can_be_stored(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let names =
        ["", " ", "\0", "a\0b", "a/b", "%LOR/a", "'; DROP TABLE room; --", "\u{1f98a}\n", &"é".repeat(64)];
    for (n, name) in names.iter().enumerate() {
        let author = "ä".repeat(n * 10);
        store.appended(&room(name), batch(&author, vec![n as u8; n * 70_000])).unwrap();
        let kept = &store.loaded(&room(name)).log[0].batch;
        assert_eq!(
            (kept.payload.len(), kept.author.as_str()),
            (n * 70_000, &author[..author.len().min(MAX_AUTHOR)])
        );
    }
    let listed: Vec<Room> = store.list().unwrap().into_iter().map(|info| info.room).collect();
    let mut rooms: Vec<Room> = names.iter().map(|name| room(name)).collect();
    rooms.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(listed, rooms);
}

fn the_same_id_under_another_type_is_another_room(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let rooms = Crdt::ALL.map(|crdt| Room { crdt, ..room("a") });
    for room in &rooms {
        store.appended(room, batch("ana", room.to_string())).unwrap();
    }
    for room in &rooms {
        assert_eq!(payloads(&store.loaded(room)), [room.to_string().as_bytes()]);
    }
    assert_eq!(store.usage().rooms, 7);
}

fn a_snapshot_takes_the_place_of_what_it_contains_and_of_nothing_else(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    for payload in ["one", "two", "three", "four"] {
        store.appended(&room("a"), batch("ana", payload)).unwrap();
        store.appended(&room("b"), batch("ana", payload)).unwrap();
    }
    let generation = store.loaded(&room("a")).generation;
    let written = store.compacted(&room("a"), Some(generation), Seq(2), "one two").unwrap();
    let loaded = store.loaded(&room("a"));
    assert_eq!(loaded.snapshot.as_deref(), Some(&b"one two"[..]));
    assert_eq!(payloads(&loaded), [&b"three"[..], b"four"]);
    assert_eq!((loaded.generation, loaded.last()), (generation, Seq(4)));
    assert_eq!(loaded.size, RoomSize { snapshot: 7, log: 9 + 2 * BATCH_OVERHEAD, batches: 2 });
    assert_eq!((written.size, written.generation), (loaded.size, generation));
    store.compacted(&room("a"), Some(generation), Seq(4), "all four").unwrap();
    let loaded = store.loaded(&room("a"));
    assert_eq!((loaded.snapshot.as_deref(), loaded.log.len()), (Some(&b"all four"[..]), 0));
    assert_eq!(store.loaded(&room("b")).log.len(), 4);
}

fn a_place_is_not_used_again_when_the_log_was_emptied(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let first = store.appended(&room("a"), batch("ana", "one")).unwrap();
    store.compacted(&room("a"), Some(first.generation), first.seq, "one").unwrap();
    let second = store.appended(&room("a"), batch("ana", "two")).unwrap();
    assert_eq!((second.seq, second.generation), (Seq(2), first.generation));
    // Late by one: it does not know of the second, and leaves it.
    store.compacted(&room("a"), Some(first.generation), first.seq, "one again").unwrap();
    assert_eq!(payloads(&store.loaded(&room("a"))), [b"two"]);
}

fn a_room_can_begin_with_a_snapshot(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let written = store.compacted(&room("a"), None, Seq::ZERO, "all").unwrap();
    let loaded = store.loaded(&room("a"));
    assert_eq!((loaded.snapshot.as_deref(), loaded.log.len()), (Some(&b"all"[..]), 0));
    assert_eq!((loaded.generation, loaded.size), (written.generation, written.size));
    assert_eq!(store.compacted(&room("a"), None, Seq::ZERO, "other"), Err(StoreError::Changed));
}

fn a_snapshot_of_another_life_of_the_room_is_refused(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let first = store.appended(&room("a"), batch("eve", "poison")).unwrap();
    store.appended(&room("a"), batch("ana", "good")).unwrap();
    let cut = store.cut_out(&room("a"), Cut::Batch(first.seq)).unwrap();
    assert_ne!(cut.generation, first.generation);
    let late = store.compacted(&room("a"), Some(first.generation), Seq(2), "poison good");
    assert_eq!(late, Err(StoreError::Changed));
    assert_eq!(payloads(&store.loaded(&room("a"))), [b"good"]);
    // An append goes through, and tells.
    assert_eq!(store.appended(&room("a"), batch("ana", "more")).unwrap().generation, cut.generation);
    store.compacted(&room("a"), Some(cut.generation), Seq(3), "good more").unwrap();
    store.deleted(&room("a")).unwrap();
    let late = store.compacted(&room("a"), Some(cut.generation), Seq(3), "good more");
    assert_eq!((late, store.load(&room("a"))), (Err(StoreError::Changed), Ok(None)));
}

fn one_batch_is_cut(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    for payload in ["one", "two", "three"] {
        store.appended(&room("a"), batch("ana", payload)).unwrap();
    }
    let cut = store.cut_out(&room("a"), Cut::Batch(Seq(2))).unwrap();
    let loaded = store.loaded(&room("a"));
    assert_eq!(payloads(&loaded), [&b"one"[..], b"three"]);
    assert_eq!((cut.batches, cut.generation, cut.size), (1, loaded.generation, loaded.size));
    for nothing in [Cut::Batch(Seq(2)), Cut::Batch(Seq::ZERO), Cut::Snapshot, Cut::Author("ben".into())] {
        assert_eq!(store.cut_out(&room("a"), nothing), Err(StoreError::NothingToCut));
    }
    assert_eq!(store.loaded(&room("a")).generation, cut.generation);
}

fn all_batches_of_one_author_are_cut(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    for (author, payload) in [("ana", "1"), ("eve", "2"), ("ana", "3"), ("eve", "4"), ("evelyn", "5")] {
        store.appended(&room("a"), batch(author, payload)).unwrap();
        store.appended(&room("b"), batch(author, payload)).unwrap();
    }
    assert_eq!(store.cut_out(&room("a"), Cut::Author("eve".into())).unwrap().batches, 2);
    assert_eq!(payloads(&store.loaded(&room("a"))), [b"1", b"3", b"5"]);
    assert_eq!(store.loaded(&room("b")).log.len(), 5);
}

fn a_snapshot_is_cut(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let written = store.compacted(&room("a"), None, Seq::ZERO, "poison").unwrap();
    store.appended(&room("a"), batch("ana", "one")).unwrap();
    let cut = store.cut_out(&room("a"), Cut::Snapshot).unwrap();
    let loaded = store.loaded(&room("a"));
    assert_eq!((loaded.snapshot.as_ref(), payloads(&loaded)), (None, vec![&b"one"[..]]));
    assert_eq!((cut.batches, cut.size), (0, loaded.size));
    assert_ne!(cut.generation, written.generation);
}

fn a_deleted_room_is_gone_and_begins_another_life(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    let first = store.appended(&room("a"), batch("ana", "one")).unwrap();
    store.compacted(&room("a"), Some(first.generation), Seq::ZERO, "snapshot").unwrap();
    store.deleted(&room("a")).unwrap();
    assert_eq!((store.load(&room("a")), store.usage()), (Ok(None), Usage::default()));
    let again = store.appended(&room("a"), batch("ana", "two")).unwrap();
    assert_ne!(again.generation, first.generation);
    assert_eq!(payloads(&store.loaded(&room("a"))), [b"two"]);
}

fn caps_refuse_what_is_over_them_and_nothing_else(make: Make) {
    let caps = Caps { rooms: 2, bytes_per_room: 1000, bytes: 1500 };
    let Made { store, _dir } = make(caps);
    assert_eq!(store.caps(), caps);
    let filled = |len: u64| vec![0; (len - BATCH_OVERHEAD) as usize];
    let a = store.appended(&room("a"), batch("ana", filled(900))).unwrap();
    let full = StoreError::RoomFull { size: 1001, limit: 1000 };
    assert_eq!(store.appended(&room("a"), batch("ana", filled(101))), Err(full));
    store.appended(&room("b"), batch("ana", filled(500))).unwrap();
    let full = StoreError::Full { size: 1501, limit: 1500 };
    assert_eq!(store.appended(&room("b"), batch("ana", filled(101))), Err(full));
    assert_eq!(store.appended(&room("c"), batch("ana", "")), Err(StoreError::TooManyRooms { limit: 2 }));
    assert_eq!(store.compacted(&room("c"), None, Seq::ZERO, ""), Err(StoreError::TooManyRooms { limit: 2 }));
    let large = store.compacted(&room("a"), Some(a.generation), a.seq, vec![0; 1001]);
    assert_eq!(large, Err(StoreError::RoomFull { size: 1001, limit: 1000 }));
    // What was refused has changed nothing, and what makes room is let through.
    assert_eq!(store.loaded(&room("a")).log.len(), 1);
    store.compacted(&room("a"), Some(a.generation), a.seq, vec![0; 100]).unwrap();
    store.appended(&room("a"), batch("ana", filled(900))).unwrap();
    store.deleted(&room("b")).unwrap();
    store.appended(&room("c"), batch("ana", filled(500))).unwrap();
    assert_eq!(store.usage(), Usage { rooms: 2, bytes: 1500 });
}

fn usage_adds_up(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    for n in 0..30_u8 {
        let room = room(["a", "b", "c"][usize::from(n) % 3]);
        let written =
            store.appended(&room, batch(["ana", "ben"][usize::from(n) % 2], vec![0; n.into()])).unwrap();
        match n {
            13 => drop(store.compacted(&room, Some(written.generation), Seq(3), "snapshot").unwrap()),
            17 => drop(store.cut_out(&room, Cut::Author("ana".into())).unwrap()),
            20 => store.deleted(&room).unwrap(),
            _ => {}
        }
        let listed = store.list().unwrap();
        let bytes = listed.iter().map(|info| info.size.total()).sum();
        assert_eq!(store.usage(), Usage { rooms: listed.len() as u64, bytes }, "after {n}");
        for info in listed {
            assert_eq!(store.info(&info.room).as_ref(), Ok(&Some(info.clone())));
            assert_eq!(store.loaded(&info.room).size, info.size);
        }
    }
}

fn rooms_that_nobody_used_are_swept_unless_they_are_live_or_were_loaded(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    for id in ["unused", "live", "loaded", "appended", "compacted"] {
        store.appended(&room(id), batch("ana", id.to_owned())).unwrap();
    }
    let then = next_moment();
    store.loaded(&room("loaded"));
    store.appended(&room("appended"), batch("ana", "more")).unwrap();
    let generation = store.info(&room("compacted")).unwrap().unwrap().generation;
    store.compacted(&room("compacted"), Some(generation), Seq(1), "compacted").unwrap();
    let sweep = |since| pending(|reply| store.sweep(since, vec![room("live")], reply)).outcome().unwrap();
    assert_eq!(sweep(then), [room("unused")]);
    assert_eq!(store.load(&room("unused")), Ok(None));
    // Whoever was spared counts as used since.
    assert_eq!(sweep(then), []);
    assert_eq!(store.usage().rooms, 4);
}

/// A time after everything that happened, and before everything that is going to happen.
fn next_moment() -> SystemTime {
    let now = SystemTime::now();
    let whole = Duration::from_millis(2);
    while SystemTime::now() < now + whole {
        std::thread::yield_now();
    }
    now + whole
}

fn writers_do_not_disturb_each_other(make: Make) {
    let Made { store, _dir } = make(Caps::default());
    std::thread::scope(|scope| {
        for author in ["ana", "ben", "cid", "dan"] {
            let store = &store;
            scope.spawn(move || {
                let sent =
                    (0..50).map(|n| pending(|reply| store.append(&room("a"), batch(author, vec![n]), reply)));
                for written in sent.collect::<Vec<_>>() {
                    written.outcome().unwrap();
                }
            });
        }
    });
    let loaded = store.loaded(&room("a"));
    for author in ["ana", "ben", "cid", "dan"] {
        let own = loaded.log.iter().filter(|logged| logged.batch.author.as_str() == author);
        let sent: Vec<u8> = own.map(|logged| logged.batch.payload[0]).collect();
        assert_eq!(sent, (0..50).collect::<Vec<u8>>());
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { room: usize, author: usize, len: usize },
    Compact { room: usize, through: u32, len: usize, knows: bool },
    Cut { room: usize, cut: Cut },
    Delete { room: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let room = 0..4_usize;
    let cut = prop_oneof![
        (0..6_u32).prop_map(|seq| Cut::Batch(Seq(seq))),
        (0..2_usize).prop_map(|author| Cut::Author(AUTHORS[author].into())),
        Just(Cut::Snapshot),
    ];
    prop_oneof![
        6 => (room.clone(), 0..2_usize, 0..300_usize).prop_map(|(room, author, len)| Step::Append { room, author, len }),
        3 => (room.clone(), 0..8_u32, 0..600_usize, prop::bool::weighted(0.8))
            .prop_map(|(room, through, len, knows)| Step::Compact { room, through, len, knows }),
        2 => (room.clone(), cut).prop_map(|(room, cut)| Step::Cut { room, cut }),
        1 => room.prop_map(|room| Step::Delete { room }),
    ]
}

const AUTHORS: [&str; 2] = ["ana", "ben"];

/// What a store answers, without what two stores may well say differently.
fn answer(store: &dyn Store, step: &Step) -> String {
    let named = |index: &usize| room(["a", "b", "c", "d"][*index]);
    let size = |written: Result<Written, StoreError>| {
        format!("{:?}", written.map(|written| (written.seq, written.size)))
    };
    match step {
        Step::Append { room, author, len } => {
            size(store.appended(&named(room), batch(AUTHORS[*author], vec![1; *len])))
        }
        Step::Compact { room, through, len, knows } => {
            let info = store.info(&named(room)).unwrap().filter(|_| *knows);
            size(store.compacted(
                &named(room),
                info.map(|info| info.generation),
                Seq(*through),
                vec![2; *len],
            ))
        }
        Step::Cut { room, cut } => {
            let cut = store.cut_out(&named(room), cut.clone());
            format!("{:?}", cut.map(|cut| (cut.batches, cut.size)))
        }
        Step::Delete { room } => format!("{:?}", store.deleted(&named(room))),
    }
}

fn all(store: &dyn Store) -> String {
    let rooms = store.list().unwrap().into_iter().map(|info| {
        let loaded = store.loaded(&info.room);
        let log: Vec<_> = loaded.log.into_iter().map(|logged| (logged.seq, logged.batch)).collect();
        (info.room, loaded.size, loaded.snapshot, log)
    });
    format!("{:?} {:?}", rooms.collect::<Vec<_>>(), store.usage())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_asked_both_stores_answer_alike(steps in prop::collection::vec(step(), 1..40)) {
        let caps = Caps { rooms: 3, bytes_per_room: 1200, bytes: 2500 };
        let (memory, disk) = (in_memory(caps), on_disk(caps));
        for step in &steps {
            prop_assert_eq!(answer(&*memory.store, step), answer(&*disk.store, step), "{:?}", step);
        }
        prop_assert_eq!(all(&*memory.store), all(&*disk.store));
    }
}
