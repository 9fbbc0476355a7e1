//! `rooms`: looks into a data directory and mends it, whether or not a server has it open.

use std::fs::File;
use std::io::{self, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use wire::sync::{Crdt, Room};

use super::settings::{environment, file, on_disk};
use super::{failed, refused};
use crate::config::{Config, ConfigError, Layers};
use crate::store::sqlite::{Archive, ImportError, Salvage};
use crate::store::{Cut, Damage, Loaded, Seq, StoreError, export};

const AFTER_HELP: &str = "\
ROOM is the room's name, behind %LOR/, %EPS/, %ELO/ and so on if it is not a Loro document: plan, or %ELO/plan.
A server that has the directory open takes notice of a change within a second, and tells the members of the room to
join again. Whoever still has what was deleted or cut out brings it back then: have them close it first.

Examples, each with --data-dir DIR, or --config FILE, or the server's environment:
  signaling-server rooms list --largest                which rooms there are, and how large
  signaling-server rooms list plan                     what came in since the last snapshot, and from whom
  signaling-server rooms export plan plan.room         a copy to keep
  signaling-server rooms export plan plan.loro --loro  the document, for any program that knows Loro
  signaling-server rooms import plan.room --as copy    beside the one that is there
  signaling-server rooms import plan.room --replace    back to what it was
  signaling-server rooms check                         after a disk has failed
  signaling-server rooms cut plan 17                   without one batch, by its number in \"list plan\"
  signaling-server rooms delete %EPS/plan";

#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct RoomsArgs {
    #[command(subcommand)]
    command: Command,
    /// The server's configuration, which names the data directory [env: SIGNALING_CONFIG]
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// The data directory
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List all rooms, or what is stored of one
    List {
        /// The room whose batches to list, oldest first
        #[arg(value_parser = room)]
        room: Option<Room>,
        /// The largest rooms first
        #[arg(long, conflicts_with = "room")]
        largest: bool,
    },
    /// Read every room, and name what is damaged and how to mend it
    Check,
    /// Write a room to a new file, or to "-" for the terminal; what is damaged is left out, and said
    Export {
        /// Which room
        #[arg(value_parser = room)]
        room: Room,
        /// Where to
        file: PathBuf,
        /// The document alone, without its log, as a file that any Loro library imports
        #[arg(long)]
        loro: bool,
    },
    /// Read a room from a file, or from "-"
    Import {
        /// What "export" has written, without --loro
        file: PathBuf,
        /// Call it this, whatever it was called
        #[arg(long = "as", value_name = "ROOM", value_parser = room)]
        name: Option<Room>,
        /// Put it in place of the room that is there
        #[arg(long)]
        replace: bool,
    },
    /// Forget a room
    Delete {
        /// Which room
        #[arg(value_parser = room)]
        room: Room,
    },
    /// Take out what harms a room: one batch, by the number that "list ROOM" shows, or all of one author, or
    /// "snapshot"
    Cut {
        /// Which room
        #[arg(value_parser = room)]
        room: Room,
        /// The number of a batch, or "snapshot"
        #[arg(value_name = "BATCH", value_parser = part, required_unless_present = "author", conflicts_with = "author")]
        part: Option<Cut>,
        /// Every batch of this author
        #[arg(long, value_name = "NAME")]
        author: Option<String>,
    },
}

/// Why a command came to nothing, and so with which code it ends.
enum Trouble {
    Refused(String),
    Failed(String),
    /// It was done as far as it could be; the rest has been said.
    Partly,
    /// Nobody reads on.
    Unheard,
}

pub(super) fn run(arguments: &RoomsArgs) -> ExitCode {
    let mut out = io::stdout().lock();
    match dir(arguments).and_then(|dir| perform(&arguments.command, &dir, &mut out)) {
        Ok(()) | Err(Trouble::Unheard) => ExitCode::SUCCESS,
        Err(Trouble::Refused(problem)) => refused(problem),
        Err(Trouble::Failed(problem)) => failed(problem),
        Err(Trouble::Partly) => ExitCode::FAILURE,
    }
}

fn dir(arguments: &RoomsArgs) -> Result<PathBuf, Trouble> {
    let flags = arguments.data_dir.iter().flat_map(|dir| on_disk(dir)).collect();
    let layers = Layers { file: file(arguments.config.as_ref()), environment: environment(), flags };
    let loaded = Config::load(&layers).map_err(|error: ConfigError| Trouble::Refused(error.to_string()))?;
    loaded.config.relay.data_dir.ok_or_else(|| {
        let problem = "flag --data-dir: expected the data directory, or a --config that has relay.data_dir";
        Trouble::Refused(problem.to_owned())
    })
}

