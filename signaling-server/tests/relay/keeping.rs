//! Rooms on disk: restarts, full and damaged disks, and operators at work.

use std::fs;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;
use wire::sync::{Crdt, JoinError, Message, RoomErrorCode, Status};

use super::command;
use super::peer::{Peer, room};
use super::process::Process;
use super::support::PATIENCE;

async fn joined(server: &Process, id: &str) -> Peer {
    let mut peer = Peer::connect(&server.url(), room(Crdt::Loro, id)).await;
    peer.enter().await;
    peer
}

fn rooms(dir: &Path, arguments: &[&str]) -> String {
    let said = command::run(&[&["rooms", "--data-dir", dir.to_str().unwrap()], arguments].concat());
    assert_eq!(said.code, 0, "{}", said.err);
    said.out
}

/// A room that is being read comes to an end: the rest is on its way, or this fails.
async fn until_note(peer: &mut Peer, key: &str, value: &str) {
    let reached = peer.until(|peer| peer.note(key).as_deref() == Some(value));
    tokio::time::timeout(PATIENCE, reached).await.unwrap();
}

#[tokio::test]
async fn a_restart_loses_neither_documents_nor_lasting_presence_nor_sealed_ones() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    joined(&server, "plan").await.edit_acked("a", "kept").await;
    let store = loro::awareness::EphemeralStore::new(60_000);
    store.set("ana", "away");
    let mut presence = Peer::connect(&server.url(), room(Crdt::PersistedEphemeral, "plan")).await;
    presence.enter().await;
    let batch = presence.send(&store.encode("ana")).await;
    assert_eq!(presence.ack(batch).await, Status::Ok);
    server.kill();

    let server = Process::start(dir.path(), &[]);
    until_note(&mut joined(&server, "plan").await, "a", "kept").await;
    let mut presence = Peer::connect(&server.url(), room(Crdt::PersistedEphemeral, "plan")).await;
    presence.enter().await;
    presence.until(|presence| !presence.updates.is_empty()).await;
    let seen = loro::awareness::EphemeralStore::new(60_000);
    seen.apply(&presence.updates[0]).unwrap();
    assert_eq!(seen.get("ana"), Some("away".into()));
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing_and_serves_again_when_there_is_room() {
    let disk = tempfile::tempdir().unwrap();
    let mount =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(disk.path()).output();
    if !mount.as_ref().is_ok_and(|mount| mount.status.success()) {
        eprintln!("skipped: a small tmpfs can not be mounted here: {mount:?}");
        return;
    }
    let unmount = scopeguard(|| {
        let _ = Command::new("umount").arg("--lazy").arg(disk.path()).status();
    });
    let server = Process::start(&disk.path().join("data"), &[("SIGNALING_RELAY_SYNC_INTERVAL", "0s")]);
    let ballast = disk.path().join("ballast");
    fs::write(&ballast, vec![0; 20 << 20]).unwrap();
    let mut ana = joined(&server, "plan").await;
    let mut kept = Vec::new();
    let refused = loop {
        let key = format!("n{}", kept.len());
        let batch = ana.edit(&key, &"x".repeat(20_000)).await;
        match ana.ack(batch).await {
            Status::Ok => kept.push(key),
            refusal => break (key, refusal),
        }
        assert!(kept.len() < 1_000, "the disk is never full");
    };
    assert_eq!(refused.1, Status::Unknown);
    let batch = ana.edit("meanwhile", "x").await;
    assert_eq!(ana.ack(batch).await, Status::Unknown);
    // Others still read, and nothing that was acknowledged is missing.
    let mut ben = joined(&server, "plan").await;
    until_note(&mut ben, kept.last().unwrap(), &"x".repeat(20_000)).await;

    fs::remove_file(&ballast).unwrap();
    let told = ana.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    assert!(matches!(told, Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. }), "{told:?}");
    let Message::JoinOk { version, .. } = ana.join(b"").await else { panic!() };
    let version = loro::VersionVector::decode(&version).unwrap();
    let update = ana.doc.export(loro::ExportMode::updates(&version)).unwrap();
    let batch = ana.send(&update).await;
    assert_eq!(ana.ack(batch).await, Status::Ok);
    server.kill();

    let server = Process::start(&disk.path().join("data"), &[]);
    let mut eve = joined(&server, "plan").await;
    until_note(&mut eve, "meanwhile", "x").await;
    kept.push(refused.0);
    assert!(kept.iter().all(|key| eve.note(key).is_some()));
    drop(unmount);
}

/// Runs its closure when it goes.
fn scopeguard(last: impl FnOnce()) -> impl Drop {
    struct Guard<F: FnOnce()>(Option<F>);
    impl<F: FnOnce()> Drop for Guard<F> {
        fn drop(&mut self) {
            if let Some(last) = self.0.take() {
                last();
            }
        }
    }
    Guard(Some(last))
}

