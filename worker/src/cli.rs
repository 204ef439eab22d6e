//! The command line.

use clap::{Args, Parser, Subcommand};
use shared::domain::order::OrderId;
use time::OffsetDateTime;

use crate::dead_letters::Filter;

/// Consumes order events: writes the history and keeps the cache right. Settings come from the environment and from
/// `.env`; see `.env.example` for all of them.
#[derive(Debug, Parser)]
#[command(name = "worker", version, about)]
pub struct Cli {
    /// What to do; `run` where nothing is said.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What the worker can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Consume events until SIGTERM or Ctrl-C (the default)
    Run,
    /// See and manage events that were set aside
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetters(DeadLetters),
    /// Publish retained events again, in their order and under their own ids
    ///
    /// Harmless beside a running system: effects are idempotent, and old events never create cache entries. Events are
    /// retained for seven days.
    Replay(Replay),
    /// Write the cache entry of every order, as it is now; never replaces a newer entry
    RebuildCache,
    /// Compare orders, event log, history and cache, and print every difference
    ///
    /// What other handlers did with the events is not compared. A cache that cannot be read is said to be not compared, and
    /// is a failure. A table that is locked is waited for at most 10 s.
    ///
    /// Works beside a running system: a difference counts only where it is still there a few seconds later. Ends with
    /// exit code 1 where differences remain. A digest does not depend on the order of rows, so two runs, or the log and
    /// the history, can be compared by it.
    Verify(Verify),
}

/// `worker dead-letters`
#[derive(Debug, Subcommand)]
pub enum DeadLetters {
    /// List them, newest first
    List(List),
    /// Show one with its body
    Show(Show),
    /// Publish them again under their own event ids; always safe, also twice and during traffic
    Redrive(Redrive),
    /// Remove them for good
    Purge(Purge),
}

/// Which dead letters.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Only those of the part that gave up: `history`, `cache`, `parse`, `consumer` or `publish`
    #[arg(long, value_name = "PART")]
    pub source: Option<String>,
    /// Only events of this type: `OrderCreated`, `OrderUpdated` or `OrderDeleted`
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only those of this order
    #[arg(long, value_name = "ID", value_parser = order_id)]
    pub order: Option<OrderId>,
    /// Only those set aside at or after this time (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<OffsetDateTime>,
    /// Only those set aside before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<OffsetDateTime>,
}

impl Which {
    /// Whether it narrows nothing.
    pub fn is_everything(&self) -> bool {
        let Self { source, event_type, order, since, until } = self;
        source.is_none() && event_type.is_none() && order.is_none() && since.is_none() && until.is_none()
    }

    /// The filter, for these numbers where there are any.
    pub fn filter(&self, ids: &[i64], open: bool) -> Filter {
        Filter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            source: self.source.clone(),
            event_type: self.event_type.clone(),
            order: self.order,
            since: self.since,
            until: self.until,
            open,
        }
    }
}

/// `worker dead-letters list`
#[derive(Debug, Args)]
pub struct List {
    /// Which ones.
    #[command(flatten)]
    pub which: Which,
    /// Also those that were sent again
    #[arg(long)]
    pub redriven: bool,
    /// So many at most
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// One JSON object a line, with the body
    #[arg(long)]
    pub json: bool,
}

/// `worker dead-letters show`
#[derive(Debug, Args)]
pub struct Show {
    /// Its number in the list
    pub id: i64,
    /// As a JSON object
    #[arg(long)]
    pub json: bool,
}

/// `worker dead-letters redrive`
#[derive(Debug, Args)]
pub struct Redrive {
    /// Numbers in the list; these are sent again even where they were before
    pub ids: Vec<i64>,
    /// Which ones, of those not sent again yet.
    #[command(flatten)]
    pub which: Which,
    /// All that were not sent again yet
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// At most so many a second: `100/s`, or `100`
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<u32>,
}

/// `worker dead-letters purge`
#[derive(Debug, Args)]
pub struct Purge {
    /// Numbers in the list
    pub ids: Vec<i64>,
    /// Which ones.
    #[command(flatten)]
    pub which: Which,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Remove them; without this, only say how many there are
    #[arg(long)]
    pub yes: bool,
}

/// `worker replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Which events.
    #[command(flatten)]
    pub which: ReplayWhich,
    /// Give the events to this handler alone, here and without the broker: `history`, `cache`, or one of your own. For a
    /// handler whose effects were lost or that is new; the reconciler and `verify` know only the history
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
}

/// Which events are sent again.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ReplayWhich {
    /// Everything recorded at or after this time (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<OffsetDateTime>,
    /// Everything of this order
    #[arg(long, value_name = "ID", value_parser = order_id)]
    pub order: Option<OrderId>,
}

/// `worker verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Mend what can be mended: publish missing events from the log, correct the history by the log, and remove or
    /// correct wrong cache entries
    #[arg(long)]
    pub repair: bool,
}

fn order_id(text: &str) -> Result<OrderId, String> {
    let id: i64 = text.parse().map_err(|_| "must be a positive number".to_owned())?;
    OrderId::try_from(id).map_err(|error| error.to_string())
}

fn time(text: &str) -> Result<OffsetDateTime, String> {
    if let Some(date) = shared::domain::timestamp::parse_date(text) {
        return Ok(date.midnight().assume_utc());
    }
    shared::domain::timestamp::parse_rfc3339(text)
        .ok_or_else(|| "must be a time such as 2025-01-20T10:00:00Z, or a date such as 2025-01-20".to_owned())
}

fn rate(text: &str) -> Result<u32, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    match number.parse() {
        Ok(rate) if rate > 0 => Ok(rate),
        _ => Err("must be a number of events a second, such as 100/s".to_owned()),
    }
}
