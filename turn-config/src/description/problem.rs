//! What can be wrong with a description, and on which line.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::credential::CredentialError;

/// Everything wrong with a description, in the order of its lines; at least one problem.
#[derive(Debug, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

/// One thing wrong with a description.
#[derive(Debug)]
pub struct Problem {
    /// The line, from 1.
    pub line: usize,
    /// What was refused, and why.
    pub refusal: Refusal,
}

/// What was refused, and why.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// No TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key that means nothing here.
    #[error("unknown key {key:?} in {section}{}", nearest.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default())]
    UnknownKey {
        /// The key.
        key: String,
        /// Where it stands.
        section: String,
        /// The known key most like it, if one is.
        nearest: Option<&'static str>,
    },
    /// A key that has no default.
    #[error("{section} needs {key:?}")]
    Missing {
        /// The key.
        key: &'static str,
        /// Where it should stand.
        section: String,
    },
    /// A value of another type.
    #[error("{key} takes {expected}, and this is of type {found}")]
    WrongType {
        /// The key.
        key: String,
        /// What is there.
        found: &'static str,
        /// What should be.
        expected: &'static str,
    },
    /// A number outside its limits.
    #[error("{key} is {value}, it takes {min} to {max}")]
    OutOfRange {
        /// The key.
        key: String,
        /// What is there.
        value: String,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A text that is no address, network, name or path.
    #[error("{key} is {value:?}, it takes {expected}")]
    Unreadable {
        /// The key.
        key: String,
        /// What is there.
        value: String,
        /// What should be.
        expected: &'static str,
    },
    /// A port range that ends before it begins.
    #[error("last_port {last} is before first_port {first}")]
    PortsReversed {
        /// The first.
        first: u16,
        /// The last.
        last: u16,
    },
    /// A listening port that relayed sessions could take.
    #[error("{key} {port} lies in the relay ports {first} to {last}")]
    PortOverlap {
        /// Which port.
        key: &'static str,
        /// Its number.
        port: u16,
        /// The first relay port.
        first: u16,
        /// The last relay port.
        last: u16,
    },
    /// One port for two things.
    #[error("tls_port and port are both {0}")]
    PortTwice(u16),
    /// Two ranges of one list that have addresses in common.
    #[error("{list} has {second}, which overlaps {first}")]
    RangesOverlap {
        /// Which list.
        list: &'static str,
        /// The range before.
        first: IpNet,
        /// The range on this line.
        second: IpNet,
    },
    /// A range to deny that coturn would relay to all the same.
    #[error("peers.deny has {denied}, but peers.allow has {allowed}, and what is allowed always wins")]
    DenyInsideAllow {
        /// The range to deny.
        denied: IpNet,
        /// The range that contains it.
        allowed: IpNet,
    },
    /// A range with bits set behind its prefix.
    #[error("{given} has bits after its prefix; the network is {network}")]
    HostBits {
        /// What is there.
        given: IpNet,
        /// What was probably meant.
        network: IpNet,
    },
    /// An address that stands for something else than one address of a machine.
    #[error("{key} has {address}, {reason}")]
    Address {
        /// The key.
        key: &'static str,
        /// The address.
        address: String,
        /// Why not.
        reason: &'static str,
    },
    /// A list longer than is useful.
    #[error("{key} has {len} entries, limit is {limit}")]
    TooMany {
        /// Which list.
        key: &'static str,
        /// How long it is.
        len: usize,
        /// How long it may be.
        limit: usize,
    },
    /// A secret that is refused.
    #[error("{0}")]
    Secret(CredentialError),
    /// Two equal secrets.
    #[error("both secrets are the same; list it once")]
    SecretTwice,
    /// A certificate or key that cannot be used.
    #[error("{key} {}: {reason}", path.display())]
    File {
        /// Which file.
        key: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Fewer sessions than the quota promises.
    #[error(
        "total_bytes_per_second {total} holds {fit} sessions of {each} bytes/s, fewer than the {quota} of quotas.total: coturn sets the full share aside for each"
    )]
    CapacityBelowQuota {
        /// The capacity.
        total: u64,
        /// The share of one session.
        each: u64,
        /// How many fit.
        fit: u64,
        /// How many are promised.
        quota: u32,
    },
}

impl Problems {
    /// The problems as `file:line: reason`, one a line.
    pub fn within(&self, path: &Path) -> String {
        let mut text = String::new();
        for problem in &self.0 {
            let _ = writeln!(text, "{}:{}: {}", path.display(), problem.line, problem.refusal);
        }
        text.truncate(text.trim_end().len());
        text
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let line_break = if index == 0 { "" } else { "\n" };
            write!(f, "{line_break}line {}: {}", problem.line, problem.refusal)?;
        }
        Ok(())
    }
}
