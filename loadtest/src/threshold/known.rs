//! Which figures there are to ask for.

use super::{Parts, SHORT, Threshold, ThresholdError};
use crate::report::Report;

/// How alike a name has to be to one that there is, for the two to be taken for the same.
const ALIKE: f64 = 0.7;

/// The figures that a run will report. A name that ends in `*` stands for all that begin like it.
#[derive(Debug, Clone)]
pub struct Known(Vec<&'static str>);

impl Known {
    /// All of these; `errors` can always be asked for.
    #[must_use]
    pub fn new(lists: &[&[&'static str]]) -> Self {
        Self([lists.concat(), vec!["errors"]].concat())
    }

    /// Reads a threshold on one of these figures.
    ///
    /// # Errors
    /// When it is none, or about another figure: then it names the nearest and all that there are.
    pub fn threshold(&self, text: &str) -> Result<Threshold, ThresholdError> {
        let parts = Parts::of(text)?;
        if self.has(parts.figure) { parts.threshold() } else { Err(self.unknown(&parts)) }
    }

    /// What a report has and this has not, or the other way round. A threshold could not be asked for, or never hold.
    pub(crate) fn differences(&self, report: &Report) -> Vec<String> {
        let reported = report.figures().iter().map(|(name, _)| name.to_string());
        let missing = self.0.iter().filter(|name| !name.ends_with('*') && report.figure(name).is_none());
        reported.filter(|name| !self.has(name)).chain(missing.map(ToString::to_string)).collect()
    }

    fn has(&self, figure: &str) -> bool {
        self.0.iter().any(|known| match known.strip_suffix('*') {
            Some(beginning) => figure.starts_with(beginning),
            None => figure == *known,
        })
    }

    /// The short names of what there is, then the others.
    fn names(&self) -> Vec<&'static str> {
        let short = SHORT.iter().filter(|(_, figure)| self.has(figure)).map(|(short, _)| *short);
        short.chain(self.0.iter().copied()).collect()
    }

    fn unknown(&self, Parts { text, figure, .. }: &Parts<'_>) -> ThresholdError {
        let names = self.names();
        let alike = |name: &&str| strsim::jaro_winkler(figure, name);
        let nearest = names.iter().max_by(|one, other| alike(one).total_cmp(&alike(other)));
        let nearest = nearest.filter(|name| alike(name) >= ALIKE);
        ThresholdError::Unknown {
            text: (*text).to_owned(),
            figure: (*figure).to_owned(),
            nearest: nearest.map_or(".".to_owned(), |name| format!(", did you mean {name:?}?")),
            all: names.join(" "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIGURES: [&str; 4] = ["latency_p50_ms", "latency_p99_ms", "lost", "acks_*"];

    fn check(threshold: &str) -> Result<(), String> {
        let known = Known::new(&[&FIGURES]);
        known.threshold(threshold).map(|_| ()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_figure_that_is_misspelt_is_told_with_the_nearest_and_with_all() {
        for good in ["p99<100ms", "latency_p50_ms<1s", "lost=0", "errors=0", "acks_ok>1"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (wrong, near) in [("p9<100ms", "p99"), ("latency_p99<100", "latency_p99_ms"), ("lots=0", "lost")]
        {
            let refused = check(wrong).unwrap_err();
            assert!(refused.contains(&format!("did you mean {near:?}?")), "{refused}");
            assert!(refused.ends_with(" There are p50 p99 latency_p50_ms latency_p99_ms lost acks_* errors"));
        }
        let refused = check("qqq=1").unwrap_err();
        assert!(!refused.contains("did you mean"), "{refused}");
    }

    #[test]
    fn a_report_and_what_is_known_of_it_are_the_same() {
        let mut report = Report::new("test");
        report.count("lost", 0);
        report.count("acks_ok", 1);
        assert_eq!(Known::new(&[&["lost", "acks_*"]]).differences(&report), Vec::<String>::new());
        assert_eq!(Known::new(&[&["acks_*", "found"]]).differences(&report), ["lost", "found"]);
    }
}
