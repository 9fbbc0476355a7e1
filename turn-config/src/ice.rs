//! The ICE servers a service hands out: STUN as they are, TURN each with a credential of its own.
//!
//! [`IceConfig`] is what an operator writes, [`IceServers`] what is left when it has been checked and its secrets
//! have been read, [`IceAnswer`] what goes to a browser: its JSON is ready for `new RTCPeerConnection`.

use std::path::PathBuf;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::credential::{self, CredentialError, OpaqueId, SharedSecret, Ttl};
use crate::url::{StunUrl, TurnUrl, UrlError};

/// The most STUN servers, and the most TURN servers, and the most URLs of one TURN server. Each URL costs a browser a
/// socket and time.
pub const MAX_SERVERS: usize = 16;

/// Which ICE servers clients are told of, as it stands in a configuration file. Nothing by default.
///
/// Not checked yet: [`IceConfig::load`] does that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IceConfig {
    /// STUN URLs, such as `stun:stun.example.org:3478`. Default none.
    pub stun: Vec<String>,
    /// TURN servers. Default none.
    pub turn: Vec<TurnServerConfig>,
    /// How long a credential is valid, such as `1h`; a second to a week. Default (empty) one hour.
    pub ttl: String,
}

/// One TURN server (one secret), under all its URLs.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnServerConfig {
    /// TURN URLs, such as `turn:turn.example.org:3478?transport=udp` and `turns:turn.example.org:443`.
    pub urls: Vec<String>,
    /// A file with the secret this server shares with coturn. Either this or `secret`.
    pub secret_file: Option<PathBuf>,
    /// The secret itself. Either this or `secret_file`.
    pub secret: Option<String>,
}

/// Why the ICE servers of a configuration were refused.
#[derive(Debug, thiserror::Error)]
pub enum IceError {
    /// More than [`MAX_SERVERS`].
    #[error("{what} has {len} entries, limit is {MAX_SERVERS}")]
    TooMany {
        /// Which list.
        what: &'static str,
        /// How long it is.
        len: usize,
    },
    /// A TURN server without a URL.
    #[error("turn server {index} has no urls")]
    NoUrls {
        /// Which one, from 1.
        index: usize,
    },
    /// A TURN server with neither `secret_file` nor `secret`, or with both.
    #[error("turn server {index} takes either secret_file or secret, and one of them")]
    SecretSource {
        /// Which one, from 1.
        index: usize,
    },
    /// A secret that is refused.
    #[error("turn server {index}: {source}")]
    Secret {
        /// Which server, from 1.
        index: usize,
        /// Why.
        source: CredentialError,
    },
    /// A URL that is refused.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// A validity that is refused.
    #[error("ttl: {0}")]
    Ttl(CredentialError),
}

/// Checked ICE servers, secrets in hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IceServers {
    stun: Vec<StunUrl>,
    turn: Vec<TurnServer>,
    ttl: Ttl,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TurnServer {
    urls: Vec<TurnUrl>,
    secret: SharedSecret,
}

/// What a client is told. Its JSON is `{"iceServers": […], "ttl": seconds}`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceAnswer {
    /// For the `iceServers` of `new RTCPeerConnection`.
    #[serde(rename = "iceServers")]
    pub ice_servers: Vec<IceServer>,
    /// After how many seconds the credentials are refused. A client asks again at half of it.
    pub ttl: u64,
}

/// One entry of `iceServers`. Servers without a user name are STUN servers.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct IceServer {
    /// Every URL of this server.
    pub urls: Vec<String>,
    /// The user name, for TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password, for TURN.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl IceConfig {
    /// Whether there is nothing to tell a client.
    pub fn is_empty(&self) -> bool {
        self.stun.is_empty() && self.turn.is_empty()
    }

    /// Checks every value and reads the secret files. Called again, it sees new secrets; credentials are always
    /// minted with what the file holds at that time, while coturn goes on accepting the secret before it for as long
    /// as its own description has both.
    pub fn load(&self) -> Result<IceServers, IceError> {
        limit("ice.stun", self.stun.len())?;
        limit("ice.turn", self.turn.len())?;
        let stun = self.stun.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        let turn =
            (1..).zip(&self.turn).map(|(index, server)| server.load(index)).collect::<Result<_, _>>()?;
        let ttl = if self.ttl.is_empty() { Ttl::HOUR } else { self.ttl.parse().map_err(IceError::Ttl)? };
        Ok(IceServers { stun, turn, ttl })
    }
}

impl TurnServerConfig {
    fn load(&self, index: usize) -> Result<TurnServer, IceError> {
        limit("urls of a turn server", self.urls.len())?;
        if self.urls.is_empty() {
            return Err(IceError::NoUrls { index });
        }
        let urls = self.urls.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        let secret = match (&self.secret_file, &self.secret) {
            (Some(path), None) => SharedSecret::read(path),
            (None, Some(text)) => SharedSecret::new(text),
            _ => return Err(IceError::SecretSource { index }),
        };
        Ok(TurnServer { urls, secret: secret.map_err(|source| IceError::Secret { index, source })? })
    }
}

// By hand, because a secret may stand in it.
impl std::fmt::Debug for TurnServerConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TurnServerConfig")
            .field("urls", &self.urls)
            .field("secret_file", &self.secret_file)
            .field("secret", &self.secret.as_ref().map(|_| "…"))
            .finish()
    }
}

