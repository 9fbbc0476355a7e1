//! What is shown while a run goes on: one line that changes on a terminal, plain lines elsewhere.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::{report::grouped, timeline::Moment};

/// The view of one run, on standard error.
pub(crate) struct Live {
    /// `None` where there is no terminal.
    bar: Option<ProgressBar>,
}

impl Live {
    /// For a run that takes that long, as far as one knows.
    pub(crate) fn new(length: Duration) -> Self {
        let bar = ProgressBar::new(length.as_secs().max(1));
        if bar.is_hidden() {
            return Self { bar: None };
        }
        let style =
            ProgressStyle::with_template("{bar:24} {pos:>4}/{len} s  {msg}").expect("this template is one");
        bar.set_style(style);
        Self { bar: Some(bar) }
    }

    /// Shows how it goes.
    pub(crate) fn show(&self, moment: &Moment, published: u64, delivered: u64) {
        let line = line(moment, published, delivered);
        match &self.bar {
            None => eprintln!("{:>4} s  {line}", moment.seconds.round()),
            Some(bar) => {
                bar.set_position(moment.seconds.round() as u64);
                bar.set_message(line);
            }
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn line(moment: &Moment, published: u64, delivered: u64) -> String {
    let mut parts = vec![
        format!("{:>9} deliveries/s", grouped(moment.delivered.round() as u64)),
        format!("{:>9} published", grouped(published)),
        format!("{:>11} delivered", grouped(delivered)),
    ];
    if let (Some(p50), Some(p99)) = (moment.p50_ms, moment.p99_ms) {
        parts.push(format!("p50 {p50:.1} ms  p99 {p99:.1} ms"));
    }
    if let Some(present) = moment.present {
        parts.push(format!("{} present", grouped(present)));
    }
    if moment.reconnects > 0 {
        parts.push(format!("{} came back", grouped(moment.reconnects)));
    }
    parts.push(format!("{} errors", grouped(moment.errors)));
    if let Some(bytes) = moment.server_rss {
        parts.push(format!("server {} KiB", grouped(bytes as u64 / 1024)));
    }
    if let Some(percent) = moment.server_cpu {
        parts.push(format!("{percent:.0} % CPU"));
    }
    parts.join("  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_there_is_and_nothing_else() {
        let moment = Moment { delivered: 1234.4, errors: 2, ..Moment::default() };
        assert_eq!(
            line(&moment, 5, 6),
            "    1,234 deliveries/s          5 published            6 delivered  2 errors"
        );
        let moment = Moment { p50_ms: Some(1.0), p99_ms: Some(2.0), server_rss: Some(2048.0), ..moment };
        assert!(line(&moment, 5, 6).ends_with("p50 1.0 ms  p99 2.0 ms  2 errors  server 2 KiB"));
    }
}
