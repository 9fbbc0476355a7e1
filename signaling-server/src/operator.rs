//! The operator's side, on a listener of its own: metrics, the rooms as they are, and the means to close one.
//!
//! Whoever reaches this listener is trusted; by default that is this machine alone. Requests that a web page makes are
//! refused all the same, since a page that the operator happens to visit can reach the operator's localhost.

mod status;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use wire::id::TopicName;

use crate::http::readiness;
use crate::hub::{Caller, RoomReport};
use crate::signaling::Signaling;

/// Most rooms or subscribers in one answer.
const MAX_PAGE: usize = 1000;
/// Longest time that a room is kept closed.
const MAX_CLOSED: Duration = Duration::from_secs(24 * 60 * 60);

/// The operator's routes.
///
/// - `GET /`: a status page for browsers; `GET /status.json`: what it shows.
/// - `GET /metrics`: Prometheus text exposition; `METRICS.md` lists every series.
/// - `GET /healthz`, `GET /readyz`: as on the public side.
/// - `GET /rooms?sort=largest|busiest&offset=0&limit=50`: rooms, the largest or the busiest first, at most 1000.
/// - `GET /rooms/{topic}?offset=0&limit=50`: one room and its connections, oldest first.
/// - `DELETE /rooms/{topic}?seconds=60`: unsubscribes everybody and keeps the room closed that long, at most a day.
/// - `GET /documents?offset=0&limit=50`: rooms of the Loro Protocol that are in memory, the largest first, at most 1000.
/// - `DELETE /connections/{id}`: closes one connection with status 1008.
pub fn router(signaling: Arc<Signaling>) -> Router {
    let status = status::router(Arc::clone(&signaling));
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(|State(signaling): State<Arc<Signaling>>| async move { readiness(&signaling) }))
        .route("/rooms", get(rooms))
        .route("/rooms/{topic}", get(room).delete(close_room))
        .route("/documents", get(documents))
        .route("/connections/{id}", delete(close_connection))
        .with_state(signaling)
        .merge(status)
        .layer(middleware::from_fn(refuse_web_pages))
}

async fn refuse_web_pages(request: Request, next: Next) -> Response {
    let headers = request.headers();
    let cross_site =
        headers.get("sec-fetch-site").is_some_and(|site| site != "none" && site != "same-origin");
    if cross_site || (request.method() != "GET" && headers.contains_key(header::ORIGIN)) {
        return (StatusCode::FORBIDDEN, "not from a web page\n").into_response();
    }
    next.run(request).await
}

