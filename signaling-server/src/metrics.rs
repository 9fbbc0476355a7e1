//! What operators see: one struct, one registry, one doc line a series.
//!
//! Labels come from enums and never from users. `METRICS.md` lists every series by the same doc line; a test holds the
//! two together.

mod label;
mod relay;

use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus::core::Collector;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounter, IntGauge, Opts, Registry, TextEncoder};

pub use label::{
    AckStatus, Disconnect, Join, Label, MessageRefusal, Received, RoomErrorKind, Sent, SocketRefusal,
    UpgradeRefusal,
};
pub use relay::RelayMetrics;

use crate::ice::IceRefusal;

/// One counter for each value of a label.
#[derive(Debug)]
pub struct CounterBy<L>(Vec<IntCounter>, PhantomData<L>);

impl<L: Label> CounterBy<L> {
    /// Counts one.
    pub fn inc(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n`.
    pub fn add(&self, label: L, n: u64) {
        self.0[label.index()].inc_by(n);
    }

    /// The count so far.
    #[must_use]
    pub fn count(&self, label: L) -> u64 {
        self.0[label.index()].get()
    }
}

/// Every series of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Connections open now.
    pub connections: IntGauge,
    /// Connections opened since the start.
    pub opened: IntCounter,
    /// Connections ended, by reason.
    pub closed: CounterBy<Disconnect>,
    /// Sockets dropped before any WebSocket, by reason.
    pub sockets_refused: CounterBy<SocketRefusal>,
    /// Upgrades answered in HTTP instead, by reason.
    pub upgrades_refused: CounterBy<UpgradeRefusal>,
    /// Answers that told of ICE servers.
    pub ice_issued: IntCounter,
    /// Requests for ICE servers that were refused, by reason.
    pub ice_refused: CounterBy<IceRefusal>,
    /// Rooms with a subscriber.
    pub rooms: IntGauge,
    /// Messages received, by kind.
    pub received: CounterBy<Received>,
    /// Payload bytes received, by kind.
    pub received_bytes: CounterBy<Received>,
    /// Messages put into outboxes, by kind.
    pub sent: CounterBy<Sent>,
    /// Bytes put into outboxes, by kind.
    pub sent_bytes: CounterBy<Sent>,
    /// Parts of messages that had no effect, by reason.
    pub refused: CounterBy<MessageRefusal>,
    /// Receivers of each publish that had any.
    pub fanout: Histogram,
    /// Times that reading from a connection was delayed.
    pub throttled: IntCounter,
    /// Round trips of WebSocket pings, in seconds.
    pub ping: Histogram,
    /// 1 while the server drains.
    pub draining: IntGauge,
    /// Forwarding headers of trusted proxies that could not be read.
    pub bad_forwarded: IntCounter,
    /// Certificate, key and token-key files read again after a change.
    pub reloads: IntCounter,
    /// Changed files that were not usable; what was in force before stays.
    pub reload_failures: IntCounter,
    /// The relay and its store.
    pub relay: RelayMetrics,
    outbox_high_water: AtomicUsize,
    outbox_high_water_gauge: IntGauge,
}

impl Metrics {
    /// A fresh registry with every series at zero.
    #[must_use]
    pub fn new() -> Self {
        let make = Maker(Registry::new());
        let build = Opts::new("signaling_build_info", "Always 1; the label says which version runs.")
            .const_label("version", env!("CARGO_PKG_VERSION"));
        make.register(IntGauge::with_opts(build).expect("a valid name")).set(1);
        #[cfg(target_os = "linux")]
        make.0
            .register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))
            .expect("each name is registered once");
        Self {
            connections: make.gauge("signaling_connections", "WebSocket connections open now."),
            opened: make.counter("signaling_connections_opened_total", "WebSocket connections opened."),
            closed: make.by("signaling_connections_closed_total", "WebSocket connections ended, by reason."),
            sockets_refused: make.by(
                "signaling_sockets_refused_total",
                "TCP connections dropped before any WebSocket, by reason.",
            ),
            upgrades_refused: make.by(
                "signaling_upgrades_refused_total",
                "WebSocket upgrades answered with an HTTP error, by reason.",
            ),
            ice_issued: make.counter(
                "signaling_ice_issued_total",
                "Answers to GET /ice with ICE servers, each TURN server with a fresh credential.",
            ),
            ice_refused: make
                .by("signaling_ice_refused_total", "Requests of GET /ice that were refused, by reason."),
            rooms: make.gauge("signaling_rooms", "Rooms with at least one subscriber."),
            received: make.by("signaling_messages_received_total", "Messages received, by kind."),
            received_bytes: make.by("signaling_received_bytes_total", "Payload bytes received, by kind."),
            sent: make.by("signaling_messages_sent_total", "Messages queued for clients, by kind."),
            sent_bytes: make.by("signaling_sent_bytes_total", "Bytes queued for clients, by kind."),
            refused: make.by(
                "signaling_messages_refused_total",
                "Subscriptions and publishes that had no effect, by reason.",
            ),
            fanout: make.histogram(
                "signaling_fanout",
                "Receivers of each publish that had any.",
                &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0],
            ),
            throttled: make.counter(
                "signaling_throttled_total",
                "Times reading from a connection paused since it was over its message or byte rate.",
            ),
            ping: make.histogram(
                "signaling_ping_seconds",
                "Round trips of WebSocket pings.",
                &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
            ),
            draining: make.gauge("signaling_draining", "1 while the server drains, else 0."),
            bad_forwarded: make.counter(
                "signaling_bad_forwarded_total",
                "Forwarding headers of trusted proxies that could not be read.",
            ),
            reloads: make
                .counter("signaling_reloads_total", "Certificates and token keys read again after a change."),
            reload_failures: make.counter(
                "signaling_reload_failures_total",
                "Changed certificates and token keys that were unusable; those before stay in force.",
            ),
            relay: RelayMetrics::new(&make),
            outbox_high_water: AtomicUsize::new(0),
            outbox_high_water_gauge: make.gauge(
                "signaling_outbox_high_water_bytes",
                "Most bytes that waited for one connection since the last scrape.",
            ),
            registry: make.0,
        }
    }

    /// Notes that so many bytes wait in one outbox.
    pub fn note_outbox(&self, bytes: usize) {
        if bytes > self.outbox_high_water.load(Ordering::Relaxed) {
            self.outbox_high_water.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// Notes how long a ping took to come back.
    pub fn note_ping(&self, round_trip: Duration) {
        self.ping.observe(round_trip.as_secs_f64());
    }

    /// The registry, for an embedding service that adds series of its own or scrapes it elsewhere.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A line of a Markdown table for each series: name, type, labels, doc line.
    #[must_use]
    pub fn documentation(&self) -> Vec<String> {
        let mut families = self.registry.gather();
        families.extend(room_sizes_histogram(std::iter::empty()).collect());
        families.retain(|family| !family.name().starts_with("process_"));
        families.sort_by(|a, b| a.name().cmp(b.name()));
        families.iter().map(document).collect()
    }

    /// The text exposition. `room_sizes` has the subscribers of each room as they are now.
    #[must_use]
    pub fn exposition(&self, room_sizes: impl Iterator<Item = usize>) -> String {
        let waiting = self.outbox_high_water.swap(0, Ordering::Relaxed);
        self.outbox_high_water_gauge.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        let mut families = self.registry.gather();
        families.extend(room_sizes_histogram(room_sizes).collect());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).expect("writing to memory");
        String::from_utf8(text).expect("the exposition is text")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn document(family: &prometheus::proto::MetricFamily) -> String {
    let mut labels: Vec<String> = Vec::new();
    let pairs = family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label);
    for label in pairs.map(|pair| match pair.name() {
        "version" => "`version`".to_owned(),
        name => format!("`{name}={}`", pair.value()),
    }) {
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    let kind = format!("{:?}", family.get_field_type()).to_lowercase();
    format!("| `{}` | {kind} | {} | {} |", family.name(), labels.join(" "), family.help())
}

/// A histogram of the rooms as they stand at this scrape; it does not add up over time.
fn room_sizes_histogram(sizes: impl Iterator<Item = usize>) -> Histogram {
    let opts = HistogramOpts::new("signaling_room_subscribers", "Subscribers of each room at this scrape.")
        .buckets(vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
    let histogram = Histogram::with_opts(opts).expect("a valid name");
    sizes.for_each(|size| histogram.observe(size as f64));
    histogram
}

struct Maker(Registry);

impl Maker {
    fn register<C: Collector + Clone + 'static>(&self, collector: C) -> C {
        self.0.register(Box::new(collector.clone())).expect("each name is registered once");
        collector
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(name, help).expect("a valid name"))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(name, help).expect("a valid name"))
    }

    fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.register(Histogram::with_opts(opts).expect("ascending buckets"))
    }

    fn by<L: Label>(&self, name: &str, help: &str) -> CounterBy<L> {
        let family =
            self.register(prometheus::IntCounterVec::new(Opts::new(name, help), &[L::NAME]).expect("valid"));
        let counters = L::ALL.iter().map(|label| family.with_label_values(&[label.name()]));
        CounterBy(counters.collect(), PhantomData)
    }
}
