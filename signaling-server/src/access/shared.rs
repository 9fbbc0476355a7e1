//! Shared tokens: whoever has one may do everything.

use std::fmt;

use subtle::{Choice, ConstantTimeEq};

use super::{Grant, Refusal};
use crate::config::Secret;
use crate::watched::{Content, FileError};

pub(super) struct SharedTokens(Vec<Secret>);

impl SharedTokens {
    /// The `fixed` tokens and those of `file`: one a line, blank lines and lines that begin with `#` left out.
    pub(super) fn new(fixed: &[Secret], file: Option<&Content<'_>>) -> Result<Self, FileError> {
        let mut tokens = fixed.to_vec();
        if let Some(file) = file {
            let lines = file.text()?.lines().map(str::trim);
            tokens.extend(lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(Secret::new));
            if tokens.is_empty() {
                return Err(file.error("expected one token a line, found none"));
            }
        }
        Ok(Self(tokens))
    }

    pub(super) fn admit(&self, token: &str) -> Result<Grant, Refusal> {
        // Every token is compared to its end, so that the time taken tells nothing of any.
        let found = self
            .0
            .iter()
            .fold(Choice::from(0), |found, known| found | known.reveal().as_bytes().ct_eq(token.as_bytes()));
        if found.into() { Ok(Grant::everything()) } else { Err(Refusal::WrongToken) }
    }
}

impl fmt::Debug for SharedTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedTokens({})", self.0.len())
    }
}
