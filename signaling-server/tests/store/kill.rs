//! `kill -9` at random moments: what was acknowledged is there, every time.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::io::{BufRead, BufReader, Write, stdout};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread;

use super::*;

/// Where the process that is going to be killed works; without it, that is not what this process is.
const VICTIM: &str = "STORE_KILL_VICTIM";

/// How often to kill, if not 20 times.
const ROUNDS: &str = "STORE_KILL_ROUNDS";

const ROOMS: [&str; 3] = ["a", "b", "c"];

/// What one room of the victim knows to be stored, as a server's room would.
#[derive(Default)]
struct Known {
    numbers: Vec<u32>,
    generation: Option<Generation>,
    through: Seq,
}

fn numbers_in(loaded: &Loaded) -> Vec<u32> {
    let snapshot = loaded.snapshot.iter().flat_map(|snapshot| snapshot.chunks_exact(4));
    let log = loaded.log.iter().map(|logged| logged.batch.payload.get(..4).unwrap());
    snapshot.chain(log).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Appends numbers to some rooms, compacts these now and then, and prints each number that was acknowledged.
#[test]
fn work_until_killed() {
    let Some(dir) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&dir));
    let next = AtomicU32::new(0);
    let known = ROOMS.map(|id| match store.load(&room(id)).unwrap() {
        Some(loaded) => Known {
            numbers: numbers_in(&loaded),
            generation: Some(loaded.generation),
            through: loaded.last(),
        },
        None => Known::default(),
    });
    let largest = known.iter().flat_map(|known| &known.numbers).max();
    next.store(largest.map_or(0, |largest| largest + 1), Ordering::Relaxed);
    thread::scope(|scope| {
        for (id, known) in ROOMS.into_iter().zip(known) {
            let (store, next) = (&store, &next);
            scope.spawn(move || work(store, id, known, next));
        }
    });
}

/// Keeps a few appends under way at once, and ends with the process.
fn work(store: &SqliteStore, id: &str, mut known: Known, next: &AtomicU32) {
    let (tell, told) = sync_channel(8);
    for round in 0.. {
        for _ in 0..8 {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let payload = [number.to_le_bytes().to_vec(), vec![0; number as usize % 3_000]].concat();
            let tell = tell.clone();
            let reply = Reply::new(move |outcome: Result<Written, StoreError>| {
                tell.send((number, outcome.unwrap())).unwrap();
            });
            store.append(&room(id), batch(id, payload), reply);
        }
        for (number, written) in told.iter().take(8) {
            known.numbers.push(number);
            known.generation = Some(written.generation);
            known.through = known.through.max(written.seq);
            writeln!(stdout().lock(), "acked {id} {number}").unwrap();
        }
        if round % 5 == 4 {
            let snapshot: Vec<u8> = known.numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            store.compacted(&room(id), known.generation, known.through, snapshot).unwrap();
        }
    }
}

/// Runs a victim for so long, kills it, and returns what it was told is stored.
fn kill_after(dir: &Path, after: Duration) -> Vec<(String, u32)> {
    let mut victim = Command::new(std::env::current_exe().unwrap());
    victim.args(["--exact", "kill::work_until_killed", "--nocapture"]).env(VICTIM, dir);
    let mut victim = victim.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
    let reader = thread::spawn(move || {
        let acked = lines.map_while(Result::ok).filter_map(|line| {
            let mut words = line.strip_prefix("acked ")?.split(' ');
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        });
        acked.collect::<Vec<(String, u32)>>()
    });
    thread::sleep(after);
    victim.kill().unwrap();
    assert!(!victim.wait().unwrap().success(), "it worked until it was killed");
    let mut acked = reader.join().unwrap();
    // The last line may be torn: a number cut short is another number.
    acked.pop();
    acked
}

#[test]
fn whatever_was_acknowledged_survives_a_kill_at_any_moment() {
    let rounds = std::env::var(ROUNDS).map_or(20, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut acked: HashMap<String, BTreeSet<u32>> = HashMap::new();
    for round in 0..rounds {
        let after = Duration::from_millis(20 + RandomState::new().hash_one(round) % 200);
        for (id, number) in kill_after(dir.path(), after) {
            acked.entry(id).or_default().insert(number);
        }
        let store = open(dir.path());
        let mut seen = BTreeSet::new();
        for id in ROOMS {
            let Some(loaded) = store.load(&room(id)).unwrap() else {
                assert!(!acked.contains_key(id), "round {round}: room {id} is lost");
                continue;
            };
            let stored = numbers_in(&loaded);
            let unique: BTreeSet<u32> = stored.iter().copied().collect();
            assert_eq!(unique.len(), stored.len(), "round {round}: room {id} has something twice");
            let lost: Vec<_> =
                acked.get(id).into_iter().flatten().filter(|number| !unique.contains(number)).collect();
            assert!(lost.is_empty(), "round {round}, killed after {after:?}: room {id} has lost {lost:?}");
            assert!(unique.is_disjoint(&seen), "round {round}: room {id} has what is another's");
            seen.extend(unique);
        }
    }
    let total: usize = acked.values().map(BTreeSet::len).sum();
    assert!(total > rounds, "the victims came to acknowledge something: {total}");
    eprintln!("{rounds} kills, {total} acknowledged batches, none lost");
}
