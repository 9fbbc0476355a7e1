//! STUN and TURN servers: what they are, which of them can be used here, and where to ask for them.
//!
//! [`IceSource`] asks a URL such as the signaling server's `/ice`, whose answer is
//! `{"iceServers": [{"urls": …, "username": …, "credential": …}], "ttl": seconds}`. Credentials of TURN servers expire, so
//! ask before each connection and each ICE restart: an answer is kept for half of its time.

mod fetch;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde::{Deserialize, Deserializer, Serialize};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::adapter::signaling::dial::{Address, DialError, UrlError};

/// The most servers that are taken from an answer, and the most URLs of one of them. Each URL costs a connection time.
pub const MAX_SERVERS: usize = 16;

/// The largest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 64 * 1024;

/// The longest URL, user name or credential of a server, in bytes.
pub const MAX_TEXT: usize = 512;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long an answer is kept at most, whatever it says.
const KEPT: Duration = Duration::from_secs(12 * 3600);

/// One STUN or TURN server, as in the `iceServers` of a browser.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IceServer {
    /// Its URLs, such as `stun:stun.example.org` or `turn:turn.example.org:3478?transport=udp`.
    #[serde(deserialize_with = "one_or_more")]
    pub urls: Vec<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// For TURN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

// A credential must not get into logs.
impl std::fmt::Debug for IceServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IceServer").field("urls", &self.urls).finish_non_exhaustive()
    }
}

impl IceServer {
    /// A STUN server.
    #[must_use]
    pub fn stun(url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ..Self::default() }
    }

    /// A TURN server.
    #[must_use]
    pub fn turn(url: &str, username: &str, credential: &str) -> Self {
        Self {
            urls: vec![url.to_owned()],
            username: Some(username.to_owned()),
            credential: Some(credential.to_owned()),
        }
    }
}

/// A server with one URL may have it without a list, as in browsers.
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Urls {
        One(String),
        More(Vec<String>),
    }
    Ok(match Urls::deserialize(deserializer)? {
        Urls::One(url) => vec![url],
        Urls::More(urls) => urls,
    })
}

/// A list of servers, parted into what can be used here and what can not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usable {
    /// STUN and TURN over UDP.
    pub(crate) servers: Vec<IceServer>,
    /// The URLs of everything else.
    pub(crate) unsupported: Vec<String>,
}

impl Usable {
    pub(crate) fn of(servers: &[IceServer]) -> Self {
        let mut usable = Self::default();
        for server in servers.iter().take(MAX_SERVERS) {
            let has_login = server.username.is_some() && server.credential.is_some();
            let (urls, rest): (Vec<_>, Vec<_>) =
                server.urls.iter().take(MAX_SERVERS).cloned().partition(|url| is_usable(url, has_login));
            usable.unsupported.extend(rest);
            if !urls.is_empty() {
                usable.servers.push(IceServer { urls, ..server.clone() });
            }
        }
        usable
    }
}

/// Whether the crate makes something of a URL: it passes over TLS and TCP, and ends the connection over one that it
/// can not parse.
fn is_usable(url: &str, has_login: bool) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    let (host, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_host = !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-:[]".contains(c));
    let is_url = is_host
        && url.len() <= MAX_TEXT
        && rtc::ice::url::Url::parse_url(url_without(scheme, host, query).as_str()).is_ok();
    match scheme {
        "stun" => is_url,
        "turn" => is_url && has_login && matches!(query, "" | "transport=udp"),
        _ => false,
    }
}

/// STUN takes no query, yet some lists have one.
fn url_without(scheme: &str, host: &str, query: &str) -> String {
    if scheme == "stun" || query.is_empty() {
        format!("{scheme}:{host}")
    } else {
        format!("{scheme}:{host}?{query}")
    }
}

/// Why there are no servers from a source.
#[derive(Debug, Error)]
pub enum IceError {
    /// No answer in time.
    #[error("no answer within {PATIENCE:?}")]
    Late,
    /// No connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// Another status than 200 and 204. 401 and 403 stay so until there is another token, 429 asks for patience.
    #[error("the server answered with status {0}")]
    Status(u16),
    /// An answer that is too large.
    #[error("the answer is larger than {MAX_ANSWER} bytes")]
    TooLarge,
    /// An answer that is none.
    #[error("the answer is no list of ICE servers: {0}")]
    Malformed(String),
    /// A list or a text of the answer that is too long.
    #[error("the answer has {what} of length {len}, limit is {limit}")]
    TooLong {
        /// What is.
        what: &'static str,
        /// How long.
        len: usize,
        /// And how long it may be.
        limit: usize,
    },
}

/// What a source has answered.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Answer {
    #[serde(rename = "iceServers")]
    servers: Vec<IceServer>,
    #[serde(default = "an_hour")]
    ttl: u64,
}

fn an_hour() -> u64 {
    3600
}

impl Answer {
    fn parse(body: &[u8]) -> Result<Self, IceError> {
        let answer: Self =
            serde_json::from_slice(body).map_err(|error| IceError::Malformed(error.to_string()))?;
        limit("a list of servers", answer.servers.len(), MAX_SERVERS)?;
        for server in &answer.servers {
            limit("a list of URLs", server.urls.len(), MAX_SERVERS)?;
            for text in server.urls.iter().chain(&server.username).chain(&server.credential) {
                limit("a text", text.len(), MAX_TEXT)?;
            }
        }
        Ok(answer)
    }

    fn kept(&self) -> Duration {
        (Duration::from_secs(self.ttl) / 2).min(KEPT)
    }
}

