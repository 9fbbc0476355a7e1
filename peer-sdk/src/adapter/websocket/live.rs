//! Whether a connection is alive: by the bytes that come.

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

/// How often to look.
const LOOK: Duration = Duration::from_millis(1300);
/// After so many bytes were sent, an answer may be stuck behind them for so long.
const LARGE: usize = 16 << 10;
const STUCK: Duration = Duration::from_secs(20);
/// How often the round trip is measured, at least.
const MEASURE: Duration = Duration::from_secs(10);

/// The life of one connection.
#[derive(Debug)]
pub(super) struct Liveness {
    read: Arc<AtomicU64>,
    seen: u64,
    heard_at: Instant,
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
        let now = Instant::now();
        Self {
            read: Arc::clone(&socket.get_ref().read),
            seen: 0,
            heard_at: now,
            look_at: now,
            sent: 0,
            sent_at: now,
            pings: 0,
            pinged_at: now,
        }
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

    pub(super) fn tick(&mut self) -> Verdict {
        let now = Instant::now();
        self.look_at = now + LOOK;
        let read = self.read.load(Ordering::Relaxed);
        let heard = read != self.seen;
        self.seen = read;
        if heard {
            self.heard_at = now;
        }
        let stuck = self.sent > LARGE && now.duration_since(self.sent_at) < STUCK;
        let patience = if stuck { STUCK } else { PATIENCE };
        if now.duration_since(self.heard_at) > patience {
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
