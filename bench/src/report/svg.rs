//! Plots as inline SVG: self-contained, sharp at any size, and readable in light and dark.

use std::fmt::Write as _;

use super::number;

const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 42.0;

/// One line of a plot.
#[derive(Debug)]
pub(super) struct Series<'a> {
    /// For the legend.
    pub(super) name: &'a str,
    /// From left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// Which values stand where, and what is written beside them.
#[derive(Debug)]
pub(super) struct Axes<'a> {
    /// Above the plot.
    pub(super) title: &'a str,
    /// Below it.
    pub(super) x_label: &'a str,
    /// Positions on the x axis and their texts.
    pub(super) x_ticks: Vec<(f64, String)>,
    /// Whether each step upwards is ten times the last.
    pub(super) logarithmic: bool,
}

/// A plot of lines.
pub(super) fn lines(axes: &Axes<'_>, series: &[Series<'_>]) -> String {
    let points = || series.iter().flat_map(|series| &series.points);
    let x_min = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
    let x_max = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
    if x_max <= x_min {
        return String::new();
    }
    let scale = Scale::of(points().map(|point| point.1), axes.logarithmic);
    let x = |value: f64| LEFT + (value - x_min) / (x_max - x_min) * (WIDTH - LEFT - RIGHT);

    let mut svg = frame(axes.title, axes.x_label, &scale);
    for (at, text) in axes.x_ticks.iter().filter(|(at, _)| (x_min..=x_max).contains(at)) {
        label(&mut svg, x(*at), HEIGHT - BOTTOM + 16.0, "middle", text);
    }
    for (index, series) in series.iter().enumerate() {
        let path: Vec<String> =
            series.points.iter().map(|(at, value)| format!("{:.1},{:.1}", x(*at), scale.y(*value))).collect();
        let _infallible = write!(svg, r#"<polyline class="line c{index}" points="{}"/>"#, path.join(" "));
    }
    legend(&mut svg, &series.iter().map(|series| series.name).collect::<Vec<_>>());
    svg + "</svg>"
}

/// A plot of groups of bars, one group a round.
pub(super) fn bars(title: &str, names: &[&str], groups: &[Vec<f64>]) -> String {
    let scale = Scale::of(groups.iter().flatten().copied(), false);
    let mut svg = frame(title, "round", &scale);
    let group_width = (WIDTH - LEFT - RIGHT) / crate::stats::size(groups.len().max(1));
    let mut left = LEFT;
    for (round, group) in groups.iter().enumerate() {
        let bar = group_width * 0.7 / crate::stats::size(group.len().max(1));
        let mut x = left + group_width * 0.15;
        for (index, value) in group.iter().enumerate() {
            let y = scale.y(*value);
            let _infallible = write!(
                svg,
                r#"<rect class="bar c{index}" x="{x:.1}" y="{y:.1}" width="{:.1}" height="{:.1}"><title>{}</title></rect>"#,
                bar - 1.0,
                HEIGHT - BOTTOM - y,
                number(*value)
            );
            x += bar;
        }
        label(&mut svg, left + group_width / 2.0, HEIGHT - BOTTOM + 16.0, "middle", &(round + 1).to_string());
        left += group_width;
    }
    legend(&mut svg, names);
    svg + "</svg>"
}

/// Values to heights.
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<f64>,
    logarithmic: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone, logarithmic: bool) -> Self {
        let high = values.clone().fold(0.0, f64::max).max(1e-6);
        if !logarithmic {
            let step = nice(high / 4.0);
            let top = (high / step).ceil() * step;
            let ticks = (0..=8).map(|index| f64::from(index) * step).filter(|tick| *tick <= top * 1.001);
            return Self { low: 0.0, high: top, ticks: ticks.collect(), logarithmic };
        }
        let low = values.filter(|value| *value > 0.0).fold(high, f64::min);
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        let high = if high <= low { low + 1.0 } else { high };
        let ticks = (0..=12).map(|index| low + f64::from(index)).take_while(|tick| *tick <= high);
        Self { low, high, ticks: ticks.map(|tick| 10_f64.powf(tick)).collect(), logarithmic }
    }

    fn y(&self, value: f64) -> f64 {
        let value = if self.logarithmic { value.max(1e-9).log10() } else { value };
        let share = ((value - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }
}

/// The next of 1, 2, 5, 10, 20 and so on.
fn nice(step: f64) -> f64 {
    let magnitude = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0, 10.0].into_iter().find(|factor| factor * magnitude >= step).unwrap_or(10.0);
    factor * magnitude
}

fn frame(title: &str, x_label: &str, scale: &Scale) -> String {
    let mut svg = format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">"#);
    let _infallible = write!(svg, r#"<text class="title" x="{LEFT}" y="14">{title}</text>"#);
    for tick in &scale.ticks {
        let y = scale.y(*tick);
        let _infallible =
            write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}"/>"#, WIDTH - RIGHT);
        let text = if scale.logarithmic { format!("{tick}") } else { number(*tick) };
        label(&mut svg, LEFT - 6.0, y + 4.0, "end", &text);
    }
    label(&mut svg, f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 8.0, "middle", x_label);
    svg
}

fn legend(svg: &mut String, names: &[&str]) {
    let mut x = WIDTH - RIGHT;
    for (index, name) in names.iter().enumerate().rev() {
        x -= 20.0 + 6.4 * crate::stats::size(name.chars().count());
        let _infallible =
            write!(svg, r#"<rect class="bar c{index}" x="{x:.1}" y="6" width="10" height="10"/>"#);
        label(svg, x + 14.0, 15.0, "start", name);
    }
}

fn label(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _infallible = write!(svg, r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}">{text}</text>"#);
}
