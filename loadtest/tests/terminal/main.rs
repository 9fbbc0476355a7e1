//! What is seen in a real terminal, and what Ctrl-C does there.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/server.rs"]
mod server;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    num::NonZero,
    process::{Child, Command, Stdio},
};

use server::in_memory;
use vt100::Parser;

const ROWS: NonZero<u16> = NonZero::new(24).unwrap();

/// `loadtest` in a terminal of its own, and what that shows.
struct Terminal {
    script: Child,
    screen: Parser,
    /// Every screen that differed from the one before.
    seen: Vec<String>,
}

impl Terminal {
    fn run(columns: u16, server: SocketAddr, flags: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_loadtest");
        let line =
            format!("stty rows {ROWS} cols {columns}; exec '{program}' reviewers ws://{server} {flags}");
        let mut script = Command::new("script");
        script.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm-256color").env("SHELL", "/bin/sh");
        let script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Self { script, screen: Parser::new(ROWS, columns.try_into().unwrap(), 200), seen: Vec::new() }
    }

    /// Reads on until it shows something, or ends; whether it showed it.
    fn shows(&mut self, what: &str) -> bool {
        let mut chunk = [0; 4096];
        loop {
            if self.seen.last().is_some_and(|seen| seen.contains(what)) {
                return true;
            }
            let count = self.script.stdout.as_mut().unwrap().read(&mut chunk).unwrap();
            if count == 0 {
                return false;
            }
            self.screen.process(&chunk[..count]);
            self.seen.push(self.screen.screen().contents());
        }
    }

    fn press(&mut self, key: u8) {
        self.script.stdin.as_mut().unwrap().write_all(&[key]).unwrap();
    }

    /// Reads to the end; the exit code.
    fn end(&mut self) -> Option<i32> {
        while self.shows("\u{0}") {}
        self.script.wait().unwrap().code()
    }

    /// What it showed last, with what has scrolled away.
    fn last(&self) -> &str {
        self.seen.last().unwrap()
    }
}

const SHORT: &str = "--count 5 --ramp 100ms --duration 3s --document 1KB --annotate-every 200ms";

#[test]
fn the_view_fits_a_narrow_terminal_moves_on_and_leaves_nothing_behind() {
    let mut terminal = Terminal::run(60, in_memory(), SHORT);
    assert!(terminal.shows("1 of 3 s"), "{}", terminal.last());
    assert!(terminal.shows("2 of 3 s"), "{}", terminal.last());
    let view = terminal.last().to_owned();
    for part in ["delivered", "/s", "sent", "p50 ", "p99 ", "5 there", "0 errors", "tester"] {
        assert!(view.contains(part), "no {part:?} in\n{view}");
    }
    // A row that does not fit goes on in the next, which then is one that begins with none of these.
    let beginnings = ["━", "╸", "─", "delivered", "latency", " ", "clients", "server", "tester", "waiting"];
    for row in view.lines() {
        assert!(beginnings.iter().any(|beginning| row.starts_with(beginning)), "{row:?} in\n{view}");
    }
    assert_eq!(terminal.end(), Some(0), "{}", terminal.last());
    let left = terminal.last();
    assert!(left.trim_end().ends_with("passed"), "{left}");
    assert!(!left.contains("of 3 s") && !left.contains("5 there"), "{left}");
}

#[test]
fn ctrl_c_ends_a_run_early_with_a_report_and_a_clean_screen() {
    let flags = SHORT.replace("3s", "1h");
    let mut terminal = Terminal::run(80, in_memory(), &flags);
    assert!(terminal.shows("1 of 3,600 s"), "{}", terminal.last());
    terminal.press(3);
    assert_eq!(terminal.end(), Some(1), "{}", terminal.last());
    let left = terminal.last();
    assert!(left.contains("holds:  lost=0"), "{left}");
    assert!(left.contains("FAILED: ended early"), "{left}");
    assert!(!left.contains("there"), "{left}");
}

#[test]
fn the_second_ctrl_c_does_not_wait_for_the_report() {
    // The report waits for those who are away.
    let flags = format!("{} --lose-every 200ms --away 1h", SHORT.replace("3s", "1h"));
    let mut terminal = Terminal::run(60, in_memory(), &flags);
    assert!(terminal.shows("1 of 3,600 s"), "{}", terminal.last());
    terminal.press(3);
    assert!(terminal.shows("ended early: the report comes"), "{}", terminal.last());
    terminal.press(3);
    assert_eq!(terminal.end(), Some(130), "{}", terminal.last());
}
