//! From a [`Message`] to bytes.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::decode::{
    ACK, FRAGMENT, FRAGMENT_HEADER, JOIN_ERROR, JOIN_OK, JOIN_REQUEST, LEAVE, ROOM_ERROR, UPDATE,
};
use super::{Fragment, FragmentHeader, JoinError, MAX_FRAME, Message, Room, Status};
use crate::id::BatchId;
use crate::varint::{number_len, put_number, put_run, run_len};

const BATCH: usize = size_of::<BatchId>();

/// A message that does not fit into a frame. Updates can travel in [fragments](crate::fragment).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("frame would be {len} bytes, limit is {MAX_FRAME}")]
pub struct FrameTooLong {
    /// The length that it would have, in bytes.
    pub len: usize,
}

impl Message {
    /// The frame that says this about the room, in one allocation of its exact size.
    pub fn encode(&self, room: &Room) -> Result<Bytes, FrameTooLong> {
        let len = self.body_len();
        let mut out = frame(room, self.kind(), len)?;
        self.put_body(&mut out);
        Ok(out.freeze())
    }

    fn kind(&self) -> u8 {
        match self {
            Self::JoinRequest { .. } => JOIN_REQUEST,
            Self::JoinOk { .. } => JOIN_OK,
            Self::JoinError { .. } => JOIN_ERROR,
            Self::Update { .. } => UPDATE,
            Self::FragmentHeader(_) => FRAGMENT_HEADER,
            Self::Fragment(_) => FRAGMENT,
            Self::RoomError { .. } => ROOM_ERROR,
            Self::Leave => LEAVE,
            Self::Ack { .. } => ACK,
        }
    }

    fn body_len(&self) -> usize {
        match self {
            Self::JoinRequest { auth, version } => run_len(auth.len()) + run_len(version.len()),
            Self::JoinOk { permission, version, extra } => {
                run_len(permission.as_str().len()) + run_len(version.len()) + run_len(extra.len())
            }
            Self::JoinError { error, message } => {
                1 + run_len(message.len()) + extra(error).map_or(0, |extra| run_len(extra.len()))
            }
            Self::Update { updates, .. } => number_len(updates.count as u64) + updates.body.len() + BATCH,
            Self::FragmentHeader(header) => BATCH + number_len(header.fragments) + number_len(header.len),
            Self::Fragment(fragment) => BATCH + number_len(fragment.index) + run_len(fragment.bytes.len()),
            Self::RoomError { message, .. } => 1 + run_len(message.len()),
            Self::Leave => 0,
            Self::Ack { .. } => BATCH + 1,
        }
    }

    fn put_body(&self, out: &mut BytesMut) {
        match self {
            Self::JoinRequest { auth, version } => {
                put_run(out, auth);
                put_run(out, version);
            }
            Self::JoinOk { permission, version, extra } => {
                put_run(out, permission.as_str().as_bytes());
                put_run(out, version);
                put_run(out, extra);
            }
            Self::JoinError { error, message } => {
                out.put_u8(error.code());
                put_run(out, message.as_bytes());
                if let Some(extra) = extra(error) {
                    put_run(out, extra);
                }
            }
            Self::Update { batch, updates } => {
                put_number(out, updates.count as u64);
                out.put_slice(&updates.body);
                out.put_slice(&batch.0);
            }
            Self::FragmentHeader(FragmentHeader { batch, fragments, len }) => {
                out.put_slice(&batch.0);
                put_number(out, *fragments);
                put_number(out, *len);
            }
            Self::Fragment(Fragment { batch, index, bytes }) => put_fragment(out, *batch, *index, bytes),
            Self::RoomError { code, message } => {
                out.put_u8(code.code());
                put_run(out, message.as_bytes());
            }
            Self::Leave => {}
            Self::Ack { batch, status } => {
                out.put_slice(&batch.0);
                out.put_u8(status.code());
            }
        }
    }
}

fn extra(error: &JoinError) -> Option<&[u8]> {
    match error {
        JoinError::VersionUnknown { version } => version.as_deref(),
        JoinError::App { code } => code.as_deref().map(str::as_bytes),
        JoinError::Unknown | JoinError::AuthFailed => None,
    }
}

fn put_fragment(out: &mut BytesMut, batch: BatchId, index: u64, bytes: &[u8]) {
    out.put_slice(&batch.0);
    put_number(out, index);
    put_run(out, bytes);
}

/// How long a frame is before its body.
fn envelope_len(room: &Room) -> usize {
    size_of::<[u8; 4]>() + run_len(room.id.as_str().len()) + 1
}

/// A frame with all but its body, which has this length.
fn frame(room: &Room, kind: u8, body: usize) -> Result<BytesMut, FrameTooLong> {
    let len = envelope_len(room) + body;
    if len > MAX_FRAME {
        return Err(FrameTooLong { len });
    }
    let mut out = BytesMut::with_capacity(len);
    out.put_slice(&room.crdt.magic());
    put_run(&mut out, room.id.as_str().as_bytes());
    out.put_u8(kind);
    Ok(out)
}

/// The frame of a [`Message::Update`] with these updates; each is copied once.
pub fn update(room: &Room, batch: BatchId, updates: &[impl AsRef<[u8]>]) -> Result<Bytes, FrameTooLong> {
    let body: usize = updates.iter().map(|update| run_len(update.as_ref().len())).sum();
    let mut out = frame(room, UPDATE, number_len(updates.len() as u64) + body + BATCH)?;
    put_number(&mut out, updates.len() as u64);
    updates.iter().for_each(|update| put_run(&mut out, update.as_ref()));
    out.put_slice(&batch.0);
    Ok(out.freeze())
}

/// The frame of a [`Message::Fragment`]; the part is copied once.
pub(crate) fn fragment(room: &Room, batch: BatchId, index: u64, part: &[u8]) -> Result<Bytes, FrameTooLong> {
    let mut out = frame(room, FRAGMENT, BATCH + number_len(index) + run_len(part.len()))?;
    put_fragment(&mut out, batch, index, part);
    Ok(out.freeze())
}

/// The most bytes of an update that fit into one frame of this room, be it an update or one of its fragments.
pub(crate) fn largest_part(room: &Room) -> usize {
    // Both have a batch id, a number and a length, of at most ten bytes each.
    MAX_FRAME - envelope_len(room) - BATCH - 20
}

/// The frame of a [`Message::Ack`].
pub fn ack(room: &Room, batch: BatchId, status: Status) -> Bytes {
    Message::Ack { batch, status }.encode(room).expect("an envelope and nine bytes fit into a frame")
}

/// The frame of a [`Message::Leave`].
pub fn leave(room: &Room) -> Bytes {
    Message::Leave.encode(room).expect("an envelope fits into a frame")
}
