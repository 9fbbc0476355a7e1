//! The public side: WebSocket upgrades at any path, health, and the reference server's `okay`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, Version};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tungstenite::handshake::derive_accept_key;

use crate::access::Refusal;
use crate::address::{ClientAddress, Peer};
use crate::ice;
use crate::metrics::UpgradeRefusal;
use crate::signaling::{Guest, Signaling, Stage};

const CONTENT_TYPE: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain")];

/// The routes for clients, to be served by [`Server`](crate::server::Server) or nested into another service.
///
/// A WebSocket upgrade is accepted at every path. `GET /healthz` answers 200 while the process lives, `GET /readyz`
/// 200 until the service drains and 503 from then on, `GET /ice` the ICE servers of `[ice]`; any other request gets 200
/// `okay`, as from the reference server.
///
/// The limits per address need the client's address: serve the router with
/// `into_make_service_with_connect_info::<SocketAddr>()`, else they are not applied. An embedding service sets the
/// deadline for request headers itself.
pub fn router(signaling: Arc<Signaling>) -> Router {
    Router::new().fallback(answer).with_state(signaling)
}

async fn answer(State(signaling): State<Arc<Signaling>>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    if parts.headers.contains_key(header::UPGRADE) {
        return upgrade(&signaling, &mut parts).unwrap_or_else(|refusal| {
            signaling.metrics().upgrades_refused.inc(refusal);
            refuse(refusal)
        });
    }
    match parts.uri.path() {
        "/healthz" => (CONTENT_TYPE, "ok\n").into_response(),
        "/readyz" => readiness(&signaling),
        "/ice" => ice::answer(&signaling, &parts),
        _ => (CONTENT_TYPE, "okay").into_response(),
    }
}

/// Whether new clients are welcome.
pub(crate) fn readiness(signaling: &Signaling) -> Response {
    match signaling.stage() {
        Stage::Ready => (CONTENT_TYPE, "ready\n").into_response(),
        Stage::Leaving | Stage::Closing => {
            (StatusCode::SERVICE_UNAVAILABLE, CONTENT_TYPE, "draining\n").into_response()
        }
    }
}

/// Everything that can be refused is refused here, in HTTP: a stock client that is accepted and then closed returns
/// without a pause, hundreds of times a second.
fn upgrade(signaling: &Arc<Signaling>, parts: &mut Parts) -> Result<Response, UpgradeRefusal> {
    let key = handshake_key(parts).ok_or(UpgradeRefusal::BadHandshake)?;
    let pending = parts.extensions.remove::<OnUpgrade>().ok_or(UpgradeRefusal::BadHandshake)?;
    let client = client(signaling, parts);
    let place = signaling.admit(client)?;
    let presented = signaling.access().presented(&parts.headers, &parts.uri);
    let grant = match signaling.access().admit(&presented, SystemTime::now()) {
        // Clients of the Loro Protocol show theirs when they join a room.
        Err(Refusal::MissingToken) if signaling.relays().is_some() => None,
        grant => Some(grant?),
    };
    let signaling = Arc::clone(signaling);
    signaling.tasks().clone().spawn(async move {
        // The client may be gone before it has read our answer; then there is nothing to serve.
        if let Ok(upgraded) = pending.await {
            serve(&signaling, upgraded, Guest { grant, client, place });
        }
    });
    Ok(switching_protocols(&key, &parts.headers))
}

/// Hands the stream on as what it is: anybody may write to a plain socket, and hyper's wrapping costs.
fn serve(signaling: &Signaling, upgraded: Upgraded, guest: Guest) {
    let upgraded = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => return signaling.serve_tcp(parts.io.into_inner(), parts.read_buf, guest),
        Err(upgraded) => upgraded,
    };
    match upgraded.downcast::<TokioIo<TlsStream<TcpStream>>>() {
        Ok(parts) => signaling.serve_stream(parts.io.into_inner(), parts.read_buf, guest),
        Err(upgraded) => signaling.serve_stream(TokioIo::new(upgraded), Bytes::new(), guest),
    }
}

pub(crate) fn client(signaling: &Signaling, parts: &Parts) -> Option<ClientAddress> {
    let embedded = || parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| Peer::direct(info.0));
    let peer = parts.extensions.get::<Peer>().copied().or_else(embedded)?;
    Some(signaling.proxies().client(peer, &parts.headers))
}

/// The client's key, if this is a WebSocket handshake (RFC 6455 section 4.2.1).
fn handshake_key(parts: &Parts) -> Option<HeaderValue> {
    let headers = &parts.headers;
    let sane = parts.method == Method::GET
        && parts.version == Version::HTTP_11
        && lists(headers, header::UPGRADE, "websocket")
        && lists(headers, header::CONNECTION, "upgrade")
        && headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let key = headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24)?;
    sane.then(|| key.clone())
}

/// Whether a header that is a list of names has this one.
fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(wanted))
}

fn switching_protocols(key: &HeaderValue, headers: &HeaderMap) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes())).expect("base64 is a header value");
    answer.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(protocol) = first_subprotocol(headers) {
        answer.insert(header::SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    response
}

/// The first that the client offers: some clients fail a handshake that takes up none of theirs.
fn first_subprotocol(headers: &HeaderMap) -> Option<HeaderValue> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').map(str::trim).find(|protocol| !protocol.is_empty())?;
    HeaderValue::from_str(first).ok()
}

fn refuse(refusal: UpgradeRefusal) -> Response {
    let (status, why) = match refusal {
        UpgradeRefusal::BadHandshake => {
            (StatusCode::BAD_REQUEST, "not a WebSocket handshake (RFC 6455, version 13)".to_owned())
        }
        UpgradeRefusal::Access(refusal) => (refusal.status(), refusal.to_string()),
        UpgradeRefusal::Rate => {
            (StatusCode::TOO_MANY_REQUESTS, "too many new connections from this address".to_owned())
        }
        UpgradeRefusal::AddressFull => {
            (StatusCode::TOO_MANY_REQUESTS, "too many connections from this address".to_owned())
        }
        UpgradeRefusal::Full => (StatusCode::SERVICE_UNAVAILABLE, "the server is full".to_owned()),
        UpgradeRefusal::Draining => (StatusCode::SERVICE_UNAVAILABLE, "the server is restarting".to_owned()),
    };
    let mut response = (status, CONTENT_TYPE, format!("{why}\n")).into_response();
    let headers = response.headers_mut();
    match status {
        StatusCode::UNAUTHORIZED => {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}
