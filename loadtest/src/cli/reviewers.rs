//! What can be asked of `loadtest reviewers`, and of its kin `churn` and `soak`.

use std::time::Duration;

use anyhow::ensure;
use bytesize::ByteSize;
use clap::Args;

use super::common::Common;
use crate::{
    ramp::{Leg, Ramp},
    reviewers::{Habits, Settings},
};

const EXAMPLES: &str = "\
Examples:
  300 reviewers in one room for a minute:
    loadtest reviewers ws://127.0.0.1:4444 --count 300 --pid $(pidof signaling-server) --html report.html

  In 30 rooms, up to 300 within half a minute, then two minutes, then fewer:
    loadtest reviewers wss://collab.example.com --rooms 30 --stage 30s:300 --stage 2m:300 --stage 30s:50

  Everybody only reads, and nobody leaves: what does a reviewer at rest cost?
    loadtest reviewers ws://127.0.0.1:4444 --count 1000 --rooms 100 --annotate-every 0s --cursor-every 0s --lose-every 0s

What is asked for in times is meant on average; 0s means never. The server needs --limits off, or limits that let so
many in from one address, and a relay that is on (signaling-server --data-dir DIR).";

/// What differs between the scenarios that reviewers play.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Day {
    /// An ordinary one.
    Reviewers,
    /// Everybody comes and goes.
    Churn,
    /// A long one.
    Soak,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ReviewersArgs {
    #[command(flatten)]
    pub(super) common: Common,
    /// Reviewers [default: 300; churn 100].
    #[arg(long, value_name = "N")]
    count: Option<u32>,
    /// Rooms they are spread over.
    #[arg(long, value_name = "N", default_value_t = 1)]
    rooms: u32,
    /// How long it takes until all have come.
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    ramp: Duration,
    /// How long they stay then [default: 1m; soak 1h].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Instead of these three: within a time, evenly to so many, such as 30s:300. May be given again.
    #[arg(long, value_name = "TIME:COUNT")]
    stage: Vec<Leg>,
    /// The text of the plan in each room.
    #[arg(long, value_name = "SIZE", default_value = "20KB")]
    document: ByteSize,
    /// Length of an annotation in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 160)]
    payload: usize,
    /// How often each moves the cursor [default: 2s; churn 1s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    cursor_every: Option<Duration>,
    /// How often each annotates [default: 30s; churn 2s; soak 1m].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    annotate_every: Option<Duration>,
    /// How often each loses its network [default: 1m; churn 5s; soak 5m].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    lose_every: Option<Duration>,
    /// How long it is away then [default: 3s; churn 500ms].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    away: Option<Duration>,
    /// The share of losses of which the server is not told [default: 0.25].
    #[arg(long, value_name = "SHARE", default_value_t = 0.25)]
    half_open: f64,
    /// How often all lose their connection at once and come back at once [default: never; churn 10s].
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    storm_every: Option<Duration>,
}

const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl ReviewersArgs {
    pub(super) fn settings(&self, day: Day) -> anyhow::Result<Settings> {
        let pick = |ordinary, churn, soak| match day {
            Day::Reviewers => ordinary,
            Day::Churn => churn,
            Day::Soak => soak,
        };
        if day == Day::Soak {
            ensure!(self.common.sees_server(), "a soak is about memory: --pid or --metrics is needed");
        }
        let count = self.count.unwrap_or(if day == Day::Churn { 100 } else { 300 });
        let duration = self.duration.unwrap_or(pick(secs(60), secs(60), secs(3600)));
        let often =
            |given: Option<Duration>, usual| Some(given.unwrap_or(usual)).filter(|every| !every.is_zero());
        let storm = pick(Duration::ZERO, secs(10), Duration::ZERO);
        Ok(Settings {
            scenario: match day {
                Day::Reviewers => "reviewers",
                Day::Churn => "churn",
                Day::Soak => "soak",
            },
            target: self.common.target()?,
            ramp: self.legs(count, duration)?,
            rooms: self.rooms,
            document: usize::try_from(self.document.as_u64())?,
            payload: self.payload,
            habits: Habits {
                cursor_every: often(self.cursor_every, pick(secs(2), secs(1), secs(2))),
                annotate_every: often(self.annotate_every, pick(secs(30), secs(2), secs(60))),
                lose_every: often(self.lose_every, pick(secs(60), secs(5), secs(300))),
                away: self.away.unwrap_or(pick(secs(3), Duration::from_millis(500), secs(3))),
                half_open: self.half_open,
                storm_every: often(self.storm_every, storm),
            },
            server: self.common.server()?,
            metrics: self.common.metrics()?,
            seed: self.common.seed,
        })
    }

    fn legs(&self, count: u32, duration: Duration) -> anyhow::Result<Ramp> {
        let level = f64::from(count);
        let legs = if self.stage.is_empty() {
            vec![Leg { length: self.ramp, level }, Leg { length: duration, level }]
        } else {
            self.stage.clone()
        };
        let ramp = Ramp::new(legs);
        ensure!(ramp.top() <= 1e6, "{} reviewers are asked for, at most 1,000,000 are possible", ramp.top());
        Ok(ramp)
    }
}
