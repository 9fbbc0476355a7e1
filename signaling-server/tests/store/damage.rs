//! A disk that does not give back what was written costs the rooms it hits, and no other.

use std::fs;

use rusqlite::Connection;
use signaling_server::store::sqlite::Archive;
use signaling_server::store::{Damage, Part};

use super::*;

fn sql(dir: &Path, statement: &str) {
    Connection::open(dir.join("relay.sqlite")).unwrap().execute_batch(statement).unwrap();
}

/// Changes one byte of the database where `marker` stands, as a failing disk would.
fn flip(dir: &Path, marker: &[u8]) {
    let file = dir.join("relay.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    let at =
        bytes.windows(marker.len()).position(|window| window == marker).expect("the marker is on the disk");
    bytes[at] ^= 1;
    fs::write(&file, bytes).unwrap();
}

/// A directory with rooms a, b and c, and then, with nobody using it, `harm` done to it.
fn harmed(harm: impl FnOnce(&Path)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for id in ["a", "b", "c"] {
        let first = store.appended(&room(id), batch("ana", format!("in the snapshot of {id}"))).unwrap();
        let snapshot = format!("the snapshot of {id}");
        store.compacted(&room(id), Some(first.generation), first.seq, snapshot).unwrap();
        for n in 2..5 {
            store.appended(&room(id), batch("ben", format!("batch {n} of {id}"))).unwrap();
        }
    }
    drop(store);
    harm(dir.path());
    dir
}

fn damage(store: &SqliteStore, room: &Room) -> Arc<Damage> {
    match store.load(room) {
        Err(StoreError::Damaged(damage)) => damage,
        other => panic!("{other:?}"),
    }
}

/// Room b is refused as damaged, nothing is written to it, and the other rooms notice nothing.
fn assert_b_alone_is_damaged(store: &SqliteStore, part: Part) -> Arc<Damage> {
    let found = damage(store, &room("b"));
    assert_eq!((found.part, &found.room), (part, &room("b")));
    let generation = store.info(&room("b")).unwrap().unwrap().generation;
    let refusal = StoreError::Damaged(Arc::clone(&found));
    assert_eq!(store.appended(&room("b"), batch("ana", "more")), Err(refusal.clone()));
    assert_eq!(store.compacted(&room("b"), Some(generation), Seq(4), "all"), Err(refusal));
    for id in ["a", "c"] {
        let loaded = store.loaded(&room(id));
        assert_eq!(loaded.snapshot, Some(format!("the snapshot of {id}").into()));
        assert_eq!(
            payloads(&loaded)[..3].concat(),
            format!("batch 2 of {id}batch 3 of {id}batch 4 of {id}").as_bytes()
        );
        store.appended(&room(id), batch("ana", "more")).unwrap();
        store
            .compacted(&room(id), Some(loaded.generation), Seq::ZERO, format!("the snapshot of {id}"))
            .unwrap();
    }
    found
}

#[test]
fn a_damaged_batch_stops_its_room_until_it_is_cut_out() {
    let dir = harmed(|dir| flip(dir, b"batch 3 of b"));
    let store = open(dir.path());
    let found = assert_b_alone_is_damaged(&store, Part::Batch(Seq(3)));
    assert_eq!(
        found.to_string(),
        format!(
            "{}: room '%LOR/b': batch 3 is damaged: its checksum does not match; it is left as it is until it is \
             mended: \"signaling-server rooms export\" saves what is intact, \"rooms delete\" and \"rooms import\" \
             put that in place; \"rooms cut ROOM 3\" takes it out alone",
            dir.path().join("relay.sqlite").display()
        )
    );
    // As the operator does, with the server running.
    Archive::open(dir.path()).unwrap().cut(&room("b"), &Cut::Batch(Seq(3))).unwrap();
    assert_eq!(payloads(&store.loaded(&room("b"))), [b"batch 2 of b", b"batch 4 of b"]);
    store.appended(&room("b"), batch("ana", "more")).unwrap();
}

#[test]
fn a_damaged_snapshot_stops_its_room_until_what_is_intact_is_put_in_place() {
    let dir = harmed(|dir| flip(dir, b"the snapshot of b"));
    let store = open(dir.path());
    assert_b_alone_is_damaged(&store, Part::Snapshot);
    let mut archive = Archive::open(dir.path()).unwrap();
    let salvage = archive.salvage(&room("b")).unwrap();
    assert_eq!(salvage.damage.len(), 1);
    archive.delete(&room("b")).unwrap();
    archive.import(&room("b"), &salvage.loaded).unwrap();
    let loaded = store.loaded(&room("b"));
    assert_eq!((loaded.snapshot.as_ref(), loaded.log.len()), (None, 3));
    store.appended(&room("b"), batch("ana", "more")).unwrap();
}

#[test]
fn a_batch_that_is_missing_is_noticed() {
    let dir = harmed(|dir| sql(dir, "DELETE FROM batch WHERE payload = CAST('batch 3 of b' AS BLOB)"));
    let store = open(dir.path());
    let found = assert_b_alone_is_damaged(&store, Part::Log);
    assert_eq!(found.problem, "it has 2 batches in place of 3");
}

#[test]
fn a_snapshot_that_is_missing_is_noticed() {
    let dir = harmed(|dir| sql(dir, "DELETE FROM snapshot WHERE room = 2"));
    assert_b_alone_is_damaged(&open(dir.path()), Part::Snapshot);
}

#[test]
fn a_damaged_entry_stops_its_room_alone() {
    let dir = harmed(|dir| sql(dir, "UPDATE room SET next = 2 WHERE id = 'b'"));
    let store = open(dir.path());
    // Even if nobody has loaded it.
    assert!(matches!(store.appended(&room("b"), batch("ana", "more")), Err(StoreError::Damaged(_))));
    assert_b_alone_is_damaged(&store, Part::Entry);
    let swept = pending(|reply| store.sweep(std::time::SystemTime::now() + PATIENCE, Vec::new(), reply));
    assert!(!swept.outcome().unwrap().contains(&room("b")));
}

#[test]
fn a_batch_that_strays_into_another_room_is_not_taken_for_one_of_its_own() {
    // Rooms are numbered from 1: a becomes 1, b becomes 2.
    let stray = "DELETE FROM batch WHERE place = (2 << 32) + 4;
                 UPDATE batch SET place = (2 << 32) + 4 WHERE place = (1 << 32) + 4";
    let dir = harmed(|dir| sql(dir, stray));
    assert_eq!(damage(&open(dir.path()), &room("b")).part, Part::Batch(Seq(4)));
}

#[test]
fn a_list_of_rooms_that_can_not_be_trusted_is_refused_in_one_line() {
    // A room's name stands in its entry and in the index of names: now they differ, and either may be right.
    let dir = harmed(|dir| flip(dir, b"%LORb"));
    let refusal = SqliteStore::open(options(dir.path())).unwrap_err().to_string();
    let expected = format!("{}: the list of rooms is damaged: ", dir.path().join("relay.sqlite").display());
    assert!(!refusal.contains('\n') && refusal.starts_with(&expected), "{refusal}");
    // An operator still gets at what there is.
    assert_eq!(Archive::open(dir.path()).unwrap().salvage(&room("a")).unwrap().damage, []);
}

/// Whatever happens to a page, and to any byte: what can be loaded is what was stored, and nothing panics.
#[test]
fn whatever_the_disk_gives_back_it_is_either_what_was_written_or_an_error() {
    const PAGE: usize = 4096;
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let rooms = ["a", "b", "c", "d"].map(room);
    for (n, room) in rooms.iter().enumerate() {
        store.appended(room, batch("ana", vec![n as u8; 9_000])).unwrap();
        store
            .compacted(room, store.info(room).unwrap().map(|info| info.generation), Seq(1), vec![9; 5_000])
            .unwrap();
        for len in [10, 3_000, 700, 20_000] {
            store.appended(room, batch("ana", vec![n as u8; len])).unwrap();
        }
    }
    let before = rooms.each_ref().map(|room| store.loaded(room));
    drop(store);
    let file = dir.path().join("relay.sqlite");
    let sound = fs::read(&file).unwrap();
    let mut outcomes = [0, 0];
    let mut try_with = |bytes: &[u8]| {
        for suffix in ["-wal", "-shm"] {
            let _ = fs::remove_file(dir.path().join(format!("relay.sqlite{suffix}")));
        }
        fs::write(&file, bytes).unwrap();
        let Ok(store) = SqliteStore::open(options(dir.path())) else { return };
        for (room, before) in rooms.iter().zip(&before) {
            match store.load(room) {
                Ok(Some(loaded)) => {
                    assert_eq!(loaded, *before);
                    outcomes[0] += 1;
                }
                Ok(None) => panic!("{room} is taken for new"),
                Err(_) => outcomes[1] += 1,
            }
        }
    };
    for page in 0..sound.len() / PAGE {
        for fill in [0x00, 0xff] {
            let mut bytes = sound.clone();
            bytes[page * PAGE..][..PAGE].fill(fill);
            try_with(&bytes);
        }
    }
    for at in (0..sound.len()).step_by(811) {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        try_with(&bytes);
    }
    // Most damage hits one room of the four.
    assert!(outcomes[0] > outcomes[1] && outcomes[1] > 50, "{outcomes:?}");
}
