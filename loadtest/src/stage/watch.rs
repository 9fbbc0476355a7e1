//! What one looks at while the crews work.

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use super::{Costs, Stage, Window};
use crate::{
    measure::{
        process::{Cpu, Process},
        scrape::{Scraped, Scraper},
    },
    timeline::{Moment, Timeline},
};

/// Looks at the server and the tester.
pub(super) struct Watch {
    server: Option<Process>,
    tester: Option<Process>,
    metrics: Option<Scraper>,
    costs: Costs,
    last: Sample,
    delivered: u64,
    published: u64,
}

/// How much was used up to a moment.
#[derive(Clone, Copy)]
pub(super) struct Sample {
    at: Instant,
    server: Option<Used>,
    tester: Option<Used>,
}

/// CPU time, as `/proc` or the server itself tell it.
#[derive(Clone, Copy)]
enum Used {
    Seen(Cpu),
    Told(f64),
}

impl Used {
    fn since(self, earlier: Self) -> Option<Duration> {
        match (self, earlier) {
            (Self::Seen(now), Self::Seen(then)) => Some(now.since(&then)),
            (Self::Told(now), Self::Told(then)) => Duration::try_from_secs_f64(now - then).ok(),
            _ => None,
        }
    }
}

impl Watch {
    pub(super) fn new(window: &Window<'_>) -> Self {
        let nothing = Sample { at: Instant::now(), server: None, tester: None };
        let mut watch = Self {
            server: window.server.cloned(),
            tester: Process::own().ok(),
            metrics: window.metrics.cloned(),
            costs: Costs::default(),
            last: nothing,
            delivered: 0,
            published: 0,
        };
        let scraped = watch.scrape();
        watch.costs.rss_connected = watch.resident(&scraped);
        watch.last = watch.sample_with(&scraped);
        watch
    }

    /// What the server tells; nothing while it does not answer.
    fn scrape(&self) -> Scraped {
        self.metrics.as_ref().and_then(|metrics| metrics.scrape().ok()).unwrap_or_default()
    }

    fn resident(&self, scraped: &Scraped) -> Option<u64> {
        let seen = self.server.as_ref().and_then(|server| server.resident().ok());
        seen.or(scraped.resident.map(|bytes| bytes as u64))
    }

    /// A short look at the memory, if it is a process of this machine.
    pub(super) fn glance(&mut self) {
        let resident = self.resident(&Scraped::default());
        self.costs.rss_peak = self.costs.rss_peak.max(resident);
    }

    pub(super) fn sample(&self) -> Sample {
        let scraped = if self.server.is_none() { self.scrape() } else { Scraped::default() };
        self.sample_with(&scraped)
    }

    fn sample_with(&self, scraped: &Scraped) -> Sample {
        let seen = |process: &Option<Process>| process.as_ref()?.cpu().ok().map(Used::Seen);
        let server = seen(&self.server).or(scraped.cpu_seconds.map(Used::Told));
        Sample { at: Instant::now(), server, tester: seen(&self.tester) }
    }

    /// Adds the second that ends now to the course of the run.
    pub(super) fn moment(&mut self, stage: &Stage, since: Duration) -> &Timeline {
        let scraped = self.scrape();
        let sample = self.sample_with(&scraped);
        let last = std::mem::replace(&mut self.last, sample);
        let length = sample.at.duration_since(last.at).as_secs_f64().max(1e-3);
        let percent =
            |now: Option<Used>, then: Option<Used>| Some(now?.since(then?)?.as_secs_f64() / length * 100.0);
        let (delivered, published) = (stage.delivered.load(Relaxed), stage.published.load(Relaxed));
        let rate = |now: u64, then: &mut u64| (now - std::mem::replace(then, now)) as f64 / length;
        let recent = stage.take_recent();
        let at = |quantile| recent.at(quantile).map(|latency| latency.as_secs_f64() * 1e3);
        let resident = self.resident(&scraped);
        let queue = scraped.queue_high_water.map(|bytes| bytes as u64);
        self.costs.rss_peak = self.costs.rss_peak.max(resident);
        self.costs.queue_peak = self.costs.queue_peak.max(queue);
        let moment = Moment {
            seconds: since.as_secs_f64(),
            delivered: rate(delivered, &mut self.delivered),
            published: rate(published, &mut self.published),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            present: Some(stage.present.load(Relaxed)).filter(|present| *present > 0),
            errors: stage.errors.load(Relaxed),
            reconnects: stage.reconnects.load(Relaxed),
            server_rss: resident.map(|bytes| bytes as f64),
            server_cpu: percent(sample.server, last.server),
            tester_cpu: percent(sample.tester, last.tester),
            queue: scraped.queue_high_water,
        };
        self.costs.timeline.0.push(moment);
        &self.costs.timeline
    }

    pub(super) fn costs(mut self, start: Sample, end: Sample, measured: Duration) -> Costs {
        let used = |end: Option<Used>, start: Option<Used>| end?.since(start?);
        self.costs.server_cpu = used(end.server, start.server);
        self.costs.tester_cpu = used(end.tester, start.tester);
        self.costs.measured = measured;
        self.costs.length = end.at.duration_since(start.at);
        self.costs
    }
}
