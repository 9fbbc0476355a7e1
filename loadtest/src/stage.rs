//! Start, measured window and progress of a run: what the crews share, and what watches them.

use std::{
    sync::{
        Barrier, OnceLock,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    measure::process::{Cpu, Process},
    report::grouped,
};

/// How often memory is looked at, for its peak.
const GLANCE: Duration = Duration::from_millis(100);

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
}

/// What processes cost during the measured window.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Costs {
    pub(crate) server_cpu: Option<Duration>,
    pub(crate) tester_cpu: Option<Duration>,
    /// The time between the two looks at them.
    pub(crate) length: Duration,
    /// The server's memory once everybody was subscribed.
    pub(crate) rss_connected: Option<u64>,
    /// The most of it that was seen.
    pub(crate) rss_peak: Option<u64>,
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
        }
    }

    /// A crew has gathered, well or not, and waits for the start.
    pub(crate) fn wait_for_start(&self) {
        self.ready.wait();
        self.ready.wait();
    }

    /// A crew is through.
    pub(crate) fn leave(&self) {
        self.done.fetch_add(1, Relaxed);
    }

    /// When the run started.
    pub(crate) fn origin(&self) -> Instant {
        *self.origin.get().expect("nobody passes the second barrier before the start is set")
    }

    /// Gives the start once all crews have gathered, and watches until all have left.
    pub(crate) fn conduct(&self, window: &Window<'_>) -> Costs {
        self.ready.wait();
        let mut watch = Watch::new(window.server);
        watch.costs.rss_connected = watch.resident();
        let origin = *self.origin.get_or_init(Instant::now);
        self.ready.wait();
        let (from, until) = (origin + window.warmup, origin + window.warmup + window.duration);
        let (mut start, mut end) = (None, None);
        let mut line_at = origin + Duration::from_secs(1);
        while self.done.load(Relaxed) < self.crews {
            let now = Instant::now();
            if now >= from && start.is_none() {
                start = Some(watch.sample());
            }
            if now >= until && end.is_none() {
                end = Some(watch.sample());
            }
            if now >= line_at {
                self.print_progress(now.duration_since(origin), &mut watch);
                line_at += Duration::from_secs(1);
            }
            watch.glance();
            let next = [from, until].into_iter().filter(|moment| *moment > now).min().unwrap_or(now + GLANCE);
            thread::sleep(next.duration_since(now).min(GLANCE));
        }
        let end = end.unwrap_or_else(|| watch.sample());
        watch.costs(start.unwrap_or(end), end)
    }

    fn print_progress(&self, since: Duration, watch: &mut Watch) {
        let delivered = self.delivered.load(Relaxed);
        let rate = delivered - std::mem::replace(&mut watch.delivered, delivered);
        let published = self.published.load(Relaxed);
        let memory =
            watch.resident().map_or(String::new(), |bytes| format!("  server {} KiB", grouped(bytes / 1024)));
        let (rate, delivered, published) = (grouped(rate), grouped(delivered), grouped(published));
        let seconds = since.as_secs();
        eprintln!(
            "{seconds:>4} s  {rate:>9} deliveries/s  {published:>9} published  {delivered:>11} delivered{memory}"
        );
    }
}

/// What one looks at while the crews work.
struct Watch {
    server: Option<Process>,
    tester: Option<Process>,
    delivered: u64,
    costs: Costs,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    server: Option<Cpu>,
    tester: Option<Cpu>,
}

impl Watch {
    fn new(server: Option<&Process>) -> Self {
        let tester = Process::own().ok();
        Self { server: server.cloned(), tester, delivered: 0, costs: Costs::default() }
    }

    fn resident(&self) -> Option<u64> {
        self.server.as_ref()?.resident().ok()
    }

    fn glance(&mut self) {
        self.costs.rss_peak = self.costs.rss_peak.max(self.resident());
    }

    fn sample(&self) -> Sample {
        let cpu = |process: &Option<Process>| process.as_ref()?.cpu().ok();
        Sample { at: Instant::now(), server: cpu(&self.server), tester: cpu(&self.tester) }
    }

    fn costs(mut self, start: Sample, end: Sample) -> Costs {
        let used = |end: Option<Cpu>, start: Option<Cpu>| Some(end?.since(&start?));
        self.costs.server_cpu = used(end.server, start.server);
        self.costs.tester_cpu = used(end.tester, start.tester);
        self.costs.length = end.at.duration_since(start.at);
        self.costs
    }
}
