//! What the server and systemd say to each other: a listening socket handed over at the start, "ready", a sign of life
//! at each watchdog interval, "stopping". Where no service manager started the process, all of it does nothing.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::time::MissedTickBehavior;

use crate::signaling::{Signaling, Stage};

/// How much longer than its drain a server may take to end before systemd kills it.
const GRACE: Duration = Duration::from_secs(30);

/// Why sockets that were handed over can not be used.
#[derive(Debug, Error)]
pub enum HandedOver {
    /// The first is the clients' listener, and there is no use for another.
    #[error("{count} sockets were handed over, and one is expected: ListenStream= of the socket unit")]
    TooMany {
        /// How many there are.
        count: usize,
    },
    /// It is no listening TCP socket.
    #[error("the socket that was handed over is refused: {0}")]
    Unusable(#[from] io::Error),
}

/// The listening socket that a service manager opened for the clients (`LISTEN_FDS`), if it did.
///
/// Call it before any thread is started: it takes the variables out of the environment, so that nothing that this
/// process starts believes the socket to be its own.
///
/// # Errors
///
/// When there is more than one, or it is no TCP socket that listens.
#[cfg(unix)]
pub fn handed_over_listener() -> Result<Option<TcpListener>, HandedOver> {
    let mut sockets = listenfd::ListenFd::from_env();
    if sockets.len() > 1 {
        return Err(HandedOver::TooMany { count: sockets.len() });
    }
    let Some(listener) = sockets.take_tcp_listener(0)? else { return Ok(None) };
    #[cfg(target_os = "linux")]
    if !socket2::SockRef::from(&listener).is_listener()? {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen").into());
    }
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
}

/// The listening socket that a service manager opened for the clients: on this system, none does.
///
/// # Errors
///
/// Never.
#[cfg(not(unix))]
pub fn handed_over_listener() -> Result<Option<TcpListener>, HandedOver> {
    Ok(None)
}

/// Says that clients can connect.
pub fn ready() {
    tell(&[State::Ready]);
}

/// Says that files are being read again; [`ready`] says that this is done.
pub fn reloading() {
    tell(&[State::Reloading]);
}

/// Says that the server drains, and may take `at_most` for it, whatever the unit's `TimeoutStopSec=` is.
pub fn stopping(at_most: Duration) {
    let microseconds = u32::try_from((at_most + GRACE).as_micros()).unwrap_or(u32::MAX);
    tell(&[State::Stopping, State::ExtendTimeout(microseconds), State::Status("draining".to_owned())]);
}

/// Gives a sign of life twice in each watchdog interval, as long as the rooms answer; without a watchdog it is ready at
/// once. A server whose rooms are stuck says nothing more, and systemd starts it anew.
pub async fn keep_alive(signaling: Arc<Signaling>) {
    let Some(interval) = watchdog() else { return };
    let mut ticks = tokio::time::interval(interval / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Arc::clone(&signaling);
        // Every room's lock is taken once. Where one is never given back, only a thread for blocking work is lost.
        let Ok(rooms) = tokio::task::spawn_blocking(move || asked.hub().room_sizes().len()).await else {
            return;
        };
        let mut states = vec![State::Alive];
        if signaling.stage() == Stage::Ready {
            let connections = signaling.hub().connections();
            states.push(State::Status(format!("{connections} connections, {rooms} rooms")));
        }
        tell(&states);
    }
}

/// What systemd is told.
enum State {
    Ready,
    Reloading,
    Stopping,
    Alive,
    ExtendTimeout(u32),
    Status(String),
}

#[cfg(unix)]
fn tell(states: &[State]) {
    use sd_notify::NotifyState;
    let mut told: Vec<_> = states
        .iter()
        .map(|state| match state {
            State::Ready => NotifyState::Ready,
            State::Reloading => NotifyState::Reloading,
            State::Stopping => NotifyState::Stopping,
            State::Alive => NotifyState::Watchdog,
            State::ExtendTimeout(microseconds) => NotifyState::ExtendTimeoutUsec(*microseconds),
            State::Status(text) => NotifyState::Status(text),
        })
        .collect();
    // Newer versions of systemd want to know when a reload began.
    if states.iter().any(|state| matches!(state, State::Reloading)) {
        told.extend(NotifyState::monotonic_usec_now());
    }
    if let Err(error) = sd_notify::notify(&told) {
        tracing::warn!(%error, "the service manager can not be told");
    }
}

#[cfg(unix)]
fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|interval| !interval.is_zero())
}

#[cfg(not(unix))]
fn tell(_: &[State]) {}

#[cfg(not(unix))]
fn watchdog() -> Option<Duration> {
    None
}
