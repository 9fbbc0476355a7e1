//! `signaling-server rooms`, beside a server that has the directory open.

use std::fs;

use super::command::{Files, Said, run_with};
use super::*;

struct Served {
    store: SqliteStore,
    files: Files,
}

impl Served {
    /// A directory with rooms, open.
    fn new() -> Self {
        let files = Files::new();
        let store = open(&files.path("data"));
        let first = store.appended(&room("plan"), batch("ana", "one")).unwrap();
        store.compacted(&room("plan"), Some(first.generation), first.seq, "snapshot").unwrap();
        store.appended(&room("plan"), batch("eve\u{1b}", "two")).unwrap();
        store.appended(&room("plan"), batch("ana", "three")).unwrap();
        store.appended(&Room { crdt: Crdt::Sealed, ..room("plan") }, batch("ana", "sealed")).unwrap();
        Self { store, files }
    }

    fn path(&self, name: &str) -> String {
        self.files.path(name).to_str().unwrap().to_owned()
    }

    fn rooms(&self, arguments: &[&str]) -> Said {
        run_with(
            &[&["rooms"], arguments].concat(),
            &[("SIGNALING_RELAY_MODE", "disk"), ("SIGNALING_RELAY_DATA_DIR", &self.path("data"))],
        )
    }

    /// What a command that works says.
    fn said(&self, arguments: &[&str]) -> String {
        let said = self.rooms(arguments);
        assert_eq!((said.code, said.err.as_str()), (0, ""));
        said.out
    }

    /// What a command that does not work says, in one line.
    fn failed(&self, arguments: &[&str]) -> String {
        let said = self.rooms(arguments);
        assert_eq!((said.code, said.out.as_str()), (1, ""), "{}", said.err);
        let line = said.err.strip_prefix("signaling-server: ").unwrap().strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "{line}");
        line.to_owned()
    }
}

/// The lines of a table, each without its times and with single spaces.
fn table(text: &str) -> Vec<String> {
    let lines = text.lines().map(|line| {
        let words = line.split_whitespace().filter(|word| !(word.contains('T') && word.ends_with('Z')));
        words.collect::<Vec<_>>().join(" ")
    });
    lines.collect()
}

#[test]
fn rooms_and_their_batches_are_listed() {
    let served = Served::new();
    assert_eq!(
        table(&served.said(&["list"])),
        ["BYTES SNAPSHOT BATCHES USED ROOM", "70 0 1 %ELO/plan", "144 8 2 %LOR/plan"]
    );
    let largest = table(&served.said(&["list", "--largest"]));
    assert_eq!(largest[1..], ["144 8 2 %LOR/plan", "70 0 1 %ELO/plan"]);
    assert_eq!(
        table(&served.said(&["list", "plan"])),
        [
            "snapshot of 8 bytes",
            "BATCH BYTES STORED ID AUTHOR",
            "2 3 0000000000000007 eve\\u{1b}",
            "3 5 0000000000000007 ana",
        ]
    );
    assert_eq!(served.failed(&["list", "nowhere"]), "%LOR/nowhere: no such room is stored");
}

#[test]
fn a_room_travels_as_a_file() {
    let served = Served::new();
    let (file, copy) = (served.path("plan.room"), room("copy"));
    assert_eq!(served.said(&["export", "plan", &file]), format!("exported %LOR/plan to {file}\n"));
    assert_eq!(served.said(&["import", &file, "--as", "copy"]), "imported %LOR/copy\n");
    let (plan, copied) = (served.store.loaded(&room("plan")), served.store.loaded(&copy));
    assert_eq!((&plan.snapshot, &plan.log), (&copied.snapshot, &copied.log));
    assert_eq!(served.said(&["export", "plan", "-"]).lines().count(), 5);
    // Neither a file nor a room is overwritten by the way.
    let said = served.rooms(&["export", "plan", &file]);
    assert_eq!(said.refusal(), format!("{file}: there is such a file already"));
    let exists =
        "%LOR/plan: room is stored already: --replace puts the file in its place, --as NAME beside it";
    assert_eq!(served.failed(&["import", &file]), exists);
    let kind = "flag --as: the file holds a room of kind %LOR, expected %LOR/NAME, not %ELO/NAME";
    assert_eq!(served.rooms(&["import", &file, "--as", "%ELO/plan"]).refusal(), kind);
    served.store.appended(&room("plan"), batch("ana", "four")).unwrap();
    served.said(&["import", &file, "--replace"]);
    let restored = served.store.loaded(&room("plan"));
    assert_eq!(restored.log, plan.log);
    assert_ne!(restored.generation, plan.generation);
}

