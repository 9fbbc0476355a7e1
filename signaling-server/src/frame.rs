//! A WebSocket message on its way out: encoded once, shared by every receiver.

use bytes::Bytes;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The longest header of a server's frame (RFC 6455 section 5.2: no mask).
const MAX_HEADER: usize = 10;

/// One unfragmented server frame, header and payload in one piece. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Frame(Bytes);

impl Frame {
    /// A text message. The payload is UTF-8, or the receiver will fail the connection.
    #[must_use]
    pub fn text(payload: &[u8]) -> Self {
        Self::new(OpCode::Data(Data::Text), payload)
    }

    /// A binary message.
    #[must_use]
    pub fn binary(payload: &[u8]) -> Self {
        Self::new(OpCode::Data(Data::Binary), payload)
    }

    /// A ping (RFC 6455 section 5.5.2); the payload is at most 125 bytes.
    pub(crate) fn ping(payload: &[u8]) -> Self {
        Self::new(OpCode::Control(Control::Ping), payload)
    }

    /// A close frame with its status code and a reason of at most 123 bytes.
    pub(crate) fn close(code: u16, reason: &str) -> Self {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        Self::new(OpCode::Control(Control::Close), &payload)
    }

    /// Bytes that are a whole frame already.
    pub(crate) fn encoded(bytes: Bytes) -> Self {
        Self(bytes)
    }

    // The payload is copied once for all its receivers, so that each of them costs one plain write of one slice.
    fn new(opcode: OpCode, payload: &[u8]) -> Self {
        let mut frame = Vec::with_capacity(MAX_HEADER + payload.len());
        FrameHeader { opcode, ..FrameHeader::default() }
            .format(payload.len() as u64, &mut frame)
            .expect("writing to memory");
        frame.extend_from_slice(payload);
        Self(frame.into())
    }

    /// The frame's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Bytes on the wire.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_have_the_shortest_length_form() {
        for (len, header) in [
            (0, vec![0x81, 0]),
            (125, vec![0x81, 125]),
            (126, vec![0x81, 126, 0, 126]),
            (65_536, vec![0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let frame = Frame::text(&vec![b'x'; len]);
            assert!(frame.as_bytes().starts_with(&header));
            assert_eq!(frame.len(), header.len() + len);
        }
    }

    #[test]
    fn a_close_carries_its_code_and_reason() {
        let frame = Frame::close(1012, "restart");
        assert_eq!(frame.as_bytes(), b"\x88\x09\x03\xf4restart");
    }
}
