//! One task a socket: reads what the client says, writes what waits for it, and watches the clock.
//!
//! The task sleeps until the stream, the outbox or the nearest deadline wakes it. A client that says too much is read
//! later, never closed: one that is closed comes back at once and says it again.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Sleep;

use crate::frame::Frame;
use crate::limits::{Bucket, Place, Rate};
use crate::metrics::{Disconnect, Metrics, Received};
use crate::outbox::Outbox;
use crate::session::Session;
use crate::socket::{Event, ReadError, Socket};

/// Most messages handled before other tasks get their turn.
const READ_BUDGET: usize = 32;
/// How long it may take to write what waits and the close frame.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the other end then has to close too. Were its last words left unread, the system would throw away ours.
const LINGER: Duration = Duration::from_secs(1);
/// A client whose messages are delayed hears a pong this often: stock clients give up after 30 s of silence, and its
/// own pings are stuck behind those messages.
const DELAYED_PONG: Duration = Duration::from_secs(10);
/// Keepalives that are not charged as messages.
const KEEPALIVES: Rate = Rate { per_second: 2.0, burst: 20.0 };

/// The times and rates that a connection keeps to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Between pings.
    pub ping_interval: Duration,
    /// Without a sign of life.
    pub dead_after: Duration,
    /// Without a byte written, while some wait.
    pub write_deadline: Duration,
    /// Messages read.
    pub messages: Rate,
    /// Bytes read.
    pub bytes: Rate,
    /// Frames of the Loro Protocol read, joins not among them, which are messages.
    pub frames: Rate,
}

/// A connection from its upgrade to its end.
pub(crate) struct Connection<R, W> {
    socket: Socket<R, W>,
    outbox: Arc<Outbox>,
    /// `None` once the connection is ending.
    session: Option<Session>,
    metrics: Arc<Metrics>,
    pace: Pace,
    messages: Bucket,
    bytes: Bucket,
    frames: Bucket,
    keepalives: Bucket,
    heard: Instant,
    next_ping: Instant,
    pinged: Option<(u64, Instant)>,
    /// Nothing is read before.
    paused_until: Option<Instant>,
    ponged: Instant,
    /// Since when the stream takes nothing.
    blocked: Option<Instant>,
    ending: Option<Ending>,
    timer: Pin<Box<Sleep>>,
    /// Given back when the task ends.
    _place: Place,
}

