//! What must hold of a run's figures, such as `p99<100ms`.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

use crate::report::{Report, Value};

mod known;

pub use known::Known;

/// One condition on one figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    text: String,
    figure: String,
    comparison: Comparison,
    limit: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Equal,
    AtLeast,
    Above,
}

/// Why a text is no condition.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ThresholdError {
    /// Without a comparison, or nothing on one side of it.
    #[error("{0:?} is no threshold, expected FIGURE, one of < <= = >= >, and a value, such as p99<100ms")]
    Shape(String),
    /// The value is no number, or its unit is not one of the figure's.
    #[error("{value:?} in {text:?} is no {expected}")]
    Value {
        /// The whole threshold.
        text: String,
        /// The part that makes no sense.
        value: String,
        /// What could stand there.
        expected: &'static str,
    },
    /// It is about something that the run does not report.
    #[error("there is no figure {figure:?} for {text:?}{nearest} There are {all}")]
    Unknown {
        /// The whole threshold.
        text: String,
        /// What it asks for.
        figure: String,
        /// What may have been meant, as the end of a sentence.
        nearest: String,
        /// What there is.
        all: String,
    },
}

/// Whether a condition held.
#[derive(Debug, Clone, PartialEq)]
pub struct Held {
    /// The condition as it was asked for.
    pub threshold: String,
    /// The name of the figure that it is about.
    pub figure: String,
    /// What was found; `None` when it was not measured.
    pub found: Option<f64>,
    /// Whether it held. What was not measured did not.
    pub holds: bool,
}

/// Short names of the figures that are asked about most.
const SHORT: [(&str, &str); 11] = [
    ("p50", "latency_p50_ms"),
    ("p90", "latency_p90_ms"),
    ("p99", "latency_p99_ms"),
    ("p999", "latency_p999_ms"),
    ("max", "latency_max_ms"),
    ("everybody_p99", "everybody_p99_ms"),
    ("ack_p99", "ack_p99_ms"),
    ("rss", "server_rss_peak_bytes"),
    ("rss_slope", "server_rss_slope_bytes_per_hour"),
    ("cpu", "server_cpu_percent"),
    ("queue", "server_queue_high_water_bytes"),
];

const COMPARISONS: [(&str, Comparison); 5] = [
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("<", Comparison::Below),
    (">", Comparison::Above),
    ("=", Comparison::Equal),
];

impl FromStr for Threshold {
    type Err = ThresholdError;

    fn from_str(text: &str) -> Result<Self, ThresholdError> {
        Parts::of(text)?.threshold()
    }
}

/// What a threshold is made of.
struct Parts<'a> {
    text: &'a str,
    figure: &'a str,
    comparison: Comparison,
    value: &'a str,
}

impl<'a> Parts<'a> {
    fn of(text: &'a str) -> Result<Self, ThresholdError> {
        let shape = || ThresholdError::Shape(text.to_owned());
        let at = text.find(['<', '>', '=']).ok_or_else(shape)?;
        let (name, rest) = text.split_at(at);
        let mut known = COMPARISONS.iter();
        let (sign, comparison) = known.find(|(sign, _)| rest.starts_with(sign)).ok_or_else(shape)?;
        let (name, value) = (name.trim(), rest[sign.len()..].trim());
        if name.is_empty() || value.is_empty() {
            return Err(shape());
        }
        let short = SHORT.iter().find(|(short, _)| *short == name);
        let figure = short.map_or(name, |(_, figure)| figure);
        Ok(Self { text, figure, comparison: *comparison, value })
    }

    fn threshold(&self) -> Result<Threshold, ThresholdError> {
        let Self { text, figure, comparison, value } = *self;
        let limit = in_unit_of(figure, value).map_err(|expected| ThresholdError::Value {
            text: text.to_owned(),
            value: value.to_owned(),
            expected,
        })?;
        Ok(Threshold { text: text.to_owned(), figure: figure.to_owned(), comparison, limit })
    }
}

/// A value in the unit that the figure's name says, or what could stand there.
fn in_unit_of(figure: &str, value: &str) -> Result<f64, &'static str> {
    if let Ok(number) = value.parse::<f64>() {
        return if number.is_finite() { Ok(number) } else { Err("finite number") };
    }
    if figure.ends_with("_ms") || figure.contains("_ms_") {
        let length: Duration =
            humantime::parse_duration(value).map_err(|_| "length of time such as 100ms")?;
        return Ok(length.as_secs_f64() * 1e3);
    }
    if figure.contains("_bytes") {
        let expected = "number of bytes such as 500MB";
        return Ok(value.parse::<bytesize::ByteSize>().map_err(|_| expected)?.as_u64() as f64);
    }
    if figure.contains("_percent") {
        return value.trim_end_matches('%').parse().map_err(|_| "share such as 50%");
    }
    Err("number")
}

impl Threshold {
    /// Whether it holds of a report.
    #[must_use]
    pub fn of(&self, report: &Report) -> Held {
        let found = match report.figure(&self.figure) {
            Some(Value::Count(count)) => Some(count as f64),
            Some(Value::Number(number)) => Some(number),
            Some(Value::Flag(flag)) => Some(f64::from(u8::from(flag))),
            Some(Value::Unknown) | None => None,
        };
        let holds = found.is_some_and(|found| match self.comparison {
            Comparison::Below => found < self.limit,
            Comparison::AtMost => found <= self.limit,
            Comparison::Equal => (found - self.limit).abs() < f64::EPSILON,
            Comparison::AtLeast => found >= self.limit,
            Comparison::Above => found > self.limit,
        });
        Held { threshold: self.text.clone(), figure: self.figure.clone(), found, holds }
    }

    /// The name of the figure.
    #[must_use]
    pub fn figure(&self) -> &str {
        &self.figure
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(threshold: &str, report: &Report) -> bool {
        threshold.parse::<Threshold>().unwrap().of(report).holds
    }

    #[test]
    fn a_figure_is_compared_in_its_own_unit() {
        let mut report = Report::new("test");
        report.number("latency_p99_ms", 99.5);
        report.number("server_rss_peak_bytes", 500e6);
        report.count("lost", 0);
        report.number("server_cpu_percent", 42.0);
        for held_one in
            ["p99<100ms", "p99 < 0.1s", "p99<=99.5", "lost=0", "lost<1", "rss<=500MB", "cpu<43%", "cpu>41"]
        {
            assert!(held(held_one, &report), "{held_one}");
        }
        for broken in ["p99<99ms", "p99>=100ms", "lost>0", "rss<500MB", "rss<400MiB", "cpu>=50%"] {
            assert!(!held(broken, &report), "{broken}");
        }
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let mut report = Report::new("test");
        report.number("server_rss_peak_bytes", None);
        assert!(!held("rss<500MB", &report));
        assert!(!held("p99<1s", &report));
        assert_eq!("p99<1s".parse::<Threshold>().unwrap().of(&report).found, None);
    }

    #[test]
    fn what_is_no_condition_is_refused_with_what_could_be() {
        for (text, says) in [
            ("p99", "such as p99<100ms"),
            ("<5", "such as p99<100ms"),
            ("p99<", "such as p99<100ms"),
            ("p99<100MB", "is no length of time"),
            ("rss<5s", "is no number of bytes"),
            ("lost=none", "is no number"),
            ("lost<NaN", "is no finite number"),
        ] {
            let error = text.parse::<Threshold>().unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
