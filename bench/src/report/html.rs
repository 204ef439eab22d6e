//! `report.html`: one file that needs nothing else.

use std::fmt::Write as _;

use super::plots::{self, Series};
use super::{Machine, Outcome, cells, number};
use crate::stats::{Latencies, float, quantile_ms};

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1f24; --paper: #fff; --faint: #8a919c; --rule: #d9dde3;
  --good: #15803d; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --paper: #15181d; --faint: #8f97a3; --rule: #333a44; --good: #4ade80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 75rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--rule); }
.no { color: #dc2626; font-weight: 600; } .yes { color: var(--good); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; }
svg { background: #fff; border-radius: .3rem; }
p { max-width: 48rem; } .faint { color: var(--faint); }
";

pub(super) fn render_page(machine: &Machine, outcomes: &[Outcome]) -> anyhow::Result<String> {
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>How fast the order system is</title>\n<style>{STYLE}</style>\n\
         <h1>How fast the order system is</h1>\n<p class=\"faint\">{}</p>\n",
        escape(&machine.summary())
    );
    html += "<table>\n<tr><th>case<th>value<th>reference<th>ratio<th>spread<th>target<th>met\n";
    for outcome in outcomes {
        let [case, value, reference, ratio, spread, target, met] = cells(&outcome.row);
        let _infallible = writeln!(
            html,
            "<tr><td><a href=\"#{case}\">{case}</a><td>{value}<td>{reference}<td>{ratio}<td>{spread}<td>{}\
             <td class=\"{met}\">{met}",
            escape(&target)
        );
    }
    html += "</table>\n<p class=\"faint\">Medians over rounds in which case and reference took turns. The spread is \
             the whole range of the rounds, relative to the median.</p>\n";
    for outcome in outcomes {
        write_section(&mut html, outcome)?;
    }
    Ok(html + "</html>\n")
}

fn write_section(html: &mut String, outcome: &Outcome) -> anyhow::Result<()> {
    let _infallible =
        writeln!(html, "<h2 id=\"{0}\">{0}</h2>\n<p>{1}</p>", outcome.row.case, escape(outcome.about));
    if let Some(error) = &outcome.row.error {
        let _infallible = writeln!(html, "<p class=\"no\">It could not be measured: {}</p>", escape(error));
        return Ok(());
    }
    *html += "<div class=\"plots\">\n";
    let names: &[&str] =
        if outcome.row.reference.is_some() { &["the system", "reference"] } else { &["the system"] };
    let groups: Vec<Vec<f64>> = outcome
        .rounds
        .iter()
        .map(|(value, reference)| std::iter::once(*value).chain(*reference).collect())
        .collect();
    // A single figure stands in the table.
    if groups.iter().flatten().count() > 1 {
        *html += &plots::draw_bars(&format!("{}, each round", outcome.row.unit), names, &groups)?;
    }
    *html += &draw_percentiles(&outcome.latencies)?;
    *html += &draw_lag(outcome)?;
    *html += "</div>\n";
    for (name, latency) in &outcome.latencies {
        let _infallible = writeln!(html, "<p class=\"faint\">Latency, {name}: {}</p>", summarize(latency));
    }
    for note in &outcome.notes {
        let _infallible = writeln!(html, "<p>{}</p>", escape(note));
    }
    Ok(())
}

/// The latency by percentile: each step to the right is ten times rarer.
fn draw_percentiles(latencies: &[(&'static str, Latencies)]) -> anyhow::Result<String> {
    let steps = (0..=40).map(|step| f64::from(step) / 10.0);
    let series: Vec<Series<'_>> = latencies
        .iter()
        .map(|(name, latency)| {
            // Beyond this there is less than one value.
            let end = float(latency.len().max(1)).log10();
            let points = steps
                .clone()
                .filter(|step| *step <= end)
                .map(|step| (step, quantile_ms(latency, 1.0 - 10_f64.powf(-step))));
            Series { name, points: points.collect() }
        })
        .collect();
    plots::draw_lines("latency in milliseconds", "percentile", percentile_label, &series)
}

/// 0 %, 90 %, 99 %, 99.9 % and so on at the whole steps.
fn percentile_label(step: f64) -> String {
    let whole = plots::whole_number(step);
    if whole.is_empty() { whole } else { format!("{} %", 100.0 - 10_f64.powf(2.0 - step.round())) }
}

fn draw_lag(outcome: &Outcome) -> anyhow::Result<String> {
    let line = |name, value: fn(&super::LagPoint) -> f64| Series {
        name,
        points: outcome.lag.iter().map(|point| (point.at, value(point))).collect(),
    };
    let series = [line("median", |at| at.p50), line("p99", |at| at.p99), line("slowest", |at| at.max)];
    plots::draw_lines("lag in milliseconds", "seconds since the first commit", plots::whole_number, &series)
}

fn summarize(latency: &Latencies) -> String {
    let at = |share| number(quantile_ms(latency, share));
    format!(
        "p50 {} ms, p90 {} ms, p99 {} ms, p99.9 {} ms, slowest {} ms, of {}",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999),
        at(1.0),
        number(float(latency.len()))
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
