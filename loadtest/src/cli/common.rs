//! What can be asked of every scenario.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use clap::Args;

use crate::{
    client::{Target, Token},
    measure::{process::Process, scrape::Scraper},
    ramp::{Leg, Ramp},
    report::Report,
    threshold::{Known, Threshold},
};

#[derive(Debug, Args)]
pub(super) struct Common {
    /// Where the server listens: ws://host:port or wss://host:port, with a path and a query if it wants them.
    url: String,
    /// What opens the server, shown as "Authorization: Bearer". Better in the environment, where ps does not show it.
    #[arg(long, value_name = "TOKEN", env = "LOADTEST_TOKEN", hide_env_values = true)]
    token: Option<Token>,
    /// With wss: certificates of the authorities to trust instead of those of the system, as PEM.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The server's process if it runs on this machine, for its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
    /// The server's Prometheus page, for its CPU time, memory and queues: http://host:port[/metrics].
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// What must hold of a figure, such as "p99<100ms", "lost=0", "rss<500MB". May be given again.
    #[arg(long, value_name = "CONDITION")]
    threshold: Vec<String>,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// Writes the report as a page with charts.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Repeats the order of an earlier run.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(super) seed: u64,
}

impl Common {
    pub(super) fn target(&self) -> anyhow::Result<Target> {
        let mut target = Target::resolve(&self.url)?;
        if let Some(file) = &self.ca {
            target = target.with_authorities(file)?;
        }
        if let Some(token) = &self.token {
            target = target.with_token(token.clone());
        }
        Ok(target)
    }

    pub(super) fn server(&self) -> anyhow::Result<Option<Process>> {
        let watch = |pid| Process::watch(pid).with_context(|| format!("cannot watch process {pid}"));
        self.pid.map(watch).transpose()
    }

    pub(super) fn metrics(&self) -> anyhow::Result<Option<Scraper>> {
        let Some(url) = &self.metrics else { return Ok(None) };
        let scraper = Scraper::new(url)?;
        // Better now than after an hour of which the server's half is missing.
        scraper.scrape().with_context(|| format!("cannot read {url}"))?;
        Ok(Some(scraper))
    }

    /// The address as it was given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Whether a token or authorities were given.
    pub(super) fn has_own_trust(&self) -> bool {
        self.token.is_some() || self.ca.is_some()
    }

    /// Whether the server's memory and CPU time can be seen.
    pub(super) fn sees_server(&self) -> bool {
        self.pid.is_some() || self.metrics.is_some()
    }

    /// The thresholds that were given, or else the `usual` ones, for a run that reports these figures.
    pub(super) fn thresholds(&self, known: &Known, usual: &[&str]) -> anyhow::Result<Vec<Threshold>> {
        let given: Vec<_> = self.threshold.iter().map(String::as_str).collect();
        let texts = if given.is_empty() { usual } else { &given };
        let thresholds = texts.iter().map(|text| known.threshold(text)).collect::<Result<Vec<_>, _>>()?;
        let unseen =
            |threshold: &&Threshold| threshold.figure().starts_with("server_") && !self.sees_server();
        if let Some(threshold) = thresholds.iter().find(unseen) {
            bail!("\"{threshold}\" is about the server, whose figures need --pid or --metrics");
        }
        Ok(thresholds)
    }

    /// Shows a report in the ways that were asked for.
    pub(super) fn show(&self, report: &Report) -> anyhow::Result<()> {
        show(report, self.json, self.html.as_deref())
    }
}

/// Prints a report, as JSON or as text, and writes its page if there is to be one.
pub(super) fn show(report: &Report, json: bool, html: Option<&Path>) -> anyhow::Result<()> {
    if let Some(file) = html {
        fs::write(file, crate::html::page(report))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    let shown = if json { format!("{:#}", report.to_json()) } else { report.to_string() };
    writeln!(io::stdout().lock(), "{shown}")?;
    Ok(())
}

/// A rate over warm-up and duration: the same all the time, or as the stages say, whose length is then the whole.
pub(super) fn rate(
    stages: &[Leg],
    rate: f64,
    warmup: Duration,
    duration: Duration,
) -> anyhow::Result<(Ramp, Duration)> {
    if stages.is_empty() {
        ensure!(rate > 0.0 && rate <= 1e7, "--rate is {rate}, expected 0 to 10,000,000");
        return Ok((Ramp::flat(rate, warmup + duration), duration));
    }
    let ramp = Ramp::new(stages.to_vec());
    let length = ramp.length();
    ensure!(length > warmup, "the stages take {length:?}, which is not longer than the warm-up");
    ensure!(ramp.top() > 0.0, "no stage rises above 0");
    Ok((ramp, length - warmup))
}
