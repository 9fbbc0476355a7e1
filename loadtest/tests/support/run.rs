//! Runs `loadtest` and says what it found.

use std::{
    net::SocketAddr,
    process::{Command, Output},
};

use serde_json::Value;

/// What a run of `loadtest` found.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) report: Value,
    pub(crate) stderr: String,
}

impl Run {
    /// A figure of the report.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {}", self.report))
    }

    /// Asserts that it passed.
    #[track_caller]
    pub(crate) fn passed(self) -> Self {
        assert_eq!(self.code, Some(0), "{:#}\n{}", self.report, self.stderr);
        self
    }

    /// Asserts that it failed and said this.
    #[track_caller]
    pub(crate) fn failed(self, why: &str) -> Self {
        assert_eq!(self.code, Some(1), "{:#}\n{}", self.report, self.stderr);
        let failures = self.report["failures"].as_array().unwrap();
        let found = failures.iter().any(|failure| failure.as_str().unwrap().contains(why));
        assert!(found, "no {why:?} in {failures:?}");
        self
    }
}

/// Runs a part of `loadtest` against a server.
pub(crate) fn against(server: SocketAddr, part: &str, flags: &str) -> Run {
    let url = format!("ws://{server}");
    let mut arguments = vec![part, &url, "--json"];
    arguments.extend(flags.split_ascii_whitespace());
    let Output { status, stdout, stderr } = loadtest(&arguments);
    let report = serde_json::from_slice(&stdout).unwrap_or_default();
    Run { code: status.code(), report, stderr: String::from_utf8_lossy(&stderr).into_owned() }
}

/// Runs `loadtest`.
pub(crate) fn loadtest(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_loadtest")).args(arguments).output().unwrap()
}
