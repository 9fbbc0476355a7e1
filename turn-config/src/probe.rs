//! Asks a running TURN server whether it does what it is for.
//!
//! [`probe`] goes the way two browsers behind symmetric NATs would: it connects, asks who it is seen as, allocates
//! twice, and sends data from one relayed address to the other and back. Each step is told as it happens, with the
//! time it took; the first that fails ends the probe.

mod client;
mod link;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::url::TurnUrl;

pub use client::{Allocation, Channel, Family, Login, MAX_DATA, TurnClient};
pub use link::{ProbeError, Settings, Trust};

/// How often a datagram that may have been lost is sent.
const ATTEMPTS: u32 = 3;

/// One thing that worked, and how long it took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A connection, TLS handshake included; over UDP, a socket.
    Connected {
        /// The server.
        server: SocketAddr,
        /// Until it stood.
        took: Duration,
    },
    /// A STUN binding: one round trip without authentication.
    Bound {
        /// Where the server sees us.
        seen_as: SocketAddr,
        /// The round trip.
        took: Duration,
    },
    /// An allocation: the challenge, and the request that answers it.
    Allocated {
        /// Where peers find us.
        relayed: SocketAddr,
        /// How long it stands without a refresh.
        lifetime: Duration,
        /// Both round trips.
        took: Duration,
    },
    /// Data through the server, from one relayed address to another and back.
    Relayed {
        /// There, in a Send indication.
        there: Duration,
        /// And back, as channel data.
        back: Duration,
    },
}

/// Probes one server over one transport, and calls `on_step` for each step that worked.
pub fn probe(
    url: &TurnUrl,
    login: &Login,
    family: Family,
    settings: &Settings,
    mut on_step: impl FnMut(Step),
) -> Result<(), ProbeError> {
    let begun = Instant::now();
    let mut near = TurnClient::connect(url, login, settings)?;
    on_step(Step::Connected { server: near.server(), took: begun.elapsed() });

    let begun = Instant::now();
    let seen_as = near.binding()?;
    on_step(Step::Bound { seen_as, took: begun.elapsed() });

    let begun = Instant::now();
    let Allocation { relayed, lifetime } = near.allocate(family)?;
    on_step(Step::Allocated { relayed, lifetime, took: begun.elapsed() });

    let mut far = TurnClient::connect(url, login, settings)?;
    let far_relayed = far.allocate(family)?.relayed;
    near.permit(far_relayed.ip())?;
    let channel = far.bind_channel(relayed)?;
    let there = relay(|| near.send(far_relayed, b"there"), &mut far, (relayed, b"there"))?;
    let back = relay_back(&mut far, channel, &mut near, (far_relayed, b"back"))?;
    on_step(Step::Relayed { there, back });

    near.release()?;
    far.release()
}

fn relay_back(
    far: &mut TurnClient,
    channel: Channel,
    near: &mut TurnClient,
    expected: (SocketAddr, &[u8]),
) -> Result<Duration, ProbeError> {
    relay(|| far.send_on(channel, expected.1), near, expected)
}

fn relay(
    mut send: impl FnMut() -> Result<(), ProbeError>,
    receiver: &mut TurnClient,
    expected: (SocketAddr, &[u8]),
) -> Result<Duration, ProbeError> {
    for _ in 0..ATTEMPTS {
        let begun = Instant::now();
        send()?;
        while let Some((from, data)) = receiver.receive(begun + receiver.patience() / ATTEMPTS)? {
            if (from, data.as_slice()) == expected {
                return Ok(begun.elapsed());
            }
        }
    }
    Err(ProbeError::Silent { waiting_for: "relayed data" })
}
