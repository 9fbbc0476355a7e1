//! `probe`: tries a y-webrtc signaling server, any one, the way a client uses it, and says step by step what works.

mod client;
mod steps;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{failed, refused};
use crate::config::Period;
use steps::{Outcome, Step};
use target::Target;

#[derive(Debug, Args)]
pub(super) struct ProbeArgs {
    /// The server as clients are given it: ws://host:port or wss://host
    url: String,
    /// A token, sent as ?token= the way a y-webrtc client sends it
    #[arg(long)]
    token: Option<String>,
    /// A room the token opens; by default one that nobody else uses
    #[arg(long, value_name = "NAME")]
    room: Option<String>,
    /// A PEM file with certificates to trust besides the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// How long each step may take
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    timeout: String,
}

pub(super) fn run(arguments: &ProbeArgs) -> ExitCode {
    let patience = match arguments.timeout.parse::<Period>() {
        Ok(period) => period.duration(),
        Err(problem) => return refused(format_args!("flag --timeout: {problem}")),
    };
    let target = match Target::parse(&arguments.url, arguments.token.as_deref()) {
        Ok(target) => target,
        Err(problem) => return refused(format_args!("argument URL: {problem}")),
    };
    let trust = match client::trust(arguments.ca.as_deref()) {
        Ok(trust) => trust,
        Err(error) => return refused(format_args!("flag --ca: {error}")),
    };
    let room = arguments.room.clone().unwrap_or_else(|| format!("signaling-probe-{:x}", nonce()));
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(error),
    };
    let probe = steps::Probe { target, trust, room, patience };
    let works = runtime.block_on(probe.run(|step, outcome| println!("{}", line(step, outcome))));
    if works { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `upgrade    ok       0.8 ms  HTTP 101`
fn line(step: Step, outcome: &Outcome) -> String {
    let (word, took, note) = match outcome {
        Outcome::Works { took, note } => ("ok", milliseconds(*took), note.clone()),
        Outcome::Fails { problem, hint } => ("FAILED", String::new(), format!("{problem}; {hint}")),
        Outcome::Skipped { why } => ("-", String::new(), (*why).to_owned()),
    };
    format!("{:<10} {word:<7} {took:>10}  {note}", step.name()).trim_end().to_owned()
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

/// Something no other probe of this minute uses; nothing depends on it being hard to guess.
fn nonce() -> u128 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    now.as_nanos() ^ (u128::from(std::process::id()) << 64)
}
