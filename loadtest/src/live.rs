//! What is shown while a run goes on: a few rows that change on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    report::grouped,
    stop,
    timeline::{Moment, Timeline},
};

/// So wide is a row at most, so that a narrow terminal breaks none.
const WIDTH: usize = 59;
/// So wide is the name of a row, and each of its cells.
const NAME: usize = 9;
const CELL: usize = 15;
/// Heights of the picture of the last seconds.
const HEIGHTS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The view of one run, on standard error. It is gone when this is dropped.
pub(crate) struct Live {
    /// `None` where there is no terminal.
    bar: Option<ProgressBar>,
    most: u64,
    started: Instant,
}

impl Live {
    /// For a run that takes that long, as far as one knows.
    pub(crate) fn timed(length: Duration) -> Self {
        Self::new(length.as_secs().max(1), "s")
    }

    /// For something that is done that often.
    pub(crate) fn new(most: u64, unit: &str) -> Self {
        let (bar, started) = (ProgressBar::new(most), Instant::now());
        if bar.is_hidden() {
            return Self { bar: None, most, started };
        }
        let style =
            ProgressStyle::with_template(&format!("{{bar:32}} {{human_pos}} of {{human_len}} {unit}{{msg}}"));
        bar.set_style(style.expect("this template is one").progress_chars("━╸─"));
        Self { bar: Some(bar), most, started }
    }

    /// Shows how it goes: `rows` below the bar of a terminal, `line` elsewhere.
    pub(crate) fn show(&self, done: u64, line: &str, rows: &[String]) {
        match &self.bar {
            None => eprintln!("{:>4} s  {line}", self.started.elapsed().as_secs_f64().round()),
            Some(bar) => {
                bar.set_message(rows.iter().map(|row| format!("\n{row}")).collect::<String>());
                bar.set_position(done.min(self.most));
            }
        }
    }

    /// The same in one line on both.
    pub(crate) fn show_line(&self, done: u64, line: &str) {
        self.show(done, line, &[line.to_owned()]);
    }

    /// Shows the last second of a run.
    pub(crate) fn show_moment(&self, course: &Timeline, published: u64, delivered: u64) {
        if let Some(moment) = course.0.last() {
            let done = moment.seconds.round() as u64;
            let mut rows = rows(course, moment, published, delivered);
            if stop::is_asked() {
                rows.push("ended early: the report comes, Ctrl-C again goes without".to_owned());
            } else if done > self.most {
                rows.push("waiting for what is under way, then everything is compared".to_owned());
            }
            self.show(done, &line(moment, published, delivered), &rows);
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

fn rows(course: &Timeline, moment: &Moment, published: u64, delivered: u64) -> Vec<String> {
    let ms = |name, ms: Option<f64>| ms.map_or(format!("{name} -"), |ms| format!("{name} {ms:.1} ms"));
    let share = |percent: Option<f64>| percent.map(|percent| format!("{percent:.0} % CPU"));
    let memory = |bytes: Option<f64>| bytes.map(|bytes| format!("{:.1} MiB", bytes / f64::from(1 << 20)));
    let rate = format!("{}/s", grouped(moment.delivered.round() as u64));
    let mut rows = vec![
        row(
            "delivered",
            [
                Some(rate),
                Some(format!("{} in all", grouped(delivered))),
                Some(format!("{} sent", grouped(published))),
            ],
        ),
        row("latency", [Some(ms("p50", moment.p50_ms)), Some(ms("p99", moment.p99_ms)), None]),
        row("p99", [Some(picture(course)), None, None]),
        row(
            "clients",
            [
                moment.present.map(|present| format!("{} there", grouped(present))),
                Some(format!("{} back", grouped(moment.reconnects))),
                Some(format!("{} errors", grouped(moment.errors))),
            ],
        ),
    ];
    if moment.server_rss.is_some() || moment.server_cpu.is_some() {
        rows.push(row("server", [memory(moment.server_rss), share(moment.server_cpu), None]));
    }
    rows.push(row("tester", [share(moment.tester_cpu), None, None]));
    rows
}

fn row(name: &str, cells: [Option<String>; 3]) -> String {
    let cells: String = cells.into_iter().flatten().map(|cell| format!(" {cell:<CELL$}")).collect();
    format!("{name:<NAME$}{}", cells.trim_end())
}

/// The p99 of the last seconds, the highest of them as high as it goes.
fn picture(course: &Timeline) -> String {
    let last = &course.0[course.0.len().saturating_sub(WIDTH - NAME - 1)..];
    let top = last.iter().filter_map(|moment| moment.p99_ms).fold(f64::MIN_POSITIVE, f64::max);
    let height = |p99: f64| HEIGHTS[((p99 / top * 8.0).ceil() as usize).clamp(1, 8) - 1];
    last.iter().map(|moment| moment.p99_ms.map_or(' ', height)).collect()
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

    #[test]
    fn no_row_is_too_wide_for_a_narrow_terminal() {
        let moment = |p99| Moment {
            delivered: 999_999.0,
            p50_ms: Some(1234.5),
            p99_ms: Some(p99),
            present: Some(100_000),
            errors: 100_000,
            reconnects: 100_000,
            server_rss: Some(9e9),
            server_cpu: Some(100.0),
            tester_cpu: Some(100.0),
            ..Moment::default()
        };
        let course = Timeline((0..200).map(|second| moment(f64::from(second) * 100.0)).collect());
        for row in rows(&course, course.0.last().unwrap(), 9_999_999, 999_999_999) {
            assert!(row.chars().count() <= WIDTH, "{row:?}");
        }
    }

    #[test]
    fn the_picture_shows_the_last_seconds_and_leaves_out_those_without_deliveries() {
        let second = |p99_ms| Moment { p99_ms, ..Moment::default() };
        let course = Timeline(vec![second(Some(1.0)), second(None), second(Some(4.0)), second(Some(8.0))]);
        assert_eq!(picture(&course), "▁ ▄█");
        assert_eq!(picture(&Timeline::default()), "");
    }
}
