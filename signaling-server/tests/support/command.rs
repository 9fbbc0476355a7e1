//! The built command, run as a user runs it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

/// The command, in an environment that holds nothing of this machine's.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_signaling-server"));
    command.env_clear();
    command
}

/// What a finished run said.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub fn run(arguments: &[&str]) -> Said {
    run_with(arguments, &[])
}

pub fn run_with(arguments: &[&str], environment: &[(&str, &str)]) -> Said {
    command().args(arguments).envs(environment.iter().copied()).output().unwrap().into()
}

impl Said {
    /// The one line that says what was refused.
    pub fn refusal(&self) -> &str {
        assert_eq!((self.code, self.out.as_str()), (2, ""), "{}", self.err);
        let line = self.err.strip_suffix('\n').unwrap();
        assert!(!line.contains('\n'), "more than one line: {line}");
        line.strip_prefix("signaling-server: ").unwrap()
    }
}

/// A folder of files for one test.
pub struct Files(TempDir);

impl Files {
    pub fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The same as text, for command lines and messages.
    pub fn write_text(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        self.write(name, content).to_str().unwrap().to_owned()
    }
}
