//! A report as one page that needs nothing else: figures, thresholds, and charts of how it went.

use std::fmt::Write;

use crate::{
    report::{Report, Step, Value},
    timeline::Moment,
};

mod chart;

use chart::{Chart, Series, percentile};

const STYLE: &str = include_str!("html/page.css");

/// The page of a report.
#[must_use]
pub fn page(report: &Report) -> String {
    let verdict = if report.passed() { "passed" } else { "failed" };
    let title = escaped(report.scenario());
    let mut body = format!("<h1>{title}<span class=\"verdict {verdict}\">{verdict}</span></h1>\n");
    list(&mut body, "failures", report.failures());
    list(&mut body, "notes", report.notes());
    thresholds(&mut body, report);
    body.push_str("<div class=\"charts\">\n");
    for chart in charts(report) {
        body.push_str(&chart.figure());
    }
    body.push_str("</div>\n");
    steps(&mut body, report);
    figures(&mut body, report);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{title}: {verdict}</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn list(to: &mut String, class: &str, lines: &[String]) {
    if lines.is_empty() {
        return;
    }
    let _ = write!(to, "<ul class=\"{class}\">");
    for line in lines {
        let _ = write!(to, "<li>{}</li>", escaped(line));
    }
    to.push_str("</ul>\n");
}

fn thresholds(to: &mut String, report: &Report) {
    if report.thresholds().is_empty() {
        return;
    }
    to.push_str(
        "<h2>Thresholds</h2>\n<table>\n<tr><th>threshold</th><th>figure</th><th>found</th><th></th></tr>\n",
    );
    for held in report.thresholds() {
        let found = held.found.map_or(Value::Unknown, Value::of);
        let (class, says) = if held.holds { ("passed", "holds") } else { ("failed", "does not hold") };
        let (threshold, figure) = (escaped(&held.threshold), escaped(&held.figure.replace('_', " ")));
        let _ = writeln!(
            to,
            "<tr><td>{threshold}</td><td>{figure}</td><td>{found}</td><td class=\"{class}\">{says}</td></tr>"
        );
    }
    to.push_str("</table>\n");
}

fn figures(to: &mut String, report: &Report) {
    if report.figures().is_empty() {
        return;
    }
    to.push_str("<h2>Figures</h2>\n<dl>\n");
    for (name, value) in report.figures() {
        let _ = writeln!(to, "<div><dt>{}</dt><dd>{value}</dd></div>", escaped(&name.replace('_', " ")));
    }
    for (kind, count) in &report.errors_by_kind().0 {
        let _ = writeln!(to, "<div><dt>errors: {}</dt><dd>{count}</dd></div>", escaped(kind));
    }
    to.push_str("</dl>\n");
}

/// What is shown of each of several runs.
const STEP_FIGURES: [(&str, &str); 7] = [
    ("deliveries_per_second", "deliveries/s"),
    ("latency_p50_ms", "p50 ms"),
    ("latency_p99_ms", "p99 ms"),
    ("everybody_p99_ms", "p99 ms to everybody"),
    ("server_cpu_percent", "server CPU %"),
    ("server_cpu_us_per_delivery", "CPU us a delivery"),
    ("server_rss_peak_bytes", "server bytes"),
];

fn steps(to: &mut String, report: &Report) {
    if report.steps().is_empty() {
        return;
    }
    to.push_str("<h2>Runs</h2>\n<table>\n<tr><th>count</th>");
    for (_, label) in STEP_FIGURES {
        let _ = write!(to, "<th>{label}</th>");
    }
    to.push_str("<th></th></tr>\n");
    for step in report.steps() {
        let _ = write!(to, "<tr><td>{}</td>", step.value);
        for (figure, _) in STEP_FIGURES {
            let _ = write!(to, "<td>{}</td>", step.report.figure(figure).unwrap_or(Value::Unknown));
        }
        let verdict = if step.report.passed() { "passed" } else { "failed" };
        let _ = writeln!(to, "<td class=\"{verdict}\">{verdict}</td></tr>");
    }
    to.push_str("</table>\n");
}

fn charts(report: &Report) -> Vec<Chart> {
    let mut charts = over_time(&report.course().0.0);
    let curve = report.course().1.iter().map(|(quantile, ms)| (percentile(*quantile), Some(*ms)));
    charts
        .insert(1, Chart::percentiles("Percentiles, ms", Series::new("latency", &curve.collect::<Vec<_>>())));
    charts.extend(over_count(report.steps()));
    charts.retain(Chart::has_points);
    charts
}

fn over_time(moments: &[Moment]) -> Vec<Chart> {
    let line = |name, of: fn(&Moment) -> Option<f64>| {
        Series::new(name, &moments.iter().map(|moment| (moment.seconds, of(moment))).collect::<Vec<_>>())
    };
    vec![
        Chart::over_time(
            "Latency over time, ms",
            vec![line("p99", |moment| moment.p99_ms), line("p50", |moment| moment.p50_ms)],
        ),
        Chart::over_time(
            "Throughput, a second",
            vec![
                line("deliveries", |moment| Some(moment.delivered)),
                line("published", |moment| Some(moment.published)),
            ],
        ),
        Chart::over_time(
            "Server memory, MiB",
            vec![line("resident", |moment| moment.server_rss.map(|bytes| bytes / f64::from(1 << 20)))],
        ),
        Chart::over_time(
            "CPU, % of a core",
            vec![line("server", |moment| moment.server_cpu), line("tester", |moment| moment.tester_cpu)],
        ),
        Chart::over_time(
            "Clients",
            vec![
                line("connected", |moment| moment.present.map(|present| present as f64)),
                line("came back", |moment| (moment.reconnects > 0).then_some(moment.reconnects as f64)),
                line("errors", |moment| (moment.errors > 0).then_some(moment.errors as f64)),
            ],
        ),
        Chart::over_time(
            "Longest queue in the server, KiB",
            vec![line("bytes waiting", |moment| moment.queue.map(|bytes| bytes / 1024.0))],
        ),
    ]
}

fn over_count(steps: &[Step]) -> Vec<Chart> {
    let line = |name, figure: &str| {
        let point = |step: &Step| (step.value as f64, step.report.number_of(figure));
        Series::new(name, &steps.iter().map(point).collect::<Vec<_>>())
    };
    vec![
        Chart::over_count(
            "Latency by count, ms",
            vec![line("p99", "latency_p99_ms"), line("p50", "latency_p50_ms")],
        ),
        Chart::over_count(
            "CPU by count, % of a core",
            vec![line("server", "server_cpu_percent"), line("tester", "tester_cpu_percent")],
        ),
        Chart::over_count("CPU a delivery by count, us", vec![line("server", "server_cpu_us_per_delivery")]),
        Chart::over_count("Deliveries a second by count", vec![line("deliveries", "deliveries_per_second")]),
    ]
}

/// Text that means nothing else on a page.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{measure::Latencies, timeline::Timeline};

    fn report() -> Report {
        let mut report = Report::new("test");
        let moment = |second: u32| Moment {
            seconds: f64::from(second),
            delivered: 100.0,
            p99_ms: Some(f64::from(second)),
            server_rss: Some(1e7),
            ..Moment::default()
        };
        report.timeline(&Timeline((1..=20).map(moment).collect()));
        let mut latencies = Latencies::default();
        (1..1000).for_each(|each| latencies.record(each * 1000));
        report.curve(&latencies);
        report
    }

    #[test]
    fn a_page_has_the_charts_there_are_figures_for_and_needs_nothing_else() {
        let page = page(&report());
        for title in ["Latency over time", "Percentiles", "Throughput", "Server memory"] {
            assert!(page.contains(title), "{title}");
        }
        assert!(!page.contains("Longest queue"));
        for foreign in ["<script", "http://", "https://", "@import", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn what_a_server_said_is_text_on_the_page() {
        let mut report = report();
        report.fail("<script>alert(1)</script> & \"more\"".to_owned());
        let page = page(&report);
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;more&quot;"));
        assert!(!page.contains("<script"));
    }
}
