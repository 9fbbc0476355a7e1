//! What a datagram is, as far as the pace of its connection is concerned.

/// The first byte of DTLS, and of what a TURN server wraps shortly.
const DTLS: std::ops::RangeInclusive<u8> = 20..=63;
const CHANNEL_DATA: std::ops::RangeInclusive<u8> = 64..=79;

/// STUN: how long its header is, where its cookie stands, and the types of message that matter here.
const STUN_HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const SEND: u16 = 0x0016;
const DATA: u16 = 0x0017;
/// The attribute of the latter two that carries what is wrapped.
const ATTRIBUTE_DATA: u16 = 0x0013;

/// What goes between two peers, directly or through a TURN server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packet {
    /// ICE asks whether the other side is there.
    Check,
    /// ICE says that it is.
    Answer,
    /// What is encrypted: data, or an acknowledgement.
    Data,
    /// Nothing between peers: what a STUN or TURN server says, and what nobody understands.
    Other,
}

impl Packet {
    /// What is in a datagram that is not wrapped.
    pub(super) fn of(datagram: &[u8]) -> Self {
        match (datagram.first(), stun(datagram)) {
            (Some(first), _) if DTLS.contains(first) => Self::Data,
            (_, Some(BINDING_REQUEST)) => Self::Check,
            (_, Some(BINDING_SUCCESS)) => Self::Answer,
            _ => Self::Other,
        }
    }
}

/// What a datagram wraps that comes from a TURN server or goes to one.
pub(super) fn wrapped(datagram: &[u8]) -> Option<&[u8]> {
    if CHANNEL_DATA.contains(datagram.first()?) {
        return datagram.get(4..);
    }
    if !matches!(stun(datagram)?, SEND | DATA) {
        return None;
    }
    let mut attributes = datagram.get(STUN_HEADER..)?;
    loop {
        let len = usize::from(word(attributes, 2)?);
        if word(attributes, 0)? == ATTRIBUTE_DATA {
            return attributes.get(4..4 + len);
        }
        attributes = attributes.get(4 + len.next_multiple_of(4)..)?;
    }
}

/// The type of a STUN message.
fn stun(datagram: &[u8]) -> Option<u16> {
    let kind = word(datagram, 0)?;
    (datagram.len() >= STUN_HEADER && datagram[4..8] == COOKIE).then_some(kind)
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let bytes = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::from(kind.to_be_bytes());
        message.extend((body.len() as u16).to_be_bytes());
        message.extend(COOKIE);
        message.extend([7; 12]);
        message.extend(body);
        message
    }

    #[test]
    fn checks_answers_and_data_are_told_apart() {
        assert_eq!(Packet::of(&message(BINDING_REQUEST, &[])), Packet::Check);
        assert_eq!(Packet::of(&message(BINDING_SUCCESS, &[0; 8])), Packet::Answer);
        assert_eq!(Packet::of(&[23, 254, 253, 0]), Packet::Data);
        // An error, an allocation, an old kind of STUN, and nothing at all.
        let old = [&[0, 1, 0, 0], &[0; 16][..]].concat();
        for other in [message(0x0111, &[]), message(0x0003, &[]), old, vec![], vec![0], vec![255; 40]] {
            assert_eq!(Packet::of(&other), Packet::Other, "{other:?}");
            assert_eq!(wrapped(&other), None, "{other:?}");
        }
    }

    #[test]
    fn what_a_turn_server_wraps_is_found() {
        let check = message(BINDING_REQUEST, &[]);
        let channel = [&[0x40, 1, 0, 20], &check[..]].concat();
        assert_eq!(wrapped(&channel), Some(&check[..]));
        // Behind the address of the peer, whose attribute is padded.
        let peer = [0, 0x12, 0, 6, 0, 1, 2, 3, 4, 5, 0, 0];
        for kind in [SEND, DATA] {
            let data = [&peer[..], &[0, 0x13, 0, 20], &check].concat();
            assert_eq!(wrapped(&message(kind, &data)), Some(&check[..]));
        }
    }

    #[test]
    fn what_is_cut_short_wraps_nothing() {
        let whole = message(DATA, &[0, 0x12, 0, 4, 1, 2, 3, 4, 0, 0x13, 0, 4, 1, 2, 3, 4]);
        assert!(wrapped(&whole).is_some());
        for len in 0..whole.len() {
            assert_eq!(wrapped(&whole[..len]), None, "{len}");
        }
        assert_eq!(wrapped(&message(DATA, &[0, 0x12, 255, 255, 0])), None);
    }
}
