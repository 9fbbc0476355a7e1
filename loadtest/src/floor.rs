//! The floor: what a delivery costs in the kernel.
//!
//! A bare single-threaded readiness loop. It answers the WebSocket handshake, learns who subscribed to what, and
//! for each publish does one `write` of the pre-encoded frame for each subscriber and nothing else: no JSON is
//! parsed, no `clients` is counted, nothing is limited, nobody is pinged. A server that is as fast as this one
//! adds nothing; a server that is faster puts several frames into one write. Never put it on a network.
//!
//! Only when a socket is full do frames wait and go out together, up to [`MAX_UNSENT`] bytes; then the
//! connection is closed. The other two shortcuts are that topics are found by where y-webrtc writes them and that
//! a frame longer than [`READ_AT_ONCE`] ends its connection.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Read},
    net::SocketAddr,
};

use memchr::memmem;
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
};
use tungstenite::handshake::derive_accept_key;

use crate::{
    client::write_some,
    frame::{Frame, Opcode, apply_mask, push_unmasked},
};

const LISTENER: Token = Token(usize::MAX);
/// The most bytes read from a connection in one go, and the longest message.
pub const READ_AT_ONCE: usize = 64 * 1024;
/// The most bytes that wait for a reader.
pub const MAX_UNSENT: usize = 16 << 20;

/// A bound floor, see the module.
pub struct Floor {
    poll: Poll,
    listener: TcpListener,
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    topics: HashMap<Vec<u8>, Vec<usize>>,
    scratch: Vec<u8>,
    frame: Vec<u8>,
}

struct Connection {
    stream: TcpStream,
    upgraded: bool,
    /// The beginning of a request or frame whose end has not come.
    carry: Vec<u8>,
    unsent: Vec<u8>,
    topics: Vec<Vec<u8>>,
}

/// What is to be done after a connection was read.
enum Then {
    Keep,
    Drop,
}

