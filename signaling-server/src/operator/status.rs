//! The status page: what an operator wants to see at a glance, in a browser, without anything else installed.
//!
//! The page asks for `/status.json` every two seconds and makes rates of the differences. It loads nothing from
//! elsewhere, and its content security policy would not let it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde::Serialize;

use crate::metrics::{AckStatus, CounterBy, Join, Label, Metrics};
use crate::relay::Relays;
use crate::signaling::{Signaling, Stage};

const PAGE: &str = include_str!("status/page.html");
const SCRIPT: &str = include_str!("status/page.js");
const STYLE: &str = include_str!("status/page.css");
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Watched {
    signaling: Arc<Signaling>,
    since: Instant,
}

/// `GET /`: the page. `GET /status.json`: what it shows, for scripts too. Totals count from the start of the process.
pub(super) fn router(signaling: Arc<Signaling>) -> Router {
    Router::new()
        .route("/", get(|| async { asset("text/html; charset=utf-8", PAGE) }))
        .route("/status.js", get(|| async { asset("text/javascript; charset=utf-8", SCRIPT) }))
        .route("/status.css", get(|| async { asset("text/css; charset=utf-8", STYLE) }))
        .route("/status.json", get(status))
        .with_state(Watched { signaling, since: Instant::now() })
}

fn asset(content_type: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-cache"),
    ];
    (headers, text).into_response()
}

#[derive(Serialize)]
struct Status {
    version: &'static str,
    stage: &'static str,
    uptime_seconds: u64,
    connections: usize,
    rooms: i64,
    opened_total: u64,
    received_total: u64,
    received_bytes_total: u64,
    sent_total: u64,
    sent_bytes_total: u64,
    throttled_total: u64,
    ice_issued_total: u64,
    closed_total: BTreeMap<&'static str, u64>,
    refused_total: BTreeMap<String, u64>,
    /// `null` when nothing is relayed.
    relay: Option<RelayStatus>,
}

#[derive(Serialize)]
struct RelayStatus {
    rooms: i64,
    stored_rooms: u64,
    stored_bytes: u64,
    joined_total: u64,
    acked_total: u64,
    store_failures_total: u64,
}

async fn status(State(Watched { signaling, since }): State<Watched>) -> Json<Status> {
    let metrics = signaling.metrics();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        stage: match signaling.stage() {
            Stage::Ready => "ready",
            Stage::Leaving => "leaving",
            Stage::Closing => "closing",
        },
        uptime_seconds: since.elapsed().as_secs(),
        connections: signaling.hub().connections(),
        rooms: metrics.rooms.get(),
        opened_total: metrics.opened.get(),
        received_total: sum(&metrics.received),
        received_bytes_total: sum(&metrics.received_bytes),
        sent_total: sum(&metrics.sent),
        sent_bytes_total: sum(&metrics.sent_bytes),
        throttled_total: metrics.throttled.get(),
        ice_issued_total: metrics.ice_issued.get(),
        closed_total: counted(&metrics.closed).collect(),
        refused_total: refused(metrics),
        relay: signaling.relays().map(|relays| relay(metrics, relays)),
    })
}

fn relay(metrics: &Metrics, relays: &Relays) -> RelayStatus {
    let usage = relays.usage();
    let metrics = &metrics.relay;
    RelayStatus {
        rooms: metrics.rooms.get(),
        stored_rooms: usage.rooms,
        stored_bytes: usage.bytes,
        joined_total: metrics.joins.count(Join::Ok),
        acked_total: metrics.acks.count(AckStatus::Ok),
        store_failures_total: metrics.store_failures.get(),
    }
}

/// Everything that was refused so far, by what it was and why; reasons that never occurred are left out.
fn refused(metrics: &Metrics) -> BTreeMap<String, u64> {
    let all = [
        ("socket", counted(&metrics.sockets_refused).collect::<Vec<_>>()),
        ("upgrade", counted(&metrics.upgrades_refused).collect()),
        ("ice", counted(&metrics.ice_refused).collect()),
        ("message", counted(&metrics.refused).collect()),
        ("join", others(&metrics.relay.joins, Join::Ok)),
        ("update", others(&metrics.relay.acks, AckStatus::Ok)),
    ];
    let named = |(what, counts): (&'static str, Vec<(&'static str, u64)>)| {
        counts.into_iter().map(move |(reason, count)| (format!("{what}: {reason}"), count))
    };
    all.into_iter().flat_map(named).collect()
}

fn others<L: Label>(counter: &CounterBy<L>, fine: L) -> Vec<(&'static str, u64)> {
    counted(counter).filter(|(name, _)| *name != fine.name()).collect()
}

fn counted<L: Label>(counter: &CounterBy<L>) -> impl Iterator<Item = (&'static str, u64)> {
    L::ALL.iter().map(|label| (label.name(), counter.count(*label))).filter(|(_, count)| *count > 0)
}

fn sum<L: Label>(counter: &CounterBy<L>) -> u64 {
    L::ALL.iter().map(|label| counter.count(*label)).sum()
}
