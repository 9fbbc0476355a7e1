//! When the crate's loop wakes up.
//!
//! As it stands, `webrtc` 0.21 leaves what it has produced while handling events for its next timer, up to 200 ms away,
//! and each packet of a TURN relay for one more turn; and it wakes five times a second when there is nothing to do. Its
//! timer is ours to give, so this one fires at once for a few turns after something came or went, and late when nothing
//! has for a while.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

/// Turns without waiting: one to take what the last one produced, one more where a relay's packets go twice around, which
/// those of a keepalive do not.
const TURNS: u32 = 2;
const TURNS_OF_KEEPALIVE: u32 = 1;

/// What is asked of the system for a socket's incoming datagrams. Bursts overflow the usual 208 KiB, and the tail of a
/// burst that is lost costs a second. The system grants what its administrator allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// How late a timer may be on a connection at rest, where only keepalives are due.
const AT_REST: Duration = Duration::from_millis(500);

/// A name that takes longer to look up is not found: the crate waits for it while it serves the connection.
const LOOKUP: Duration = Duration::from_secs(2);

/// What the first byte of a packet is at least, unless it is STUN.
const DTLS: u8 = 20;

tokio::task_local! {
    /// Set in the task that drives a connection: only its timer is hurried.
    static DRIVING: ();
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How urgent the loop's next turn is.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    turns: AtomicU32,
    resting: AtomicBool,
    used: AtomicBool,
    wake: Notify,
}

impl Pace {
    /// A keepalive came.
    fn nudge(&self) {
        self.turns.fetch_max(TURNS_OF_KEEPALIVE, Ordering::Relaxed);
    }

    /// The application sent or received something, or there is something to negotiate.
    pub(crate) fn busy(&self) {
        self.used.store(true, Ordering::Relaxed);
        self.resting.store(false, Ordering::Relaxed);
        self.turns.store(TURNS, Ordering::Relaxed);
    }

    /// There is something to do that the loop is not woken for by itself.
    pub(crate) fn kick(&self) {
        self.busy();
        self.wake.notify_one();
    }

    /// Called every few seconds: a connection that was not busy since the last time is at rest.
    pub(crate) fn look(&self) {
        let used = self.used.swap(false, Ordering::Relaxed);
        self.resting.store(!used, Ordering::Relaxed);
    }

    fn hurried(&self) -> bool {
        let one_less = |turns: u32| turns.checked_sub(1);
        self.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn stretched(&self, asked: Duration) -> Duration {
        if self.resting.load(Ordering::Relaxed) { asked.max(AT_REST) } else { asked }
    }
}

/// Tokio, with a timer and sockets that follow a [`Pace`].
#[derive(Debug)]
pub(crate) struct PacedRuntime {
    pace: Arc<Pace>,
    /// For the first task that is spawned, which is the one that drives the connection.
    driver: Mutex<Option<DropGuard>>,
}

impl PacedRuntime {
    /// A runtime for one connection. `driver_gone` is cancelled when the crate's task has ended, by a panic too.
    pub(crate) fn new(pace: Arc<Pace>, driver_gone: CancellationToken) -> Self {
        Self { pace, driver: Mutex::new(Some(driver_gone.drop_guard())) }
    }
}

impl Runtime for PacedRuntime {
    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) -> Box<dyn JoinHandle> {
        let gone = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        TokioRuntime.spawn(Box::pin(DRIVING.scope((), async move {
            let _gone = gone;
            future.await;
        })))
    }

    fn spawn_reactor(
        &self,
        _pool: usize,
        future: Pin<Box<dyn Future<Output = ()> + Send>>,
    ) -> Box<dyn JoinHandle> {
        self.spawn(future)
    }

    fn wrap_udp_socket(&self, socket: UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        // Less than was asked for is no reason not to go on.
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let socket = TokioRuntime.wrap_udp_socket(socket)?;
        Ok(Arc::new(PacedSocket { socket, pace: Arc::clone(&self.pace) }))
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    /// Refuses: only strangers would choose whom we connect to, by candidates that we do not offer ourselves.
    fn connect_tcp<'a>(&'a self, _remote: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async { Err(io::ErrorKind::Unsupported.into()) })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        Box::pin(async move {
            let found = tokio::time::timeout(LOOKUP, tokio::net::lookup_host(host)).await;
            found.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?.map(Iterator::collect)
        })
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        if DRIVING.try_with(|()| ()).is_err() {
            return TokioRuntime.sleep(duration);
        }
        if self.pace.hurried() {
            return TokioRuntime.yield_now();
        }
        let pace = Arc::clone(&self.pace);
        Box::pin(async move {
            tokio::select! {
                () = tokio::time::sleep(pace.stretched(duration)) => {}
                () = pace.wake.notified() => {}
            }
        })
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }
}

/// A socket whose incoming packets nudge the loop.
#[derive(Debug)]
struct PacedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    pace: Arc<Pace>,
}

impl AsyncUdpSocket for PacedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.socket.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if received.is_ready() {
            // Keepalives begin with less; data is in DTLS.
            let is_data = bufs.first().and_then(|buf| buf.first()).is_some_and(|first| *first >= DTLS);
            if is_data { self.pace.busy() } else { self.pace.nudge() }
        }
        received
    }

    fn max_gso_segments(&self) -> usize {
        self.socket.max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.socket.max_gro_segments()
    }
}
