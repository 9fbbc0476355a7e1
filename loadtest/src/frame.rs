//! RFC 6455 frames, walked where they lie: nothing is copied, nothing is allocated.
//!
//! A load tester reads hundreds of thousands of frames a second on the core it shares with the server. So a
//! frame is a header and a range, and whoever asked looks at as few bytes of it as the question needs.

use thiserror::Error;

/// The longest frame payload that is read, in bytes. Signaling messages are a few KiB.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Room for the longest frame header: two bytes, eight of length, four of mask.
pub const MAX_HEADER: usize = 14;

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// A whole text message.
    Text,
    /// A whole binary message.
    Binary,
    /// The other side is about to close.
    Close,
    /// To be answered with a pong of the same payload.
    Ping,
    /// The answer to a ping.
    Pong,
}

/// A frame that lies complete at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it is for.
    pub opcode: Opcode,
    /// How it is masked; `None` from a server.
    pub mask: Option<[u8; 4]>,
    /// The payload as it lies there, masked if `mask` is set.
    pub payload: &'a [u8],
    /// How many bytes the frame takes, header included.
    pub len: usize,
}

/// Why bytes are no frame that a signaling peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// A message in several frames; no signaling server sends one.
    #[error("message comes in fragments, only whole ones are read")]
    Fragmented,
    /// An opcode or a reserved bit nobody agreed on.
    #[error("first byte of a frame is {0:#04x}, which is reserved")]
    Reserved(u8),
    /// Longer than [`MAX_PAYLOAD`].
    #[error("frame declares {0} bytes, limit is {MAX_PAYLOAD}")]
    TooLong(u64),
}

impl<'a> Frame<'a> {
    /// The frame at the start of `bytes`; `None` while it is incomplete.
    ///
    /// # Errors
    /// When the header already shows that the frame will not be read, see [`FrameError`].
    pub fn first(bytes: &'a [u8]) -> Result<Option<Self>, FrameError> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        let opcode = opcode(first)?;
        let Some((declared, after_length)) = length(bytes, second) else { return Ok(None) };
        if declared > MAX_PAYLOAD as u64 {
            return Err(FrameError::TooLong(declared));
        }
        let masked = second & 0x80 != 0;
        let start = after_length + if masked { 4 } else { 0 };
        let len = start + declared as usize;
        let Some(payload) = bytes.get(start..len) else { return Ok(None) };
        let mask =
            if masked { bytes.get(after_length..start).and_then(|key| key.try_into().ok()) } else { None };
        Ok(Some(Self { opcode, mask, payload, len }))
    }
}

fn opcode(first: u8) -> Result<Opcode, FrameError> {
    match first {
        0x81 => Ok(Opcode::Text),
        0x82 => Ok(Opcode::Binary),
        0x88 => Ok(Opcode::Close),
        0x89 => Ok(Opcode::Ping),
        0x8a => Ok(Opcode::Pong),
        0x00..=0x02 | 0x80 => Err(FrameError::Fragmented),
        other => Err(FrameError::Reserved(other)),
    }
}

/// The declared payload length and where it ends; `None` while its bytes are missing.
fn length(bytes: &[u8], second: u8) -> Option<(u64, usize)> {
    match second & 0x7f {
        126 => Some((u64::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4)),
        127 => Some((u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?), 10)),
        short => Some((u64::from(short), 2)),
    }
}

/// Appends a frame as a server sends it.
pub fn push_unmasked(to: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    push_header(to, opcode, payload.len(), 0);
    to.extend_from_slice(payload);
}

/// Appends a frame as a client sends it, masked with `mask`.
pub fn push_masked(to: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    push_header(to, opcode, payload.len(), 0x80);
    to.extend_from_slice(&mask);
    let start = to.len();
    to.extend_from_slice(payload);
    apply_mask(&mut to[start..], mask);
}

/// Masks or unmasks `bytes` in place.
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut words = bytes.chunks_exact_mut(4);
    for word in &mut words {
        for (byte, key) in word.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in words.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

fn push_header(to: &mut Vec<u8>, opcode: Opcode, len: usize, masked: u8) {
    to.push(match opcode {
        Opcode::Text => 0x81,
        Opcode::Binary => 0x82,
        Opcode::Close => 0x88,
        Opcode::Ping => 0x89,
        Opcode::Pong => 0x8a,
    });
    match len {
        0..=125 => to.push(masked | len as u8),
        126..=0xffff => {
            to.push(masked | 126);
            to.extend_from_slice(&(len as u16).to_be_bytes());
        }
        _ => {
            to.push(masked | 127);
            to.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_back_at_every_length_and_only_when_complete() {
        for len in [0, 1, 125, 126, 600, 65_535, 65_536, MAX_PAYLOAD] {
            let payload = vec![b'x'; len];
            let mut bytes = Vec::new();
            push_unmasked(&mut bytes, Opcode::Text, &payload);
            for cut in [0, 1, 2, 3, bytes.len() - 1] {
                assert_eq!(Frame::first(&bytes[..cut.min(bytes.len() - 1)]), Ok(None));
            }
            let frame = Frame::first(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.mask, frame.len), (Opcode::Text, None, bytes.len()));
            assert_eq!(frame.payload, payload);
        }
    }

    #[test]
    fn a_masked_frame_unmasks_to_what_was_sent() {
        let mut bytes = Vec::new();
        push_masked(&mut bytes, Opcode::Ping, b"hello", [1, 2, 3, 4]);
        let frame = Frame::first(&bytes).unwrap().unwrap();
        let mut payload = frame.payload.to_vec();
        assert_ne!(payload, b"hello");
        apply_mask(&mut payload, frame.mask.unwrap());
        assert_eq!(payload, b"hello");
    }

    #[test]
    fn what_no_signaling_peer_sends_is_refused() {
        assert_eq!(Frame::first(&[0x01, 0x00]), Err(FrameError::Fragmented));
        assert_eq!(Frame::first(&[0xc1, 0x00]), Err(FrameError::Reserved(0xc1)));
        let huge = [0x81, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(Frame::first(&huge), Err(FrameError::TooLong(u64::MAX)));
    }
}
