//! `GET /ice`: the STUN and TURN servers for `new RTCPeerConnection`, with credentials that expire.
//!
//! Whoever may open a WebSocket may ask. Every answer has fresh credentials for a random id, so nothing in them says
//! who asked; no cache keeps them. The answer is `{"iceServers": […], "ttl": seconds}`, or 204 where `[ice]` names no
//! servers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::Json;
use axum::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use thiserror::Error;
use turn_config::credential::OpaqueId;
use turn_config::ice::{IceError, IceServers, TurnServerConfig};

use crate::access::Refusal;
use crate::config::{IceConfig, LimitsConfig};
use crate::http::client;
use crate::limits::{Caps, Occupancy, Rate};
use crate::metrics::Label;
use crate::signaling::Signaling;
use crate::watched::{Change, FileError, Watched};

const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const METHODS: HeaderValue = HeaderValue::from_static("GET, OPTIONS");
/// How long a browser need not ask again whether it may send a token.
const PREFLIGHT_SECONDS: HeaderValue = HeaderValue::from_static("600");

/// The ICE servers of a configuration, and how often each address may ask for them.
#[derive(Debug)]
pub struct Ice {
    servers: Arc<Watched<IceServers>>,
    requests: Arc<Occupancy>,
    reload_interval: Duration,
}

/// Why `[ice]` can not be used.
#[derive(Debug, Error)]
pub enum IceStartError {
    /// A value of it.
    #[error("[ice]: {0}")]
    Refused(#[from] IceError),
    /// A secret file of it.
    #[error("ice.secret_files: {0}")]
    File(#[from] FileError),
}

/// Why nobody was told of ICE servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IceRefusal {
    /// 401 or 403: who asks may not come in.
    Access(Refusal),
    /// 429: the address asks too often.
    Rate,
}

impl From<Refusal> for IceRefusal {
    fn from(refusal: Refusal) -> Self {
        Self::Access(refusal)
    }
}

impl Label for IceRefusal {
    const ALL: &'static [Self] = &{
        let mut all = [Self::Rate; 1 + Refusal::ALL.len()];
        let mut nth = 0;
        while nth < Refusal::ALL.len() {
            all[1 + nth] = Self::Access(Refusal::ALL[nth]);
            nth += 1;
        }
        all
    };
    const NAME: &'static str = "reason";

    fn name(self) -> &'static str {
        match self {
            Self::Access(refusal) => refusal.label(),
            Self::Rate => "rate",
        }
    }

    fn index(self) -> usize {
        Self::ALL.iter().position(|label| *label == self).expect("every refusal is in the list")
    }
}

impl Ice {
    /// Reads the secrets that `config` names.
    ///
    /// # Errors
    ///
    /// When a URL or a secret can not be used, or a file not be read.
    pub fn from_config(config: &IceConfig, limits: &LimitsConfig) -> Result<Self, IceStartError> {
        let servers = turn_servers(config);
        servers.load()?;
        let files = config.secret_files.clone();
        // The files are read again by `load`; were one replaced in between, the next look would find it changed.
        let watched = Watched::load(files.clone(), move |_| {
            servers.load().map_err(|error| FileError::new(&named_in(&error, &files), error.to_string()))
        })?;
        let per_minute = f64::from(limits.ice_per_minute);
        let upgrades = Rate { per_second: per_minute / 60.0, burst: per_minute };
        Ok(Self {
            servers: watched,
            requests: Occupancy::new(Caps { per_address: 0, total: 0, upgrades }),
            reload_interval: config.reload_interval.duration(),
        })
    }

    /// Re-reads the secret files when they change, for ever; a bad new file is refused, logged, and the old one stays
    /// in force. Each change is told to `report`. The future never ends: run it in a task that the server owns.
    pub async fn watch(self: Arc<Self>, report: impl Fn(&Change)) {
        Arc::clone(&self.servers).watch(self.reload_interval, report).await;
    }

    /// Looks at the files now, as [`watch`](Self::watch) does each interval.
    pub async fn reload(&self, report: impl Fn(&Change)) {
        self.servers.look_now(&report).await;
    }
}

