//! The signals of simple-peer: offers, answers, candidates and requests to negotiate again, as JSON.

use rtc::peer_connection::transport::RTCIceCandidateInit;
use serde_json::{Value, json};
use thiserror::Error;

use super::MAX_MESSAGE;

/// The longest session description that is looked at, in bytes. Those of data channels are about a kilobyte, and each
/// candidate in it adds about a hundred bytes.
pub const MAX_SDP: usize = 32 * 1024;

/// The longest candidate that is looked at, in bytes.
pub const MAX_CANDIDATE: usize = 512;

const SETUP: &str = "a=setup:";
const FINGERPRINT: &str = "a=fingerprint:";

/// The lines of a description that there is no connection without.
const NEEDED: [&str; 3] = ["a=ice-ufrag:", "a=ice-pwd:", FINGERPRINT];

/// What a peer may assume of one that does not say what it takes, in bytes.
const DEFAULT_MAX_MESSAGE: usize = 65_536;

/// Why a signal was refused, or a request.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SignalError {
    /// Neither offer, answer, candidate nor request to negotiate again.
    #[error("not a signal that is understood here")]
    Unknown,
    /// A session description that is too long.
    #[error("session description is {len} bytes, limit is {MAX_SDP}")]
    SdpTooLong {
        /// How long it is.
        len: usize,
    },
    /// A session description with audio or video, or with nothing.
    #[error("session description has {media} media sections, expected one, for data")]
    Media {
        /// How many it has.
        media: usize,
    },
    /// A session description that leaves out what every data channel needs.
    #[error("session description has no line that begins with {missing:?}")]
    Incomplete {
        /// What is missing.
        missing: &'static str,
    },
    /// A candidate that is too long.
    #[error("candidate is {len} bytes, limit is {MAX_CANDIDATE}")]
    CandidateTooLong {
        /// How long it is.
        len: usize,
    },
    /// Too many wait already.
    #[error("{limit} requests wait already, which is the limit")]
    Busy {
        /// How many may wait.
        limit: usize,
    },
    /// The connection has ended.
    #[error("the connection has ended")]
    Ended,
}

/// A signal that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Offer(String),
    Answer(String),
    Candidate(RTCIceCandidateInit),
    /// No candidate, or none for us.
    Unusable,
    /// The other side, which is not the initiator, asks for an offer.
    Renegotiate,
}

impl Signal {
    /// What simple-peer would make of it. It goes by what is there, and not by `type` alone.
    pub(crate) fn parse(value: &Value) -> Result<Self, SignalError> {
        if let Some(sdp) = value.get("sdp").and_then(Value::as_str) {
            let of_kind = match value.get("type").and_then(Value::as_str) {
                Some("offer") => Self::Offer,
                Some("answer") => Self::Answer,
                _ => return Err(SignalError::Unknown),
            };
            check_sdp(sdp)?;
            return Ok(of_kind(sdp.to_owned()));
        }
        if let Some(candidate) = value.get("candidate") {
            return parse_candidate(candidate);
        }
        match value.get("renegotiate") {
            Some(Value::Bool(true)) => Ok(Self::Renegotiate),
            _ => Err(SignalError::Unknown),
        }
    }
}

fn check_sdp(sdp: &str) -> Result<(), SignalError> {
    if sdp.len() > MAX_SDP {
        return Err(SignalError::SdpTooLong { len: sdp.len() });
    }
    let media = sdp.lines().filter(|line| line.starts_with("m=")).count();
    let data = sdp.lines().filter(|line| line.starts_with("m=application ")).count();
    if (media, data) != (1, 1) {
        return Err(SignalError::Media { media });
    }
    match NEEDED.into_iter().find(|line| attribute(sdp, line).is_none_or(str::is_empty)) {
        Some(missing) => Err(SignalError::Incomplete { missing }),
        None => Ok(()),
    }
}

fn parse_candidate(value: &Value) -> Result<Signal, SignalError> {
    let line = value.get("candidate").and_then(Value::as_str).ok_or(SignalError::Unknown)?;
    if line.is_empty() {
        // The other side has no more.
        return Ok(Signal::Unusable);
    }
    if line.len() > MAX_CANDIDATE {
        return Err(SignalError::CandidateTooLong { len: line.len() });
    }
    // Over TCP we offer nothing and connect to nobody.
    if !line.split_ascii_whitespace().nth(2).is_some_and(|protocol| protocol.eq_ignore_ascii_case("udp")) {
        return Ok(Signal::Unusable);
    }
    // There is one media section, so that which one is meant need not be believed.
    Ok(Signal::Candidate(RTCIceCandidateInit {
        candidate: line.to_owned(),
        sdp_mid: None,
        sdp_mline_index: Some(0),
        username_fragment: None,
        url: None,
    }))
}

pub(crate) fn offer(sdp: &str) -> Value {
    json!({"type": "offer", "sdp": sdp})
}

pub(crate) fn answer(sdp: &str) -> Value {
    json!({"type": "answer", "sdp": sdp})
}

/// A candidate of ours. The crate leaves `sdpMid` empty, which a browser may refuse; `mid` is what our description
/// says.
pub(crate) fn candidate(line: &str, mid: &str) -> Value {
    json!({"type": "candidate", "candidate": {"candidate": line, "sdpMLineIndex": 0, "sdpMid": mid}})
}