fn perform(command: &Command, dir: &Path, out: &mut impl Write) -> Result<(), Trouble> {
    let mut archive = Archive::open(dir).map_err(|error| Trouble::Refused(error.to_string()))?;
    match command {
        Command::List { room: None, largest } => list(&archive, *largest, out),
        Command::List { room: Some(room), .. } => describe(&archive, room, out),
        Command::Export { room, file, loro } => save(&archive, room, file, *loro, out),
        Command::Import { file, name, replace } => {
            let mut exported = opened(file)?;
            if let Some(name) = name {
                exported.room = renamed(&exported.room, name)?;
            }
            let export::Exported { room, loaded } = exported;
            match replace {
                true => archive.replace(&room, &loaded).map_err(about(&room))?,
                false => archive.import(&room, &loaded).map_err(|error| match error {
                    ImportError::Exists => {
                        let ways = "--replace puts the file in its place, --as NAME beside it";
                        Trouble::Failed(format!("{}: {error}: {ways}", shown(&room)))
                    }
                    ImportError::Store(error) => about(&room)(error),
                })?,
            }
            say(out, format_args!("imported {}", shown(&room)))
        }
        Command::Check => check(&archive, out),
        Command::Delete { room } => {
            archive.delete(room).map_err(about(room))?;
            say(out, format_args!("deleted {}", shown(room)))
        }
        Command::Cut { room, part, author } => {
            let author = author.as_deref().map(|author| Cut::Author(author.into()));
            let cut = part.clone().or(author).expect("the flags ask for one of them");
            let cut_out = archive.cut(room, &cut).map_err(about(room))?;
            match cut {
                Cut::Snapshot => say(out, format_args!("cut the snapshot out of {}", shown(room))),
                _ => say(out, format_args!("cut batches out of {}: {}", shown(room), cut_out.batches)),
            }
        }
    }
}

fn list(archive: &Archive, largest: bool, out: &mut impl Write) -> Result<(), Trouble> {
    let mut rooms = archive.list().map_err(failure)?;
    if largest {
        rooms.sort_by_key(|info| std::cmp::Reverse(info.size.total()));
    }
    say(out, format_args!("{:>12} {:>12} {:>8}  {:<20}  ROOM", "BYTES", "SNAPSHOT", "BATCHES", "USED"))?;
    for info in rooms {
        let (total, size) = (info.size.total(), info.size);
        let used = humantime::format_rfc3339_seconds(info.used_at);
        let room = shown(&info.room);
        say(out, format_args!("{total:>12} {:>12} {:>8}  {used}  {room}", size.snapshot, size.batches))?;
    }
    Ok(())
}

fn check(archive: &Archive, out: &mut impl Write) -> Result<(), Trouble> {
    let rooms = archive.list().map_err(failure)?;
    let mut damage = Vec::new();
    for info in &rooms {
        match archive.salvage(&info.room) {
            Ok(salvage) => damage.extend(salvage.damage),
            // An operator or the server has just forgotten it.
            Err(StoreError::NoSuchRoom) => {}
            Err(error) => return Err(failure(error)),
        }
    }
    say(out, format_args!("{} rooms read, damaged parts: {}", rooms.len(), damage.len()))?;
    complain(&damage)
}

fn describe(archive: &Archive, room: &Room, out: &mut impl Write) -> Result<(), Trouble> {
    let Salvage { loaded, damage } = archive.salvage(room).map_err(about(room))?;
    if let Some(snapshot) = &loaded.snapshot {
        say(out, format_args!("snapshot of {} bytes", snapshot.len()))?;
    }
    say(out, format_args!("{:>10} {:>10}  {:<24}  {:<16}  AUTHOR", "BATCH", "BYTES", "STORED", "ID"))?;
    for logged in &loaded.log {
        let (seq, bytes) = (logged.seq.0, logged.batch.payload.len());
        let stored = humantime::format_rfc3339_millis(logged.stored_at);
        let (id, author) = (logged.batch.id, logged.batch.author.as_str().escape_debug());
        say(out, format_args!("{seq:>10} {bytes:>10}  {stored}  {id}  {author}"))?;
    }
    complain(&damage)
}

fn save(
    archive: &Archive,
    room: &Room,
    file: &Path,
    loro: bool,
    out: &mut impl Write,
) -> Result<(), Trouble> {
    let Salvage { loaded, damage } = archive.salvage(room).map_err(about(room))?;
    let contents = if loro { document(room, loaded)? } else { exported(room, &loaded) };
    if is_stream(file) {
        out.write_all(&contents).map_err(|error| unsaid(&error))?;
        return complain(&damage);
    }
    let named = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            Trouble::Refused(format!("{}: there is such a file already", file.display()))
        }
        _ => Trouble::Failed(format!("{}: {error}", file.display())),
    };
    let mut target = File::create_new(file).map_err(named)?;
    target.write_all(&contents).and_then(|()| target.sync_all()).map_err(named)?;
    say(out, format_args!("exported {} to {}", shown(room), file.display()))?;
    complain(&damage)
}