#[test]
fn a_room_is_deleted() {
    let served = Served::new();
    assert_eq!(served.said(&["delete", "%ELO/plan"]), "deleted %ELO/plan\n");
    assert_eq!(served.failed(&["delete", "%ELO/plan"]), "%ELO/plan: no such room is stored");
    assert_eq!(served.store.load(&Room { crdt: Crdt::Sealed, ..room("plan") }), Ok(None));
    served.store.loaded(&room("plan"));
}

#[test]
fn a_batch_or_an_author_or_the_snapshot_is_cut_out() {
    let served = Served::new();
    let left = || {
        let loaded = served.store.loaded(&room("plan"));
        (loaded.snapshot.is_some(), payloads(&loaded).concat())
    };
    assert_eq!(served.said(&["cut", "plan", "2"]), "cut batches out of %LOR/plan: 1\n");
    assert_eq!(left(), (true, b"three".to_vec()));
    let nothing =
        "%LOR/plan: room has nothing of that kind in its log; what was compacted is part of its snapshot";
    assert_eq!(served.failed(&["cut", "plan", "1"]), nothing);
    served.store.appended(&room("plan"), batch("ben", "four")).unwrap();
    assert_eq!(served.said(&["cut", "plan", "--author", "ana"]), "cut batches out of %LOR/plan: 1\n");
    assert_eq!(left(), (true, b"four".to_vec()));
    assert_eq!(served.said(&["cut", "plan", "snapshot"]), "cut the snapshot out of %LOR/plan\n");
    assert_eq!(left(), (false, b"four".to_vec()));
}

#[test]
fn what_is_intact_of_a_damaged_room_is_exported_and_the_rest_is_said() {
    let Served { store, files } = Served::new();
    drop(store);
    let file = files.path("data").join("relay.sqlite");
    let connection = rusqlite::Connection::open(&file).unwrap();
    connection.execute_batch("UPDATE batch SET payload = X'00' WHERE author = 'ana' AND id > X'00'").unwrap();
    let served = Served { store: open(&files.path("data")), files };
    let said = served.rooms(&["export", "plan", &served.path("plan.room")]);
    assert_eq!(said.code, 1);
    let damaged = format!("signaling-server: {}: room '%LOR/plan': batch 3 is damaged", file.display());
    assert!(said.err.starts_with(&damaged) && said.err.lines().count() == 1, "{}", said.err);
    let saved = fs::read_to_string(served.files.path("plan.room")).unwrap();
    assert!(saved.lines().count() == 4 && saved.ends_with("{\"end\":{\"batches\":1}}\n"), "{saved}");
    assert_eq!(served.rooms(&["list", "plan"]).code, 1);
}

#[test]
fn what_can_not_be_done_is_one_line() {
    let served = Served::new();
    let refused = |arguments: &[&str]| served.rooms(arguments).refusal().to_owned();
    let bad = served.files.write_text("bad.room", "{\"end\":{\"batches\":0}}\n");
    assert_eq!(refused(&["import", &bad]), format!("{bad}: line 1: expected \"room\" first"));
    let missing = served.path("missing.room");
    assert!(refused(&["import", &missing]).starts_with(&format!("{missing}: No such file")));
    assert!(refused(&["cut", "plan", "two"]).contains("expected the number of a batch, or \"snapshot\""));
    assert!(refused(&["cut", "plan"]).contains("were not provided: <BATCH>"));
    assert!(refused(&["list", &"x".repeat(129)]).contains("room id is 129 bytes, limit is 128"));
    let empty = served.path("empty");
    let no_database = format!("{empty}/relay.sqlite: no such database");
    assert_eq!(refused(&["list", "--data-dir", &empty]), no_database);
    assert_eq!(
        run_with(&["rooms", "list"], &[]).refusal(),
        "flag --data-dir: expected the data directory, or a --config that has relay.data_dir"
    );
}
