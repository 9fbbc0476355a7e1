//! A signaling server that does one thing wrong.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use loadtest::frame::{Opcode, push_unmasked};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// What the double does wrong, each once, at its fortieth delivery, unless it says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    DropsOne,
    RepeatsOne,
    /// Holds one back until after the next.
    SwapsTwo,
    /// Delivers one to everybody in all rooms.
    Strays,
    /// Closes the connection that the delivery was for.
    ClosesOne,
    /// Sends a frame that declares more than there can be.
    Rubbish,
    /// Delivers nothing for half a second.
    Pauses,
    /// Never forgets a subscriber.
    KeepsGhosts,
    /// Loses the first message that names its receiver.
    LosesDirected,
    /// Answers every upgrade with 429.
    Refuses,
}

struct Subscriber {
    id: usize,
    socket: TcpStream,
}

struct Double {
    fault: Fault,
    rooms: HashMap<String, Vec<Subscriber>>,
    deliveries: u64,
    held: Option<Vec<u8>>,
    done: bool,
}

/// Starts one in this process, and its address.
pub(crate) fn double(fault: Fault) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let double = Double { fault, rooms: HashMap::new(), deliveries: 0, held: None, done: false };
    let double = Arc::new(Mutex::new(double));
    thread::spawn(move || {
        for (id, socket) in listener.incoming().enumerate() {
            let (socket, double) = (socket.unwrap(), Arc::clone(&double));
            thread::spawn(move || serve(id, socket, fault, &double));
        }
    });
    address
}

fn serve(id: usize, mut socket: TcpStream, fault: Fault, double: &Mutex<Double>) {
    if fault == Fault::Refuses {
        let _ = socket.read(&mut [0; 1024]);
        let _ = socket.write_all(b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n");
        return;
    }
    socket.set_nodelay(true).unwrap();
    let writer = socket.try_clone().unwrap();
    let Ok(mut web_socket) = tungstenite::accept(socket) else { return };
    while let Some(text) = next_text(&mut web_socket) {
        double.lock().unwrap().message(id, &writer, &text);
    }
    if fault != Fault::KeepsGhosts {
        double.lock().unwrap().forget(id);
    }
    let _ = writer.shutdown(Shutdown::Both);
}

fn next_text(socket: &mut WebSocket<TcpStream>) -> Option<String> {
    loop {
        match socket.read() {
            Ok(Message::Text(text)) => return Some(text.to_string()),
            Ok(Message::Close(_)) | Err(_) => return None,
            Ok(_) => {}
        }
    }
}

impl Double {
    fn message(&mut self, id: usize, writer: &TcpStream, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        match message["type"].as_str() {
            Some("subscribe") => {
                for topic in message["topics"].as_array().unwrap() {
                    let room = self.rooms.entry(topic.as_str().unwrap().to_owned()).or_default();
                    room.push(Subscriber { id, socket: writer.try_clone().unwrap() });
                }
            }
            Some("publish") => self.publish(message),
            Some("ping") => send(writer, br#"{"type":"pong"}"#),
            _ => {}
        }
    }

    fn publish(&mut self, mut message: Value) {
        let topic = message["topic"].as_str().unwrap().to_owned();
        if self.fault == Fault::LosesDirected && message["data"]["to"].is_string() && !self.done {
            self.done = true;
            return;
        }
        let rooms = std::mem::take(&mut self.rooms);
        let members = rooms.get(&topic).map_or(&[][..], Vec::as_slice);
        message["clients"] = json!(members.len());
        let text = serde_json::to_vec(&message).unwrap();
        for member in members {
            self.deliver(&member.socket, &text, &rooms);
        }
        self.rooms = rooms;
    }

    fn deliver(&mut self, socket: &TcpStream, text: &[u8], rooms: &HashMap<String, Vec<Subscriber>>) {
        self.deliveries += 1;
        if let Some(held) = self.held.take() {
            // For the same receiver: the test that asks for this has one client to a room.
            send(socket, text);
            send(socket, &held);
            return;
        }
        if self.deliveries != 40 {
            send(socket, text);
            return;
        }
        match self.fault {
            Fault::DropsOne => {}
            Fault::SwapsTwo => self.held = Some(text.to_vec()),
            Fault::RepeatsOne => {
                send(socket, text);
                send(socket, text);
            }
            Fault::Strays => rooms.values().flatten().for_each(|member| send(&member.socket, text)),
            Fault::ClosesOne => drop(socket.shutdown(Shutdown::Both)),
            Fault::Rubbish => {
                let _ = (&*socket).write_all(&[0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
            }
            Fault::Pauses => {
                thread::sleep(Duration::from_millis(500));
                send(socket, text);
            }
            Fault::Nothing | Fault::KeepsGhosts | Fault::LosesDirected | Fault::Refuses => send(socket, text),
        }
    }

    fn forget(&mut self, id: usize) {
        for room in self.rooms.values_mut() {
            room.retain(|member| member.id != id);
        }
    }
}

fn send(mut socket: &TcpStream, text: &[u8]) {
    let mut frame = Vec::new();
    push_unmasked(&mut frame, Opcode::Text, text);
    // Somebody who has gone is forgotten when its own thread notices.
    let _ = socket.write_all(&frame);
}