impl Floor {
    /// Listens on `address`.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            connections: Vec::new(),
            free: Vec::new(),
            topics: HashMap::new(),
            scratch: vec![0; READ_AT_ONCE * 2],
            frame: Vec::new(),
        })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the process ends.
    ///
    /// # Errors
    /// When the system's readiness calls fail, or when open files run out.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept()?,
                    Token(who) => self.serve(who, event.is_writable()),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let mut stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            if stream.set_nodelay(true).is_err() {
                continue;
            }
            let who = self.free.pop().unwrap_or(self.connections.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut stream, Token(who), interest)?;
            let connection = Connection {
                stream,
                upgraded: false,
                carry: Vec::new(),
                unsent: Vec::new(),
                topics: Vec::new(),
            };
            match self.connections.get_mut(who) {
                Some(place) => *place = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
    }

    fn serve(&mut self, who: usize, writable: bool) {
        let Some(Some(connection)) = self.connections.get_mut(who) else { return };
        if writable && !connection.unsent.is_empty() && connection.flush().is_err() {
            self.drop_connection(who);
            return;
        }
        if matches!(self.read(who), Then::Drop) {
            self.drop_connection(who);
        }
    }

    fn drop_connection(&mut self, who: usize) {
        let Some(connection) = self.connections.get_mut(who).and_then(Option::take) else { return };
        for topic in connection.topics {
            if let Some(subscribers) = self.topics.get_mut(&topic) {
                subscribers.retain(|subscriber| *subscriber != who);
                if subscribers.is_empty() {
                    self.topics.remove(&topic);
                }
            }
        }
        self.free.push(who);
    }

    fn read(&mut self, who: usize) -> Then {
        let mut scratch = std::mem::take(&mut self.scratch);
        let then = self.read_into(who, &mut scratch);
        self.scratch = scratch;
        then
    }

    fn read_into(&mut self, who: usize, scratch: &mut [u8]) -> Then {
        loop {
            let Some(Some(connection)) = self.connections.get_mut(who) else { return Then::Keep };
            let carried = connection.carry.len();
            if carried > READ_AT_ONCE {
                return Then::Drop;
            }
            scratch[..carried].copy_from_slice(&connection.carry);
            connection.carry.clear();
            let count = match connection.stream.read(&mut scratch[carried..carried + READ_AT_ONCE]) {
                Ok(0) => return Then::Drop,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    connection.carry.extend_from_slice(&scratch[..carried]);
                    return Then::Keep;
                }
                Err(_) => return Then::Drop,
            };
            let Some(used) = self.take(who, &mut scratch[..carried + count]) else { return Then::Drop };
            if let Some(Some(connection)) = self.connections.get_mut(who) {
                connection.carry.extend_from_slice(&scratch[used..carried + count]);
            }
            if count < READ_AT_ONCE {
                return Then::Keep;
            }
        }
    }

    /// Takes what is complete at the start of `bytes`; how many bytes that was, `None` to drop the connection.
    fn take(&mut self, who: usize, bytes: &mut [u8]) -> Option<usize> {
        let connection = self.connections.get_mut(who)?.as_mut()?;
        let mut used = 0;
        if !connection.upgraded {
            used = memmem::find(bytes, b"\r\n\r\n").map_or(0, |end| end + 4);
            if used == 0 {
                return Some(0);
            }
            connection.answer(&bytes[..used])?;
        }
        while let Some(frame) = Frame::first(&bytes[used..]).ok()? {
            let (opcode, mask, len, payload_len) =
                (frame.opcode, frame.mask?, frame.len, frame.payload.len());
            let end = used + len;
            let payload = &mut bytes[end - payload_len..end];
            apply_mask(payload, mask);
            self.message(who, opcode, payload)?;
            used = end;
        }
        Some(used)
    }

    fn message(&mut self, who: usize, opcode: Opcode, payload: &[u8]) -> Option<()> {
        match opcode {
            Opcode::Close => return None,
            Opcode::Ping => self.reply(who, Opcode::Pong, payload),
            Opcode::Pong => {}
            Opcode::Text | Opcode::Binary => {
                if let Some(topic) = quoted_after(payload, b"\"topics\":[\"") {
                    self.subscribe(who, topic);
                } else if let Some(topic) = quoted_after(payload, b"\"topic\":\"") {
                    self.publish(topic, payload);
                } else if memmem::find(payload, b"\"ping\"").is_some() {
                    self.reply(who, Opcode::Text, br#"{"type":"pong"}"#);
                }
            }
        }
        Some(())
    }

    fn subscribe(&mut self, who: usize, topic: &[u8]) {
        let Some(Some(connection)) = self.connections.get_mut(who) else { return };
        if !connection.topics.iter().any(|known| known == topic) {
            connection.topics.push(topic.to_vec());
            self.topics.entry(topic.to_vec()).or_default().push(who);
        }
    }

    /// One write a subscriber: the figure this server exists for.
    fn publish(&mut self, topic: &[u8], payload: &[u8]) {
        self.frame.clear();
        push_unmasked(&mut self.frame, Opcode::Text, payload);
        let Some(subscribers) = self.topics.get(topic) else { return };
        for who in subscribers {
            if let Some(Some(connection)) = self.connections.get_mut(*who) {
                connection.send(&self.frame);
            }
        }
    }

    fn reply(&mut self, who: usize, opcode: Opcode, payload: &[u8]) {
        self.frame.clear();
        push_unmasked(&mut self.frame, opcode, payload);
        if let Some(Some(connection)) = self.connections.get_mut(who) {
            connection.send(&self.frame);
        }
    }
}

impl Connection {
    /// A broken socket is dropped when it is read next: the system says so.
    fn send(&mut self, frame: &[u8]) {
        if self.unsent.is_empty() {
            let sent = write_some(&mut self.stream, frame).unwrap_or(frame.len());
            self.unsent.extend_from_slice(&frame[sent..]);
        } else if self.unsent.len() < MAX_UNSENT {
            self.unsent.extend_from_slice(frame);
        } else {
            self.unsent = Vec::new();
            let _ = self.stream.shutdown(std::net::Shutdown::Both);
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let sent = write_some(&mut self.stream, &self.unsent)?;
        self.unsent.drain(..sent);
        Ok(())
    }

    fn answer(&mut self, request: &[u8]) -> Option<()> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut parsed = httparse::Request::new(&mut headers);
        parsed.parse(request).ok()?;
        let key =
            parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("sec-websocket-key"))?;
        let accept = derive_accept_key(key.value);
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        self.upgraded = true;
        self.send(answer.as_bytes());
        Some(())
    }
}

/// The bytes between the end of `marker` and the next quote.
fn quoted_after<'a>(text: &'a [u8], marker: &[u8]) -> Option<&'a [u8]> {
    let rest = text.get(memmem::find(text, marker)? + marker.len()..)?;
    rest.get(..memchr::memchr(b'"', rest)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_found_where_y_webrtc_writes_it() {
        let publish = br#"{"type":"publish","topic":"room","data":{}}"#;
        assert_eq!(quoted_after(publish, b"\"topic\":\""), Some(&b"room"[..]));
        assert_eq!(quoted_after(publish, b"\"topics\":[\""), None);
        assert_eq!(quoted_after(br#""topic":"cut"#, b"\"topic\":\""), None);
    }
}