fn exported(room: &Room, loaded: &Loaded) -> Vec<u8> {
    let mut contents = Vec::new();
    export::write(&mut contents, room, loaded, SystemTime::now()).expect("writing to memory");
    contents
}

fn document(room: &Room, loaded: Loaded) -> Result<Vec<u8>, Trouble> {
    if room.crdt != Crdt::Loro {
        let problem = format!("flag --loro: {} is no Loro document that could be read", shown(room));
        return Err(Trouble::Refused(problem));
    }
    let whole = crate::room::document::whole(crate::relay::as_stored(loaded));
    let (document, is_all) =
        whole.map_err(|problem| Trouble::Failed(format!("{}: {problem}", shown(room))))?;
    if !is_all {
        eprintln!(
            "signaling-server: {}: some updates wait for others that nobody has sent, and are left out",
            shown(room)
        );
    }
    Ok(document.into())
}

fn opened(file: &Path) -> Result<export::Exported, Trouble> {
    let named = |error: export::ExportError| Trouble::Refused(format!("{}: {error}", file.display()));
    if is_stream(file) {
        return export::read(io::stdin().lock()).map_err(named);
    }
    let source = File::open(file).map_err(|error| named(error.into()))?;
    export::read(BufReader::new(source)).map_err(named)
}

/// A name of another kind would make what is in the file something that nobody can read.
fn renamed(room: &Room, name: &Room) -> Result<Room, Trouble> {
    if room.crdt == name.crdt {
        return Ok(name.clone());
    }
    let [from, to] = [room, name].map(|room| room.crdt.magic().escape_ascii().to_string());
    Err(Trouble::Refused(format!(
        "flag --as: the file holds a room of kind {from}, expected {from}/NAME, not {to}/NAME"
    )))
}

fn is_stream(file: &Path) -> bool {
    file == Path::new("-")
}

/// Says what of a room is damaged; that the rest was done is not enough then.
fn complain(damage: &[Damage]) -> Result<(), Trouble> {
    for damage in damage {
        eprintln!("signaling-server: {damage}");
    }
    if damage.is_empty() { Ok(()) } else { Err(Trouble::Partly) }
}

fn say(out: &mut impl Write, line: std::fmt::Arguments<'_>) -> Result<(), Trouble> {
    writeln!(out, "{line}").map_err(|error| unsaid(&error))
}

fn unsaid(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Trouble::Unheard,
        _ => Trouble::Failed(error.to_string()),
    }
}

fn failure(error: impl std::fmt::Display) -> Trouble {
    Trouble::Failed(error.to_string())
}

/// What was to be done to a room, and was not.
fn about(room: &Room) -> impl Fn(StoreError) -> Trouble {
    move |error| match error {
        StoreError::NoSuchRoom | StoreError::NothingToCut => {
            Trouble::Failed(format!("{}: {error}", shown(room)))
        }
        error => failure(error),
    }
}

/// A room's name may hold anything; on a terminal it stays on its line.
fn shown(room: &Room) -> String {
    room.to_string().escape_debug().to_string()
}

fn room(text: &str) -> Result<Room, String> {
    crate::relay::room_named(text).map_err(|error| error.to_string())
}

fn part(text: &str) -> Result<Cut, String> {
    match text.parse() {
        _ if text == "snapshot" => Ok(Cut::Snapshot),
        Ok(seq) => Ok(Cut::Batch(Seq(seq))),
        Err(_) => Err("expected the number of a batch, or \"snapshot\"".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use wire::RoomId;

    use super::*;

    #[test]
    fn a_room_is_a_loro_document_unless_it_says_otherwise() {
        let named = |crdt, id| Ok(Room { crdt, id: RoomId::try_from(id).unwrap() });
        assert_eq!(room("plan"), named(Crdt::Loro, "plan"));
        assert_eq!(room("a/b"), named(Crdt::Loro, "a/b"));
        assert_eq!(room("%ELO/a/b"), named(Crdt::Sealed, "a/b"));
        assert_eq!(room("%LOR/%ELO/plan"), named(Crdt::Loro, "%ELO/plan"));
        assert_eq!(room("%XYZ/plan"), named(Crdt::Loro, "%XYZ/plan"));
        assert_eq!(room(&"x".repeat(129)), Err("room id is 129 bytes, limit is 128".to_owned()));
    }
}
