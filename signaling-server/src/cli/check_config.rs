//! `check-config`: says "ok" and what is in force, or what is wrong.

use std::process::ExitCode;

use super::refused;
use super::settings::Settings;

pub(super) fn run(settings: &Settings) -> ExitCode {
    match settings.load() {
        Ok(loaded) => {
            print!("ok\n\n{loaded}");
            ExitCode::SUCCESS
        }
        Err(error) => refused(error),
    }
}
