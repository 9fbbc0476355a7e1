//! Several runs of bytes as one, for the store: what a snapshot holds, and the updates of one batch.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// How long the length before each part is.
const LENGTH: usize = size_of::<u64>();

/// The parts in one piece.
pub(crate) fn pack(parts: &[Bytes]) -> Bytes {
    let mut out = BytesMut::with_capacity(parts.iter().map(|part| LENGTH + part.len()).sum());
    for part in parts {
        out.put_u64_le(part.len() as u64);
        out.put_slice(part);
    }
    out.freeze()
}

/// The parts that were packed, as slices; `None` if that is not what this is.
pub(crate) fn unpack(mut parcel: Bytes) -> Option<Vec<Bytes>> {
    let mut parts = Vec::new();
    while !parcel.is_empty() {
        let len = usize::try_from(parcel.try_get_u64_le().ok()?).ok()?;
        if len > parcel.len() {
            return None;
        }
        parts.push(parcel.split_to(len));
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_comes_back_and_what_is_cut_off_does_not() {
        let parts = vec![Bytes::from_static(b"one"), Bytes::new(), Bytes::from_static(b"three")];
        let packed = pack(&parts);
        assert_eq!(unpack(packed.clone()), Some(parts));
        assert_eq!(unpack(Bytes::new()), Some(Vec::new()));
        for end in 1..packed.len() {
            let cut = unpack(packed.slice(..end));
            assert!(cut.is_none_or(|parts| parts.len() < 3), "cut at {end}");
        }
        assert_eq!(unpack(Bytes::from_static(&[0xff; 12])), None);
    }
}
