//! The arguments of `cargo xtask bench`, `load` and `stress`. xtask includes this file, so that it can help and object at
//! once, before it builds in release what does the work.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};

/// What can be measured, in the order of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// Creating two-line orders over 64 connections
    Create,
    /// Reading cached orders over 64 connections
    Get,
    /// The first page of a customer's list, among a million orders
    List,
    /// Changing the status of orders over 64 connections
    Update,
    /// 200,000 events from Redis Streams by one worker
    Consume,
    /// From the commit of an order to its history row, at half of the create rate
    Lag,
    /// Publishing a backlog of a million events, against one of ten thousand
    Backlog,
    /// Exporting a million orders as NDJSON, against COPY
    Export,
    /// Importing orders from a file, against single requests over 64 connections
    Import,
    /// Reading a million events from the feed, against `COPY` to psql
    Feed,
    /// From the commit of an order to its customer, over 200 streams of the feed
    FeedLag,
    /// Resident memory of both programs under the create load
    Memory,
    /// From the start of the processes to their being ready
    Start,
    /// Reading cached orders from Redis with sentinels, against a single Redis
    GetSentinel,
    /// Reading cached orders from Redis Cluster, against a single Redis
    GetCluster,
    /// Events from Redis with sentinels by one worker, against a single Redis
    ConsumeSentinel,
    /// Events from Redis Cluster by one worker, against a single Redis
    ConsumeCluster,
}

/// What to measure, and how.
#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// What to measure; without any, everything but `ha` and `scale`
    #[arg(value_enum)]
    pub cases: Vec<Choice>,
    /// Small numbers, to see that everything works; the figures mean nothing
    #[arg(long)]
    pub quick: bool,
    /// The folder for the reports
    #[arg(long, value_name = "FOLDER")]
    pub report: Option<PathBuf>,
}

/// A case, or all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Every case but those of [`Self::Ha`].
    All,
    /// This one.
    One(Case),
    /// What Redis Sentinel and Redis Cluster cost.
    Ha,
    /// How workers share the load; not one of the cases.
    Scale,
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::One(Case::Create),
            Self::One(Case::Get),
            Self::One(Case::List),
            Self::One(Case::Update),
            Self::One(Case::Consume),
            Self::One(Case::Lag),
            Self::One(Case::Backlog),
            Self::One(Case::Export),
            Self::One(Case::Import),
            Self::One(Case::Feed),
            Self::One(Case::FeedLag),
            Self::One(Case::Memory),
            Self::One(Case::Start),
            Self::All,
            Self::Ha,
            Self::Scale,
        ]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        match self {
            Self::One(case) => case.to_possible_value(),
            Self::All => Some(clap::builder::PossibleValue::new("all").help("Every case but those of `ha`")),
            Self::Ha => Some(
                clap::builder::PossibleValue::new("ha")
                    .help("Reads and events with Redis Sentinel and Redis Cluster, against a single Redis"),
            ),
            Self::Scale => Some(
                clap::builder::PossibleValue::new("scale")
                    .help("Apart from the cases: 1, 2, 4 and 8 workers with slow handlers, on each broker"),
            ),
        }
    }
}

/// How much load, for how long, on what.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Requests a second, begun at their times whether or not earlier ones have been answered
    #[arg(long, default_value_t = 500.0, value_parser = positive)]
    pub rate: f64,
    /// How long, such as 90s or 5m
    #[arg(long, default_value = "30s", value_parser = duration)]
    pub duration: Duration,
    /// How many requests can be under way at a time
    #[arg(long, default_value_t = 256)]
    pub connections: usize,
    /// On which system
    #[command(flatten)]
    pub place: Place,
}

/// Where to begin, and on what.
#[derive(Clone, Debug, Args)]
pub struct StressArgs {
    /// Requests a second to begin with
    #[arg(long, default_value_t = 1000.0)]
    pub rate: f64,
    /// Seconds of each step
    #[arg(long, default_value_t = 5)]
    pub step: u64,
    /// How many requests can be under way at a time
    #[arg(long, default_value_t = 2000)]
    pub connections: usize,
    /// On which system
    #[command(flatten)]
    pub place: Place,
}

/// Where the system is.
#[derive(Clone, Debug, Args)]
pub struct Place {
    /// The address of a running API with DEBUG=true; without it, a system of its own is started
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Its database, to check the history
    #[arg(long, value_name = "URL", requires = "url")]
    pub database_url: Option<String>,
    /// Workers of a system of its own
    #[arg(long, default_value_t = 1, conflicts_with = "url")]
    pub workers: usize,
}

fn positive(text: &str) -> anyhow::Result<f64> {
    let value: f64 = text.parse()?;
    if !(0.1..=1e6).contains(&value) {
        bail!("must be between 0.1 and a million");
    }
    Ok(value)
}

/// Seconds, or with `ms`, `s`, `m` or `h`.
fn duration(text: &str) -> anyhow::Result<Duration> {
    let digits = text.trim_end_matches(char::is_alphabetic);
    let value: f64 = digits.parse().with_context(|| format!("{text:?} is no duration"))?;
    let seconds = match &text[digits.len()..] {
        "ms" => value / 1000.0,
        "" | "s" => value,
        "m" => value * 60.0,
        "h" => value * 3600.0,
        unit => bail!("{unit:?} is no unit of time: say ms, s, m or h"),
    };
    if !(0.001..=1e6).contains(&seconds) {
        bail!("must be between a millisecond and eleven days");
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::duration;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert_eq!(duration("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(duration("7").unwrap(), Duration::from_secs(7));
        for bad in ["", "s", "5 minutes", "-1s", "1d"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
    }
}