impl IceServers {
    /// Whether there is nothing to tell a client.
    pub fn is_empty(&self) -> bool {
        self.stun.is_empty() && self.turn.is_empty()
    }

    /// What a client is told at `now`: the STUN servers without credentials, then each TURN server with a credential
    /// for `user` minted with its own secret. All of them expire at the same moment.
    pub fn answer(&self, now: SystemTime, user: &OpaqueId) -> IceAnswer {
        let stun = (!self.stun.is_empty()).then(|| IceServer {
            urls: self.stun.iter().map(ToString::to_string).collect(),
            username: None,
            credential: None,
        });
        let turn = self.turn.iter().map(|server| {
            let minted = credential::mint(&server.secret, now, self.ttl, user);
            IceServer {
                urls: server.urls.iter().map(ToString::to_string).collect(),
                username: Some(minted.username),
                credential: Some(minted.password),
            }
        });
        IceAnswer { ice_servers: stun.into_iter().chain(turn).collect(), ttl: self.ttl.seconds() }
    }
}

fn limit(what: &'static str, len: usize) -> Result<(), IceError> {
    if len > MAX_SERVERS { Err(IceError::TooMany { what, len }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn server(urls: &[&str], secret: &str) -> TurnServerConfig {
        TurnServerConfig {
            urls: urls.iter().map(ToString::to_string).collect(),
            secret: Some(secret.to_owned()),
            secret_file: None,
        }
    }

    fn config() -> IceConfig {
        IceConfig {
            stun: vec!["stun:stun.example.org:3478".to_owned()],
            turn: vec![
                server(&["turn:one.example.org", "turns:one.example.org:443"], "the-secret-of-one"),
                server(&["turn:two.example.org?transport=tcp"], "the-secret-of-two"),
            ],
            ttl: "30m".to_owned(),
        }
    }

    #[test]
    fn the_answer_is_ready_for_a_browser() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let answer = config().load().unwrap().answer(now, &"u1".parse().unwrap());
        let json = serde_json::to_value(&answer).unwrap();
        let mint = |secret: &str| {
            credential::mint(
                &SharedSecret::new(secret).unwrap(),
                now,
                "30m".parse().unwrap(),
                &"u1".parse().unwrap(),
            )
        };
        assert_eq!(
            json,
            serde_json::json!({
                "iceServers": [
                    { "urls": ["stun:stun.example.org:3478"] },
                    { "urls": ["turn:one.example.org", "turns:one.example.org:443"],
                      "username": "1700001800:u1", "credential": mint("the-secret-of-one").password },
                    { "urls": ["turn:two.example.org?transport=tcp"],
                      "username": "1700001800:u1", "credential": mint("the-secret-of-two").password },
                ],
                "ttl": 1800,
            })
        );
        assert_ne!(mint("the-secret-of-one").password, mint("the-secret-of-two").password);
    }

    #[test]
    fn nothing_configured_is_nothing_to_tell() {
        assert!(IceConfig::default().is_empty());
        let servers = IceConfig::default().load().unwrap();
        assert!(servers.is_empty());
        assert!(!config().load().unwrap().is_empty());
    }

    #[test]
    fn a_server_without_its_secret_or_url_is_refused() {
        let refused = |change: fn(&mut IceConfig)| {
            let mut config = config();
            change(&mut config);
            config.load().unwrap_err().to_string()
        };
        assert_eq!(
            refused(|config| config.turn[1].secret = None),
            "turn server 2 takes either secret_file or secret, and one of them"
        );
        assert_eq!(
            refused(|config| config.turn[0].secret_file = Some("/etc/turn-secret".into())),
            "turn server 1 takes either secret_file or secret, and one of them"
        );
        assert_eq!(
            refused(|config| config.turn[1].secret = Some(String::new())),
            "turn server 2: secret is empty"
        );
        assert_eq!(refused(|config| config.turn[0].urls.clear()), "turn server 1 has no urls");
        assert!(refused(|config| config.stun.push("turn:x".into())).contains("does not begin with stun:"));
        assert!(refused(|config| config.ttl = "soon".into()).starts_with("ttl: validity \"soon\""));
        assert!(refused(|config| config.stun = vec!["stun:x".into(); 17]).contains("limit is 16"));
    }

    #[test]
    fn a_secret_that_changes_on_disk_is_seen_at_the_next_load() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let config = IceConfig {
            turn: vec![TurnServerConfig {
                urls: vec!["turn:host".into()],
                secret_file: Some(file.path().to_owned()),
                secret: None,
            }],
            ..IceConfig::default()
        };
        std::fs::write(file.path(), "the-first-of-secrets\n").unwrap();
        let first = config.load().unwrap();
        std::fs::write(file.path(), "the-second-of-secrets\n").unwrap();
        assert_ne!(config.load().unwrap(), first);
        std::fs::write(file.path(), "\n").unwrap();
        assert!(matches!(
            config.load(),
            Err(IceError::Secret { index: 1, source: CredentialError::SecretEmpty })
        ));
    }

    #[test]
    fn no_secret_is_printed_with_a_configuration() {
        let config = config();
        assert!(!format!("{config:?} {:?}", config.load().unwrap()).contains("the-secret-of"));
    }
}
