//! What the store on disk promises beyond the contract.

use std::sync::mpsc::sync_channel;

use rusqlite::Connection;
use signaling_server::store::Usage;
use signaling_server::store::sqlite::Archive;

use super::*;

/// A connection that keeps the store's writer waiting until it is dropped.
struct Obstacle(Connection);

impl Obstacle {
    fn new(dir: &Path) -> Self {
        let connection = Connection::open(dir.join("relay.sqlite")).unwrap();
        connection.busy_timeout(PATIENCE).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self(connection)
    }
}

impl Drop for Obstacle {
    fn drop(&mut self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

fn commits(seen: &Mutex<Vec<Event>>) -> Vec<usize> {
    let seen = seen.lock().unwrap();
    let commits = seen.iter().filter_map(|event| match event {
        Event::Committed { batches, .. } => Some(*batches),
        _ => None,
    });
    commits.collect()
}

#[test]
fn a_batch_is_acknowledged_only_once_another_process_could_read_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    for payload in ["one", "two"] {
        let (tell, told) = sync_channel(1);
        let path = dir.path().to_owned();
        let reply = Reply::new(move |outcome: Result<Written, StoreError>| {
            let archive = Archive::open(&path).unwrap();
            tell.send((outcome, archive.salvage(&room("a")).unwrap())).unwrap();
        });
        store.append(&room("a"), batch("ana", payload), reply);
        let (outcome, salvage) = told.recv_timeout(PATIENCE).unwrap();
        assert_eq!(salvage.loaded.last(), outcome.unwrap().seq);
        assert_eq!(payloads(&salvage.loaded).last(), Some(&payload.as_bytes()));
    }
}

#[test]
fn what_waits_is_synced_together_and_reported() {
    let dir = tempfile::tempdir().unwrap();
    let (observer, seen) = watched();
    let store = SqliteStore::open(Options { observer, ..options(dir.path()) }).unwrap();
    let obstacle = Obstacle::new(dir.path());
    let appends =
        (0..100).map(|n| pending(|reply| store.append(&room("a"), batch("ana", vec![n; 10]), reply)));
    let appends: Vec<_> = appends.collect();
    drop(obstacle);
    for (n, append) in (1..).zip(appends) {
        assert_eq!(append.outcome().unwrap().seq, Seq(n));
    }
    // The first group is what the writer took before it came upon the obstacle.
    let commits = commits(&seen);
    assert!(commits.len() <= 2 && commits.iter().sum::<usize>() == 100, "{commits:?}");
    let bytes = |event: &Event| match event {
        Event::Committed { bytes, synced, waited, .. } => {
            assert!(synced <= waited);
            *bytes
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(seen.lock().unwrap().iter().map(bytes).sum::<usize>(), 1000);
}

#[test]
fn what_comes_soon_after_a_sync_is_synced_together_and_what_comes_after_a_pause_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (observer, seen) = watched();
    let sync_interval = PATIENCE * 2;
    let options = Options { observer, sync_interval, ..options(dir.path()) };
    let store = SqliteStore::open(options).unwrap();
    let append = |len| pending(|reply| store.append(&room("a"), batch("ana", vec![0; len]), reply));
    append(1).outcome().unwrap();
    let more: Vec<_> = (0..10).map(|_| append(1)).collect();
    // Half a queue is not kept waiting.
    append(600_000).outcome().unwrap();
    assert!(more.into_iter().all(|append| append.outcome().is_ok()));
    assert_eq!(commits(&seen), [1, 11]);
    // Neither is a store that closes.
    let last = append(1);
    drop(store);
    last.outcome().unwrap();
}

#[test]
fn reading_does_not_wait_for_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.appended(&room("a"), batch("ana", "one")).unwrap();
    let obstacle = Obstacle::new(dir.path());
    let append = pending(|reply| store.append(&room("a"), batch("ana", "two"), reply));
    assert_eq!(payloads(&store.loaded(&room("a"))), [b"one"]);
    assert_eq!((store.list().unwrap().len(), store.usage().rooms), (1, 1));
    drop(obstacle);
    append.outcome().unwrap();
    assert_eq!(store.loaded(&room("a")).log.len(), 2);
}

#[test]
fn the_writer_does_not_wait_for_those_who_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    store.appended(&room("a"), batch("ana", "one")).unwrap();
    let reader = Connection::open(dir.path().join("relay.sqlite")).unwrap();
    let count = || reader.query_row("SELECT count(*) FROM batch", (), |row| row.get::<_, i64>(0)).unwrap();
    reader.execute_batch("BEGIN").unwrap();
    assert_eq!(count(), 1);
    store.appended(&room("a"), batch("ana", "two")).unwrap();
    assert_eq!(count(), 1);
}

#[test]
fn what_does_not_fit_into_the_queue_is_refused_and_what_did_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(Options { queue: 100_000, ..options(dir.path()) }).unwrap();
    let obstacle = Obstacle::new(dir.path());
    let append = || pending(|reply| store.append(&room("a"), batch("ana", vec![0; 10_000]), reply));
    let appends: Vec<_> = (0..20).map(|_| append()).collect();
    drop(obstacle);
    let outcomes: Vec<_> = appends.into_iter().map(Pending::outcome).collect();
    let stored = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!(outcomes[..stored].iter().all(Result::is_ok), "nothing overtakes what was refused");
    assert!((8..=9).contains(&stored), "{stored}");
    assert!(matches!(outcomes[19], Err(StoreError::Busy { limit: 100_000, .. })));
    append().outcome().unwrap();
    assert_eq!(store.loaded(&room("a")).log.len(), stored + 1);
}

