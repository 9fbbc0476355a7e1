//! Processes that are killed, and files that are damaged: what was stored stays, and all catch up.
#![cfg(all(feature = "websocket", feature = "sqlite"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod peers;

use std::io::{BufRead, BufReader, Lines};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use peer_sdk::adapter::sqlite::Sqlite;
use peer_sdk::adapter::{Storage, StorageError};
use peer_sdk::{Peer, StartError};
use peers::{Relay, annotate, notes, until_noted, within};

const DIRECTORY: &str = "PEER_TEST_DIRECTORY";
const ADDRESS: &str = "PEER_TEST_ADDRESS";

/// One of the parts below, in a process of its own, which is killed when this is dropped: as by `kill -9`.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn start(part: &str, directory: &Path, address: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", part, "--nocapture"])
            .env(DIRECTORY, directory)
            .env(ADDRESS, address)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// What stands behind this word in the next line that has it; `None` once it is dead.
    fn says(&mut self, word: &str) -> Option<String> {
        let found = |line: String| line.split_once(word).map(|(_, rest)| rest.trim().to_owned());
        self.lines.by_ref().map_while(Result::ok).find_map(found)
    }

    /// Kills it. What it had said last behind this word.
    fn kill(mut self, word: &str) -> Option<String> {
        self.child.kill().unwrap();
        std::iter::from_fn(|| self.says(word)).last()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// Not a test by itself: a peer that says each number once it is stored, and is killed by the next test.
#[tokio::test(flavor = "multi_thread")]
async fn writer() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let storage = Sqlite::open(Path::new(&directory).join("plans.db")).unwrap();
    let peer = Peer::builder("plan").storage(storage).start().await.unwrap();
    for number in notes(peer.document()).len().. {
        annotate(peer.document(), &number.to_string());
        peer.stored().await.unwrap();
        println!("stored {number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_killed_in_the_middle_of_writing_loses_nothing_that_it_had_stored() {
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=6 {
        let mut process = Process::start("writer", dir.path(), "");
        let said = (0..round * 7).map(|_| process.says("stored ").unwrap()).last().unwrap();
        let last: usize = process.kill("stored ").unwrap_or(said).parse().unwrap();
        let storage = Sqlite::open(dir.path().join("plans.db")).unwrap();
        let again = Peer::builder("plan").storage(storage).start().await.unwrap();
        let kept = notes(again.document());
        assert!(kept.len() > last, "round {round}: {last} was stored, there are {}", kept.len());
        let expected: Vec<_> = (0..kept.len()).map(|number| number.to_string()).collect();
        assert_eq!(kept, expected, "round {round}");
        again.close().await;
    }
}

/// Not a test by itself: the relay that the next test kills.
#[tokio::test(flavor = "multi_thread")]
async fn relay() {
    let Ok(directory) = std::env::var(DIRECTORY) else { return };
    let address: SocketAddr = std::env::var(ADDRESS).unwrap().parse().unwrap();
    let relay = Relay::on_disk_at(Path::new(&directory), address).await;
    println!("listens at {}", relay.address);
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_was_killed_has_what_it_had_acknowledged_and_gets_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let mut process = Process::start("relay", dir.path(), "127.0.0.1:0");
    let address = process.says("listens at ").unwrap();
    let url = format!("ws://{address}");
    let start = async || Peer::builder("plan").websocket(&url).start().await.unwrap();
    let (ana, ben) = (start().await, start().await);
    annotate(ana.document(), "before");
    let acknowledged = |status: &peer_sdk::Status| status.acknowledged() && !status.version.is_empty();
    within("the ack", ana.wait_until(acknowledged)).await;
    until_noted(ben.document(), "before").await;
    ana.close().await;

    process.kill("");
    within("noticing", ben.wait_until(|status| !status.links[0].up)).await;
    annotate(ben.document(), "while it was away");
    let mut process = Process::start("relay", dir.path(), &address);
    process.says("listens at ").unwrap();
    let eve = start().await;
    until_noted(eve.document(), "before").await;
    ben.wake().await;
    until_noted(eve.document(), "while it was away").await;
    annotate(eve.document(), "after");
    until_noted(ben.document(), "after").await;
    ben.close().await;
    eve.close().await;

    // Nobody is left but the relay itself.
    process.kill("");
    let mut process = Process::start("relay", dir.path(), &address);
    process.says("listens at ").unwrap();
    let dan = start().await;
    until_noted(dan.document(), "after").await;
    assert_eq!(notes(dan.document()), ["before", "while it was away", "after"]);
    dan.close().await;
}

/// Everything in a directory.
fn files(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let paths = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    files.sort();
    files
}

/// Why the peer does not start with this database.
async fn refusal(path: &Path) -> StorageError {
    match Sqlite::open(path) {
        Err(error) => error,
        Ok(storage) => match Peer::builder("plan").storage(storage).start().await {
            Err(StartError::Storage(error)) => error,
            other => panic!("{other:?}"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_named_and_left_untouched_and_the_peer_goes_on_with_a_fresh_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plans.db");
    let peer = Peer::builder("plan").storage(Sqlite::open(&path).unwrap()).start().await.unwrap();
    for number in 0..200 {
        annotate(peer.document(), &format!("note {number}"));
        peer.stored().await.unwrap();
    }
    peer.close().await;
    let sound = std::fs::read(&path).unwrap();
    let mut refused = 0;
    for at in (0..sound.len()).step_by(sound.len() / 61) {
        let mut damaged = sound.clone();
        damaged[at..].iter_mut().take(16).for_each(|byte| *byte ^= 0x55);
        std::fs::write(&path, &damaged).unwrap();
        if Sqlite::open(&path).is_ok_and(|mut storage| storage.load("plan").is_ok()) {
            // What was hit is not in use.
            continue;
        }
        std::fs::write(&path, &damaged).unwrap();
        let before = files(dir.path());
        let error = refusal(&path).await;
        assert!(error.to_string().contains("plans.db"), "{error}");
        assert!(
            matches!(error, StorageError::Damaged { .. } | StorageError::TooNew { .. }),
            "byte {at}: {error}"
        );
        assert!(files(dir.path()) == before, "byte {at}: {error}, and something was changed");
        refused += 1;
    }
    assert!(refused > 20, "{refused}");

    let relay = Relay::start().await;
    let ana = Peer::builder("plan").websocket(&relay.url()).start().await.unwrap();
    annotate(ana.document(), "kept by others");
    let fresh = Sqlite::open(dir.path().join("fresh.db")).unwrap();
    let ben = Peer::builder("plan").storage(fresh).websocket(&relay.url()).start().await.unwrap();
    until_noted(ben.document(), "kept by others").await;
    within("storing", ben.stored()).await.unwrap();
    ana.close().await;
    ben.close().await;
}
