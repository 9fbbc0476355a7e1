//! A Node process that speaks JSON, a line at a time.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// How long one may take to end.
const ENDING: Duration = Duration::from_secs(90);

/// A script of `tests/node`. Killed when dropped.
pub struct Node {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Node {
    pub async fn start(script: &str, arguments: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(
            root.join("../e2e/node_modules/simple-peer").exists(),
            "the packages of e2e/ are missing: run npm ci there"
        );
        let mut child = Command::new("node")
            .arg(root.join("tests/node").join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("node runs");
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { input: child.stdin.take().unwrap(), output, child }
    }

    /// Tells it something.
    pub async fn tell(&mut self, line: Value) {
        // A process that is gone is seen by what it no longer says.
        let _ = self.input.write_all(format!("{line}\n").as_bytes()).await;
        let _ = self.input.flush().await;
    }

    /// Lets it end by itself, so that what it has started ends too.
    pub async fn end(mut self) {
        drop(self.input);
        let ended = tokio::time::timeout(ENDING, self.child.wait());
        assert!(ended.await.expect("it ends in time").unwrap().success());
    }

    /// What it says next; never, once it is gone. Can be cancelled.
    pub async fn line(&mut self) -> Value {
        match self.output.next_line().await {
            Ok(Some(line)) => serde_json::from_str(&line).unwrap(),
            _ => std::future::pending().await,
        }
    }
}