async fn metrics(State(signaling): State<Arc<Signaling>>) -> Response {
    if let Some(relays) = signaling.relays() {
        signaling.metrics().relay.look(relays);
    }
    let sizes = signaling.hub().room_sizes().into_iter();
    let content_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (content_type, signaling.metrics().exposition(sizes)).into_response()
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Sort {
    #[default]
    Largest,
    Busiest,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    sort: Sort,
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentPage {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

impl Page {
    fn cut<T>(&self, items: Vec<T>) -> Vec<T> {
        cut(items, self.offset, self.limit)
    }
}

fn cut<T>(items: Vec<T>, offset: usize, limit: Option<usize>) -> Vec<T> {
    items.into_iter().skip(offset).take(limit.unwrap_or(50).min(MAX_PAGE)).collect()
}

#[derive(Serialize)]
struct RoomList {
    total: usize,
    offset: usize,
    rooms: Vec<RoomLine>,
}

#[derive(Serialize)]
struct RoomLine {
    topic: String,
    subscribers: usize,
    published: u64,
    published_per_minute: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    closed_for_seconds: Option<u64>,
}

impl From<&RoomReport> for RoomLine {
    fn from(report: &RoomReport) -> Self {
        Self {
            topic: report.topic.to_string_lossy().into_owned(),
            subscribers: report.subscribers,
            published: report.published,
            published_per_minute: (report.per_minute * 10.0).round() / 10.0,
            closed_for_seconds: report.closed_for.map(|closed_for| closed_for.as_secs()),
        }
    }
}

async fn rooms(State(signaling): State<Arc<Signaling>>, Query(page): Query<Page>) -> Json<RoomList> {
    let mut reports = signaling.hub().rooms();
    match page.sort {
        Sort::Largest => reports.sort_by(|a, b| (b.subscribers, &a.topic).cmp(&(a.subscribers, &b.topic))),
        Sort::Busiest => {
            reports.sort_by(|a, b| b.per_minute.total_cmp(&a.per_minute).then_with(|| a.topic.cmp(&b.topic)));
        }
    }
    let total = reports.len();
    let rooms = page.cut(reports).iter().map(RoomLine::from).collect();
    Json(RoomList { total, offset: page.offset, rooms })
}

#[derive(Serialize)]
struct DocumentList {
    total: usize,
    offset: usize,
    rooms: Vec<DocumentLine>,
}

#[derive(Serialize)]
struct DocumentLine {
    /// Its type and id, as the commands of `rooms` take it.
    room: String,
    members: usize,
    presence_entries: usize,
    stored_bytes: u64,
}

async fn documents(
    State(signaling): State<Arc<Signaling>>,
    Query(page): Query<DocumentPage>,
) -> Json<DocumentList> {
    let mut reports = signaling.relays().map(|relays| relays.rooms()).unwrap_or_default();
    reports.sort_by(|a, b| (b.members, &a.room).cmp(&(a.members, &b.room)));
    let total = reports.len();
    let rooms = cut(reports, page.offset, page.limit).into_iter().map(|report| DocumentLine {
        room: report.room.to_string(),
        members: report.members,
        presence_entries: report.entries,
        stored_bytes: report.stored,
    });
    Json(DocumentList { total, offset: page.offset, rooms: rooms.collect() })
}

#[derive(Serialize)]
struct RoomDetail {
    #[serde(flatten)]
    room: RoomLine,
    offset: usize,
    connections: Vec<ConnectionLine>,
}

#[derive(Serialize)]
struct ConnectionLine {
    id: u64,
    address: Option<String>,
    connected_seconds: u64,
}

impl From<Arc<Caller>> for ConnectionLine {
    fn from(caller: Arc<Caller>) -> Self {
        Self {
            id: caller.id.0,
            address: caller.address.map(|address| address.to_string()),
            connected_seconds: Instant::now().saturating_duration_since(caller.since).as_secs(),
        }
    }
}

async fn room(
    State(signaling): State<Arc<Signaling>>,
    Path(topic): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<RoomDetail>, NoSuch> {
    let found = signaling.hub().room(&TopicName::from(topic.as_str()));
    let (report, callers) = found.ok_or(NoSuch("room"))?;
    let connections = page.cut(callers).into_iter().map(ConnectionLine::from).collect();
    Ok(Json(RoomDetail { room: RoomLine::from(&report), offset: page.offset, connections }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CloseRoom {
    seconds: Option<u64>,
}

#[derive(Serialize)]
struct Unsubscribed {
    unsubscribed: usize,
}

async fn close_room(
    State(signaling): State<Arc<Signaling>>,
    Path(topic): Path<String>,
    Query(close): Query<CloseRoom>,
) -> Result<Json<Unsubscribed>, NoSuch> {
    let closed_for = Duration::from_secs(close.seconds.unwrap_or(60)).min(MAX_CLOSED);
    let unsubscribed = signaling.hub().close_room(&TopicName::from(topic.as_str()), closed_for);
    let unsubscribed = unsubscribed.ok_or(NoSuch("room"))?;
    tracing::info!(unsubscribed, seconds = closed_for.as_secs(), "an operator closed a room");
    Ok(Json(Unsubscribed { unsubscribed }))
}

async fn close_connection(
    State(signaling): State<Arc<Signaling>>,
    Path(id): Path<u64>,
) -> Result<StatusCode, NoSuch> {
    if !signaling.hub().close_connection(id) {
        return Err(NoSuch("connection"));
    }
    tracing::info!(connection = id, "an operator closed a connection");
    Ok(StatusCode::NO_CONTENT)
}

struct NoSuch(&'static str);

impl IntoResponse for NoSuch {
    fn into_response(self) -> Response {
        (StatusCode::NOT_FOUND, format!("no such {}\n", self.0)).into_response()
    }
}
