//! Line charts, drawn as SVG whose colours are the page's.

use std::fmt::Write;

use super::escaped;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// More points than a line has pixels say nothing; of those that share a place the highest stays.
const MOST_POINTS: usize = 400;

/// A named line. Where it has no value it is broken.
pub(super) struct Series {
    name: &'static str,
    points: Vec<(f64, Option<f64>)>,
}

/// Lines over one axis.
pub(super) struct Chart {
    title: &'static str,
    across: Across,
    series: Vec<Series>,
}

/// What goes from left to right.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Across {
    Seconds,
    Percentiles,
    Count,
}

/// Where a quantile stands, so that each further nine is as wide as the one before.
pub(super) fn percentile(quantile: f64) -> f64 {
    const LAST: f64 = 4.5;
    if quantile >= 1.0 { LAST } else { -(1.0 - quantile).log10() }
}

impl Series {
    pub(super) fn new(name: &'static str, points: &[(f64, Option<f64>)]) -> Self {
        let wide = points.len().div_ceil(MOST_POINTS).max(1);
        let highest = |points: &[(f64, Option<f64>)]| {
            let value = points.iter().filter_map(|point| point.1).reduce(f64::max);
            (points[0].0, value)
        };
        Self { name, points: points.chunks(wide).map(highest).collect() }
    }

    fn values(&self) -> impl Iterator<Item = f64> + '_ {
        self.points.iter().filter_map(|point| point.1)
    }
}

impl Chart {
    pub(super) fn over_time(title: &'static str, series: Vec<Series>) -> Self {
        Self { title, across: Across::Seconds, series }
    }

    pub(super) fn over_count(title: &'static str, series: Vec<Series>) -> Self {
        Self { title, across: Across::Count, series }
    }

    pub(super) fn percentiles(title: &'static str, series: Series) -> Self {
        Self { title, across: Across::Percentiles, series: vec![series] }
    }

    /// Whether there is anything to see: one point is none.
    pub(super) fn has_points(&self) -> bool {
        self.series.iter().any(|series| series.values().nth(1).is_some())
    }

    /// The chart with its title and legend.
    pub(super) fn figure(&self) -> String {
        let mut out = format!("<figure>\n<figcaption>{}", escaped(self.title));
        let shown: Vec<_> =
            self.series.iter().enumerate().filter(|(_, series)| series.values().next().is_some()).collect();
        for (nth, series) in &shown {
            let _ = write!(out, "<span class=\"key s{nth}\">{}</span>", escaped(series.name));
        }
        let _ = write!(
            out,
            "</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">\n",
            escaped(self.title)
        );
        let scale = Scale::of(self);
        self.axes(&scale, &mut out);
        for (nth, series) in &shown {
            let path = path(&scale, series);
            let _ = writeln!(out, "<path class=\"line s{nth}\" d=\"{path}\"/>");
        }
        out.push_str("</svg>\n</figure>\n");
        out
    }

    fn axes(&self, scale: &Scale, out: &mut String) {
        for value in ticks(scale.top) {
            let y = scale.y(value);
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
                 <text class=\"y\" x=\"{}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                short(value)
            );
        }
        for (at, label) in self.labels(scale) {
            let x = scale.x(at);
            let y = HEIGHT - 8.0;
            let _ = writeln!(out, "<text class=\"x\" x=\"{x:.1}\" y=\"{y}\">{label}</text>");
        }
    }

    fn labels(&self, scale: &Scale) -> Vec<(f64, String)> {
        match self.across {
            Across::Percentiles => {
                let all = [
                    (0.5, "50 %"),
                    (0.9, "90 %"),
                    (0.99, "99 %"),
                    (0.999, "99.9 %"),
                    (0.9999, "99.99 %"),
                    (1.0, "max"),
                ];
                all.map(|(quantile, label)| (percentile(quantile), label.to_owned())).into()
            }
            Across::Seconds => {
                ticks(scale.right).into_iter().map(|at| (at, format!("{} s", short(at)))).collect()
            }
            Across::Count => ticks(scale.right).into_iter().map(|at| (at, short(at))).collect(),
        }
    }
}

