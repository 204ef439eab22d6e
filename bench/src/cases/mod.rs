//! The cases, one per file. Each alternates with its reference, if it has one.

mod backlog;
mod consume;
mod create;
mod export;
mod feed;
mod feed_lag;
mod get;
mod ha;
mod import;
mod lag;
mod list;
mod memory;
mod start;
mod update;

use testbed::source::Failover;

use crate::arguments::Case;
use crate::bench::Bench;
use crate::report::{About, Outcome, Row};
use crate::stats::{Latencies, latencies, median, spread};

impl Case {
    /// Measures it.
    pub async fn measure(self, bench: &Bench) -> anyhow::Result<Outcome> {
        match self {
            Self::Create => create::measure(bench).await,
            Self::Get => get::measure(bench).await,
            Self::List => list::measure(bench).await,
            Self::Update => update::measure(bench).await,
            Self::Consume => consume::measure(bench).await,
            Self::Lag => lag::measure(bench).await,
            Self::Backlog => backlog::measure(bench).await,
            Self::Export => export::measure(bench).await,
            Self::Import => import::measure(bench).await,
            Self::Feed => feed::measure(bench).await,
            Self::FeedLag => feed_lag::measure(bench).await,
            Self::Memory => memory::measure(bench).await,
            Self::Start => start::measure(bench).await,
            Self::GetSentinel => ha::measure_get(bench, Failover::Sentinel, self.about()).await,
            Self::GetCluster => ha::measure_get(bench, Failover::Cluster, self.about()).await,
            Self::ConsumeSentinel => ha::measure_consume(bench, Failover::Sentinel, self.about()).await,
            Self::ConsumeCluster => ha::measure_consume(bench, Failover::Cluster, self.about()).await,
        }
    }

    /// What it says about itself.
    pub fn about(self) -> About {
        match self {
            Self::Create => create::ABOUT,
            Self::Get => get::ABOUT,
            Self::List => list::ABOUT,
            Self::Update => update::ABOUT,
            Self::Consume => consume::ABOUT,
            Self::Lag => lag::ABOUT,
            Self::Backlog => backlog::ABOUT,
            Self::Export => export::ABOUT,
            Self::Import => import::ABOUT,
            Self::Feed => feed::ABOUT,
            Self::FeedLag => feed_lag::ABOUT,
            Self::Memory => memory::ABOUT,
            Self::Start => start::ABOUT,
            Self::GetSentinel => ha::GET_SENTINEL,
            Self::GetCluster => ha::GET_CLUSTER,
            Self::ConsumeSentinel => ha::CONSUME_SENTINEL,
            Self::ConsumeCluster => ha::CONSUME_CLUSTER,
        }
    }

    /// How many steps of the progress bar it takes.
    pub fn steps(self, rounds: usize) -> usize {
        match self {
            Self::Lag | Self::FeedLag | Self::Memory | Self::Start => 2,
            _ => 2 + 2 * rounds,
        }
    }
}

/// One run of a case or of its reference.
#[derive(Debug)]
struct Sample {
    rate: f64,
    latency: Latencies,
}

/// All runs of a case and its reference.
#[derive(Debug)]
struct Rounds {
    values: Vec<f64>,
    references: Vec<f64>,
    latency: Latencies,
    reference_latency: Latencies,
}

/// Lets the system and its reference take turns, so that whatever else the machine does meets both. Who begins changes
/// with each round.
async fn alternate(
    bench: &Bench,
    case: &'static str,
    rounds: usize,
    mut system: impl AsyncFnMut(usize) -> anyhow::Result<Sample>,
    mut reference: impl AsyncFnMut(usize) -> anyhow::Result<Sample>,
) -> anyhow::Result<Rounds> {
    let mut all = Rounds {
        values: Vec::new(),
        references: Vec::new(),
        latency: latencies(),
        reference_latency: latencies(),
    };
    for round in 0..rounds {
        for turn in 0..2 {
            let of = format!("round {} of {rounds}", round + 1);
            if (round + turn) % 2 == 0 {
                bench.progress.step(format!("{case}: the system, {of}"));
                let sample = system(round).await?;
                all.values.push(sample.rate);
                all.latency.add(&sample.latency)?;
            } else {
                bench.progress.step(format!("{case}: the reference, {of}"));
                let sample = reference(round).await?;
                all.references.push(sample.rate);
                all.reference_latency.add(&sample.latency)?;
            }
        }
    }
    Ok(all)
}

impl Rounds {
    /// As the outcome of a case whose target is a ratio.
    fn outcome(self, about: About, notes: Vec<String>) -> Outcome {
        let ratios: Vec<f64> =
            self.values.iter().zip(&self.references).map(|(value, reference)| value / reference).collect();
        let ratio = median(&ratios);
        let mut latencies = Vec::new();
        for (name, latency) in [("the system", self.latency), ("reference", self.reference_latency)] {
            if !latency.is_empty() {
                latencies.push((name, latency));
            }
        }
        Outcome {
            row: Row {
                case: about.case,
                value: Some(rounded(median(&self.values))),
                unit: about.unit,
                reference: Some(rounded(median(&self.references))),
                ratio: Some(rounded(ratio)),
                spread: rounded(spread(&ratios)),
                target: about.target,
                met: about.target.is_met(ratio),
                error: None,
            },
            about: about.text,
            rounds: self.values.into_iter().zip(self.references.into_iter().map(Some)).collect(),
            latencies,
            lag: Vec::new(),
            notes,
        }
    }
}

/// The outcome of a case whose target is absolute: its median must be below.
fn absolute(about: About, values: &[f64], notes: Vec<String>) -> Outcome {
    let value = median(values);
    Outcome {
        row: Row {
            case: about.case,
            value: Some(rounded(value)),
            unit: about.unit,
            reference: None,
            ratio: None,
            spread: rounded(spread(values)),
            target: about.target,
            met: about.target.is_met(value),
            error: None,
        },
        about: about.text,
        rounds: values.iter().map(|value| (*value, None)).collect(),
        latencies: Vec::new(),
        lag: Vec::new(),
        notes,
    }
}

/// To three decimals: what is measured knows no more.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
