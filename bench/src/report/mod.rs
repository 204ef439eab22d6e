//! What the bench reports: a table on the terminal, `report.json` for programs, `report.html` for people.

mod html;
mod machine;
mod plots;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;

pub use machine::Machine;

use crate::stats::Latencies;

/// One row of the table, as `report.json` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Which case.
    pub case: &'static str,
    /// The median over the rounds; none if the case failed.
    pub value: Option<f64>,
    /// Of `value` and `reference`.
    pub unit: &'static str,
    /// The median of the reference; none if the target is absolute.
    pub reference: Option<f64>,
    /// The median of the rounds' ratios; none if the target is absolute.
    pub ratio: Option<f64>,
    /// Highest less lowest of the rounds' ratios (or values), as a share of their median.
    pub spread: f64,
    /// What it must reach.
    pub target: Target,
    /// Whether it is reached.
    pub met: bool,
    /// Why the case could not be measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What a case must reach. `report.json` shows the number alone.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(untagged)]
pub enum Target {
    /// The ratio to the reference must be at least this.
    AtLeast(f64),
    /// The value must be less than this.
    Below(f64),
}

impl Target {
    /// Whether this ratio, or this value, reaches it.
    pub fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(least) => measured >= least,
            Self::Below(limit) => measured < limit,
        }
    }

    /// In words, with the unit of the value.
    pub fn describe(self, unit: &str) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::Below(limit) => format!("< {limit} {unit}"),
        }
    }
}

/// What a case says about itself.
#[derive(Clone, Copy, Debug)]
pub struct About {
    /// Its name.
    pub case: &'static str,
    /// Of its value.
    pub unit: &'static str,
    /// What it must reach.
    pub target: Target,
    /// What is measured, against what, in a sentence or two.
    pub text: &'static str,
}

/// The results of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Its row of the table.
    pub row: Row,
    /// What was measured, against what, in a sentence or two.
    pub about: &'static str,
    /// Each round: the value, and the reference's if there is one.
    pub rounds: Vec<(f64, Option<f64>)>,
    /// Latencies by name.
    pub latencies: Vec<(&'static str, Latencies)>,
    /// Lag over time.
    pub lag: Vec<LagPoint>,
    /// Further figures, as sentences.
    pub notes: Vec<String>,
}

impl Outcome {
    /// A case that could not be measured, and why.
    pub fn failed(about: About, error: &anyhow::Error) -> Self {
        let row = Row {
            case: about.case,
            value: None,
            unit: about.unit,
            reference: None,
            ratio: None,
            spread: 0.0,
            target: about.target,
            met: false,
            error: Some(format!("{error:#}")),
        };
        Self {
            row,
            about: about.text,
            rounds: Vec::new(),
            latencies: Vec::new(),
            lag: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// The lag within a slice of time.
#[derive(Clone, Copy, Debug)]
pub struct LagPoint {
    /// Seconds since the first commit.
    pub at: f64,
    /// Milliseconds, median.
    pub p50: f64,
    /// Milliseconds, 99th percentile.
    pub p99: f64,
    /// Milliseconds, the slowest.
    pub max: f64,
}

/// Where the reports go: `target/bench` in the workspace.
pub fn folder() -> PathBuf {
    testbed::paths::workspace().join("target/bench")
}

/// Writes `report.json` and `report.html`.
pub fn write_reports(folder: &Path, machine: &Machine, outcomes: &[Outcome]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let rows: Vec<&Row> = outcomes.iter().map(|outcome| &outcome.row).collect();
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&rows)? + "\n")?;
    std::fs::write(folder.join("report.html"), html::render_page(machine, outcomes)?)?;
    Ok(())
}

/// The table, in Markdown, so that it can be read on a terminal and pasted into a document. Below it, each failed case with its reason.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut lines = vec![[
        "case".to_owned(),
        "value".to_owned(),
        "reference".to_owned(),
        "ratio".to_owned(),
        "spread".to_owned(),
        "target".to_owned(),
        "met".to_owned(),
    ]];
    lines.extend(outcomes.iter().map(|outcome| cells(&outcome.row)));
    let widths: Vec<usize> = (0..lines[0].len())
        .map(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default())
        .collect();
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let padded: Vec<String> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _infallible = writeln!(text, "| {} |", padded.join(" | "));
        if index == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            let _infallible = writeln!(text, "| {} |", rules.join(" | "));
        }
    }
    for row in outcomes.iter().map(|outcome| &outcome.row) {
        if let Some(error) = &row.error {
            let _infallible = writeln!(text, "{} failed: {error}", row.case);
        }
    }
    text
}

/// A row as texts.
fn cells(row: &Row) -> [String; 7] {
    let none = || "–".to_owned();
    [
        row.case.to_owned(),
        row.value.map_or_else(|| "failed".to_owned(), |value| format!("{} {}", number(value), row.unit)),
        row.reference.map_or_else(none, number),
        row.ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
        row.value.map_or_else(none, |_| format!("{:.0} %", row.spread * 100.0)),
        row.target.describe(row.unit),
        if row.met { "yes" } else { "no" }.to_owned(),
    ]
}

/// Three digits that mean something, with thousands apart.
pub fn number(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value.abs() < 1.0 {
        return format!("{value:.3}");
    }
    if value.abs() < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_are_short_and_grouped() {
        let cases = [
            (0.0, "0"),
            (0.1234, "0.123"),
            (12.34, "12.3"),
            (999.6, "1,000"),
            (1_234_567.0, "1,234,567"),
            (-4200.0, "-4,200"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