#[test]
fn a_store_that_is_closed_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let appends = (0..50).map(|n| pending(|reply| store.append(&room("a"), batch("ana", vec![n]), reply)));
    let appends: Vec<_> = appends.collect();
    drop(store);
    assert!(appends.into_iter().all(|append| append.outcome().is_ok()));
    assert_eq!(open(dir.path()).loaded(&room("a")).log.len(), 50);
}

#[test]
fn everything_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let written = store.appended(&room("a"), batch("ana", "one")).unwrap();
    store.appended(&room("a"), batch("ben", "two")).unwrap();
    store.compacted(&room("a"), Some(written.generation), Seq(1), "one").unwrap();
    store.appended(&Room { crdt: Crdt::Sealed, ..room("b") }, batch("ana", "sealed")).unwrap();
    let (before, listed, usage) = (store.loaded(&room("a")), store.list(), store.usage());
    drop(store);
    let store = open(dir.path());
    assert_eq!((store.loaded(&room("a")), store.list(), store.usage()), (before, listed, usage));
}

#[test]
fn two_servers_never_have_one_directory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let refusal = SqliteStore::open(options(dir.path())).unwrap_err().to_string();
    assert_eq!(refusal, format!("{}: data directory is in use by another server", dir.path().display()));
    drop(store);
    open(dir.path());
}

#[cfg(unix)]
#[test]
fn a_new_directory_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/data");
    open(&path);
    assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_database_that_is_not_ours_or_newer_is_refused_in_one_line_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.sqlite");
    let path = file.display();
    let refused = || {
        let before = std::fs::read(&file).unwrap();
        let refusal = SqliteStore::open(options(dir.path())).unwrap_err().to_string();
        assert_eq!(Archive::open(dir.path()).unwrap_err().to_string(), refusal);
        assert_eq!(std::fs::read(&file).unwrap(), before);
        refusal
    };
    drop(open(dir.path()));
    let sql = |statement: &str| Connection::open(&file).unwrap().execute_batch(statement).unwrap();
    sql("PRAGMA user_version = 2");
    let newer = format!("{path}: database has version 2, this server reads up to 1: use the newer one");
    assert_eq!(refused(), newer);
    let foreign = format!("{path}: not a database of this server, and left as it is");
    sql("PRAGMA user_version = 1; PRAGMA application_id = 1");
    assert_eq!(refused(), foreign);
    std::fs::remove_file(&file).unwrap();
    sql("CREATE TABLE notes (text TEXT)");
    assert_eq!(refused(), foreign);
    std::fs::write(&file, "just some text, and a little longer than nothing".repeat(100)).unwrap();
    assert_eq!(refused(), foreign);
}

#[test]
fn a_directory_that_can_not_be_is_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refusal = SqliteStore::open(options(&file)).unwrap_err().to_string();
    assert!(refusal.starts_with(&file.display().to_string()) && !refusal.contains('\n'), "{refusal}");
    let refusal = Archive::open(dir.path()).unwrap_err().to_string();
    assert_eq!(refusal, format!("{}: no such database", dir.path().join("relay.sqlite").display()));
}

#[test]
fn what_an_operator_changes_is_noticed_by_the_server_that_has_it_open() {
    let dir = tempfile::tempdir().unwrap();
    let (tell, told) = sync_channel(16);
    let observer: Observer = Arc::new(move |event| {
        if *event == Event::ChangedOutside {
            tell.try_send(()).unwrap();
        }
    });
    let store = SqliteStore::open(Options { observer, ..options(dir.path()) }).unwrap();
    let first = store.appended(&room("a"), batch("eve", "poison")).unwrap();
    store.appended(&room("a"), batch("ana", "good")).unwrap();
    let mut archive = Archive::open(dir.path()).unwrap();
    archive.cut(&room("a"), &Cut::Batch(first.seq)).unwrap();
    // Though nobody writes.
    told.recv_timeout(PATIENCE).unwrap();
    let loaded = store.loaded(&room("a"));
    assert_ne!(loaded.generation, first.generation);
    assert_eq!((payloads(&loaded), store.usage().bytes), (vec![&b"good"[..]], loaded.size.total()));
    let late = store.compacted(&room("a"), Some(first.generation), Seq(2), "poison good");
    assert_eq!(late, Err(StoreError::Changed));
    archive.delete(&room("a")).unwrap();
    told.recv_timeout(PATIENCE).unwrap();
    assert_eq!((store.load(&room("a")), store.usage()), (Ok(None), Usage::default()));
}

#[test]
fn an_import_of_another_life_does_not_lose_to_the_room_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = store.appended(&room("a"), batch("ana", "old")).unwrap();
    store.appended(&room("b"), batch("ben", "new")).unwrap();
    let mut archive = Archive::open(dir.path()).unwrap();
    let b = archive.salvage(&room("b")).unwrap().loaded;
    assert_eq!(archive.import(&room("a"), &b).unwrap_err().to_string(), "room is stored already");
    archive.replace(&room("a"), &b).unwrap();
    assert_eq!(store.compacted(&room("a"), Some(first.generation), Seq(1), "old"), Err(StoreError::Changed));
    let loaded = store.loaded(&room("a"));
    assert_eq!((payloads(&loaded), &loaded.log), (vec![&b"new"[..]], &b.log));
    assert_eq!(store.appended(&room("a"), batch("ana", "more")).unwrap().seq, Seq(2));
}
