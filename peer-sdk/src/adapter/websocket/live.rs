//! Whether a connection is alive: by the bytes that come.
//!
//! Looks are counted, not time: while a peer is too busy to look, what has come waits in the socket, and is no silence.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::WebSocketStream;

use super::PATIENCE;

/// What a WebSocket runs over.
pub(super) trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A stream whose bytes are counted as they come.
pub(super) struct Watched {
    stream: Box<dyn Socket>,
    read: Arc<AtomicU64>,
}

impl Watched {
    pub(super) fn new(stream: Box<dyn Socket>) -> Self {
        Self { stream, read: Arc::default() }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        result
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// How often to look, and how many looks in a row may see that nothing has come. The first of them asks.
const LOOK: Duration = Duration::from_millis(PATIENCE.as_millis() as u64 / 4);
const MISSES: u32 = 3;
/// After so many bytes were sent, an answer may be stuck behind them for so long.
const LARGE: usize = 16 << 10;
const STUCK: Duration = Duration::from_secs(20);
const STUCK_MISSES: u32 = (STUCK.as_millis() / LOOK.as_millis()) as u32;
/// How often the round trip is measured, at least.
const MEASURE: Duration = Duration::from_secs(10);

/// The life of one connection.
#[derive(Debug)]
pub(super) struct Liveness {
    read: Arc<AtomicU64>,
    seen: u64,
    /// Looks since something came.
    misses: u32,
    look_at: Instant,
    sent: usize,
    sent_at: Instant,
    pings: u64,
    pinged_at: Instant,
}

pub(super) enum Verdict {
    Alive,
    Ping([u8; 8]),
    Dead,
}

impl Liveness {
    pub(super) fn new(socket: &WebSocketStream<Watched>) -> Self {
        Self::of(Arc::clone(&socket.get_ref().read))
    }

    fn of(read: Arc<AtomicU64>) -> Self {
        let now = Instant::now();
        // The upgrade has come, so that the first look sees something.
        let seen = u64::MAX;
        Self { read, seen, misses: 0, look_at: now, sent: 0, sent_at: now, pings: 0, pinged_at: now }
    }

    pub(super) fn sent(&mut self, len: usize) {
        if self.sent_at.elapsed() > STUCK {
            self.sent = 0;
        }
        self.sent += len;
        self.sent_at = Instant::now();
    }

    pub(super) async fn due(&self) {
        sleep_until(self.look_at).await;
    }

    /// Nothing can be read now, so that this look is left out.
    pub(super) fn waits(&mut self) {
        self.look_at = Instant::now() + LOOK;
    }

    pub(super) fn tick(&mut self) -> Verdict {
        let now = Instant::now();
        self.look_at = now + LOOK;
        let read = self.read.load(Ordering::Relaxed);
        let heard = read != self.seen;
        self.seen = read;
        self.misses = if heard { 0 } else { self.misses + 1 };
        let stuck = self.sent > LARGE && now.duration_since(self.sent_at) < STUCK;
        if self.misses >= if stuck { STUCK_MISSES } else { MISSES } {
            return Verdict::Dead;
        }
        if heard && self.pings > 0 && now.duration_since(self.pinged_at) < MEASURE {
            return Verdict::Alive;
        }
        self.pings += 1;
        self.pinged_at = now;
        Verdict::Ping(self.pings.to_be_bytes())
    }

    /// How long the last ping took, if this answers it.
    pub(super) fn pong(&self, payload: &[u8]) -> Option<Duration> {
        (payload == self.pings.to_be_bytes()).then(|| self.pinged_at.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Looks until it is dead, at most so many times.
    async fn dies(liveness: &mut Liveness, looks: u32) -> bool {
        for _ in 0..looks {
            liveness.due().await;
            if matches!(liveness.tick(), Verdict::Dead) {
                return true;
            }
        }
        false
    }

    #[tokio::test(start_paused = true)]
    async fn a_line_over_which_nothing_comes_is_dead_after_some_pings() {
        let read = Arc::new(AtomicU64::new(0));
        let mut liveness = Liveness::of(Arc::clone(&read));
        for _ in 0..20 {
            read.fetch_add(1, Ordering::Relaxed);
            assert!(!dies(&mut liveness, 1).await);
        }
        // The last that comes just misses a look.
        read.fetch_add(1, Ordering::Relaxed);
        let last = Instant::now();
        assert!(dies(&mut liveness, 100).await);
        assert!(last.elapsed() <= PATIENCE, "{:?}", last.elapsed());
        assert!(liveness.pings >= u64::from(MISSES), "it was asked");
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_too_busy_to_look_does_not_take_the_other_end_for_dead() {
        let read = Arc::new(AtomicU64::new(0));
        let mut liveness = Liveness::of(Arc::clone(&read));
        assert!(!dies(&mut liveness, 1).await);
        tokio::time::advance(Duration::from_secs(60)).await;
        // What has come meanwhile is still in the socket.
        assert!(!dies(&mut liveness, 1).await);
        read.fetch_add(1, Ordering::Relaxed);
        assert!(!dies(&mut liveness, 2).await);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_may_be_stuck_behind_much_that_was_sent() {
        let mut liveness = Liveness::of(Arc::default());
        liveness.sent(LARGE + 1);
        let sent = Instant::now();
        assert!(dies(&mut liveness, 100).await);
        assert!(sent.elapsed() >= STUCK - LOOK, "{:?}", sent.elapsed());
    }
}
