//! The built server as a process of its own, to be killed.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use super::command::command;

pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
    pub(crate) metrics: String,
}

impl Process {
    /// A server that keeps rooms in `dir`, with these variables set.
    pub(crate) fn start(dir: &Path, environment: &[(&str, &str)]) -> Self {
        let mut command = command();
        command.args(["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0", "--data-dir"]);
        command.arg(dir).args(["--limits", "off"]).envs(environment.iter().copied());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut said = |start: &str| {
            let line = lines.next().expect("a line").unwrap();
            let rest = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
            rest.split([' ', '/']).next().unwrap().to_owned()
        };
        let (address, metrics) = (said("listening on ws://"), said("metrics on http://"));
        Self { child, address, metrics }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}/", self.address)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
