//! The keys tokens are verified with. A key knows its one algorithm from what kind of key it is, never from a token:
//! a public key can not be passed off as an HS256 secret.

use std::fmt;
use std::path::Path;

use jsonwebtoken::DecodingKey;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use pem::Pem;
use serde::Deserialize;

use crate::config::Algorithm;
use crate::watched::{Content, FileError};

/// The shortest HS256 secret: as long as the hash (RFC 7518, section 3.2).
pub(in crate::access) const MIN_SECRET: usize = 32;

/// The bytes of an uncompressed point on P-256.
const P256_POINT: usize = 65;

/// Every key in force.
pub(in crate::access) struct Keys(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    verifies: DecodingKey,
}

impl Keys {
    /// The keys of all files; the one at `jwks` is a JWK set, the others are PEM or a secret.
    pub(in crate::access) fn read(files: &[Content<'_>], jwks: Option<&Path>) -> Result<Self, FileError> {
        let mut keys = Vec::new();
        for file in files {
            keys.extend(if Some(file.path) == jwks { key_set(file)? } else { key_file(file)? });
        }
        Ok(Self(keys))
    }

    /// The keys that may have signed a token with this header. With a `kid` that some key has, only that key; keys that
    /// have none, such as those of `keys_file`, can be meant by any `kid`.
    pub(super) fn for_token<'a>(
        &'a self,
        kid: Option<&'a str>,
        algorithm: jsonwebtoken::Algorithm,
        allowed: &'a [Algorithm],
    ) -> impl Iterator<Item = &'a DecodingKey> {
        let of_kind = move |key: &&Key| algorithm == key.algorithm.into() && allowed.contains(&key.algorithm);
        let named = kid.is_some_and(|kid| self.0.iter().any(|key| key.id.as_deref() == Some(kid)));
        let meant = move |key: &&Key| match (kid, &key.id) {
            (Some(kid), Some(id)) => kid == id,
            (Some(_), None) => !named,
            (None, _) => true,
        };
        self.0.iter().filter(of_kind).filter(meant).map(|key| &key.verifies)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (key.algorithm, &key.id))).finish()
    }
}

impl From<Algorithm> for jsonwebtoken::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::HS256 => Self::HS256,
            Algorithm::EdDSA => Self::EdDSA,
            Algorithm::ES256 => Self::ES256,
            Algorithm::RS256 => Self::RS256,
        }
    }
}

fn key_file(file: &Content<'_>) -> Result<Vec<Key>, FileError> {
    if contains(file.bytes, b"-----BEGIN") {
        let blocks =
            pem::parse_many(file.bytes).map_err(|error| file.error(format!("expected PEM: {error}")))?;
        if blocks.is_empty() {
            return Err(file.error("expected PEM, found a block that does not end"));
        }
        return blocks.iter().map(|block| public_key(file, block)).collect();
    }
    let secret = file.bytes.trim_ascii();
    if secret.len() < MIN_SECRET {
        let found = secret.len();
        return Err(file.error(format!(
            "expected a PEM public key or a secret of at least {MIN_SECRET} bytes, found {found} bytes"
        )));
    }
    Ok(vec![Key { id: None, algorithm: Algorithm::HS256, verifies: DecodingKey::from_secret(secret) }])
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn public_key(file: &Content<'_>, block: &Pem) -> Result<Key, FileError> {
    const EXPECTED: &str = "expected a public key (Ed25519, P-256 or RSA)";
    let tag = block.tag();
    if !tag.ends_with("PUBLIC KEY") {
        return Err(file.error(format!("{EXPECTED}, found a PEM block \"{tag}\"")));
    }
    let text = pem::encode(block);
    let text = text.as_bytes();
    let key = |algorithm, verifies| Ok(Key { id: None, algorithm, verifies });
    if tag == "RSA PUBLIC KEY" {
        let rsa = DecodingKey::from_rsa_pem(text).map_err(|_| file.error(EXPECTED))?;
        return key(Algorithm::RS256, rsa);
    }
    if let Ok(ed25519) = DecodingKey::from_ed_pem(text) {
        return key(Algorithm::EdDSA, ed25519);
    }
    if let Ok(ec) = DecodingKey::from_ec_pem(text) {
        return match ec.try_get_as_bytes() {
            Ok(point) if point.len() == P256_POINT => key(Algorithm::ES256, ec),
            _ => Err(file.error(format!("{EXPECTED}, found an elliptic-curve key that is not P-256"))),
        };
    }
    match DecodingKey::from_rsa_pem(text) {
        Ok(rsa) => key(Algorithm::RS256, rsa),
        Err(_) => Err(file.error(format!("{EXPECTED}, found another kind of key"))),
    }
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<serde_json::Value>,
}

/// The usable keys of a JWK set. Sets are shared between programs: keys for something else are passed over.
fn key_set(file: &Content<'_>) -> Result<Vec<Key>, FileError> {
    let set: KeySet = serde_json::from_slice(file.bytes).map_err(|error| {
        // Only where: the text of the error may quote the file, and the file may hold a secret.
        file.error(format!(
            "expected a JWK set, {{\"keys\": [...]}}; line {} column {} is not",
            error.line(),
            error.column()
        ))
    })?;
    let keys: Vec<Key> = set.keys.into_iter().filter_map(usable).collect();
    if keys.is_empty() {
        return Err(file.error("expected at least one key for HS256, EdDSA, ES256 or RS256, found none"));
    }
    Ok(keys)
}

fn usable(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => Algorithm::HS256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::EdDSA,
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => Algorithm::ES256,
        AlgorithmParameters::RSA(_) => Algorithm::RS256,
        _ => return None,
    };
    let stated = jwk.common.key_algorithm;
    if stated.is_some_and(|stated| stated != KeyAlgorithm::from(jsonwebtoken::Algorithm::from(algorithm))) {
        return None;
    }
    let verifies = DecodingKey::from_jwk(&jwk).ok()?;
    let too_short = algorithm == Algorithm::HS256 && verifies.try_get_as_bytes().ok()?.len() < MIN_SECRET;
    (!too_short).then_some(Key { id: jwk.common.key_id, algorithm, verifies })
}
