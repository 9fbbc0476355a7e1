//! One client at a time: joins, reads and writes documents of any size, and waits for what it asked for.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use loro::{LoroDoc, VersionVector};
use wire::{
    BatchId,
    fragment::{FragmentLimits, Reassembly},
    sync::{Message, Room, Status},
};

use super::{Protocol, Settings, books::name_of};
use crate::{
    client::{Options, Upgraded},
    frame::Opcode,
};

/// How long nothing may come while something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// Documents in one update may be that long.
const LARGEST: usize = 1 << 30;

/// A client that blocks.
pub(super) struct Visitor {
    connection: Upgraded,
    protocol: Protocol,
    room: Room,
    fragments: Reassembly,
    batches: u64,
    /// The version in the answer to a join.
    joined: Option<Bytes>,
    /// Updates that nobody has asked for yet, and acks.
    updates: VecDeque<Bytes>,
    acks: Vec<(BatchId, Status)>,
}

impl Visitor {
    /// Connects; it is in no room yet.
    pub(super) fn open(settings: &Settings, room: Room) -> anyhow::Result<Self> {
        let connection = Upgraded::open(&settings.target, Options::default())?;
        connection.stream.set_read_timeout(Some(PATIENCE))?;
        let limits = FragmentLimits {
            update: LARGEST,
            pending: LARGEST,
            fragments: LARGEST / 1024,
            ..FragmentLimits::default()
        };
        let fragments = Reassembly::new(limits);
        Ok(Self {
            connection,
            protocol: settings.protocol,
            room,
            fragments,
            batches: 0,
            joined: None,
            updates: VecDeque::new(),
            acks: Vec::new(),
        })
    }

    /// Joins with what `document` holds, and imports until it holds all that the server said it has.
    pub(super) fn join(&mut self, document: &LoroDoc) -> anyhow::Result<()> {
        let version = document.oplog_vv().encode().into();
        self.tell(&Message::JoinRequest { auth: Bytes::new(), version })?;
        let version = loop {
            match self.joined.take() {
                Some(version) => break version,
                None => self.listen()?,
            }
        };
        ensure!(!version.is_empty(), "the server does not say which version it has");
        let version =
            VersionVector::decode(&version).context("the server says a version that makes no sense")?;
        while !document.oplog_vv().includes_vv(&version) {
            let update = self.update()?;
            document.import(&update).context("an update of the server cannot be imported")?;
        }
        Ok(())
    }

    /// Sends an update, in fragments if it is long; it is acknowledged under what is returned.
    pub(super) fn send(&mut self, update: &[u8]) -> anyhow::Result<BatchId> {
        self.batches += 1;
        let batch = BatchId::from(self.batches);
        for frame in self.protocol.frames(&self.room, batch, update) {
            self.connection.send(Opcode::Binary, &frame)?;
        }
        Ok(batch)
    }

    /// Sends updates, each once the one before is acknowledged.
    pub(super) fn write(&mut self, updates: &[Vec<u8>]) -> anyhow::Result<()> {
        for update in updates {
            let batch = self.send(update)?;
            self.acked(batch)?;
        }
        Ok(())
    }

    /// Waits until this batch is acknowledged.
    pub(super) fn acked(&mut self, batch: BatchId) -> anyhow::Result<()> {
        loop {
            if let Some(at) = self.acks.iter().position(|(acked, _)| *acked == batch) {
                let (_, status) = self.acks.swap_remove(at);
                ensure!(status == Status::Ok, "an update was refused: {}", name_of(status));
                return Ok(());
            }
            self.listen()?;
        }
    }

    /// Waits for the next update that the server sends.
    pub(super) fn update(&mut self) -> anyhow::Result<Bytes> {
        loop {
            match self.updates.pop_front() {
                Some(update) => return Ok(update),
                None => self.listen()?,
            }
        }
    }

    /// Leaves with a proper goodbye, if the server still takes it.
    pub(super) fn close(mut self) {
        let _ = self.connection.send(Opcode::Close, &1000_u16.to_be_bytes());
    }

    fn tell(&mut self, message: &Message) -> anyhow::Result<()> {
        let frame = self.protocol.frame(&self.room, message)?;
        Ok(self.connection.send(Opcode::Binary, &frame)?)
    }

    /// Waits for one frame and puts what it says where it is looked for.
    fn listen(&mut self) -> anyhow::Result<()> {
        let bytes = Bytes::from(self.connection.next_binary()?);
        let frame = self.protocol.decode(&bytes)?;
        let now = Instant::now();
        match frame.message {
            Message::JoinOk { version, .. } => self.joined = Some(version),
            Message::JoinError { error, message } => bail!("refused with {error:?}: {message}"),
            Message::RoomError { code, message } => bail!("room error {code:?}: {message}"),
            Message::Update { updates, .. } => self.updates.extend(updates.iter()),
            Message::FragmentHeader(header) => self.fragments.header(now, &frame.room, header, &bytes)?,
            Message::Fragment(fragment) => {
                let whole = self.fragments.fragment(now, &frame.room, fragment, &bytes)?;
                self.updates.extend(whole.map(|whole| whole.update));
            }
            Message::Ack { batch, status } => self.acks.push((batch, status)),
            Message::JoinRequest { .. } | Message::Leave => bail!("the server joins or leaves"),
        }
        Ok(())
    }
}
