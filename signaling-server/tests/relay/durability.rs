//! `kill -9` at random moments under load: what was acknowledged is there, every time, and every document loads.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::Rng;
use wire::sync::{Crdt, Status};

use super::peer::{Peer, room};
use super::process::Process;

/// How often to kill, if not a hundred times.
const ROUNDS: &str = "RELAY_KILL_ROUNDS";
const ROOMS: [&str; 3] = ["a", "b", "c"];
/// Commits follow each other closely, and logs become snapshots often, so that kills hit both.
const BUSY: [(&str, &str); 2] =
    [("SIGNALING_RELAY_SYNC_INTERVAL", "2ms"), ("SIGNALING_RELAY_COMPACT_AFTER", "20KiB")];

type Acked = Arc<Mutex<BTreeSet<(usize, String)>>>;

/// Writes to one room, a few edits under way at once, until the server is gone.
async fn write(url: String, nth: usize, name: String, acked: Acked) -> Option<()> {
    let mut peer = Peer::try_connect(&url, room(Crdt::Loro, ROOMS[nth])).await.ok()?;
    peer.try_enter().await?;
    let mut waiting = HashMap::new();
    for edit in 0_u32.. {
        let key = format!("{name}-{edit}");
        peer.doc.get_map("notes").insert(&key, "x".repeat(edit as usize * 37 % 500)).unwrap();
        let update = Bytes::from(peer.unsent());
        let batch = peer.batch();
        peer.try_say_raw(wire::sync::update(&peer.room, batch, &[update]).unwrap()).await.ok()?;
        waiting.insert(batch, key);
        while waiting.len() >= 8 {
            peer.step().await.ok()?;
            for (batch, status) in peer.acks() {
                assert_eq!(status, Status::Ok);
                let key = waiting.remove(&batch).expect("an ack of ours");
                acked.lock().unwrap().insert((nth, key));
            }
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill_at_any_moment() {
    let rounds: u32 = std::env::var(ROUNDS).map_or(100, |rounds| rounds.parse().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let acked = Acked::default();
    for round in 0..rounds {
        let server = Process::start(dir.path(), &BUSY);
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..6 {
            let (name, acked) = (format!("{round}-{writer}"), Arc::clone(&acked));
            writers.spawn(write(server.url(), writer % ROOMS.len(), name, acked));
        }
        // No synchronisation: the moment is meant to be a random one.
        tokio::time::sleep(Duration::from_millis(rand::rng().random_range(20..200))).await;
        server.kill();
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        if round % 5 == 4 || round + 1 == rounds {
            verify(&Process::start(dir.path(), &BUSY), &acked, round).await;
        }
    }
    let count = acked.lock().unwrap().len();
    println!("{count} acknowledged edits, {rounds} kills, none lost");
    assert!(count > rounds as usize, "the test did next to nothing");
}

async fn verify(server: &Process, acked: &Acked, round: u32) {
    for (nth, id) in ROOMS.iter().enumerate() {
        let mut reader = Peer::connect(&server.url(), room(Crdt::Loro, id)).await;
        reader.enter().await;
        // What it lacks comes behind the answer: an edit of its own is acknowledged behind that.
        let wanted: Vec<String> = acked
            .lock()
            .unwrap()
            .iter()
            .filter(|(room, _)| *room == nth)
            .map(|(_, key)| key.clone())
            .collect();
        let Some(last) = wanted.last().cloned() else { continue };
        let all_there = |reader: &Peer| reader.note(&last).is_some();
        tokio::time::timeout(Duration::from_secs(20), reader.until(all_there)).await.expect("the document");
        reader.settle().await;
        let lost: Vec<_> = wanted.iter().filter(|key| reader.note(key).is_none()).collect();
        assert!(lost.is_empty(), "round {round}: room {id} lost {lost:?}");
    }
}
