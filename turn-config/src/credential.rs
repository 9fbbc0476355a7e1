//! TURN credentials that expire, in the form coturn calls its REST API.
//!
//! The user name is `expiry:user`, the expiry in Unix seconds; the password is the base64 HMAC-SHA1 of the user name
//! under a secret that coturn knows too (`static-auth-secret`). Nothing is stored: coturn computes the password
//! again and looks at the expiry. What is minted here is valid on every server with that secret, and cannot be
//! withdrawn before its expiry other than by taking the secret away.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The shortest secret that is accepted, in bytes. Whoever holds one credential can try secrets against it without
/// asking any server, so a short one is found.
pub const MIN_SECRET: usize = 16;
/// The longest secret that is accepted, in bytes.
pub const MAX_SECRET: usize = 256;
/// The longest user id that is accepted, in bytes.
pub const MAX_USER: usize = 64;
/// The shortest validity of a credential.
pub const MIN_TTL: Duration = Duration::from_secs(1);
/// The longest validity of a credential: a week.
pub const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);

/// Why a secret, a user id or a validity was refused. No variant carries any part of a secret.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// Nothing at all.
    #[error("secret is empty")]
    SecretEmpty,
    /// Outside [`MIN_SECRET`] and [`MAX_SECRET`].
    #[error(
        "secret is {len} bytes, it takes {MIN_SECRET} to {MAX_SECRET}; `openssl rand -hex 32` makes a good one"
    )]
    SecretLength {
        /// How long it is.
        len: usize,
    },
    /// A byte that does not survive a line of `turnserver.conf`.
    #[error("secret has a space, a quotation mark or a character that is not printable ASCII")]
    SecretCharacter,
    /// The file with the secret cannot be read.
    #[error("secret file {} cannot be read: {source}", path.display())]
    SecretFile {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Outside 1 and [`MAX_USER`] bytes.
    #[error("user id is {len} bytes, it takes 1 to {MAX_USER}")]
    UserLength {
        /// How long it is.
        len: usize,
    },
    /// Anything that is not a letter, a digit, `-`, `_` or `.`.
    #[error("user id has a character other than ASCII letters, digits, '-', '_' and '.'")]
    UserCharacter,
    /// Outside [`MIN_TTL`] and [`MAX_TTL`].
    #[error("validity is {} s, it takes {} s to {} s", ttl.as_secs_f64(), MIN_TTL.as_secs(), MAX_TTL.as_secs())]
    TtlOutOfRange {
        /// What was asked for.
        ttl: Duration,
    },
    /// No duration such as `90s`, `15m` or `1h`.
    #[error("validity {text:?} is no duration such as \"90s\", \"15m\" or \"1h\"")]
    TtlUnreadable {
        /// What was given.
        text: String,
    },
}

/// A secret shared with coturn. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct SharedSecret(String);

impl SharedSecret {
    /// A secret of [`MIN_SECRET`] to [`MAX_SECRET`] printable ASCII characters, without spaces and quotation marks:
    /// exactly what coturn reads back from its configuration file.
    pub fn new(text: &str) -> Result<Self, CredentialError> {
        if text.is_empty() {
            return Err(CredentialError::SecretEmpty);
        }
        if !(MIN_SECRET..=MAX_SECRET).contains(&text.len()) {
            return Err(CredentialError::SecretLength { len: text.len() });
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\'') {
            return Err(CredentialError::SecretCharacter);
        }
        Ok(Self(text.to_owned()))
    }

    /// The secret that is the whole of a file, line breaks and spaces around it left out.
    pub fn read(path: &Path) -> Result<Self, CredentialError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CredentialError::SecretFile { path: path.to_owned(), source })?;
        Self::new(text.trim())
    }

    /// The secret itself, for the one place that has to write it down.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedSecret(…)")
    }
}

/// Whom a credential is for: an id that says nothing about a person. It stands in the user name, and so in the logs
/// of the TURN server; that server counts its quota by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpaqueId(String);

impl OpaqueId {
    /// A fresh id of 128 random bits, 32 characters.
    pub fn random() -> Self {
        let mut bytes = [0; 16];
        rand::fill(&mut bytes).expect("the system has random bytes");
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The id as it stands in the user name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OpaqueId {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        if !(1..=MAX_USER).contains(&text.len()) {
            return Err(CredentialError::UserLength { len: text.len() });
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) {
            return Err(CredentialError::UserCharacter);
        }
        Ok(Self(text.to_owned()))
    }
}

/// How long a credential is valid, in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ttl(u64);

impl Ttl {
    /// One hour, the default.
    pub const HOUR: Ttl = Ttl(3600);

