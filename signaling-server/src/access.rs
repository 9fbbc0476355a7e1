//! Who may come in, and into which rooms.
//!
//! A request presents at most one token: that of `?token=` if there is one (all an unmodified y-webrtc client can
//! send), else of `Authorization: Bearer`, else of the cookie; the others are not looked at. [`Access::admit`] answers
//! before the upgrade with a [`Grant`] or a [`Refusal`]; the grant then says topic by topic what is allowed.
//!
//! The text of a token appears in no `Debug` output, no error and no log line.

mod glob;
mod presented;
mod shared;
mod sign;
mod signed;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, Uri};
use thiserror::Error;

use crate::config::{AccessConfig, AccessMode};
use crate::watched::{Change, FileError, Watched};

pub(crate) use glob::Glob;
use shared::SharedTokens;
use signed::{Keys, Rules};

pub use presented::Presented;
pub use sign::{Claims, SigningKey};

/// Decides who may come in. Cheap to share; a decision never waits for a file.
#[derive(Debug)]
pub struct Access {
    policy: Policy,
    origins: Vec<Glob>,
    cookie: String,
    reload_interval: Duration,
}

#[derive(Debug)]
enum Policy {
    Open,
    Tokens(Arc<Watched<SharedTokens>>),
    Signed { keys: Arc<Watched<Keys>>, rules: Rules },
}

/// Why no [`Access`] could be made of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AccessError {
    /// A file of tokens or keys is no good.
    #[error("{key}: {error}")]
    File {
        /// The configuration's key that names the file.
        key: &'static str,
        /// What is wrong with it.
        error: FileError,
    },
    /// A mode lacks what it needs.
    #[error("{key}: {problem}")]
    Setting {
        /// The configuration's key to set.
        key: &'static str,
        /// What was expected.
        problem: &'static str,
    },
}

impl Access {
    /// Reads the tokens and keys that `config` names.
    ///
    /// # Errors
    ///
    /// When a file can not be read or used, or when the mode has nothing to check tokens with.
    pub fn from_config(config: &AccessConfig) -> Result<Self, AccessError> {
        let policy = match config.mode {
            AccessMode::Open => Policy::Open,
            AccessMode::Tokens => Policy::Tokens(shared_tokens(config)?),
            AccessMode::Signed => {
                Policy::Signed { keys: signing_keys(config)?, rules: Rules::from_config(config) }
            }
        };
        Ok(Self {
            policy,
            origins: config.origins.iter().map(|origin| Glob::new(&origin.to_ascii_lowercase())).collect(),
            cookie: config.cookie.clone(),
            reload_interval: config.reload_interval.duration(),
        })
    }

    /// Whether everybody may come in, whatever they present.
    pub fn is_open(&self) -> bool {
        matches!(self.policy, Policy::Open)
    }

    /// What a request presents: its token, wherever that is, and its origin.
    pub fn presented(&self, headers: &HeaderMap, uri: &Uri) -> Presented {
        Presented::from_request(headers, uri, &self.cookie)
    }

    /// Whether whoever presents this may come in, and into which rooms.
    ///
    /// # Errors
    ///
    /// The refusal, to be answered with [`Refusal::status`] instead of the upgrade.
    pub fn admit(&self, presented: &Presented, now: SystemTime) -> Result<Grant, Refusal> {
        self.check_origin(presented)?;
        match &self.policy {
            Policy::Open => Ok(Grant::everything()),
            Policy::Tokens(tokens) => tokens.current().admit(presented.token()?),
            Policy::Signed { keys, rules } => keys.current().admit(presented.token()?, rules, now),
        }
    }

    /// Whether only pages of listed origins may come in.
    pub(crate) fn restricts_origins(&self) -> bool {
        !self.origins.is_empty()
    }

    // Without an origin it is no browser page, and anything but a browser can claim any origin it likes.
    pub(crate) fn check_origin(&self, presented: &Presented) -> Result<(), Refusal> {
        match &presented.origin {
            Some(origin) if !self.origins.is_empty() => {
                let origin = origin.to_ascii_lowercase();
                let listed = self.origins.iter().any(|allowed| allowed.matches(origin.as_bytes()));
                listed.then_some(()).ok_or(Refusal::OriginNotAllowed)
            }
            _ => Ok(()),
        }
    }

    /// Re-reads token and key files when they change, for ever; a bad new file is refused, logged, and the old one
    /// stays in force. Each change is told to `report`. The future never ends: run it in a task that the server owns.
    pub async fn watch(self: Arc<Self>, report: impl Fn(&Change)) {
        match &self.policy {
            Policy::Open => std::future::pending().await,
            Policy::Tokens(tokens) => Arc::clone(tokens).watch(self.reload_interval, report).await,
            Policy::Signed { keys, .. } => Arc::clone(keys).watch(self.reload_interval, report).await,
        }
    }

    /// Looks at the files now, as [`watch`](Self::watch) does each interval.
    pub async fn reload(&self, report: impl Fn(&Change)) {
        match &self.policy {
            Policy::Open => {}
            Policy::Tokens(tokens) => tokens.look_now(&report).await,
            Policy::Signed { keys, .. } => keys.look_now(&report).await,
        }
    }
}