#[tokio::test]
async fn a_damaged_room_answers_with_the_reason_and_the_others_live() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    for id in ["sound", "damaged"] {
        joined(&server, id).await.edit_acked("a", &format!("in {id}")).await;
    }
    server.kill();
    let database = dir.path().join("relay.sqlite");
    let sql = |text: &str| Connection::open(&database).unwrap().execute_batch(text).unwrap();
    sql(
        "UPDATE batch SET payload = zeroblob(length(payload)) WHERE instr(payload, CAST('in damaged' AS BLOB)) > 0",
    );
    let rows = || -> Vec<(i64, Vec<u8>)> {
        let connection = Connection::open(&database).unwrap();
        let mut statement = connection.prepare("SELECT place, payload FROM batch ORDER BY place").unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.map(Result::unwrap).collect()
    };
    let before = rows();

    let server = Process::start(dir.path(), &[]);
    let mut ana = Peer::connect(&server.url(), room(Crdt::Loro, "damaged")).await;
    for _ in 0..2 {
        let Message::JoinError { error: JoinError::App { code }, message } = ana.join(b"").await else {
            panic!()
        };
        assert_eq!(code.as_deref(), Some("room_unreadable"));
        assert!(message.contains("the operator of the server can mend it"), "{message}");
    }
    let batch = ana.edit("a", "written over it").await;
    assert_eq!(ana.ack(batch).await, Status::PermissionDenied);
    until_note(&mut joined(&server, "sound").await, "a", "in sound").await;
    assert_eq!(rows(), before, "nothing overwrites it");

    let check = command::run(&["rooms", "--data-dir", dir.path().to_str().unwrap(), "check"]);
    assert_ne!(check.code, 0);
    assert!(check.err.contains("%LOR/damaged") && check.err.contains("rooms cut"), "{}", check.err);
    // The operator takes the damaged batch out, while the server runs.
    rooms(dir.path(), &["cut", "damaged", "1"]);
    ana.enter().await;
    let everything = ana.doc.export(loro::ExportMode::all_updates()).unwrap();
    let batch = ana.send(&everything).await;
    assert_eq!(ana.ack(batch).await, Status::Ok);
}

#[tokio::test]
async fn an_operator_exports_cuts_deletes_and_imports_while_members_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let server = Process::start(dir.path(), &[]);
    let mut ana = joined(&server, "plan").await;
    ana.edit_acked("a", "one").await;
    ana.edit_acked("b", "two").await;
    assert!(rooms(dir.path(), &["list"]).contains("%LOR/plan"));
    let copy = dir.path().join("plan.room");
    rooms(dir.path(), &["export", "plan", copy.to_str().unwrap()]);
    ana.edit_acked("c", "three").await;

    // Members of a room that is put back are told to join again, and so bring what it lacks.
    rooms(dir.path(), &["import", copy.to_str().unwrap(), "--replace"]);
    let told = ana.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    assert!(matches!(told, Message::RoomError { code: RoomErrorCode::RejoinSuggested, .. }), "{told:?}");
    let mut ben = joined(&server, "plan").await;
    until_note(&mut ben, "b", "two").await;
    assert_eq!(ben.note("c"), None);
    let Message::JoinOk { version, .. } = ana.join(b"").await else { panic!() };
    let version = loro::VersionVector::decode(&version).unwrap();
    let missing = ana.doc.export(loro::ExportMode::updates(&version)).unwrap();
    let batch = ana.send(&missing).await;
    assert_eq!(ana.ack(batch).await, Status::Ok);
    until_note(&mut ben, "c", "three").await;
    let document = dir.path().join("plan.loro");
    rooms(dir.path(), &["export", "plan", document.to_str().unwrap(), "--loro"]);
    let exported = loro::LoroDoc::new();
    exported.import(&fs::read(&document).unwrap()).unwrap();
    assert_eq!(exported.get_deep_value(), ben.doc.get_deep_value());

    // What is imported is there at once, also in a room that was opened while nothing was stored of it.
    let mut eve = joined(&server, "copy").await;
    rooms(dir.path(), &["import", copy.to_str().unwrap(), "--as", "copy"]);
    eve.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    eve.enter().await;
    until_note(&mut eve, "b", "two").await;
    eve.edit_acked("d", "four").await;
    // Who still has a room that is deleted may bring it back, and nobody else does.
    rooms(dir.path(), &["delete", "copy"]);
    eve.next_said(|said| matches!(said, Message::RoomError { .. })).await;
    let Message::JoinOk { version, .. } = joined(&server, "copy").await.join(b"").await else { panic!() };
    assert_eq!(version, [0][..]);
}
