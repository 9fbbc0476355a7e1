//! What a run found: figures with names, errors by kind, and what counts as failed.

use std::{borrow::Cow, fmt, time::Duration};

use serde_json::{Map, Value as Json, json};

use crate::{
    measure::Latencies,
    swarm::Errors,
    threshold::{Held, Threshold},
    timeline::Timeline,
};

/// One figure. Its unit is part of its name, so that the JSON needs none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A number of things.
    Count(u64),
    /// Anything measured, in the unit that the name says.
    Number(f64),
    /// Yes or no.
    Flag(bool),
    /// There was nothing to measure, or no way to.
    Unknown,
}

/// The figures of one run, in the order in which they are shown.
#[derive(Debug, Clone, Default)]
pub struct Report {
    scenario: &'static str,
    figures: Vec<(Cow<'static, str>, Value)>,
    errors: Errors,
    failures: Vec<String>,
    notes: Vec<String>,
    thresholds: Vec<Held>,
    timeline: Timeline,
    /// Quantiles and their latencies in milliseconds.
    curve: Vec<(f64, f64)>,
    steps: Vec<Step>,
}

/// One of several runs that differ in one number.
#[derive(Debug, Clone)]
pub struct Step {
    /// The number.
    pub value: u64,
    /// What was found there.
    pub report: Report,
}

impl Report {
    /// An empty report of `scenario`.
    #[must_use]
    pub fn new(scenario: &'static str) -> Self {
        Self { scenario, ..Self::default() }
    }

    /// Adds a number of things.
    pub fn count(&mut self, name: impl Into<Cow<'static, str>>, count: u64) {
        self.figures.push((name.into(), Value::Count(count)));
    }

    /// Adds a measured figure; `None` shows as unknown.
    pub fn number(&mut self, name: impl Into<Cow<'static, str>>, number: impl Into<Option<f64>>) {
        let number = number.into().filter(|number| number.is_finite());
        self.figures.push((name.into(), number.map_or(Value::Unknown, Value::Number)));
    }

    /// Adds a length of time in milliseconds.
    pub fn milliseconds(&mut self, name: impl Into<Cow<'static, str>>, length: Option<Duration>) {
        self.number(name, length.map(|length| length.as_secs_f64() * 1e3));
    }

    /// Adds a yes or no; `None` shows as unknown.
    pub fn flag(&mut self, name: impl Into<Cow<'static, str>>, flag: Option<bool>) {
        self.figures.push((name.into(), flag.map_or(Value::Unknown, Value::Flag)));
    }

    /// Adds errors by kind, for a threshold to judge.
    pub fn count_errors(&mut self, errors: &Errors) {
        self.errors.merge(errors);
    }

    /// Adds errors by kind; any error is a failure.
    pub fn errors(&mut self, errors: &Errors) {
        self.count_errors(errors);
        for (kind, count) in &errors.0 {
            self.fail(format!("{count} connections failed: {kind}"));
        }
    }

    /// Says what makes this run a failed one.
    pub fn fail(&mut self, why: String) {
        self.failures.push(why);
    }

    /// Says what a reader of the figures should know.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Adds the run second by second.
    pub fn timeline(&mut self, timeline: &Timeline) {
        self.number("server_rss_slope_bytes_per_hour", timeline.rss_slope());
        self.timeline = timeline.clone();
    }

    /// Adds the whole distribution of latencies.
    pub fn curve(&mut self, latencies: &Latencies) {
        self.curve = latencies.curve();
    }

    /// Adds one of several runs that this report is about.
    pub fn step(&mut self, value: u64, report: Report) {
        self.steps.push(Step { value, report });
    }

    /// Judges the figures; what does not hold is a failure.
    pub fn judge(&mut self, thresholds: &[Threshold]) {
        for threshold in thresholds {
            let held = threshold.of(self);
            match held.found {
                _ if held.holds => {}
                Some(found) => {
                    let found = Value::of(found);
                    self.fail(format!("{threshold} does not hold: {} is {found}", threshold.figure()));
                }
                None => {
                    self.fail(format!("{threshold} cannot be told: {} was not measured", threshold.figure()));
                }
            }
            self.thresholds.push(held);
        }
    }

    /// What was run.
    #[must_use]
    pub fn scenario(&self) -> &'static str {
        self.scenario
    }