    /// A validity of [`MIN_TTL`] to [`MAX_TTL`]; fractions of a second are dropped.
    pub fn new(ttl: Duration) -> Result<Self, CredentialError> {
        if !(MIN_TTL..=MAX_TTL).contains(&ttl) {
            return Err(CredentialError::TtlOutOfRange { ttl });
        }
        Ok(Self(ttl.as_secs()))
    }

    /// The validity in seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }
}

impl FromStr for Ttl {
    type Err = CredentialError;

    fn from_str(text: &str) -> Result<Self, CredentialError> {
        let ttl = humantime::parse_duration(text)
            .map_err(|_| CredentialError::TtlUnreadable { text: text.to_owned() })?;
        Self::new(ttl)
    }
}

impl fmt::Display for Ttl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(Duration::from_secs(self.0)).fmt(f)
    }
}

/// A user name and password that a TURN server with the same secret accepts until they expire. `Debug` does not show
/// the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// `expiry:user`, the expiry in Unix seconds.
    pub username: String,
    /// The base64 HMAC-SHA1 of the user name.
    pub password: String,
    /// How long it is valid from the moment it was minted.
    pub ttl: Ttl,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("username", &self.username)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

/// Mints a credential that expires `ttl` after `now`. A clock before 1970 counts as 1970.
pub fn mint(secret: &SharedSecret, now: SystemTime, ttl: Ttl, user: &OpaqueId) -> Credential {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let username = format!("{}:{}", now.saturating_add(ttl.seconds()), user.as_str());
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.expose().as_bytes());
    let password = STANDARD.encode(hmac::sign(&key, username.as_bytes()));
    Credential { username, password, ttl }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret() -> SharedSecret {
        SharedSecret::new("north-wind-and-the-sun").unwrap()
    }

    #[test]
    fn a_credential_is_the_hmac_of_its_user_name() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let credential = mint(&secret(), now, Ttl::HOUR, &"reviewer-7".parse().unwrap());
        assert_eq!(credential.username, "1700003600:reviewer-7");
        // printf %s 1700003600:reviewer-7 | openssl dgst -sha1 -hmac north-wind-and-the-sun -binary | base64
        assert_eq!(credential.password, "xvm9giPwWxDVqLP3g66Ux7uGV5s=");
    }

    #[test]
    fn a_secret_that_coturn_would_read_differently_is_refused() {
        assert!(matches!(SharedSecret::new(""), Err(CredentialError::SecretEmpty)));
        assert!(matches!(SharedSecret::new("short"), Err(CredentialError::SecretLength { len: 5 })));
        assert!(matches!(
            SharedSecret::new(&"a".repeat(257)),
            Err(CredentialError::SecretLength { len: 257 })
        ));
        for text in ["sixteen letters and more", "\"sixteen-letters-and-more\"", "sechzehn-Zeichen-für-alle"]
        {
            assert!(matches!(SharedSecret::new(text), Err(CredentialError::SecretCharacter)), "{text}");
        }
    }

    #[test]
    fn neither_secret_nor_password_is_ever_printed() {
        let credential = mint(&secret(), SystemTime::now(), Ttl::HOUR, &OpaqueId::random());
        let shown = format!("{:?} {:?}", secret(), credential);
        assert!(!shown.contains("north-wind") && !shown.contains(&credential.password), "{shown}");
    }

    #[test]
    fn a_user_id_has_no_room_for_an_address_or_a_second_expiry() {
        for text in ["", "ana@example.org", "2000000000:ana", "ana ben", &"a".repeat(65)] {
            assert!(text.parse::<OpaqueId>().is_err(), "{text}");
        }
        let fresh = OpaqueId::random();
        assert_eq!(fresh.as_str().parse::<OpaqueId>().unwrap(), fresh);
        assert_ne!(fresh, OpaqueId::random());
    }

    #[test]
    fn a_validity_is_between_a_second_and_a_week() {
        assert_eq!("1h".parse::<Ttl>().unwrap(), Ttl::HOUR);
        assert_eq!("7days".parse::<Ttl>().unwrap().seconds(), 604_800);
        for text in ["0s", "500ms", "8days", "soon", ""] {
            assert!(text.parse::<Ttl>().is_err(), "{text}");
        }
    }
}
