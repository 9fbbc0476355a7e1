//! The ways to others, as flags of a command.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use peer_sdk::adapter::sqlite::Sqlite;
use peer_sdk::{Peer, PeerBuilder, WebRtc};

/// How others are reached. Each flag may be left out.
#[derive(Args, Clone, Debug)]
pub struct Ways {
    /// A hub or relay to dial, ws:// or wss://; may be given several times
    #[arg(long)]
    pub hub: Vec<String>,
    /// A signaling server at which to find peers for WebRTC; may be given several times
    #[arg(long)]
    pub signal: Vec<String>,
    /// Where to ask for STUN and TURN servers, such as https://signal.example/ice
    #[arg(long)]
    pub ice: Option<String>,
    /// The room's password in signaling
    #[arg(long, env = "PEER_PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
}

impl Ways {
    /// A peer of this room that uses them, and that keeps the document in this file, if any.
    pub fn peer(&self, room: &str, file: Option<PathBuf>) -> Result<PeerBuilder> {
        let mut builder = Peer::builder(room);
        if let Some(file) = file {
            builder = builder.storage(Sqlite::open(file)?);
        }
        for hub in &self.hub {
            builder = builder.websocket(hub);
        }
        Ok(match self.webrtc() {
            Some(webrtc) => builder.webrtc(webrtc),
            None => builder,
        })
    }

    fn webrtc(&self) -> Option<WebRtc> {
        if self.signal.is_empty() {
            return None;
        }
        let mut webrtc = WebRtc::signaling(self.signal.clone());
        if let Some(ice) = &self.ice {
            webrtc = webrtc.ice_from(ice);
        }
        if let Some(password) = &self.password {
            webrtc = webrtc.password(password);
        }
        Some(webrtc)
    }
}
