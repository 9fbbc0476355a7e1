//! Remote peers, as a peer is built.

use super::PeerBuilder;
use crate::adapter::mesh::WebRtc;

impl<P> PeerBuilder<P> {
    /// Finds remote peers in the room over signaling, and connects to them over WebRTC. The room is the topic. In place
    /// of [`mesh`](Self::mesh) and [`channels`](Self::channels).
    #[must_use]
    pub fn webrtc(mut self, webrtc: WebRtc) -> Self {
        match webrtc.parts() {
            Ok((signaling, channels, most)) => self.mesh(signaling, channels).channels(most),
            Err(error) => {
                self.refused = Some(error.into());
                self
            }
        }
    }
}
