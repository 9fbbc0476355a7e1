//! A full disk refuses what is new, loses nothing that was acknowledged, and is forgiven once there is room.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use super::*;

/// A file system of so many bytes; gone with the value.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, and a line that says so, where this process may not mount.
    fn mounted(bytes: usize) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={bytes}");
        let mount =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            other => {
                eprintln!("skipped: a small tmpfs can not be mounted here: {other:?}");
                None
            }
        }
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("data")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_refuses_and_loses_nothing_and_serves_again_when_there_is_room() {
    let Some(disk) = SmallDisk::mounted(6 << 20) else { return };
    let (observer, seen) = watched();
    let store = SqliteStore::open(Options { observer, ..options(&disk.path()) }).unwrap();
    // Something else takes up space, and later gives it back.
    let ballast = disk.0.path().join("ballast");
    fs::write(&ballast, vec![0; 3 << 20]).unwrap();
    let mut acked = Vec::new();
    let refusal = loop {
        let number = acked.len() as u32;
        let payload = [number.to_le_bytes().to_vec(), vec![0; 5_000]].concat();
        match store.appended(&room("a"), batch("ana", payload)) {
            Ok(written) => acked.push((written.seq, number)),
            Err(refusal) => break refusal,
        }
        assert!(acked.len() < 5_000, "the disk is never full");
    };
    assert!(matches!(&refusal, StoreError::DiskFull { .. } | StoreError::Disk { .. }), "{refusal}");
    assert!(seen.lock().unwrap().contains(&Event::Failed { writes: 1, error: refusal }));
    // Neither does a snapshot of everything fit.
    let generation = store.info(&room("a")).unwrap().map(|info| info.generation);
    store.compacted(&room("a"), generation, Seq(1), vec![0; 4 << 20]).unwrap_err();
    let stored = |store: &SqliteStore| -> Vec<(Seq, u32)> {
        let numbered = store.loaded(&room("a")).log.into_iter().map(|logged| {
            let number = logged.batch.payload.first_chunk().map(|bytes| u32::from_le_bytes(*bytes)).unwrap();
            (logged.seq, number)
        });
        numbered.collect()
    };
    assert_eq!(stored(&store), acked);
    fs::remove_file(&ballast).unwrap();
    let number = acked.len() as u32;
    let written = store.appended(&room("a"), batch("ana", number.to_le_bytes().to_vec())).unwrap();
    acked.push((written.seq, number));
    assert_eq!(stored(&store), acked);
    // Once more, through a restart on a disk that is full.
    fs::write(&ballast, vec![0; 6 << 20]).unwrap_err();
    drop(store);
    let store = open(&disk.path());
    assert_eq!(stored(&store), acked);
    fs::remove_file(&ballast).unwrap();
    store.appended(&room("a"), batch("ana", vec![0; 4])).unwrap();
}

#[test]
fn a_batch_too_large_for_what_is_left_takes_no_small_one_with_it() {
    let Some(disk) = SmallDisk::mounted(6 << 20) else { return };
    let store = SqliteStore::open(Options { queue: 64 << 20, ..options(&disk.path()) }).unwrap();
    store.appended(&room("a"), batch("ana", "first")).unwrap();
    let obstacle = rusqlite::Connection::open(disk.path().join("relay.sqlite")).unwrap();
    obstacle.execute_batch("BEGIN IMMEDIATE").unwrap();
    let append = |id: &str, len| pending(|reply| store.append(&room(id), batch("ana", vec![0; len]), reply));
    // The writer takes this and waits; the others come to it as one group.
    let taken = append("a", 10);
    let appends = [append("a", 10), append("b", 7 << 20), append("c", 10)];
    drop(obstacle);
    taken.outcome().unwrap();
    let outcomes = appends.map(|append| append.outcome().is_ok());
    assert_eq!(outcomes, [true, false, true]);
}
