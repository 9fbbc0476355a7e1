//! When the crate's loop wakes up.
//!
//! As it stands, `webrtc` 0.21 leaves what it has produced while handling events for its next timer, up to 200 ms away,
//! and each packet of a TURN relay for one more turn; and it wakes five times a second when there is nothing to do. Its
//! timer is ours to give, so this one fires at once for a few turns after something came or went, and only when there is
//! something to ask ([`checks`](super::checks)) when nothing has for a while.

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, DropGuard};
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use super::checks::Checks;
use super::packet::{self, Packet};
use super::{Role, Settings};
use crate::surroundings::is_here;

/// Turns without waiting: one to take what the last one produced, one more where a relay's packets go twice around.
const TURNS: u32 = 1;
const TURNS_OF_RELAY: u32 = 2;

/// What is asked of the system for a socket's incoming datagrams. Bursts overflow the usual 208 KiB, and the tail of a
/// burst that is lost costs a second. The system grants what its administrator allows.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A name that takes longer to look up is not found: the crate waits for it while it serves the connection.
const LOOKUP: Duration = Duration::from_secs(2);

/// A connection that nobody uses is looked at every so many times.
const SELDOM: u32 = 5;

tokio::task_local! {
    /// Set in the task that drives a connection: only its timer is hurried.
    static DRIVING: ();
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How urgent the loop's next turn is.
#[derive(Debug)]
pub(crate) struct Pace {
    turns: AtomicU32,
    used: AtomicBool,
    /// What came last came through a TURN server.
    relayed: AtomicBool,
    /// Looks since the last one that was worth it.
    looks: AtomicU32,
    checks: Mutex<Checks>,
    /// The address of ours at which the other side was heard last.
    here: Mutex<Option<IpAddr>>,
    wake: Notify,
}

impl Pace {
    pub(super) fn new(role: Role, settings: &Settings) -> Self {
        Self {
            turns: AtomicU32::new(0),
            used: AtomicBool::new(true),
            relayed: AtomicBool::new(false),
            looks: AtomicU32::new(0),
            checks: Mutex::new(Checks::new(role, settings)),
            here: Mutex::new(None),
            wake: Notify::new(),
        }
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The application has received something.
    pub(crate) fn busy(&self) {
        self.used.store(true, Ordering::Relaxed);
        let is_relayed = self.relayed.load(Ordering::Relaxed);
        self.hurry(if is_relayed { TURNS_OF_RELAY } else { TURNS });
    }

    /// The application has something to send.
    pub(crate) fn sends(&self) {
        self.checks().sends(Instant::now());
        self.busy();
    }

    /// Whether something that was sent may not have arrived.
    pub(super) fn is_owed(&self) -> bool {
        self.checks().is_owed()
    }

    /// Everything that was sent has arrived.
    pub(super) fn settled(&self) {
        self.checks().settled();
    }

    /// There is something to negotiate, or no way to the other side.
    pub(crate) fn negotiates(&self) {
        self.used.store(true, Ordering::Relaxed);
        self.checks().negotiates(Instant::now());
        self.hurry(TURNS_OF_RELAY);
    }

    /// There is something to do that the loop is not woken for by itself.
    pub(crate) fn kick(&self) {
        self.negotiates();
        self.wake.notify_one();
    }

    /// Called every few seconds: whether the connection is worth a look, since it was used, or was not looked at for long.
    pub(super) fn looks(&self) -> bool {
        let is_used = self.used.swap(false, Ordering::Relaxed) || !self.checks().is_calm();
        let looks = self.looks.fetch_add(1, Ordering::Relaxed) + 1;
        let is_worth_it = is_used || looks >= SELDOM;
        if is_worth_it {
            self.looks.store(0, Ordering::Relaxed);
        }
        is_worth_it
    }

    /// A look has shown a way to the other side.
    pub(super) fn has_way(&self) {
        self.checks().has_way(Instant::now());
    }

    /// Whether the other side had time to answer, and did not.
    pub(super) fn has_asked_in_vain(&self) -> bool {
        self.checks().has_asked_in_vain(Instant::now())
    }

    /// Whether the machine no longer has the address at which the other side was heard.
    pub(super) fn is_stranded(&self) -> bool {
        let here = *self.here.lock().unwrap_or_else(PoisonError::into_inner);
        here.is_some_and(|here| !is_here(here))
    }

    fn came(&self, here: Option<IpAddr>, datagram: &[u8]) {
        let inner = packet::wrapped(datagram);
        let packet = Packet::of(inner.unwrap_or(datagram));
        let is_calm = {
            let mut checks = self.checks();
            checks.came(Instant::now(), packet);
            checks.is_calm()
        };
        if packet != Packet::Other {
            *self.here.lock().unwrap_or_else(PoisonError::into_inner) = here;
            self.relayed.store(inner.is_some(), Ordering::Relaxed);
        }
        match packet {
            Packet::Other => self.hurry(TURNS_OF_RELAY),
            _ if inner.is_some() => self.hurry(TURNS_OF_RELAY),
            // On a way that is found they have no consequences but an answer, which goes at once.
            Packet::Check | Packet::Answer if is_calm => {}
            _ => self.hurry(TURNS),
        }
    }

    fn hurry(&self, turns: u32) {
        self.turns.fetch_max(turns, Ordering::Relaxed);
    }

    fn lets_out(&self, datagram: &[u8]) -> bool {
        let packet = Packet::of(packet::wrapped(datagram).unwrap_or(datagram));
        // Everything else goes out, and there is much of it.
        packet != Packet::Check || self.checks().lets_out(Instant::now(), packet)
    }

    fn hurried(&self) -> bool {
        let one_less = |turns: u32| turns.checked_sub(1);
        self.turns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok()
    }

    fn pause(&self, asked: Duration) -> Duration {
        self.checks().pause(Instant::now(), asked)
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
        let here = socket.local_addr().ok().map(|address| address.ip());
        Ok(Arc::new(PacedSocket { socket, pace: Arc::clone(&self.pace), here }))
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
                () = tokio::time::sleep(pace.pause(duration)) => {}
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

/// A socket whose incoming packets hurry the loop, and which keeps checks to itself that nobody needs.
#[derive(Debug)]
struct PacedSocket {
    socket: Arc<dyn AsyncUdpSocket>,
    pace: Arc<Pace>,
    here: Option<IpAddr>,
}

impl AsyncUdpSocket for PacedSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let is_one = transmit.segment_size.is_none_or(|segment| transmit.contents.len() <= segment);
        if is_one && !self.pace.lets_out(transmit.contents) {
            return Poll::Ready(Ok(transmit.contents.len()));
        }
        self.socket.poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(messages)) = received {
            for (buf, meta) in bufs.iter().zip(&*meta).take(messages) {
                // One message may be several datagrams of one kind.
                let len = meta.len.min(meta.stride).min(buf.len());
                self.pace.came(self.here, &buf[..len]);
            }
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
