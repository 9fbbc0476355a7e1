//! `token`: prints a signed token.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::{Args, ValueEnum};

use super::settings::{environment, file};
use super::{failed, refused};
use crate::access::{Claims, SigningKey};
use crate::config::{AccessConfig, Config, ConfigError, Layers, Period};

#[derive(Debug, Args)]
pub(super) struct TokenArgs {
    /// A room it opens: an exact name, or a pattern with * and ?; can be given again
    #[arg(long = "room", value_name = "GLOB", required = true)]
    rooms: Vec<String>,
    /// What may be done there; only "write" can announce itself to others
    #[arg(long, value_enum, default_value = "read")]
    role: Role,
    /// How long it is valid, such as 1h or 7d
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    ttl: String,
    /// Whom it is made out to
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
    /// The server's configuration: its access.keys_file signs if it is an HS256 secret, and its audience and issuer
    /// are put into the token [env: SIGNALING_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The key to sign with: an HS256 secret or a PEM private key (Ed25519, P-256 or RSA)
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Role {
    Read,
    Write,
}

pub(super) fn run(arguments: &TokenArgs) -> ExitCode {
    let ttl = match arguments.ttl.parse::<Period>() {
        Ok(ttl) => ttl,
        Err(problem) => return refused(format_args!("flag --ttl: {problem}")),
    };
    let access = match access(arguments) {
        Ok(access) => access,
        Err(error) => return refused(error),
    };
    let Some(path) = arguments.key.as_ref().or(access.keys_file.as_ref()) else {
        return refused(
            "flag --key: expected a file with the key to sign with, or a --config that has access.keys_file",
        );
    };
    let key = match SigningKey::from_file(path) {
        Ok(key) => key,
        Err(error) => return refused(error),
    };
    match key.sign(&claims(arguments, &access, ttl)) {
        Ok(token) => {
            println!("{token}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(format_args!("{}: the key can not sign: {error}", path.display())),
    }
}

fn access(arguments: &TokenArgs) -> Result<AccessConfig, ConfigError> {
    let layers =
        Layers { file: file(arguments.config.as_ref()), environment: environment(), flags: Vec::new() };
    Ok(Config::load(&layers)?.config.access)
}

fn claims(arguments: &TokenArgs, access: &AccessConfig, ttl: Period) -> Claims {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Claims {
        exp: (now + ttl.duration()).as_secs(),
        rooms: arguments.rooms.clone(),
        role: match arguments.role {
            Role::Read => "read",
            Role::Write => "write",
        },
        sub: arguments.sub.clone(),
        aud: access.audience.clone(),
        iss: access.issuer.clone(),
    }
}
