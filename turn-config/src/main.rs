//! The `turn-config` command.

mod cli;

use std::process::ExitCode;

use clap::Parser as _;
use turn_config::description::LoadError;

/// The description is not what it should be; a wrong flag ends with the same code.
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    match cli::Cli::parse().run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            let refused = error.downcast_ref::<LoadError>().is_some();
            ExitCode::from(if refused { REFUSED } else { 1 })
        }
    }
}
