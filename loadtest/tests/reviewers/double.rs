//! A relay with presence that does one thing wrong.

use std::{
    collections::HashMap,
    io::Write,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use bytes::Bytes;
use loadtest::frame::{Opcode, push_unmasked};
use loro::{ExportMode, LoroDoc, VersionVector, awareness::EphemeralStore};
use tungstenite::Message as WebSocketMessage;
use wire::{
    BatchId,
    sync::{Crdt, Frame, Message, Permission, Room, Status, Updates},
};

/// What the double does wrong, the first three once, with the twentieth annotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// Acknowledges one, and neither passes it on nor keeps it.
    DropsOne,
    /// Passes one on only after the next of the same author.
    Reorders,
    /// Passes one on to all but one, and keeps it.
    SkipsOne,
    /// Keeps the presence of those who have left.
    LeavesGhosts,
    /// Passes nobody's presence on after the first few.
    HidesPresence,
    /// Lets everybody in and never sends what was there before.
    SendsNoPast,
}

struct Kept {
    members: Vec<(usize, TcpStream)>,
    document: LoroDoc,
    presence: EphemeralStore,
    /// Which connection announced a key last.
    owners: HashMap<String, usize>,
}

struct Double {
    fault: Fault,
    rooms: HashMap<Room, Kept>,
    annotations: u64,
    moves: u64,
    /// Whose annotation is held back, and what it is.
    held: Option<(usize, BatchId, Updates)>,
}

/// Starts one in this process, and its address.
pub(crate) fn double(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let double = Double { fault, rooms: HashMap::new(), annotations: 0, moves: 0, held: None };
    let double = Arc::new(Mutex::new(double));
    thread::spawn(move || {
        for (id, socket) in listener.incoming().enumerate() {
            let (socket, double) = (socket.unwrap(), Arc::clone(&double));
            thread::spawn(move || serve(id, socket, &double));
        }
    });
    address
}

fn serve(id: usize, socket: TcpStream, double: &Mutex<Double>) {
    socket.set_nodelay(true).unwrap();
    let writer = socket.try_clone().unwrap();
    let Ok(mut web_socket) = tungstenite::accept(socket) else { return };
    while let Ok(message) = web_socket.read() {
        // Signaling is nothing to this double.
        if let WebSocketMessage::Binary(frame) = message {
            double.lock().unwrap().message(id, &writer, &frame);
        }
    }
    let mut double = double.lock().unwrap();
    let rooms: Vec<_> = double.rooms.keys().cloned().collect();
    rooms.iter().for_each(|room| double.leave(id, room));
    let _ = writer.shutdown(Shutdown::Both);
}

impl Double {
    fn message(&mut self, id: usize, writer: &TcpStream, frame: &Bytes) {
        let Frame { room, message } = Frame::decode(frame).unwrap();
        match message {
            Message::JoinRequest { version, .. } => self.join(id, writer, &room, &version),
            Message::Update { batch, updates } if room.crdt == Crdt::Ephemeral => {
                self.presence(id, writer, &room, batch, &updates);
            }
            Message::Update { batch, updates } => self.annotation(id, writer, &room, batch, &updates),
            Message::Leave => self.leave(id, &room),
            other => panic!("the tester sends {other:?}"),
        }
    }

    fn join(&mut self, id: usize, writer: &TcpStream, room: &Room, version: &[u8]) {
        let kept = self.rooms.entry(room.clone()).or_insert_with(|| Kept {
            members: Vec::new(),
            document: LoroDoc::new(),
            presence: EphemeralStore::new(30_000),
            owners: HashMap::new(),
        });
        let (ours, theirs) = (kept.document.oplog_vv(), VersionVector::decode(version).unwrap());
        let past = match room.crdt {
            Crdt::Ephemeral => kept.presence.encode_all(),
            _ => kept.document.export(ExportMode::updates(&theirs)).unwrap(),
        };
        kept.members.push((id, writer.try_clone().unwrap()));
        let (version, extra) = (ours.encode().into(), Bytes::new());
        send(writer, room, &Message::JoinOk { permission: Permission::Write, version, extra });
        if self.fault != Fault::SendsNoPast && (room.crdt == Crdt::Ephemeral || ours != theirs) {
            send(
                writer,
                room,
                &Message::Update { batch: BatchId::from(0), updates: Updates::from_iter([past]) },
            );
        }
    }

    fn annotation(&mut self, id: usize, writer: &TcpStream, room: &Room, batch: BatchId, updates: &Updates) {
        self.annotations += 1;
        let fault = if self.annotations == 20 { self.fault } else { Fault::Nothing };
        if fault != Fault::DropsOne {
            let document = &self.rooms[room].document;
            updates.iter().for_each(|update| drop(document.import(&update).unwrap()));
        }
        match fault {
            Fault::DropsOne => {}
            Fault::Reorders => self.held = Some((id, batch, updates.clone())),
            _ => self.pass_on(id, room, batch, updates, usize::from(fault == Fault::SkipsOne)),
        }
        if self.held.as_ref().is_some_and(|(author, held, _)| *author == id && *held != batch) {
            let (_, batch, updates) = self.held.take().unwrap();
            self.pass_on(id, room, batch, &updates, 0);
        }
        send(writer, room, &Message::Ack { batch, status: Status::Ok });
    }

    fn presence(&mut self, id: usize, writer: &TcpStream, room: &Room, batch: BatchId, updates: &Updates) {
        self.moves += 1;
        let kept = self.rooms.get_mut(room).unwrap();
        for update in updates.iter() {
            let alone = EphemeralStore::new(30_000);
            alone.apply(&update).unwrap();
            kept.presence.apply(&update).unwrap();
            kept.owners.extend(alone.keys().into_iter().map(|key| (key, id)));
        }
        if self.fault != Fault::HidesPresence {
            self.pass_on(id, room, batch, updates, 0);
        }
        send(writer, room, &Message::Ack { batch, status: Status::Ok });
    }

    fn leave(&mut self, id: usize, room: &Room) {
        let Some(kept) = self.rooms.get_mut(room) else { return };
        kept.members.retain(|(member, _)| *member != id);
        let keys: Vec<_> =
            kept.owners.iter().filter(|(_, owner)| **owner == id).map(|(key, _)| key.clone()).collect();
        if keys.is_empty() || self.fault == Fault::LeavesGhosts {
            return;
        }
        // A deletion in the millisecond of the entry would lose against it.
        thread::sleep(Duration::from_millis(2));
        for key in keys {
            let kept = self.rooms.get_mut(room).unwrap();
            kept.owners.remove(&key);
            kept.presence.delete(&key);
            let updates = Updates::from_iter([kept.presence.encode(&key)]);
            self.pass_on(id, room, BatchId::from(0), &updates, 0);
        }
    }

    fn pass_on(&self, id: usize, room: &Room, batch: BatchId, updates: &Updates, skipped: usize) {
        let members = self.rooms[room].members.iter().filter(|(member, _)| *member != id);
        for (_, member) in members.skip(skipped) {
            send(member, room, &Message::Update { batch, updates: updates.clone() });
        }
    }
}

fn send(mut socket: &TcpStream, room: &Room, message: &Message) {
    let mut frame = Vec::new();
    push_unmasked(&mut frame, Opcode::Binary, &message.encode(room).unwrap());
    // Somebody who has gone is forgotten when its own thread notices.
    let _ = socket.write_all(&frame);
}
