//! What a TURN server should be, in one typed file.
//!
//! [`Description::parse`] reads `turn.toml` and tells everything that is wrong with it at once, each problem with its
//! line. What it returns has been checked: the ranges do not contradict each other, the files can be read, and
//! [`render`](crate::render::render) cannot fail. `turn.example.toml` shows every key.

mod problem;
mod reader;
mod sections;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use crate::credential::SharedSecret;

pub use problem::{Problem, Problems, Refusal};

/// A checked description of a TURN server.
#[derive(Debug, Clone)]
pub struct Description {
    /// The realm coturn names in its challenges: the domain of the service.
    pub realm: String,
    /// Where clients connect.
    pub listen: Listen,
    /// Where relayed traffic leaves.
    pub relay: Relay,
    /// The certificate for `turns:`; without it there is none.
    pub tls: Option<Tls>,
    /// One secret, or two while it is being changed: the new one first. coturn accepts credentials of both.
    pub secrets: Vec<SharedSecret>,
    /// How much may be used.
    pub quotas: Quotas,
    /// To whom traffic may be relayed.
    pub peers: Peers,
    /// Where Prometheus finds metrics. Default none; coturn must have been built with Prometheus (Debian's is not).
    pub metrics: Option<SocketAddr>,
    /// How the process behaves on its machine.
    pub process: Process,
}

/// `[listen]`
#[derive(Debug, Clone)]
pub struct Listen {
    /// Addresses to listen at. Default none: every address of the machine.
    pub addresses: Vec<IpAddr>,
    /// Port for UDP and TCP. Default 3478.
    pub port: u16,
    /// Port for TLS. Default 5349; networks that let nothing but HTTPS out need 443.
    pub tls_port: u16,
}

/// `[relay]`
#[derive(Debug, Clone)]
pub struct Relay {
    /// Addresses of this machine to relay from. Default none: those listened at.
    pub addresses: Vec<IpAddr>,
    /// The public addresses, when the machine is behind a 1:1 NAT. Default none.
    pub external: Vec<External>,
    /// First port of the range to relay from. Default 49152.
    pub first_port: u16,
    /// Last port of the range. Default 65535. Each relayed session takes one port.
    pub last_port: u16,
}

/// A public address that is not on the machine itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct External {
    /// What the world sees.
    pub public: IpAddr,
    /// The address on the machine it leads to, needed when there are several.
    pub private: Option<IpAddr>,
}

/// `[tls]`
#[derive(Debug, Clone)]
pub struct Tls {
    /// PEM file with the certificate chain, the server's own first.
    pub certificate: PathBuf,
    /// PEM file with its private key, unencrypted.
    pub key: PathBuf,
}

/// `[quotas]`
#[derive(Debug, Clone)]
pub struct Quotas {
    /// Sessions one user id may have at once. Default 100: a page takes one for each TURN URL and each peer.
    pub per_user: u32,
    /// Sessions in all. Default 2000.
    pub total: u32,
    /// Bytes a second one session may carry in each direction. Default 1250000 (10 Mbit/s).
    pub session_bytes_per_second: u64,
    /// Bytes a second for all sessions together, or 0 for no such limit, the default. coturn sets the full share of a
    /// session aside when it begins, so this also limits how many there can be.
    pub total_bytes_per_second: u64,
}

/// `[peers]`
#[derive(Debug, Clone, Default)]
pub struct Peers {
    /// Ranges relayed to although they are denied, by default or below. Default none.
    pub allow: Vec<IpNet>,
    /// Further ranges never relayed to. Default none. Those of [`DENIED`](crate::render::DENIED) always are denied.
    pub deny: Vec<IpNet>,
}

/// `[process]`
#[derive(Debug, Clone)]
pub struct Process {
    /// `stdout`, `syslog` or a file. Default `stdout`, which systemd and containers collect.
    pub log: String,
    /// Where the process id is written. Default none.
    pub pid_file: Option<PathBuf>,
}

impl Default for Listen {
    fn default() -> Self {
        Self { addresses: Vec::new(), port: 3478, tls_port: 5349 }
    }
}

impl Default for Relay {
    fn default() -> Self {
        Self { addresses: Vec::new(), external: Vec::new(), first_port: 49152, last_port: 65535 }
    }
}

impl Default for Quotas {
    fn default() -> Self {
        Self { per_user: 100, total: 2000, session_bytes_per_second: 1_250_000, total_bytes_per_second: 0 }
    }
}

impl Default for Process {
    fn default() -> Self {
        Self { log: "stdout".to_owned(), pid_file: None }
    }
}

impl Description {
    /// Reads and checks a description. Paths in it that are not absolute start at `base`. The error holds every
    /// problem there is, in the order of the lines.
    pub fn parse(text: &str, base: &Path) -> Result<Self, Problems> {
        sections::read(text, base)
    }

    /// Reads and checks a file; paths in it start at its folder.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| LoadError::Unreadable { path: path.to_owned(), source })?;
        let base = path.parent().unwrap_or(Path::new(""));
        Self::parse(&text, base).map_err(|problems| LoadError::Refused { path: path.to_owned(), problems })
    }
}

/// Why a description file was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file itself.
    #[error("{} cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What is in it. One line for each problem.
    #[error("{}", problems.within(path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Problems,
    },
}
