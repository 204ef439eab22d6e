//! Plots as SVG, for inclusion in `report.html`.

use std::ops::Range;

use plotters::prelude::*;

use super::number;
use crate::stats::size;

const WIDTH: u32 = 560;
const HEIGHT: u32 = 280;
const COLOURS: [RGBColor; 3] = [RGBColor(36, 99, 201), RGBColor(217, 119, 6), RGBColor(21, 128, 61)];

/// One line of a plot.
#[derive(Debug)]
pub(super) struct Series<'a> {
    /// Shown in the legend.
    pub(super) name: &'a str,
    /// From left to right.
    pub(super) points: Vec<(f64, f64)>,
}

/// Draws groups of bars side by side, one group per round.
pub(super) fn draw_bars(title: &str, names: &[&str], rounds: &[Vec<f64>]) -> anyhow::Result<String> {
    let highest = rounds.iter().flatten().copied().fold(1e-6, f64::max) * 1.05;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart =
            builder(&area, title).build_cartesian_2d(0.5..size(rounds.len()) + 0.5, 0.0..highest)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc("round")
            .x_labels(rounds.len() + 1)
            .x_label_formatter(&|round| whole_number(*round))
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        let width = 0.7 / size(names.len());
        for (index, (name, colour)) in names.iter().zip(COLOURS).enumerate() {
            let bars = rounds.iter().enumerate().filter_map(|(round, values)| {
                let left = size(round) + 0.65 + width * size(index);
                let corners = [(left, 0.0), (left + width, *values.get(index)?)];
                Some(Rectangle::new(corners, colour.filled()))
            });
            chart.draw_series(bars)?.label(*name).legend(move |(x, y)| legend_key(x, y, colour));
        }
        chart.configure_series_labels().background_style(WHITE).draw()?;
        area.present()?;
    }
    Ok(without_namespace(&svg))
}

/// Draws lines over a logarithmic axis. `x_label` returns the text below a position, or an empty one.
pub(super) fn draw_lines(
    title: &str,
    x_title: &str,
    x_label: fn(f64) -> String,
    series: &[Series<'_>],
) -> anyhow::Result<String> {
    let Some((x, y)) = ranges(series) else { return Ok(String::new()) };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, HEIGHT)).into_drawing_area();
        let mut chart = builder(&area, title).build_cartesian_2d(x, y.log_scale())?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc(x_title)
            .x_label_formatter(&|at| x_label(*at))
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        for (series, colour) in series.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?
                .label(series.name)
                .legend(move |(x, y)| legend_key(x, y, colour));
        }
        let corner = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(corner).background_style(WHITE).draw()?;
        area.present()?;
    }
    Ok(without_namespace(&svg))
}

/// A label for whole numbers alone.
pub(super) fn whole_number(value: f64) -> String {
    if (value - value.round()).abs() < 1e-6 { format!("{value:.0}") } else { String::new() }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

fn builder<'a, 'b>(area: &'a Area<'b>, title: &str) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
    let mut builder = ChartBuilder::on(area);
    builder.caption(title, ("sans-serif", 14)).margin(8).x_label_area_size(36).y_label_area_size(56);
    builder
}

fn legend_key(x: i32, y: i32, colour: RGBColor) -> Rectangle<(i32, i32)> {
    Rectangle::new([(x, y - 5), (x + 10, y + 5)], colour.filled())
}

/// The ranges of both axes; none if there is no width to draw on. The upper one is wide enough for whole powers of ten.
fn ranges(series: &[Series<'_>]) -> Option<(Range<f64>, Range<f64>)> {
    let points = || series.iter().flat_map(|series| &series.points);
    let left = points().map(|(x, _)| *x).fold(f64::INFINITY, f64::min);
    let right = points().map(|(x, _)| *x).fold(f64::NEG_INFINITY, f64::max);
    let highest = points().map(|(_, y)| *y).fold(1e-3, f64::max);
    let lowest = points().map(|(_, y)| *y).filter(|y| *y > 0.0).fold(highest, f64::min);
    let bottom = 10_f64.powf(lowest.log10().floor());
    let top = 10_f64.powf(highest.log10().ceil()).max(bottom * 10.0);
    (left < right).then_some((left..right, bottom..top))
}

/// HTML knows SVG: without the address of its namespace the page names no other site.
fn without_namespace(svg: &str) -> String {
    svg.replacen(r#" xmlns="http://www.w3.org/2000/svg""#, "", 1)
}

#[cfg(test)]
mod tests {
    use super::{Series, draw_bars, draw_lines, whole_number};

    #[test]
    fn bars_show_each_round_of_each_name() {
        let svg = draw_bars("orders/s, each round", &["the system", "reference"], &vec![vec![2.0, 1.0]; 3])
            .unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"), "{svg}");
        assert_eq!(
            svg.matches("<rect").count(),
            3 * 2 + 2 + 1,
            "six bars, two keys and the legend's box: {svg}"
        );
    }

    #[test]
    fn lines_need_a_range_to_be_drawn_over() {
        let draw = |points| draw_lines("lag", "seconds", whole_number, &[Series { name: "median", points }]);
        assert!(draw(vec![(0.0, 1.0), (1.0, 30.0)]).unwrap().contains("<polyline"));
        assert_eq!(draw(vec![(0.0, 1.0)]).unwrap(), "");
        assert_eq!(draw(Vec::new()).unwrap(), "");
    }
}