fn limit(what: &'static str, len: usize, limit: usize) -> Result<(), IceError> {
    if len > limit { Err(IceError::TooLong { what, len, limit }) } else { Ok(()) }
}

/// Where to ask for servers. Clones ask once for all.
#[derive(Clone, Debug)]
pub struct IceSource {
    address: Address,
    tls: Option<Arc<ClientConfig>>,
    last: Arc<Mutex<Option<Kept>>>,
}

/// An answer and its time.
#[derive(Debug)]
struct Kept {
    servers: Vec<IceServer>,
    fresh_until: Instant,
    valid_until: Instant,
}

impl IceSource {
    /// A source at an `http:` or `https:` URL; a token may be part of it. Trusts whom the system trusts.
    ///
    /// # Errors
    ///
    /// When it is no such URL.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        Ok(Self { address: Address::parse(url, "http", "https")?, tls: None, last: Arc::default() })
    }

    /// Trusts whom `config` trusts instead.
    #[must_use]
    pub fn with_tls(self, config: Arc<ClientConfig>) -> Self {
        Self { tls: Some(config), ..self }
    }

    /// The servers of now: those of the last answer for half of its time, and of a new one then. One that can not be had
    /// is no error as long as the last one is valid. Takes at most 5 s. None where the server has none (204).
    ///
    /// # Errors
    ///
    /// Why there is no answer.
    pub async fn servers(&self) -> Result<Vec<IceServer>, IceError> {
        // Held while asking: whoever comes meanwhile gets the same answer.
        let mut last = self.last.lock().await;
        let now = Instant::now();
        if let Some(kept) = last.as_ref().filter(|kept| now < kept.fresh_until) {
            return Ok(kept.servers.clone());
        }
        match self.ask().await {
            Ok(answer) => {
                let ttl = Duration::from_secs(answer.ttl).min(KEPT);
                let (fresh_until, valid_until) = (now + answer.kept(), now + ttl);
                *last = Some(Kept { servers: answer.servers.clone(), fresh_until, valid_until });
                Ok(answer.servers)
            }
            Err(error) => match last.as_ref().filter(|kept| now < kept.valid_until) {
                Some(kept) => Ok(kept.servers.clone()),
                None => Err(error),
            },
        }
    }

    /// Those of the last answer as long as they are valid, without asking; none otherwise.
    pub(crate) async fn kept(&self) -> Vec<IceServer> {
        let last = self.last.lock().await;
        let kept = last.as_ref().filter(|kept| Instant::now() < kept.valid_until);
        kept.map(|kept| kept.servers.clone()).unwrap_or_default()
    }

    async fn ask(&self) -> Result<Answer, IceError> {
        let body = tokio::time::timeout(PATIENCE, fetch::get(&self.address, self.tls.clone()));
        match body.await.map_err(|_| IceError::Late)?? {
            Some(body) => Answer::parse(&body),
            None => Ok(Answer { servers: Vec::new(), ttl: an_hour() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_take_is_taken() {
        let body = br#"{"iceServers":[{"urls":"stun:a"},{"urls":["turn:b","turns:b"],"username":"u","credential":"c"}]}"#;
        let answer = Answer::parse(body).unwrap();
        assert_eq!(answer.servers[0], IceServer::stun("stun:a"));
        assert_eq!(answer.servers[1].urls, ["turn:b", "turns:b"]);
        assert_eq!(answer.ttl, 3600);
        assert!(!format!("{answer:?}").contains("credential"));
    }

    #[test]
    fn an_answer_beyond_the_limits_is_refused() {
        let of = |servers: Vec<IceServer>| {
            let body = serde_json::json!({"iceServers": servers, "ttl": 60}).to_string();
            Answer::parse(body.as_bytes())
        };
        assert!(of(vec![IceServer::stun("stun:a"); MAX_SERVERS]).is_ok());
        assert!(matches!(
            of(vec![IceServer::stun("stun:a"); MAX_SERVERS + 1]),
            Err(IceError::TooLong { .. })
        ));
        assert!(matches!(
            of(vec![IceServer::stun(&"x".repeat(MAX_TEXT + 1))]),
            Err(IceError::TooLong { .. })
        ));
        assert!(matches!(Answer::parse(b"[]"), Err(IceError::Malformed(_))));
    }

    #[test]
    fn what_can_not_be_used_here_is_named() {
        let login = |url: &str| IceServer::turn(url, "u", "c");
        let urls = ["turn:h:3478?transport=udp", "turn:h", "turn:[::1]:3478", "turn:192.0.2.1"];
        for url in urls {
            assert_eq!(Usable::of(&[login(url)]).unsupported, [""; 0], "{url}");
        }
        for url in
            ["turns:h", "turn:h?transport=tcp", "stuns:h", "http://h", "", "turn:", "turn:h:x", "turn:a b"]
        {
            assert_eq!(Usable::of(&[login(url)]).unsupported, [url], "{url}");
            assert!(Usable::of(&[login(url)]).servers.is_empty());
        }
        assert_eq!(Usable::of(&[IceServer::stun("turn:h")]).unsupported, ["turn:h"]);
        assert_eq!(Usable::of(&[IceServer::stun("stun:h?transport=udp")]).servers.len(), 1);
    }

    #[test]
    fn an_answer_is_kept_for_half_of_its_time_and_not_for_ever() {
        let kept = |ttl| Answer { servers: Vec::new(), ttl }.kept();
        assert_eq!(kept(3600), Duration::from_secs(1800));
        assert_eq!(kept(0), Duration::ZERO);
        assert_eq!(kept(u64::MAX), KEPT);
    }
}
