//! Signed room tokens: JWTs, and the keys they are verified with.

mod keys;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::{Glob, Grant, Refusal, Role, Rooms};
use crate::config::{AccessConfig, Algorithm};

pub(super) use keys::{Keys, MIN_SECRET};

/// What a token must be besides signed.
#[derive(Debug)]
pub(super) struct Rules {
    algorithms: Vec<Algorithm>,
    audience: Option<String>,
    issuer: Option<String>,
    leeway: Duration,
}

/// What a token says. `role` is `read` unless it says `write`.
#[derive(Deserialize)]
struct Said {
    exp: Option<f64>,
    nbf: Option<f64>,
    sub: Option<String>,
    rooms: Option<OneOrMany>,
    role: Option<SaidRole>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum SaidRole {
    Read,
    Write,
}

impl Rules {
    pub(super) fn from_config(config: &AccessConfig) -> Self {
        Self {
            algorithms: config.algorithms.clone(),
            audience: config.audience.clone(),
            issuer: config.issuer.clone(),
            leeway: config.leeway.duration(),
        }
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        // The times are checked against the caller's clock, in `said_in_time`.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = self.audience.is_some();
        validation.required_spec_claims = HashSet::new();
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            validation.required_spec_claims.insert("aud".to_owned());
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            validation.required_spec_claims.insert("iss".to_owned());
        }
        validation
    }
}

impl Keys {
    /// What `token` grants, if one of these keys signed it and its time is now.
    pub(super) fn admit(&self, token: &str, rules: &Rules, now: SystemTime) -> Result<Grant, Refusal> {
        let said = self.verified(token, rules)?;
        let expires = said.expires(rules, now)?;
        let rooms = said.rooms.map(OneOrMany::into_globs).unwrap_or_default();
        if rooms.is_empty() {
            return Err(Refusal::NoRooms);
        }
        Ok(Grant {
            subject: said.sub.map(String::into_boxed_str),
            role: if matches!(said.role, Some(SaidRole::Write)) { Role::Write } else { Role::Read },
            rooms: Rooms::Matching(rooms),
            expires: Some(expires),
        })
    }

    fn verified(&self, token: &str, rules: &Rules) -> Result<Said, Refusal> {
        let header = decode_header(token).map_err(|_| Refusal::MalformedToken)?;
        // What `crit` lists must be understood (RFC 7515), and we know no extension.
        if header.crit.is_some() {
            return Err(Refusal::MalformedToken);
        }
        let validation = rules.validation(header.alg);
        let mut refusal = Refusal::UnknownKey;
        for key in self.for_token(header.kid.as_deref(), header.alg, &rules.algorithms) {
            match decode::<Said>(token, key, &validation) {
                Ok(data) => return Ok(data.claims),
                Err(error) => refusal = refused_because(error.kind()),
            }
            // Another key can mend a signature, nothing else.
            if refusal != Refusal::BadSignature {
                break;
            }
        }
        Err(refusal)
    }
}

fn refused_because(error: &ErrorKind) -> Refusal {
    match error {
        ErrorKind::InvalidSignature => Refusal::BadSignature,
        ErrorKind::InvalidAudience => Refusal::WrongAudience,
        ErrorKind::InvalidIssuer => Refusal::WrongIssuer,
        ErrorKind::MissingRequiredClaim(claim) if claim == "aud" => Refusal::WrongAudience,
        ErrorKind::MissingRequiredClaim(claim) if claim == "iss" => Refusal::WrongIssuer,
        _ => Refusal::MalformedToken,
    }
}

impl Said {
    /// When the token ends, leeway included, if it has begun and not ended.
    fn expires(&self, rules: &Rules, now: SystemTime) -> Result<SystemTime, Refusal> {
        let ends = moment(self.exp.ok_or(Refusal::MissingExpiry)?)?;
        let ends = ends.checked_add(rules.leeway).ok_or(Refusal::MalformedToken)?;
        if now >= ends {
            return Err(Refusal::Expired);
        }
        let begins = self.nbf.map(moment).transpose()?;
        if begins.is_some_and(|begins| now.checked_add(rules.leeway).is_some_and(|now| now < begins)) {
            return Err(Refusal::NotYetValid);
        }
        Ok(ends)
    }
}

/// A point in time, from a number that may be anything.
fn moment(seconds: f64) -> Result<SystemTime, Refusal> {
    let since = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(|_| Refusal::MalformedToken)?;
    SystemTime::UNIX_EPOCH.checked_add(since).ok_or(Refusal::MalformedToken)
}

impl OneOrMany {
    fn into_globs(self) -> Arc<[Glob]> {
        match self {
            Self::One(room) => Arc::new([Glob::new(&room)]),
            Self::Many(rooms) => rooms.iter().map(|room| Glob::new(room)).collect(),
        }
    }
}