/// One server for all URLs that share a secret, else one for each URL.
fn turn_servers(config: &IceConfig) -> turn_config::ice::IceConfig {
    let inline = config.secrets.iter().map(|secret| (Some(secret.reveal().to_owned()), None));
    let files = config.secret_files.iter().map(|file| (None, Some(file.clone())));
    let secrets: Vec<_> = inline.chain(files).collect();
    let server = |urls: &[String], (secret, secret_file): &(Option<String>, Option<PathBuf>)| {
        TurnServerConfig { urls: urls.to_vec(), secret: secret.clone(), secret_file: secret_file.clone() }
    };
    let turn = match secrets.as_slice() {
        [shared] => vec![server(&config.turn, shared)],
        each => config.turn.chunks(1).zip(each).map(|(url, secret)| server(url, secret)).collect(),
    };
    turn_config::ice::IceConfig { stun: config.stun.clone(), turn, ttl: config.ttl.to_string() }
}

/// The file that a refusal is about.
fn named_in(error: &IceError, files: &[PathBuf]) -> PathBuf {
    let nth = if let IceError::Secret { index, .. } = error { index - 1 } else { 0 };
    files.get(nth).cloned().unwrap_or_default()
}

/// Answers a request for `/ice`.
pub(crate) fn answer(signaling: &Signaling, parts: &Parts) -> Response {
    let presented = signaling.access().presented(&parts.headers, &parts.uri);
    let origin = signaling.access().check_origin(&presented);
    let answered = match parts.method {
        Method::GET => origin.map_err(IceRefusal::from).and_then(|()| servers(signaling, parts)),
        Method::OPTIONS => origin.map_err(IceRefusal::from).map(|()| preflight()),
        _ => Ok((StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, METHODS)]).into_response()),
    };
    let mut response = answered.unwrap_or_else(|refusal| {
        signaling.metrics().ice_refused.inc(refusal);
        refuse(refusal)
    });
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, NO_STORE);
    headers.insert(header::VARY, HeaderValue::from_static("Origin"));
    if origin.is_ok() {
        // A refusal too, so that the page can read why.
        headers
            .extend(readable_by(parts.headers.get(header::ORIGIN), signaling.access().restricts_origins()));
    }
    response
}

fn servers(signaling: &Signaling, parts: &Parts) -> Result<Response, IceRefusal> {
    let ice = signaling.ice();
    let limited = client(signaling, parts).filter(|client| !client.is_exempt());
    let key = limited.map(|client| client.key());
    // Before the token is looked at, so that guessing tokens is slow here too.
    ice.requests.admit(key, Instant::now()).map_err(|_| IceRefusal::Rate)?;
    let presented = signaling.access().presented(&parts.headers, &parts.uri);
    signaling.access().admit(&presented, SystemTime::now())?;
    let servers = ice.servers.current();
    if servers.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    signaling.metrics().ice_issued.inc();
    Ok(Json(servers.answer(SystemTime::now(), &OpaqueId::random())).into_response())
}

/// What a browser asks before it sends a token in a header.
fn preflight() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization")),
        (header::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Lets the page that asks read the answer. With its cookies only where the origins are listed: else any page that a
/// user happens to visit could ask in the user's name.
fn readable_by(origin: Option<&HeaderValue>, listed: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match origin {
        Some(origin) if listed => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
        Some(_) => {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        None => {}
    }
    headers
}

fn refuse(refusal: IceRefusal) -> Response {
    const TEXT: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, "text/plain")];
    let (status, why) = match refusal {
        IceRefusal::Access(refusal) => (refusal.status(), refusal.to_string()),
        IceRefusal::Rate => (StatusCode::TOO_MANY_REQUESTS, "asked too often from this address".to_owned()),
    };
    let mut response = (status, TEXT, format!("{why}\n")).into_response();
    let hint = match status {
        StatusCode::UNAUTHORIZED => (header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer")),
        StatusCode::TOO_MANY_REQUESTS => (header::RETRY_AFTER, HeaderValue::from_static("5")),
        _ => return response,
    };
    response.headers_mut().insert(hint.0, hint.1);
    response
}
