//! Over what a connection goes, and how long a packet takes there and back.

use std::time::{Duration, Instant};

use webrtc::peer_connection::{PeerConnection, RTCIceCandidateType, StatsSelector};

use super::Path;

/// A way, and its round trip where one was measured.
pub(super) type Way = (Path, Option<Duration>);

/// The way that is in use, and its round trip.
pub(super) async fn measure(connection: &dyn PeerConnection) -> Option<Way> {
    let transport = connection.sctp().await?.transport().ice_transport();
    let pair = transport.get_selected_candidate_pair().await.ok()??;
    let is_relay = |typ| typ == RTCIceCandidateType::Relay;
    let is_relayed = is_relay(pair.local().typ) || is_relay(pair.remote().typ);
    let report = connection.get_stats(Instant::now(), StatsSelector::None).await;
    let measured =
        report.candidate_pairs().filter(|pair| pair.nominated && pair.current_round_trip_time > 0.0);
    let round_trip = measured.map(|pair| Duration::from_secs_f64(pair.current_round_trip_time)).next();
    Some((if is_relayed { Path::Relayed } else { Path::Direct }, round_trip))
}

/// Whether the way is another one, or a round trip has changed by a quarter and more than a millisecond.
pub(super) fn is_news(before: Option<Way>, now: Way) -> bool {
    match (before, now) {
        (Some((path, Some(before))), (same, Some(now))) if path == same => {
            let moved = before.abs_diff(now);
            moved > before / 4 && moved > Duration::from_millis(1)
        }
        (Some((path, _)), (same, None)) => path != same,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_news_when_it_or_its_round_trip_has_changed() {
        let way = |path, millis: Option<u64>| (path, millis.map(Duration::from_millis));
        let of = |before, now| is_news(Some(before), now);
        assert!(is_news(None, way(Path::Direct, None)));
        assert!(!of(way(Path::Direct, None), way(Path::Direct, None)));
        assert!(of(way(Path::Direct, None), way(Path::Direct, Some(5))));
        assert!(of(way(Path::Direct, Some(5)), way(Path::Relayed, Some(5))));
        assert!(of(way(Path::Direct, Some(5)), way(Path::Relayed, None)));
        assert!(!of(way(Path::Direct, Some(100)), way(Path::Direct, Some(120))));
        assert!(of(way(Path::Direct, Some(100)), way(Path::Direct, Some(130))));
        assert!(!of(way(Path::Direct, Some(1)), way(Path::Direct, Some(2))));
    }
}
