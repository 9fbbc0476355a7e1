//! The same scenario again and again with another count: how many does the server hold, and what does each cost?

use std::{ffi::OsString, path::PathBuf, thread, time::Duration};

use anyhow::{Context, ensure};
use clap::{Args, Parser};

use super::{Cli, Command};
use crate::{report::Report, stop};

const EXAMPLES: &str = "\
Examples:
  The most reviewers for whom the thresholds hold:
    loadtest capacity -- reviewers ws://127.0.0.1:4444 --duration 20s --threshold \"p99<100ms\" --threshold lost=0

  How cost grows with the reviewers in one room:
    loadtest capacity --at 10,30,100,300 --html growth.html -- reviewers ws://127.0.0.1:4444 --pid PID

  The highest rate of edits:
    loadtest capacity --vary rate --from 100 -- relay ws://127.0.0.1:4444 --threshold \"p99<50ms\"";

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct CapacityArgs {
    /// The flag of the scenario that is varied.
    #[arg(long, value_name = "FLAG", default_value = "count")]
    vary: String,
    /// Where the search begins; from there the count is doubled until it does not hold.
    #[arg(long, value_name = "N", default_value_t = 10)]
    from: u64,
    /// Where the search ends.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    most: u64,
    /// How far apart the largest that holds and the smallest that does not may be, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    precision: f64,
    /// Instead of a search, runs at these counts.
    #[arg(long, value_name = "COUNTS", value_delimiter = ',')]
    at: Vec<u64>,
    /// How long the server may rest between two runs.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    rest: Duration,
    /// Prints the report as JSON.
    #[arg(long)]
    pub(super) json: bool,
    /// Writes the report as a page with charts.
    #[arg(long, value_name = "FILE")]
    pub(super) html: Option<PathBuf>,
    /// The scenario and its flags, behind two dashes.
    #[arg(last = true, required = true, value_name = "SCENARIO")]
    scenario: Vec<OsString>,
}

impl CapacityArgs {
    /// Runs as often as it takes.
    pub(super) fn report(&self) -> anyhow::Result<Report> {
        ensure!(self.precision > 0.0, "--precision is {}, more than 0 is needed", self.precision);
        ensure!((1..=self.most).contains(&self.from), "--from is {}, 1 to --most is possible", self.from);
        let mut report = Report::new("capacity");
        if self.at.is_empty() {
            let holds = |count| self.try_step(count, &mut report);
            let found = search(self.from, self.most, self.precision, holds)?;
            report.number("capacity", found.map(|found| found as f64));
            match found {
                None => report.fail(format!("not even {} hold", self.from)),
                Some(found) if found == self.most => {
                    report.note(format!("{found} hold, and more was not tried"));
                }
                Some(_) => {}
            }
            if stop::is_asked() {
                report.fail("ended early: more may hold".to_owned());
            }
        } else {
            let mut failed = Vec::new();
            for count in self.at.iter().take_while(|_| !stop::is_asked()) {
                if !self.step(*count, &mut report)? {
                    failed.push(count.to_string());
                }
            }
            if !failed.is_empty() {
                report.fail(format!("did not hold at {}", failed.join(", ")));
            }
        }
        Ok(report)
    }

    /// Whether it holds at that count. Behind the first, one that cannot be run does not: there are limits on this side, too.
    fn try_step(&self, count: u64, report: &mut Report) -> anyhow::Result<bool> {
        if stop::is_asked() {
            return Ok(false);
        }
        match self.step(count, report) {
            Err(error) if !report.steps().is_empty() => {
                report.note(format!("could not be run {error:#}"));
                Ok(false)
            }
            other => other,
        }
    }

    fn step(&self, count: u64, report: &mut Report) -> anyhow::Result<bool> {
        if !report.steps().is_empty() {
            thread::sleep(self.rest);
        }
        eprintln!("--{} {count}", self.vary);
        let vary = OsString::from(format!("--{}={count}", self.vary));
        let line =
            [OsString::from("loadtest")].into_iter().chain(self.scenario.iter().cloned()).chain([vary]);
        let planned = Cli::try_parse_from(line).unwrap_or_else(|error| error.exit());
        ensure!(
            !matches!(planned.command, Command::Capacity(_) | Command::Run { .. } | Command::Floor { .. }),
            "what is varied has to be a scenario"
        );
        let found = planned.command.report().with_context(|| format!("at {count}"))?;
        let holds = found.passed();
        report.step(count, found);
        Ok(holds)
    }
}

/// The largest count that holds, by doubling and then halving the gap; `None` when the first does not.
fn search(
    from: u64,
    most: u64,
    precision: f64,
    mut holds: impl FnMut(u64) -> anyhow::Result<bool>,
) -> anyhow::Result<Option<u64>> {
    if !holds(from)? {
        return Ok(None);
    }
    let (mut good, mut bad) = (from, None);
    while bad.is_none() && good < most {
        let next = good.saturating_mul(2).min(most);
        if holds(next)? { good = next } else { bad = Some(next) }
    }
    while let Some(high) =
        bad.filter(|high| high - good > 1 && (high - good) as f64 > good as f64 * precision)
    {
        let middle = good + (high - good) / 2;
        if holds(middle)? { good = middle } else { bad = Some(middle) }
    }
    Ok(Some(good))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(limit: u64, precision: f64) -> (Option<u64>, usize) {
        let mut tried = 0;
        let found = search(10, 5000, precision, |count| {
            tried += 1;
            Ok(count <= limit)
        });
        (found.unwrap(), tried)
    }

    #[test]
    fn the_largest_that_holds_is_found_as_precisely_as_asked() {
        assert_eq!(found(317, 1e-9).0, Some(317));
        assert_eq!(found(10, 1e-9).0, Some(10));
        assert_eq!(found(9, 0.1), (None, 1));
        assert_eq!(found(1_000_000, 0.1).0, Some(5000));
        for limit in [11, 100, 1234, 4999] {
            let (found, tried) = found(limit, 0.1);
            let found = found.unwrap();
            assert!(found <= limit && limit as f64 <= found as f64 * 1.1 + 1.0, "{found} of {limit}");
            assert!(tried <= 14, "{tried} runs");
        }
    }
}
