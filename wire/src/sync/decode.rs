//! From bytes to a [`Frame`].

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    Crdt, Fault, Fragment, FragmentHeader, Frame, FrameError, JoinError, MAX_FRAME, Message, Permission,
    Remedy, Room, RoomErrorCode, Status, Updates,
};
use crate::id::{BatchId, RoomId};
use crate::varint::Reader;

pub(super) const JOIN_REQUEST: u8 = 0x00;
pub(super) const JOIN_OK: u8 = 0x01;
pub(super) const JOIN_ERROR: u8 = 0x02;
pub(super) const UPDATE: u8 = 0x03;
pub(super) const FRAGMENT_HEADER: u8 = 0x04;
pub(super) const FRAGMENT: u8 = 0x05;
pub(super) const ROOM_ERROR: u8 = 0x06;
pub(super) const LEAVE: u8 = 0x07;
pub(super) const ACK: u8 = 0x08;

impl Frame {
    /// Reads a frame. What it holds are slices of `frame`, which stays in memory as long as they do.
    ///
    /// As the published clients do, this tolerates bytes after the last field of joins, leaves and errors, where a
    /// later version may put more, but not after updates, fragments and acknowledgements.
    pub fn decode(frame: &Bytes) -> Result<Self, FrameError> {
        let mut reader = Reader::new(frame);
        let room = read_room(&mut reader).map_err(|fault| FrameError { fault, remedy: Remedy::Close })?;
        let kind =
            reader.byte().map_err(|fault| FrameError { fault: fault.into(), remedy: Remedy::Close })?;
        let body = reader.rest();
        let message = match frame.len() {
            len if len > MAX_FRAME => Err(Fault::TooLong { len }),
            _ => read_message(&mut reader, kind, frame),
        };
        match message {
            Ok(message) => Ok(Self { room, message }),
            Err(fault) => Err(FrameError { fault, remedy: remedy(room, kind, body, fault) }),
        }
    }
}

fn read_room(reader: &mut Reader<'_>) -> Result<Room, Fault> {
    let magic = reader.array()?;
    let crdt = Crdt::from_magic(magic).ok_or(Fault::UnknownCrdt(magic))?;
    let id = RoomId::try_from(reader.text()?)?;
    Ok(Room { crdt, id })
}

fn read_message(reader: &mut Reader<'_>, kind: u8, frame: &Bytes) -> Result<Message, Fault> {
    let message = match kind {
        JOIN_REQUEST => Message::JoinRequest { auth: reader.bytes()?, version: reader.bytes()? },
        JOIN_OK => Message::JoinOk {
            permission: read_permission(reader)?,
            version: reader.bytes()?,
            extra: reader.bytes()?,
        },
        JOIN_ERROR => read_join_error(reader)?,
        UPDATE => read_update(reader, frame)?,
        FRAGMENT_HEADER => Message::FragmentHeader(FragmentHeader {
            batch: read_batch(reader)?,
            fragments: reader.number()?,
            len: reader.number()?,
        }),
        FRAGMENT => Message::Fragment(Fragment {
            batch: read_batch(reader)?,
            index: reader.number()?,
            bytes: reader.bytes()?,
        }),
        ROOM_ERROR => {
            Message::RoomError { code: RoomErrorCode::from_code(reader.byte()?), message: read_text(reader)? }
        }
        LEAVE => Message::Leave,
        ACK => Message::Ack { batch: read_batch(reader)?, status: Status::from_code(reader.byte()?) },
        unknown => return Err(Fault::UnknownType(unknown)),
    };
    if matches!(kind, UPDATE | FRAGMENT_HEADER | FRAGMENT | ACK) {
        reader.end()?;
    }
    Ok(message)
}

fn read_batch(reader: &mut Reader<'_>) -> Result<BatchId, Fault> {
    Ok(BatchId(reader.array()?))
}

fn read_text(reader: &mut Reader<'_>) -> Result<Cow<'static, str>, Fault> {
    Ok(Cow::Owned(reader.text()?.to_owned()))
}

fn read_permission(reader: &mut Reader<'_>) -> Result<Permission, Fault> {
    match reader.text()? {
        "read" => Ok(Permission::Read),
        "write" => Ok(Permission::Write),
        _ => Err(Fault::UnknownPermission),
    }
}

fn read_join_error(reader: &mut Reader<'_>) -> Result<Message, Fault> {
    let (code, message) = (reader.byte()?, read_text(reader)?);
    let more = !reader.rest().is_empty();
    let error = match code {
        0x01 => JoinError::VersionUnknown { version: if more { Some(reader.bytes()?) } else { None } },
        0x02 => JoinError::AuthFailed,
        0x7f => JoinError::App { code: if more { Some(read_text(reader)?) } else { None } },
        _ => JoinError::Unknown,
    };
    Ok(Message::JoinError { error, message })
}

fn read_update(reader: &mut Reader<'_>, frame: &Bytes) -> Result<Message, Fault> {
    let claimed = reader.number()?;
    let start = reader.at();
    let mut count = 0;
    // Each takes a byte at least, so the claim can keep us here no longer than the frame is.
    while count as u64 != claimed {
        reader.run()?;
        count += 1;
    }
    let body = frame.slice(start..reader.at());
    Ok(Message::Update { batch: read_batch(reader)?, updates: Updates { count, body } })
}

fn remedy(room: Room, kind: u8, body: &[u8], fault: Fault) -> Remedy {
    let status = match fault {
        Fault::TooLong { .. } => Status::PayloadTooLarge,
        _ => Status::InvalidUpdate,
    };
    let batch = match kind {
        UPDATE => body.last_chunk(),
        FRAGMENT_HEADER | FRAGMENT => body.first_chunk(),
        JOIN_REQUEST => return Remedy::JoinError(room),
        _ => None,
    };
    batch.map_or(Remedy::Close, |&batch| Remedy::Ack(room, BatchId(batch), status))
}
