//! Start, measured window and progress of a run: what the crews share, and what watches them.

use std::{
    sync::{
        Barrier, Mutex, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    live::Live,
    measure::{Latencies, process::Process, scrape::Scraper},
    stop,
    timeline::Timeline,
};

mod watch;

use watch::Watch;

/// How often memory is looked at, for its peak.
const GLANCE: Duration = Duration::from_millis(100);
/// How often a crew hands in what it measured.
const HAND_IN: Duration = Duration::from_millis(250);

/// Where the crews of a run meet.
#[derive(Debug)]
pub(crate) struct Stage {
    ready: Barrier,
    origin: OnceLock<Instant>,
    crews: usize,
    done: AtomicUsize,
    /// Deliveries so far.
    pub(crate) delivered: AtomicU64,
    /// Publishes so far.
    pub(crate) published: AtomicU64,
    /// Connections that failed so far.
    pub(crate) errors: AtomicU64,
    /// Connections that were made again so far.
    pub(crate) reconnects: AtomicU64,
    /// Clients that are connected; 0 where nobody counts.
    pub(crate) present: AtomicU64,
    /// Latencies that no moment of the timeline has had yet.
    recent: Mutex<Latencies>,
}

/// What of a run is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window<'a> {
    /// How long the load runs before it.
    pub(crate) warmup: Duration,
    /// How long it is.
    pub(crate) duration: Duration,
    /// Whose CPU time and memory are looked at.
    pub(crate) server: Option<&'a Process>,
    /// Where the server tells its own figures.
    pub(crate) metrics: Option<&'a Scraper>,
}

/// What processes cost during the measured window.
#[derive(Debug, Clone, Default)]
pub(crate) struct Costs {
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) tester_cpu: Option<Duration>,
    /// The time between the two looks at them.
    pub(crate) length: Duration,
    /// How long was measured: the window, or less of it when an early end was asked for.
    pub(crate) measured: Duration,
    /// The server's memory once everybody was subscribed.
    pub(crate) rss_connected: Option<u64>,
    /// The most of it that was seen.
    pub(crate) rss_peak: Option<u64>,
    /// The most bytes that waited in the server for one connection.
    pub(crate) queue_peak: Option<u64>,
    /// Everything, second by second.
    pub(crate) timeline: Timeline,
}

/// Latencies of one crew on their way to the stage.
#[derive(Debug)]
pub(crate) struct Recent {
    latencies: Latencies,
    handed_in: Instant,
    /// Connections that failed, as far as the stage knows.
    errors: u64,
}

impl Default for Recent {
    fn default() -> Self {
        Self { latencies: Latencies::default(), handed_in: Instant::now(), errors: 0 }
    }
}

impl Recent {
    /// Counts one latency.
    pub(crate) fn record(&mut self, nanoseconds: u64) {
        self.latencies.record(nanoseconds);
    }
}

/// A crew that is at work.
pub(crate) struct AtWork<'a>(&'a Stage);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        self.0.done.fetch_add(1, Relaxed);
    }
}

impl Stage {
    /// For so many crews.
    pub(crate) fn new(crews: usize) -> Self {
        Self {
            ready: Barrier::new(crews + 1),
            origin: OnceLock::new(),
            crews,
            done: AtomicUsize::new(0),
            delivered: AtomicU64::new(0),
            published: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            reconnects: AtomicU64::new(0),
            present: AtomicU64::new(0),
            recent: Mutex::default(),
        }
    }

    /// A crew has gathered, well or not, and waits for the start.
    pub(crate) fn wait_for_start(&self) {
        self.ready.wait();
        self.ready.wait();
    }

    /// A crew is at work; it is through when what this returns is dropped, also by a panic.
    pub(crate) fn enter(&self) -> AtWork<'_> {
        AtWork(self)
    }

    /// When the run started.
    pub(crate) fn origin(&self) -> Instant {
        *self.origin.get().expect("nobody passes the second barrier before the start is set")
    }

    /// Takes what a crew measured lately, if it is time for that, and how many of its connections have failed so far.
    pub(crate) fn take_in(&self, recent: &mut Recent, errors: u64) {
        let known = std::mem::replace(&mut recent.errors, errors);
        self.errors.fetch_add(errors - known, Relaxed);
        if recent.handed_in.elapsed() < HAND_IN || recent.latencies.count() == 0 {
            return;
        }
        recent.handed_in = Instant::now();
        self.recent.lock().expect("no crew panics while it hands in").merge(&recent.latencies);
        recent.latencies.clear();
    }

    /// Gives the start once all crews have gathered, and watches until all have left.
    pub(crate) fn conduct(&self, window: &Window<'_>) -> Costs {
        self.ready.wait();
        let mut watch = Watch::new(window);
        let origin = *self.origin.get_or_init(Instant::now);
        self.ready.wait();
        let live = Live::timed(window.warmup + window.duration);
        let (from, until) = (origin + window.warmup, origin + window.warmup + window.duration);
        let measured = |now: Instant| now.min(until).saturating_duration_since(from);
        let (mut start, mut end) = (None, None);
        let mut line_at = origin + Duration::from_secs(1);
        while self.done.load(Relaxed) < self.crews {
            let now = Instant::now();
            if now >= from && start.is_none() {
                start = Some(watch.sample());
            }
            if (now >= until || stop::is_asked()) && end.is_none() {
                end = Some((watch.sample(), measured(now)));
            }
            if now >= line_at {
                let course = watch.moment(self, now.duration_since(origin));
                live.show_moment(course, self.published.load(Relaxed), self.delivered.load(Relaxed));
                line_at += Duration::from_secs(1);
            }
            watch.glance();
            let next = [from, until].into_iter().filter(|moment| *moment > now).min().unwrap_or(now + GLANCE);
            thread::sleep(next.duration_since(now).min(GLANCE));
        }
        drop(live);
        let (end, measured) = end.unwrap_or_else(|| (watch.sample(), measured(Instant::now())));
        watch.costs(start.unwrap_or(end), end, measured)
    }

    /// What was handed in since the last call.
    fn take_recent(&self) -> Latencies {
        std::mem::take(&mut self.recent.lock().expect("no crew panics while it hands in"))
    }
}
