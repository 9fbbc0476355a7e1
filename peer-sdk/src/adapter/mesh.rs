//! Remote peers in the same room: found over y-webrtc signaling, connected over WebRTC.
//!
//! [`WebRtc`] says how, and goes to [`PeerBuilder::webrtc`](crate::PeerBuilder::webrtc). It joins three adapters that
//! know nothing of each other: [`signaling`] is where peers hear of each other,
//! [`ice`](super::ice) has the servers that help them, [`webrtc`] makes the connections. Whom to connect
//! to, and whose offer counts, is the engine's to say.

mod calls;
mod channels;
mod repeats;
mod sources;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::ice::{IceServer, IceSource};
use super::signaling::{self, UrlError};
use super::webrtc::{self, Policy};
pub(crate) use calls::Calls;
pub(crate) use channels::Rtc;
use sources::Sources;

/// How long nothing need come from a peer until it is looked for, and others are told that it may be gone.
const INTERRUPTED: Duration = Duration::from_secs(3);
/// How long a peer may be away until its connection is given up.
const LOST: Duration = Duration::from_secs(15);
/// How long nothing need come from a peer until it is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(2);
/// What may wait in a connection, in bytes: the engine is told that the rest has not left yet.
const OUTBOX: usize = 64 << 10;

/// How remote peers are found and connected to. A clone shares the list of signaling servers: keep one, and
/// [change](Self::set_servers) the list while the peer runs.
#[derive(Clone, Debug)]
pub struct WebRtc {
    servers: watch::Sender<Vec<String>>,
    signaling: signaling::Settings,
    connection: webrtc::Settings,
    source: Option<IceSource>,
    password: Option<Password>,
    most: usize,
    refused: Option<UrlError>,
}

/// A room's password.
#[derive(Clone)]
struct Password(Arc<str>);

// A password must not get into logs.
impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password")
    }
}

impl WebRtc {
    /// Finds peers at these signaling servers, `ws://` or `wss://`, all of them at once; at most
    /// [`MAX_SERVERS`](signaling::MAX_SERVERS). One that is down is tried again by itself.
    #[must_use]
    pub fn signaling<U: Into<String>>(servers: impl IntoIterator<Item = U>) -> Self {
        let connection = webrtc::Settings {
            interrupted_after: INTERRUPTED,
            lost_after: LOST,
            keepalive: KEEPALIVE,
            outbox: OUTBOX,
            ..webrtc::Settings::default()
        };
        let servers: Vec<String> = servers.into_iter().map(Into::into).collect();
        let refused = signaling::check(&servers).err();
        Self {
            servers: watch::Sender::new(servers),
            signaling: signaling::Settings::default(),
            connection,
            source: None,
            password: None,
            most: 8,
            refused,
        }
    }

    /// Asks this URL, `http://` or `https://`, for STUN and TURN servers before each connection, as the signaling
    /// server's `/ice` answers. While there is no answer, connections do without.
    #[must_use]
    pub fn ice_from(mut self, url: &str) -> Self {
        match IceSource::new(url) {
            Ok(source) => self.source = Some(source),
            Err(error) => self.refused = Some(error),
        }
        self
    }

    /// Uses these STUN and TURN servers, besides those that are asked for. TURN over TCP and TLS cannot be used: see
    /// [`Status::unsupported`](crate::Status::unsupported).
    #[must_use]
    pub fn ice_servers(mut self, servers: impl IntoIterator<Item = IceServer>) -> Self {
        self.connection.ice = servers.into_iter().collect();
        self
    }

    /// Encrypts everything that goes over signaling, as y-webrtc does it. Peers with another password, or with none,
    /// are not found, and that they are there is told with [`Event::WrongPassword`](crate::Event::WrongPassword).
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(Password(password.into()));
        self
    }

    /// Has connections to at most so many peers at once; 8 if nothing is said. With 3 and more the room stays connected
    /// however many are in it.
    #[must_use]
    pub fn max_connections(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Connects through TURN servers only, so that no peer learns our address.
    #[must_use]
    pub fn relay_only(mut self) -> Self {
        self.connection.policy = Policy::RelayOnly;
        self
    }

    /// Changes how connections are made, beyond what the other methods change.
    #[must_use]
    pub fn connection(mut self, change: impl FnOnce(&mut webrtc::Settings)) -> Self {
        change(&mut self.connection);
        self
    }

    /// Changes how signaling is done, beyond what the other methods change. The list of servers is
    /// [another matter](Self::set_servers).
    #[must_use]
    pub fn signaling_with(mut self, change: impl FnOnce(&mut signaling::Settings)) -> Self {
        change(&mut self.signaling);
        self
    }

    /// Uses these signaling servers from now on, for every clone, also while a peer runs. Those that were used before stay
    /// connected, and so do all peers.
    ///
    /// # Errors
    ///
    /// When a URL is none of a WebSocket, or there are too many. Then nothing changes.
    pub fn set_servers<U: Into<String>>(&self, servers: impl IntoIterator<Item = U>) -> Result<(), UrlError> {
        let servers: Vec<String> = servers.into_iter().map(Into::into).collect();
        signaling::check(&servers)?;
        self.servers.send_replace(servers);
        Ok(())
    }

    /// What the driver needs of it: the way to signaling servers, the way to peers, and most of those.
    pub(crate) fn parts(self) -> Result<(Calls, Rtc, usize), UrlError> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        let password = self.password.map(|password| password.0);
        let occasions = watch::Sender::new(Occasions::default());
        let calls = Calls::new(self.servers.subscribe(), self.signaling, password, occasions.clone());
        let sources = Sources::new(self.connection.ice.clone(), self.source);
        Ok((calls, Rtc::new(self.connection, sources, occasions), self.most))
    }
}

/// How often something has happened that concerns every connection.
#[derive(Clone, Copy, Debug, Default)]
struct Occasions {
    /// Signaling is back: what was said while it was away was heard by nobody.
    back: u32,
    /// The machine has other addresses than before.
    moved: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_cannot_be_used_is_refused_at_the_start_and_at_run_time() {
        assert!(WebRtc::signaling(["http://here"]).parts().is_err());
        assert!(WebRtc::signaling(["ws://here"]).ice_from("ws://here").parts().is_err());
        let good = WebRtc::signaling(["ws://here"]);
        assert!(good.set_servers(["nonsense"]).is_err());
        assert_eq!(*good.servers.borrow(), ["ws://here"]);
        assert!(good.parts().is_ok());
    }

    #[test]
    fn a_password_is_not_shown() {
        let shown = format!("{:?}", WebRtc::signaling(["ws://here"]).password("secret"));
        assert!(!shown.contains("secret"), "{shown}");
    }
}
