//! The two versions of the Loro Protocol that relays speak.

use bytes::Bytes;
use clap::ValueEnum;
use wire::{
    BatchId,
    fragment::{FRAGMENT, Split},
    sync::{Frame, FrameError, FrameTooLong, Message, Room, Updates},
};

/// The type byte of a frame with updates, the only kind that the versions write differently.
const UPDATE: u8 = 0x03;
const BATCH: usize = size_of::<BatchId>();

/// The version of the Loro Protocol that a relay speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Protocol {
    /// The present one: every update has a batch id and is acknowledged.
    #[default]
    V1,
    /// The one before: updates have no batch id, and nothing is acknowledged.
    V0,
}

impl Protocol {
    /// Whether updates are acknowledged.
    pub(super) const fn acknowledges(self) -> bool {
        matches!(self, Self::V1)
    }

    /// The frame that says this about `room`.
    pub(super) fn frame(self, room: &Room, message: &Message) -> Result<Bytes, FrameTooLong> {
        message.encode(room).map(|frame| self.cut(frame))
    }

    /// The frame of one update that fits into one.
    pub(super) fn update(self, room: &Room, batch: BatchId, update: &[u8]) -> Result<Bytes, FrameTooLong> {
        let updates = Updates::from_iter([update]);
        self.frame(room, &Message::Update { batch, updates })
    }

    /// The frames of an update of any length.
    pub(super) fn frames<'a>(
        self,
        room: &'a Room,
        batch: BatchId,
        update: &'a [u8],
    ) -> impl Iterator<Item = Bytes> + 'a {
        Split::new(room, batch, update, FRAGMENT).map(move |frame| self.cut(frame))
    }

    /// Reads a frame; in version 0 all batch ids of whole updates are zero.
    pub(super) fn decode(self, frame: &[u8]) -> Result<Frame, FrameError> {
        if self == Self::V0 && kind(frame) == Some(UPDATE) {
            return Frame::decode(&[frame, &[0; BATCH]].concat().into());
        }
        Frame::decode(&Bytes::copy_from_slice(frame))
    }

    /// Takes the batch id off a frame that has none in this version; it stands at the end.
    fn cut(self, mut frame: Bytes) -> Bytes {
        if self == Self::V0 && kind(&frame) == Some(UPDATE) {
            frame.truncate(frame.len() - BATCH);
        }
        frame
    }
}

/// The type byte of a frame whose room id is shorter than 128 bytes; ours all are.
fn kind(frame: &[u8]) -> Option<u8> {
    let id = frame.get(4).filter(|len| **len < 0x80)?;
    frame.get(5 + usize::from(*id)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::named;

    #[test]
    fn version_0_has_no_batch_id_behind_its_updates_and_is_read_back_without() {
        let (room, batch) = (named("r"), BatchId::from(7));
        let new = Protocol::V1.update(&room, batch, b"xyz").unwrap();
        let old = Protocol::V0.update(&room, batch, b"xyz").unwrap();
        // %LOR, "r", update, one of them, three bytes.
        assert_eq!(&old[..], b"%LOR\x01r\x03\x01\x03xyz");
        assert_eq!(&new[..old.len()], &old[..]);
        for (protocol, frame, id) in [(Protocol::V1, new, batch), (Protocol::V0, old, BatchId::from(0))] {
            let updates = Updates::from_iter([b"xyz"]);
            assert_eq!(protocol.decode(&frame).unwrap().message, Message::Update { batch: id, updates });
        }
    }

    #[test]
    fn what_is_no_update_is_the_same_in_both() {
        let (room, version) = (named("room"), Bytes::from_static(&[0]));
        let join = Message::JoinRequest { auth: Bytes::new(), version };
        let frames = [Protocol::V0, Protocol::V1].map(|protocol| protocol.frame(&room, &join).unwrap());
        assert_eq!(frames[0], frames[1]);
        assert_eq!(Protocol::V0.decode(&frames[0]).unwrap().message, join);
    }

    #[test]
    fn rubbish_is_an_error() {
        for frame in [&b""[..], b"%LO", b"%LOR\xff\xff", b"%LOR\x01r", b"%LOR\x01r\x03\x05"] {
            assert!(Protocol::V0.decode(frame).is_err());
            assert!(Protocol::V1.decode(frame).is_err());
        }
    }
}
