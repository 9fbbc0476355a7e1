//! What can be asked for on the command line.

use std::{
    ffi::OsString,
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
};

use anyhow::{Context, bail, ensure};
use clap::{Parser, Subcommand};

use crate::{
    floor::Floor,
    measure::process::raise_open_files,
    report::Report,
    reviewers::{self as day, USUAL},
    stop,
    threshold::Known,
};

mod capacity;
mod common;
mod mesh;
mod plan;
mod relay;
mod reviewers;
mod signaling;

use capacity::CapacityArgs;
use common::Common;
use mesh::MeshArgs;
use relay::RelayArgs;
use reviewers::{Day, ReviewersArgs};
use signaling::SignalingArgs;

/// Load tests for signaling servers and relays, with a verdict.
///
/// Exit code 0: everything that was sent arrived, and all thresholds hold. 1: something was lost, a threshold does not
/// hold, or the scenario's own question was answered with no. 2: it could not be run.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Loads a y-webrtc signaling server with many WebSocket clients.
    #[command(args_override_self = true)]
    Signaling(Box<SignalingArgs>),
    /// Loads a relay of Loro documents with writers and readers.
    #[command(args_override_self = true)]
    Relay(Box<RelayArgs>),
    /// Plays the product's own day: reviewers open a plan, read, annotate, lose their network and come back.
    #[command(args_override_self = true)]
    Reviewers(Box<ReviewersArgs>),
    /// The same in haste: everybody comes and goes, connections break unseen, and now and then all at once.
    #[command(args_override_self = true)]
    Churn(Box<ReviewersArgs>),
    /// The same for hours: does the server's memory grow?
    #[command(args_override_self = true)]
    Soak(Box<ReviewersArgs>),
    /// Lets real peers of the SDK find each other and keep their documents in step over WebRTC.
    #[command(args_override_self = true)]
    Mesh(Box<MeshArgs>),
    /// Finds the largest count for which a scenario passes, by doubling and halving, or runs it at several counts.
    Capacity(Box<CapacityArgs>),
    /// Runs what a plan says: a TOML file that names a scenario and its flags.
    Run {
        /// The plan.
        plan: PathBuf,
        /// An address, and flags that take the place of the plan's.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "URL AND FLAGS")]
        more: Vec<OsString>,
    },
    /// Runs the bare loop that shows what a delivery costs in the kernel, to compare servers with.
    ///
    /// It checks nothing and limits nothing: never put it on a network.
    Floor {
        /// Where to listen; port 0 takes a free one. The address is printed.
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
        listen: SocketAddr,
    },
}

const DEAF: &str = "signals cannot be listened to";

/// What is expected of a server in a long run.
const SOAK: [&str; 5] = ["lost=0", "errors=0", "refused=0", "out_of_order=0", "rss_slope<20MB"];

impl Cli {
    /// Does what was asked for; whether it passed.
    ///
    /// # Errors
    /// When it could not be run at all.
    pub fn run(self) -> anyhow::Result<bool> {
        match self.command {
            Command::Floor { listen } => run_floor(listen),
            Command::Run { plan, more } => {
                let line = plan::command_line(&plan, &more)?;
                let planned = Self::try_parse_from(line).unwrap_or_else(|error| error.exit());
                ensure!(!matches!(planned.command, Command::Run { .. }), "a plan cannot run a plan");
                planned.run()
            }
            Command::Capacity(args) => {
                stop::listen().context(DEAF)?;
                let report = args.report()?;
                common::show(&report, args.json, args.html.as_deref())?;
                Ok(report.passed())
            }
            other => {
                stop::listen().context(DEAF)?;
                let report = other.report()?;
                other.common().context("every scenario has these")?.show(&report)?;
                Ok(report.passed())
            }
        }
    }
}

impl Command {
    /// Runs a scenario and judges what it found.
    fn report(&self) -> anyhow::Result<Report> {
        let common = self.common().context("this is no scenario")?;
        let (known, usual) = self.figures();
        let thresholds = common.thresholds(&known, usual)?;
        let mut report = self.run()?;
        debug_assert!(known.differences(&report).is_empty(), "{:?}", known.differences(&report));
        report.judge(&thresholds);
        if stop::is_asked() {
            report.fail("ended early: this is about the time until then".to_owned());
        }
        Ok(report)
    }

    fn run(&self) -> anyhow::Result<Report> {
        match self {
            Self::Signaling(args) => crate::signaling::run(&args.settings()?, args.mode()),
            Self::Relay(args) => crate::relay::run(&args.settings()?, &args.mode()),
            Self::Reviewers(args) => day::run(&args.settings(Day::Reviewers)?),
            Self::Churn(args) => day::run(&args.settings(Day::Churn)?),
            Self::Soak(args) => day::run(&args.settings(Day::Soak)?),
            Self::Mesh(args) => crate::mesh::run(&args.settings()?),
            Self::Capacity(_) | Self::Run { .. } | Self::Floor { .. } => bail!("this is no scenario"),
        }
    }

    /// What a run of it reports, and what is expected of that if nothing else is asked for.
    fn figures(&self) -> (Known, &'static [&'static str]) {
        match self {
            Self::Signaling(args) => (args.mode().figures(), &[]),
            Self::Relay(args) => (args.mode().figures(), &[]),
            Self::Reviewers(_) | Self::Churn(_) => (Known::new(&[day::FIGURES]), &USUAL),
            Self::Soak(_) => (Known::new(&[day::FIGURES]), &SOAK),
            Self::Mesh(_) => (Known::new(&[crate::mesh::FIGURES]), &crate::mesh::USUAL),
            Self::Capacity(_) | Self::Run { .. } | Self::Floor { .. } => (Known::new(&[]), &[]),
        }
    }

    fn common(&self) -> Option<&Common> {
        match self {
            Self::Signaling(args) => Some(&args.common),
            Self::Relay(args) => Some(&args.common),
            Self::Reviewers(args) | Self::Churn(args) | Self::Soak(args) => Some(&args.common),
            Self::Mesh(args) => Some(&args.common),
            Self::Capacity(_) | Self::Run { .. } | Self::Floor { .. } => None,
        }
    }
}

fn run_floor(listen: SocketAddr) -> anyhow::Result<bool> {
    let _ = raise_open_files();
    let floor = Floor::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    println!("listening on ws://{}", floor.local_addr()?);
    io::stdout().flush()?;
    floor.run()?;
    Ok(true)
}