    /// All figures, in the order in which they are shown.
    #[must_use]
    pub fn figures(&self) -> &[(Cow<'static, str>, Value)] {
        &self.figures
    }

    /// What was asked of the figures, and whether it held.
    #[must_use]
    pub fn thresholds(&self) -> &[Held] {
        &self.thresholds
    }

    /// What made this run a failed one.
    #[must_use]
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    /// What a reader of the figures should know.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Errors by kind.
    #[must_use]
    pub fn errors_by_kind(&self) -> &Errors {
        &self.errors
    }

    /// The run second by second, and its latencies: the quantile and the milliseconds.
    #[must_use]
    pub fn course(&self) -> (&Timeline, &[(f64, f64)]) {
        (&self.timeline, &self.curve)
    }

    /// The runs that this report is about.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether nothing failed.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }

    /// A figure by its name; `errors` are all errors together.
    #[must_use]
    pub fn figure(&self, name: &str) -> Option<Value> {
        if name == "errors" {
            return Some(Value::Count(self.errors.total()));
        }
        self.figures.iter().find(|(known, _)| known == name).map(|(_, value)| *value)
    }

    /// A figure that is a number, by its name.
    #[must_use]
    pub fn number_of(&self, name: &str) -> Option<f64> {
        match self.figure(name)? {
            Value::Count(count) => Some(count as f64),
            Value::Number(number) => Some(number),
            Value::Flag(_) | Value::Unknown => None,
        }
    }

    /// The report as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let figures: Map<_, _> =
            self.figures.iter().map(|(name, value)| (name.to_string(), value.to_json())).collect();
        json!({
            "scenario": self.scenario,
            "passed": self.passed(),
            "figures": figures,
            "errors": self.errors.0,
            "failures": self.failures,
            "notes": self.notes,
            "thresholds": self.thresholds.iter().map(Held::to_json).collect::<Json>(),
            "timeline": self.timeline.to_json(),
            "percentiles": self.curve.iter().map(|(at, ms)| json!({"quantile": at, "ms": ms})).collect::<Json>(),
            "steps": self.steps.iter().map(Step::to_json).collect::<Json>(),
        })
    }
}

impl Step {
    fn to_json(&self) -> Json {
        json!({ "value": self.value, "report": self.report.to_json() })
    }
}

impl Held {
    fn to_json(&self) -> Json {
        json!({ "threshold": self.threshold, "figure": self.figure, "found": self.found, "holds": self.holds })
    }
}

impl Value {
    /// A number that is shown without a fraction where it has none.
    #[must_use]
    pub fn of(number: f64) -> Self {
        if number >= 0.0 && number.fract() == 0.0 && number < 1e15 {
            Self::Count(number as u64)
        } else {
            Self::Number(number)
        }
    }

    fn to_json(self) -> Json {
        match self {
            Self::Count(count) => count.into(),
            Self::Number(number) => number.into(),
            Self::Flag(flag) => flag.into(),
            Self::Unknown => Json::Null,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => to.pad(&grouped(*count)),
            Self::Number(number) if number.abs() >= 1000.0 => {
                let sign = if *number < 0.0 { "-" } else { "" };
                to.pad(&format!("{sign}{}", grouped(number.abs().round() as u64)))
            }
            Self::Number(number) if number.abs() >= 100.0 => to.pad(&format!("{number:.0}")),
            Self::Number(number) => to.pad(&format!("{number:.2}")),
            Self::Flag(flag) => to.pad(if *flag { "yes" } else { "no" }),
            Self::Unknown => to.pad("-"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(to, "{}", self.scenario)?;
        for (name, value) in &self.figures {
            writeln!(to, "  {:<34}{value:>14}", name.replace('_', " "))?;
        }
        for step in &self.steps {
            writeln!(to, "{step}")?;
        }
        for (kind, count) in &self.errors.0 {
            writeln!(to, "  {:<34}{:>14}", format!("errors: {kind}"), grouped(*count))?;
        }
        for held in &self.thresholds {
            writeln!(to, "{} {}", if held.holds { "holds: " } else { "BROKEN:" }, held.threshold)?;
        }
        for note in &self.notes {
            writeln!(to, "note: {note}")?;
        }
        for failure in &self.failures {
            writeln!(to, "FAILED: {failure}")?;
        }
        write!(to, "{}", if self.passed() { "passed" } else { "failed" })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let figure = |name| self.report.figure(name).unwrap_or(Value::Unknown);
        write!(
            to,
            "  {:>8}: {:>12} deliveries/s  p50 {:>8} ms  p99 {:>8} ms  {:>8} us CPU a delivery  {}",
            grouped(self.value),
            figure("deliveries_per_second"),
            figure("latency_p50_ms"),
            figure("latency_p99_ms"),
            figure("server_cpu_us_per_delivery"),
            if self.report.passed() { "passed" } else { "failed" }
        )?;
        self.report.failures.first().map_or(Ok(()), |failure| write!(to, ": {failure}"))
    }
}

/// A number with its thousands set apart.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        let texts = [0, 999, 1000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn any_error_fails_a_run_and_json_says_so() {
        let mut report = Report::new("fixed");
        report.count("lost", 0);
        report.number("rate", f64::NAN);
        assert!(report.passed());
        let mut errors = Errors::default();
        errors.add(&crate::client::ClientError::Eof);
        report.errors(&errors);
        let json = report.to_json();
        assert_eq!(json["passed"], false);
        assert_eq!(json["figures"]["lost"], 0);
        assert!(json["figures"]["rate"].is_null());
        assert_eq!(json["errors"]["closed without a frame"], 1);
    }
}
