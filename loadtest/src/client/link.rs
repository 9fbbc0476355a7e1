//! The sending half of a connection in a swarm.

use std::io::{self, ErrorKind, Write};

use super::{ClientError, Stream};
use crate::frame::{self, Opcode};

/// The most bytes that wait in one client for a server that does not read; then the link fails.
pub(super) const MAX_UNSENT: usize = 4 << 20;

/// Sends on a socket that never blocks.
///
/// Sending never blocks and never fails in the caller's face: a link that failed remembers why, and the swarm
/// retires and counts it.
#[derive(Debug)]
pub struct Link {
    stream: Stream<mio::net::TcpStream>,
    mask: [u8; 4],
    frame: Vec<u8>,
    unsent: Vec<u8>,
    fault: Option<ClientError>,
}

impl Link {
    /// Takes over a stream that has been made non-blocking.
    #[must_use]
    pub fn new(stream: Stream<mio::net::TcpStream>, mask: [u8; 4]) -> Self {
        Self { stream, mask, frame: Vec::new(), unsent: Vec::new(), fault: None }
    }

    /// Sends a text message, now or when the socket takes it.
    pub fn send(&mut self, text: &[u8]) {
        self.send_frame(Opcode::Text, text);
    }

    /// Sends one frame, now or when the socket takes it.
    pub fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        if !self.unsent.is_empty() {
            frame::push_masked(&mut self.unsent, opcode, payload, self.mask);
            if self.unsent.len() > MAX_UNSENT {
                self.fail(ClientError::Unsent);
            }
            return;
        }
        self.frame.clear();
        frame::push_masked(&mut self.frame, opcode, payload, self.mask);
        match write_some(&mut self.stream, &self.frame) {
            Ok(sent) => self.unsent.extend_from_slice(&self.frame[sent..]),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Sends what waits, as far as the socket takes it.
    pub fn flush(&mut self) {
        match self.stream.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return self.fail(error.into()),
            Ok(()) if self.unsent.is_empty() => return,
            Ok(()) => {}
        }
        match write_some(&mut self.stream, &self.unsent) {
            Ok(sent) => drop(self.unsent.drain(..sent)),
            Err(error) => self.fail(error.into()),
        }
    }

    /// Marks the link as lost, keeping the first reason.
    pub fn fail(&mut self, why: ClientError) {
        self.fault.get_or_insert(why);
    }

    /// Why the link is lost, once.
    pub fn take_fault(&mut self) -> Option<ClientError> {
        self.fault.take()
    }

    /// The socket, for reading and registering.
    pub fn stream(&mut self) -> &mut Stream<mio::net::TcpStream> {
        &mut self.stream
    }
}

/// Writes until all is written or the socket is full; returns how much was.
///
/// # Errors
/// When the socket is broken.
pub fn write_some(stream: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}