struct Scale {
    right: f64,
    top: f64,
}

impl Scale {
    fn of(chart: &Chart) -> Self {
        let xs = chart.series.iter().flat_map(|series| series.points.iter().map(|point| point.0));
        let ys = chart.series.iter().flat_map(Series::values);
        let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0_f64, f64::max).max(1e-3);
        let (mut xs, mut ys) = (xs, ys);
        let highest = most(&mut ys);
        let step = step(highest);
        // Up to a line of the grid, so that every point stands between two of them.
        Self { right: most(&mut xs), top: (highest / step).ceil() * step }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + value / self.right * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)
    }
}

fn path(scale: &Scale, series: &Series) -> String {
    let mut path = String::new();
    let mut draws = false;
    for (x, value) in &series.points {
        if let Some(value) = value {
            let _ =
                write!(path, "{}{:.1} {:.1}", if draws { "L" } else { "M" }, scale.x(*x), scale.y(*value));
        }
        draws = value.is_some();
    }
    path
}

/// How far apart round numbers are of which about five go up to `top`.
fn step(top: f64) -> f64 {
    let rough = top / 5.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power).find(|step| *step >= rough * 0.999);
    step.unwrap_or(power * 10.0)
}

/// Round numbers from 0 to `top`.
fn ticks(top: f64) -> Vec<f64> {
    let step = step(top);
    (0_u32..12).map(|nth| f64::from(nth) * step).take_while(|value| *value <= top).collect()
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{}M", trimmed(value / 1e6)),
        large if large >= 1e4 => format!("{}k", trimmed(value / 1e3)),
        _ => trimmed(value),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(ticks(100.0), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!(ticks(7.3), [0.0, 2.0, 4.0, 6.0]);
        for top in [0.001, 0.37, 3.0, 86_400.0, 1.7e8] {
            assert!((3..=7).contains(&ticks(top).len()), "{top}: {:?}", ticks(top));
        }
        assert_eq!([0.2, 1500.0, 20_000.0, 2.5e6].map(short), ["0.2", "1500", "20k", "2.5M"]);
    }

    #[test]
    fn every_point_lies_below_a_line_of_the_grid() {
        for highest in [0.004, 0.9, 25.2, 275.0, 100.0] {
            let chart =
                Chart::over_time("t", vec![Series::new("a", &[(1.0, Some(0.0)), (2.0, Some(highest))])]);
            let top = Scale::of(&chart).top;
            assert!(
                top >= highest && ticks(top).last().is_some_and(|last| (last - top).abs() < 1e-9),
                "{highest}"
            );
        }
    }

    #[test]
    fn a_line_is_broken_where_nothing_was_measured_and_stays_within_the_chart() {
        let points = vec![(1.0, Some(1.0)), (2.0, None), (3.0, Some(3.0)), (4.0, Some(2.0))];
        let chart = Chart::over_time("t", vec![Series::new("a", &points)]);
        let path = path(&Scale::of(&chart), &chart.series[0]);
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1));
        let numbers: Vec<f64> =
            path.split(['M', 'L', ' ']).filter_map(|number| number.parse().ok()).collect();
        assert!(numbers.iter().all(|number| (TOP..=WIDTH - RIGHT).contains(number)), "{numbers:?}");
    }

    #[test]
    fn a_long_run_keeps_its_peaks() {
        let points: Vec<_> =
            (0..10_000).map(|nth| (f64::from(nth), Some(if nth == 5001 { 9.0 } else { 1.0 }))).collect();
        let series = Series::new("a", &points);
        assert!(series.points.len() <= MOST_POINTS);
        assert!(series.values().any(|value| value == 9.0));
    }
}
