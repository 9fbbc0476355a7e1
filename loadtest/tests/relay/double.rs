//! A relay that does one thing wrong.

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
use loro::{ExportMode, LoroDoc, VersionVector};
use tungstenite::Message as WebSocketMessage;
use wire::{
    BatchId,
    sync::{Frame, JoinError, Message, Permission, Room, Status, Updates},
};

/// What the double does wrong, each once, with its fortieth update, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    /// Acknowledges one, and neither passes it on nor keeps it.
    DropsOne,
    /// Acknowledges and passes on one, and does not keep it.
    ForgetsOne,
    /// Passes one on to all but one.
    SkipsOne,
    RepeatsOne,
    /// Passes one on with its last byte changed.
    GarblesOne,
    /// Passes one on to other rooms, too.
    Strays,
    /// Acknowledges one late: never.
    Silent,
    /// Acknowledges one twice.
    AcksTwice,
    /// Refuses one.
    Refuses,
    /// Lets nobody in.
    LocksOut,
    /// Does nothing for half a second.
    Pauses,
    /// Speaks version 0 of the protocol, and does nothing wrong.
    Old,
}

#[derive(Default)]
struct Kept {
    members: Vec<(usize, TcpStream)>,
    document: LoroDoc,
}

struct Double {
    fault: Fault,
    rooms: HashMap<Room, Kept>,
    updates: u64,
}

/// Starts one in this process, and its address.
pub(crate) fn double(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let double = Arc::new(Mutex::new(Double { fault, rooms: HashMap::new(), updates: 0 }));
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
        if let WebSocketMessage::Binary(frame) = message {
            double.lock().unwrap().message(id, &writer, frame);
        }
    }
    let mut double = double.lock().unwrap();
    double.rooms.values_mut().for_each(|kept| kept.members.retain(|(member, _)| *member != id));
    let _ = writer.shutdown(Shutdown::Both);
}

impl Double {
    fn message(&mut self, id: usize, writer: &TcpStream, frame: Bytes) {
        // In version 0 no batch id stands at the end of an update; the room ids of the tester are 20 bytes or so.
        let kind = frame[5 + usize::from(frame[4])];
        let padded =
            if self.fault == Fault::Old && kind == 3 { [&frame[..], &[0; 8]].concat().into() } else { frame };
        let Frame { room, message } = Frame::decode(&padded).unwrap();
        match message {
            Message::JoinRequest { version, .. } => self.join(id, writer, &room, &version),
            Message::Update { batch, updates } => self.update(id, writer, &room, batch, &updates),
            other => panic!("the tester sends {other:?}"),
        }
    }

    fn join(&mut self, id: usize, writer: &TcpStream, room: &Room, version: &[u8]) {
        if self.fault == Fault::LocksOut {
            let no = Message::JoinError { error: JoinError::AuthFailed, message: "no".into() };
            return self.send(writer, room, &no);
        }
        let kept = self.rooms.entry(room.clone()).or_default();
        let (ours, theirs) = (kept.document.oplog_vv(), VersionVector::decode(version).unwrap());
        let missing = kept.document.export(ExportMode::updates(&theirs)).unwrap();
        kept.members.push((id, writer.try_clone().unwrap()));
        let (version, extra) = (ours.encode().into(), Bytes::new());
        self.send(writer, room, &Message::JoinOk { permission: Permission::Write, version, extra });
        if ours != theirs {
            let updates = Updates::from_iter([missing]);
            self.send(writer, room, &Message::Update { batch: BatchId::from(0), updates });
        }
    }

    fn update(&mut self, id: usize, writer: &TcpStream, room: &Room, batch: BatchId, updates: &Updates) {
        self.updates += 1;
        let fault = if self.updates == 40 { self.fault } else { Fault::Nothing };
        if fault == Fault::Pauses {
            thread::sleep(Duration::from_millis(500));
        }
        if !matches!(fault, Fault::DropsOne | Fault::ForgetsOne | Fault::Refuses) {
            let document = &self.rooms[room].document;
            updates.iter().for_each(|update| drop(document.import(&update).unwrap()));
        }
        if !matches!(fault, Fault::DropsOne | Fault::Refuses) {
            self.pass_on(id, room, batch, updates, fault);
        }
        let status = if fault == Fault::Refuses { Status::RateLimited } else { Status::Ok };
        let acks = match fault {
            Fault::Silent => 0,
            Fault::AcksTwice => 2,
            _ => usize::from(self.fault != Fault::Old),
        };
        (0..acks).for_each(|_| self.send(writer, room, &Message::Ack { batch, status }));
    }

    fn pass_on(&self, id: usize, room: &Room, batch: BatchId, updates: &Updates, fault: Fault) {
        let mut passed = updates.clone();
        if fault == Fault::GarblesOne {
            passed = updates
                .iter()
                .map(|update| {
                    let mut update = update.to_vec();
                    *update.last_mut().unwrap() ^= 1;
                    update
                })
                .collect();
        }
        let rooms = self.rooms.iter().filter(|(here, _)| *here == room || fault == Fault::Strays);
        let members = rooms.flat_map(|(_, kept)| &kept.members).filter(|(member, _)| *member != id);
        let skipped = usize::from(fault == Fault::SkipsOne);
        for (_, member) in members.skip(skipped) {
            for _ in 0..if fault == Fault::RepeatsOne { 2 } else { 1 } {
                self.send(member, room, &Message::Update { batch, updates: passed.clone() });
            }
        }
    }

    fn send(&self, mut socket: &TcpStream, room: &Room, message: &Message) {
        let mut encoded = message.encode(room).unwrap();
        if self.fault == Fault::Old && matches!(message, Message::Update { .. }) {
            encoded.truncate(encoded.len() - 8);
        }
        let mut frame = Vec::new();
        push_unmasked(&mut frame, Opcode::Binary, &encoded);
        // Somebody who has gone is forgotten when its own thread notices.
        let _ = socket.write_all(&frame);
    }
}
