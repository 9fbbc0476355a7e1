//! Making signed room tokens, for the `token` command and for tests.

use std::path::Path;

use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use super::signed::MIN_SECRET;
use crate::config::Algorithm;
use crate::watched::{self, FileError};

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Claims {
    /// When it ends, in seconds since 1970.
    pub exp: u64,
    /// The rooms it opens: exact names or patterns with `*` and `?`.
    pub rooms: Vec<String>,
    /// `read` or `write`.
    pub role: &'static str,
    /// Whom it is made out to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
    /// The server it is for, when that asks for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// Who made it, when the server asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

/// A key that signs tokens.
#[derive(Debug)]
pub struct SigningKey {
    algorithm: Algorithm,
    signs: EncodingKey,
}

impl SigningKey {
    /// Reads an HS256 secret, or a PEM file with an unencrypted PKCS #8 private key (Ed25519, P-256 or RSA; for RSA
    /// also PKCS #1).
    ///
    /// # Errors
    ///
    /// When the file can not be read, or holds something else.
    pub fn from_file(path: &Path) -> Result<Self, FileError> {
        let bytes = watched::read(path)?;
        let key = if bytes.starts_with(b"-----BEGIN") { private_key(&bytes) } else { secret(&bytes) };
        key.map_err(|problem| FileError::new(path, problem))
    }

    /// Signs a token.
    ///
    /// # Errors
    ///
    /// When the key turns out to be none its algorithm can use, such as P-384 or an RSA key that is too short.
    pub fn sign(&self, claims: &Claims) -> Result<String, jsonwebtoken::errors::Error> {
        encode(&Header::new(self.algorithm.into()), claims, &self.signs)
    }
}

fn secret(bytes: &[u8]) -> Result<SigningKey, String> {
    let secret = bytes.trim_ascii();
    if secret.len() < MIN_SECRET {
        return Err(format!("expected a secret of at least {MIN_SECRET} bytes, found {}", secret.len()));
    }
    Ok(SigningKey { algorithm: Algorithm::HS256, signs: EncodingKey::from_secret(secret) })
}

fn private_key(bytes: &[u8]) -> Result<SigningKey, String> {
    const EXPECTED: &str = "expected a private key to sign with (Ed25519, P-256 or RSA, unencrypted)";
    let block = pem::parse(bytes).map_err(|_| format!("{EXPECTED}, found damaged PEM"))?;
    if !matches!(block.tag(), "PRIVATE KEY" | "RSA PRIVATE KEY") {
        return Err(format!("{EXPECTED}, found a PEM block \"{}\"", block.tag()));
    }
    let key = |algorithm, signs| Ok(SigningKey { algorithm, signs });
    if let Ok(ed25519) = EncodingKey::from_ed_pem(bytes) {
        return key(Algorithm::EdDSA, ed25519);
    }
    if let Ok(ec) = EncodingKey::from_ec_pem(bytes) {
        return key(Algorithm::ES256, ec);
    }
    match EncodingKey::from_rsa_pem(bytes) {
        Ok(rsa) => key(Algorithm::RS256, rsa),
        Err(_) => Err(format!("{EXPECTED}, found another kind of key")),
    }
}