fn shared_tokens(config: &AccessConfig) -> Result<Arc<Watched<SharedTokens>>, AccessError> {
    const NOTHING: AccessError = AccessError::Setting {
        key: "access.mode",
        problem: "\"tokens\" expects at least one token in access.tokens or access.tokens_file",
    };
    if config.tokens.is_empty() && config.tokens_file.is_none() {
        return Err(NOTHING);
    }
    let fixed = config.tokens.clone();
    if fixed.iter().any(|token| token.reveal().is_empty()) {
        return Err(AccessError::Setting {
            key: "access.tokens",
            problem: "expected tokens, found an empty string",
        });
    }
    let files: Vec<PathBuf> = config.tokens_file.iter().cloned().collect();
    Watched::load(files, move |contents| SharedTokens::new(&fixed, contents.first()))
        .map_err(|error| AccessError::File { key: "access.tokens_file", error })
}

fn signing_keys(config: &AccessConfig) -> Result<Arc<Watched<Keys>>, AccessError> {
    let files: Vec<PathBuf> = config.keys_file.iter().chain(&config.jwks_file).cloned().collect();
    if files.is_empty() {
        return Err(AccessError::Setting {
            key: "access.mode",
            problem: "\"signed\" expects a file in access.keys_file or access.jwks_file",
        });
    }
    if config.algorithms.is_empty() {
        return Err(AccessError::Setting {
            key: "access.algorithms",
            problem: "expected at least one algorithm",
        });
    }
    let jwks = config.jwks_file.clone();
    let jwks_file = jwks.clone();
    Watched::load(files, move |contents| Keys::read(contents, jwks_file.as_deref())).map_err(|error| {
        let key = if Some(&error.path) == jwks.as_ref() { "access.jwks_file" } else { "access.keys_file" };
        AccessError::File { key, error }
    })
}

/// What somebody may do, until `expires`.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    subject: Option<Box<str>>,
    role: Role,
    rooms: Rooms,
    expires: Option<SystemTime>,
}

/// What somebody may do in a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Subscribe, and so receive.
    Read,
    /// Subscribe and publish.
    Write,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Rooms {
    All,
    Matching(Arc<[Glob]>),
}

impl Grant {
    /// Everything, in every room, for ever.
    pub fn everything() -> Self {
        Self { subject: None, role: Role::Write, rooms: Rooms::All, expires: None }
    }

    /// Whether this topic may be subscribed to.
    pub fn may_subscribe(&self, topic: &[u8]) -> bool {
        self.opens(topic)
    }

    /// Whether this topic may be published to.
    pub fn may_publish(&self, topic: &[u8]) -> bool {
        self.role == Role::Write && self.opens(topic)
    }

    /// Whom the token was made out to, if it says so. A stranger's text: never a label, never logged above debug.
    pub fn subject(&self) -> Option<&str> {
        self.subject.as_deref()
    }

    /// What may be done in the rooms that are open.
    pub fn role(&self) -> Role {
        self.role
    }

    /// When the grant ends, leeway included; `None`: never.
    pub fn expires(&self) -> Option<SystemTime> {
        self.expires
    }

    fn opens(&self, topic: &[u8]) -> bool {
        match &self.rooms {
            Rooms::All => true,
            Rooms::Matching(globs) => globs.iter().any(|glob| glob.matches(topic)),
        }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Rooms and subject are a stranger's text.
        f.debug_struct("Grant")
            .field("role", &self.role)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

/// Why somebody may not come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Refusal {
    /// No token came with the request.
    #[error("a token is required: send it as ?token=, as Authorization: Bearer, or in the cookie")]
    MissingToken,
    /// The token is none of the shared ones.
    #[error("the token is not valid")]
    WrongToken,
    /// The token is no JWT, or its claims are not what they should be.
    #[error("the token is malformed")]
    MalformedToken,
    /// The token's algorithm or key id is none of ours.
    #[error("the token is signed with an unknown key")]
    UnknownKey,
    /// The signature does not match.
    #[error("the token's signature is not valid")]
    BadSignature,
    /// The token has no `exp`.
    #[error("the token has no expiry (exp)")]
    MissingExpiry,
    /// The token's time is over.
    #[error("the token has expired")]
    Expired,
    /// The token's time has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token is for somebody else (`aud`).
    #[error("the token is for another audience")]
    WrongAudience,
    /// The token is from somebody else (`iss`).
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// The token opens no room.
    #[error("the token names no rooms")]
    NoRooms,
    /// The page's origin is not on the list.
    #[error("this origin is not allowed")]
    OriginNotAllowed,
}

impl Refusal {
    /// Every refusal there is, for metrics.
    pub const ALL: [Self; 12] = [
        Self::MissingToken,
        Self::WrongToken,
        Self::MalformedToken,
        Self::UnknownKey,
        Self::BadSignature,
        Self::MissingExpiry,
        Self::Expired,
        Self::NotYetValid,
        Self::WrongAudience,
        Self::WrongIssuer,
        Self::NoRooms,
        Self::OriginNotAllowed,
    ];

    /// 401 when another token may help, 403 when this one is sound and not enough.
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoRooms | Self::OriginNotAllowed => StatusCode::FORBIDDEN,
            _ => StatusCode::UNAUTHORIZED,
        }
    }

    /// The word for it in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::MissingToken => "missing_token",
            Self::WrongToken => "wrong_token",
            Self::MalformedToken => "malformed_token",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::MissingExpiry => "missing_expiry",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongAudience => "wrong_audience",
            Self::WrongIssuer => "wrong_issuer",
            Self::NoRooms => "no_rooms",
            Self::OriginNotAllowed => "origin_not_allowed",
        }
    }
}
