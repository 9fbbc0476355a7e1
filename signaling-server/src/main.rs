//! The `signaling-server` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    signaling_server::cli::run(std::env::args_os())
}