pub(crate) fn renegotiate() -> Value {
    json!({"type": "renegotiate", "renegotiate": true})
}

/// What the media section of a description is called.
pub(crate) fn mid(sdp: &str) -> &str {
    attribute(sdp, "a=mid:").unwrap_or("0")
}

/// The fingerprint of the author's certificate.
pub(crate) fn fingerprint(sdp: &str) -> &str {
    attribute(sdp, FINGERPRINT).unwrap_or_default()
}

/// Which side of the encryption the author of an answer takes: `active` or `passive`.
pub(crate) fn setup(sdp: &str) -> &str {
    attribute(sdp, SETUP).unwrap_or_default()
}

/// The description with another side of the encryption.
pub(crate) fn with_setup(sdp: &str, side: &str) -> String {
    let line = |line: &str| {
        if line.starts_with(SETUP) { format!("{SETUP}{side}\r\n") } else { format!("{line}\r\n") }
    };
    sdp.lines().map(line).collect()
}

/// The largest message that the author of a description takes, at most ours.
pub(crate) fn max_message_size(sdp: &str) -> usize {
    match attribute(sdp, "a=max-message-size:").map(str::parse::<u64>) {
        // Zero means any size.
        Some(Ok(0)) => MAX_MESSAGE,
        Some(Ok(size)) => usize::try_from(size).map_or(MAX_MESSAGE, |size| size.min(MAX_MESSAGE)),
        _ => DEFAULT_MAX_MESSAGE,
    }
}

fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    sdp.lines().find_map(|line| line.strip_prefix(name)).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str = "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:data\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=fingerprint:sha-256 00:01\r\n";

    #[test]
    fn what_simple_peer_sends_is_understood() {
        assert_eq!(Signal::parse(&json!({"type": "offer", "sdp": SDP})), Ok(Signal::Offer(SDP.to_owned())));
        assert_eq!(Signal::parse(&json!({"type": "answer", "sdp": SDP})), Ok(Signal::Answer(SDP.to_owned())));
        assert_eq!(
            Signal::parse(&json!({"type": "renegotiate", "renegotiate": true})),
            Ok(Signal::Renegotiate)
        );
        let line = "candidate:1 1 udp 2122260223 192.0.2.1 1234 typ host";
        let Ok(Signal::Candidate(parsed)) =
            Signal::parse(&json!({"candidate": {"candidate": line, "sdpMid": "0"}}))
        else {
            panic!("a candidate");
        };
        assert_eq!(parsed.candidate, line);
        let tcp = "candidate:1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype passive";
        for unusable in ["", "candidate:", tcp] {
            let signal = json!({"candidate": {"candidate": unusable}});
            assert_eq!(Signal::parse(&signal), Ok(Signal::Unusable), "{unusable}");
        }
    }

    #[test]
    fn what_is_no_signal_is_refused_with_the_reason() {
        for junk in [
            json!(null),
            json!(7),
            json!([]),
            json!({}),
            json!({"type": "offer"}),
            json!({"type": "rollback", "sdp": SDP}),
            json!({"candidate": 7}),
            json!({"renegotiate": "yes"}),
            json!({"transceiverRequest": {"kind": "audio"}}),
        ] {
            assert_eq!(Signal::parse(&junk), Err(SignalError::Unknown), "{junk}");
        }
        let long = format!("{SDP}{}", "a=x\r\n".repeat(MAX_SDP));
        assert_eq!(
            Signal::parse(&json!({"type": "offer", "sdp": long})),
            Err(SignalError::SdpTooLong { len: long.len() })
        );
        for line in NEEDED {
            let without = SDP.replace(line, "a=x:");
            assert_eq!(
                Signal::parse(&json!({"type": "answer", "sdp": without})),
                Err(SignalError::Incomplete { missing: line })
            );
        }
        let video = format!("{SDP}m=video 9 UDP/TLS/RTP/SAVPF 96\r\n");
        assert_eq!(
            Signal::parse(&json!({"type": "offer", "sdp": video})),
            Err(SignalError::Media { media: 2 })
        );
        assert_eq!(
            Signal::parse(&json!({"candidate": {"candidate": "x".repeat(MAX_CANDIDATE + 1)}})),
            Err(SignalError::CandidateTooLong { len: MAX_CANDIDATE + 1 })
        );
    }

    #[test]
    fn only_the_side_of_the_encryption_is_changed() {
        let sdp = format!("{SDP}a=setup:active\r\na=sctp-port:5000\r\n");
        assert_eq!(setup(&sdp), "active");
        assert_eq!(with_setup(&sdp, "passive"), sdp.replace("active", "passive"));
        assert_eq!(with_setup(SDP, "passive"), SDP);
    }

    #[test]
    fn a_description_says_its_section_and_what_it_takes() {
        assert_eq!((mid(SDP), fingerprint(SDP)), ("data", "sha-256 00:01"));
        let size = |line: &str| max_message_size(&format!("{SDP}{line}\r\n"));
        assert_eq!(size("a=max-message-size:0"), MAX_MESSAGE);
        assert_eq!(size("a=max-message-size:99999999999"), MAX_MESSAGE);
        assert_eq!(size("a=max-message-size:1000"), 1000);
        assert_eq!(size("a=max-message-size:-1"), DEFAULT_MAX_MESSAGE);
        assert_eq!(size("a=sctp-port:5000"), DEFAULT_MAX_MESSAGE);
    }
}