/// The closing handshake.
struct Ending {
    deadline: Instant,
    /// Whether to wait until the other end has closed too.
    linger: bool,
    /// All is written, the end included.
    said: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Connection<R, W> {
    /// A connection whose handshake is done.
    pub(crate) fn new(
        socket: Socket<R, W>,
        session: Session,
        outbox: Arc<Outbox>,
        pace: Pace,
        metrics: Arc<Metrics>,
        place: Place,
    ) -> Self {
        let now = Instant::now();
        Self {
            socket,
            outbox,
            session: Some(session),
            metrics,
            pace,
            messages: Bucket::new(pace.messages, now),
            bytes: Bucket::new(pace.bytes, now),
            frames: Bucket::new(pace.frames, now),
            keepalives: Bucket::new(KEEPALIVES, now),
            heard: now,
            next_ping: now + pace.ping_interval,
            pinged: None,
            paused_until: None,
            ponged: now,
            blocked: None,
            ending: None,
            timer: Box::pin(tokio::time::sleep(pace.ping_interval)),
            _place: place,
        }
    }

    /// Serves the connection until it has ended.
    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let now = Instant::now();
            if self.ending.is_none() {
                let outcome = self.poll_open(cx, now);
                if let Err(why) = outcome {
                    self.end(why, now);
                    continue;
                }
            } else if self.poll_ending(cx, now).is_ready() {
                return Poll::Ready(());
            }
            if self.poll_timer(cx, now).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// Reads, writes, and looks at the clock; an error is the reason to end.
    fn poll_open(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Disconnect> {
        if let Some(session) = &mut self.session {
            session.next_turn();
            session.flush();
        }
        self.poll_read(cx, now)?;
        if self.session.as_mut().is_some_and(Session::flush) {
            // Goes to the end of the queue, behind all others that are ready.
            cx.waker().wake_by_ref();
        }
        self.check_clock(now)?;
        self.poll_write(cx, now)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Disconnect> {
        for _ in 0..READ_BUDGET {
            if self.is_paused(now) {
                return Ok(());
            }
            match self.socket.poll_read(cx, &self.outbox) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Ok(event)) => self.take(event, now)?,
                Poll::Ready(Err(ReadError::Gone)) => return Err(Disconnect::Network),
                Poll::Ready(Err(ReadError::Violation(why))) => return Err(why),
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn take(&mut self, event: Event, now: Instant) -> Result<(), Disconnect> {
        self.heard = now;
        let read = self.socket.take_received() as f64;
        let mut wait = self.bytes.charge(read, now);
        match event {
            Event::Message(kind, payload) => {
                let session = self.session.as_mut().expect("an open connection has its session");
                let received = session.handle(kind, &payload, now)?;
                wait = wait.max(self.charge(received, now));
            }
            Event::Control => wait = wait.max(self.charge(Received::Ping, now)),
            Event::Pong(payload) => self.take_pong(&payload, now),
            Event::Partial => {}
            Event::Closed => return Err(Disconnect::Client),
        }
        if !wait.is_zero() {
            self.pause(now, wait);
        }
        Ok(())
    }

    /// How long to wait after this message before the next.
    fn charge(&mut self, received: Received, now: Instant) -> Duration {
        if received == Received::Ping && self.keepalives.take(now) {
            return Duration::ZERO;
        }
        match received {
            Received::Update | Received::Fragment | Received::Loro => self.frames.charge(1.0, now),
            _ => self.messages.charge(1.0, now),
        }
    }

    /// Reads nothing for that long. The client may be waiting for a pong that is stuck behind what is not read.
    fn pause(&mut self, now: Instant, wait: Duration) {
        self.metrics.throttled.inc();
        self.paused_until = Some(now + wait);
        if now.saturating_duration_since(self.ponged) >= DELAYED_PONG
            && let Some(session) = &self.session
        {
            self.ponged = now;
            session.pong();
        }
    }

    fn take_pong(&mut self, payload: &[u8], now: Instant) {
        let Some((nonce, sent)) = self.pinged else { return };
        if payload == nonce.to_be_bytes() {
            self.pinged = None;
            self.metrics.note_ping(now.saturating_duration_since(sent));
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, now: Instant) -> Result<(), Disconnect> {
        let progress = self.socket.poll_write(cx, &self.outbox);
        if let Some(why) = progress.closing {
            return Err(why);
        }
        if progress.hungry {
            // Others come first.
            cx.waker().wake_by_ref();
        }
        match progress.written {
            Poll::Ready(Ok(())) => self.blocked = None,
            Poll::Ready(Err(_)) => return Err(Disconnect::Network),
            Poll::Pending => {
                if self.blocked.is_none() || progress.sent > 0 {
                    self.blocked = Some(now);
                }
            }
        }
        Ok(())
    }

    fn check_clock(&mut self, now: Instant) -> Result<(), Disconnect> {
        if self.write_deadline().is_some_and(|deadline| now >= deadline) {
            return Err(Disconnect::WriteDeadline);
        }
        if now >= self.heard + self.pace.dead_after {
            return Err(Disconnect::Timeout);
        }
        if let Some(session) = &mut self.session {
            session.check_clock(now)?;
        }
        if now >= self.next_ping {
            self.ping(now);
        }
        Ok(())
    }

    fn ping(&mut self, now: Instant) {
        self.next_ping = now + self.pace.ping_interval;
        let nonce = self.pinged.map_or(0, |(nonce, _)| nonce) + 1;
        self.pinged = Some((nonce, now));
        // Closed: the connection is ending, and counted as such.
        let _ = self.outbox.push(Frame::ping(&nonce.to_be_bytes()));
    }

    fn is_paused(&mut self, now: Instant) -> bool {
        let Some(until) = self.paused_until else { return false };
        // Whoever is not listened to may be as silent as it likes.
        self.heard = self.heard.max(now);
        let paused = now < until;
        if !paused {
            self.paused_until = None;
        }
        paused
    }

    /// Leaves the rooms, and starts the closing handshake if there is somebody to close with.
    fn end(&mut self, why: Disconnect, now: Instant) {
        self.outbox.close(why);
        if let Some(session) = self.session.take() {
            session.end(why);
        }
        let linger = match farewell(why) {
            Farewell::None => {
                return self.ending = Some(Ending { deadline: now, linger: false, said: false });
            }
            Farewell::Answered => false,
            Farewell::Close(code, reason) => {
                self.outbox.push_last(Frame::close(code, reason));
                true
            }
        };
        self.ending = Some(Ending { deadline: now + CLOSE_DEADLINE, linger, said: false });
    }

    fn poll_ending(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some(ending) = &mut self.ending else { return Poll::Ready(()) };
        if now >= ending.deadline {
            return Poll::Ready(());
        }
        if ready!(self.socket.poll_write(cx, &self.outbox).written).is_err() {
            return Poll::Ready(());
        }
        if !ending.said {
            if ready!(self.socket.poll_shutdown(cx)).is_err() || !ending.linger {
                return Poll::Ready(());
            }
            ending.said = true;
            ending.deadline = ending.deadline.min(now + LINGER);
        }
        self.socket.poll_discard(cx)
    }

    fn write_deadline(&self) -> Option<Instant> {
        self.blocked.map(|since| since + self.pace.write_deadline)
    }

    /// The nearest moment at which something is due.
    fn deadline(&self) -> Instant {
        if let Some(ending) = &self.ending {
            return ending.deadline;
        }
        let always = self.next_ping.min(self.heard + self.pace.dead_after);
        let session = self.session.as_ref().and_then(Session::deadline);
        let sometimes = [self.paused_until, self.write_deadline(), session];
        sometimes.into_iter().flatten().fold(always, Instant::min)
    }

    /// Ready when something is due. A timer that is set too early is left to fire: setting it anew costs more.
    fn poll_timer(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let due = self.deadline();
        if due <= now {
            return Poll::Ready(());
        }
        if self.timer.is_elapsed() || self.timer.deadline().into_std() > due {
            self.timer.as_mut().reset(due.into());
        }
        self.timer.as_mut().poll(cx)
    }
}

impl<R, W> Drop for Connection<R, W> {
    /// A task that is dropped, as at the end of the runtime, leaves its rooms too.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.end(Disconnect::Drain);
        }
    }
}

enum Farewell {
    /// Nobody would hear it.
    None,
    /// The answer to the client's close is queued already.
    Answered,
    /// A close frame (RFC 6455 section 7.4; 4401 is ours).
    Close(u16, &'static str),
}

fn farewell(why: Disconnect) -> Farewell {
    match why {
        Disconnect::Network | Disconnect::Timeout | Disconnect::SlowConsumer | Disconnect::WriteDeadline => {
            Farewell::None
        }
        Disconnect::Client => Farewell::Answered,
        Disconnect::Protocol => Farewell::Close(1002, "protocol error"),
        Disconnect::InvalidUtf8 => Farewell::Close(1007, "text is not UTF-8"),
        Disconnect::TooLarge => Farewell::Close(1009, "message too large"),
        Disconnect::Operator => Farewell::Close(1008, "closed by the operator"),
        Disconnect::Drain => Farewell::Close(1012, "service restart"),
        Disconnect::TokenExpired => Farewell::Close(4401, "token expired"),
        Disconnect::NoToken => Farewell::Close(4401, "no token"),
        Disconnect::Busy => Farewell::Close(1013, "too much to send, try again later"),
    }
}
