//! Scenarios against a relay of Loro documents.
//!
//! Clients are in rooms and write into real documents. What a reader receives is compared with what was sent at
//! once, and imported into a document of its own only after the load: importing is the most expensive thing that a
//! client does, and a tester that did it a hundred times for every edit would measure itself. So no edit of a run
//! builds on somebody else's. At the end every document is made, and all of a room must be equal.

use std::time::Duration;

use bytesize::ByteSize;
use wire::{RoomId, sync::Crdt, sync::Room};

use crate::{
    client::Target,
    measure::{process::Process, scrape::Scraper},
    ramp::Ramp,
    report::Report,
    threshold::Known,
};

pub(crate) mod books;
mod crew;
pub(crate) mod document;
mod flood;
mod grow;
mod join;
mod protocol;
mod stored;
mod verdict;
pub(crate) mod visitor;

pub use protocol::Protocol;

/// What is done to the relay.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Edits at a fixed rate, latencies corrected for coordinated omission.
    Fixed,
    /// As many edits as go through with `window` of each writer under way.
    Saturated {
        /// Edits of one writer that have not reached everybody yet.
        window: u32,
    },
    /// What a keystroke costs in documents of these sizes.
    Grow {
        /// The text that a document begins with.
        sizes: Vec<ByteSize>,
        /// How many are typed into each.
        keystrokes: u32,
    },
    /// Somebody joins a large document while other rooms carry traffic.
    Join {
        /// The text in it.
        size: ByteSize,
        /// How often.
        joins: u32,
    },
    /// Rooms with documents that are there on the next run, too.
    Stored {
        /// How many.
        rooms: u32,
        /// The text in each.
        size: ByteSize,
    },
}

/// What all scenarios share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The server.
    pub target: Target,
    /// What it speaks.
    pub protocol: Protocol,
    /// Clients in each room.
    pub clients: u32,
    /// How many of them write.
    pub writers: u32,
    /// Rooms.
    pub rooms: u32,
    /// Edits a second, all rooms together, as they grow and shrink over warm-up and duration; with
    /// [`Mode::Grow`] its top are the keystrokes a second.
    pub rate: Ramp,
    /// Length of the value that an edit sets, in bytes.
    pub payload: usize,
    /// How long is measured.
    pub duration: Duration,
    /// How long the load runs before that.
    pub warmup: Duration,
    /// The server's process if it runs here.
    pub server: Option<Process>,
    /// Where the server tells its own figures.
    pub metrics: Option<Scraper>,
    /// Whether a newcomer joins each room at the end and must get the same document.
    pub newcomer: bool,
    /// Repeats the order of things.
    pub seed: u64,
}

impl Mode {
    /// What a run of it reports.
    #[must_use]
    pub fn figures(&self) -> Known {
        match self {
            Self::Fixed | Self::Saturated { .. } => Known::new(&[flood::FIGURES]),
            Self::Grow { .. } => Known::new(&[grow::FIGURES]),
            Self::Join { .. } => Known::new(&[join::FIGURES, flood::FIGURES]),
            Self::Stored { .. } => Known::new(&[stored::FIGURES]),
        }
    }
}

/// Runs one scenario to its end.
///
/// # Errors
/// When it could not be run at all; what the server did wrong is in the report instead.
pub fn run(settings: &Settings, mode: &Mode) -> anyhow::Result<Report> {
    match mode {
        Mode::Fixed => flood::run(settings, flood::Pace::Fixed),
        Mode::Saturated { window } => flood::run(settings, flood::Pace::Saturated { window: *window }),
        Mode::Grow { sizes, keystrokes } => grow::run(settings, sizes, *keystrokes),
        Mode::Join { size, joins } => join::run(settings, *size, *joins),
        Mode::Stored { rooms, size } => stored::run(settings, *rooms, *size),
    }
}

/// A room of this run. Runs never meet, even with the same seed.
fn room(run: u32, name: impl std::fmt::Display) -> Room {
    named(&format!("loadtest-{run:08x}-{name}"))
}

pub(crate) fn named(name: &str) -> Room {
    Room { crdt: Crdt::Loro, id: RoomId::try_from(name).expect("the names of a load test are short") }
}
