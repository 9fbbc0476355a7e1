//! The command line: what can be asked for, and the commands.

mod check_config;
mod probe;
mod rooms;
mod serve;
mod settings;
mod token;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};

use probe::ProbeArgs;
use rooms::RoomsArgs;
use settings::Settings;
use token::TokenArgs;

/// The exit code for a flag, a file or a setting that is refused.
const REFUSED: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  signaling-server                                     listen on port 4444, open to everybody
  signaling-server --data-dir ./data                   relay Loro documents too, and keep them in ./data
  signaling-server --config signaling.toml             with a file; config.example.toml lists every key
  SIGNALING_ACCESS_TOKENS=s3cret SIGNALING_ACCESS_MODE=tokens signaling-server
  signaling-server check-config --config signaling.toml
  signaling-server token --config signaling.toml --room 'peer-plan-*' --role write --ttl 1h
  signaling-server probe wss://signaling.example.com
  signaling-server rooms list --data-dir /var/lib/signaling-server

Every key can also be set by an environment variable SIGNALING_<SECTION>_<KEY>, and the port by PORT.
Flags win over the environment, and the environment over the file.";

/// Rooms over WebSockets: signaling for y-webrtc clients and, if you want, a relay that keeps Loro documents.
#[derive(Debug, Parser)]
#[command(name = "signaling-server", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server (the default).
    Serve(Settings),
    /// Check the configuration, its keys and its certificates, and print what is in force.
    CheckConfig(Settings),
    /// Print a signed token that opens rooms.
    Token(TokenArgs),
    /// Try a y-webrtc signaling server, any one, and say step by step what works.
    Probe(ProbeArgs),
    /// List, export, import, delete and mend stored rooms, also while a server has them open.
    Rooms(RoomsArgs),
}

/// Does what the arguments ask for. The exit code is 0 for done, 1 for failed, and 2 for a flag, a file or a setting
/// that is refused.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => return answer(&error),
    };
    match cli.command.unwrap_or(Command::Serve(cli.settings)) {
        Command::Serve(settings) => serve::run(&settings),
        Command::CheckConfig(settings) => check_config::run(&settings),
        Command::Token(arguments) => token::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
        Command::Rooms(arguments) => rooms::run(&arguments),
    }
}

/// Prints help or the version as they are, and anything refused in one line.
fn answer(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // Nobody reads on: `--help | head`.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let told = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let told: Vec<&str> = told.filter(|line| !line.is_empty()).collect();
    refused(told.join(", ").replace(":, ", ": ").trim_start_matches("error: "))
}

fn refused(problem: impl std::fmt::Display) -> ExitCode {
    eprintln!("signaling-server: {problem}");
    ExitCode::from(REFUSED)
}

fn failed(problem: impl std::fmt::Display) -> ExitCode {
    eprintln!("signaling-server: {problem}");
    ExitCode::FAILURE
}
