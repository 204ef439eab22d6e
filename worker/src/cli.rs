//! The command line.

use clap::{Args, Parser, Subcommand};
use shared::domain::{order::OrderId, tenant::TenantId};
use time::OffsetDateTime;

use crate::dead_letters::DeadLetterFilter;

/// Consumes order events: writes the history and keeps the cache right. Settings come from the environment and from
/// `.env`; see `.env.example` for all of them.
#[derive(Debug, Parser)]
#[command(name = "worker", version, about)]
pub struct Cli {
    /// What to do; `run` if it is omitted.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands of the worker.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Consume events until SIGTERM or Ctrl-C (the default)
    Run,
    /// See and manage dead letters
    #[command(subcommand, visible_alias = "dlq")]
    DeadLetters(DeadLetters),
    /// Publish retained events again, in their order and under their own ids
    ///
    /// Safe while the system is running: effects are idempotent, and old events never create cache entries. Events are
    /// retained for seven days.
    Replay(Replay),
    /// Write the current cache entry of every order; never replaces a newer entry
    RebuildCache,
    /// Compare orders, event log, history and cache, and print every difference
    ///
    /// The effects of other handlers are not compared. If the cache cannot be read, the output says so, and the command fails.
    /// The command waits for a locked table for at most 10 s.
    ///
    /// Works while the system is running: a difference counts only if it is still there a few seconds later. Ends with
    /// exit code 1 if differences remain. A digest does not depend on the order of rows, so two runs, or the log and
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

/// A filter for dead letters.
#[derive(Clone, Debug, Default, Args)]
pub struct Which {
    /// Only those of this part: `history`, `cache`, `parse`, `consumer` or `publish`
    #[arg(long, value_name = "PART")]
    pub source: Option<String>,
    /// Only events of this type: `OrderCreated`, `OrderUpdated` or `OrderDeleted`
    #[arg(long, value_name = "TYPE")]
    pub event_type: Option<String>,
    /// Only those of this order
    #[arg(long, value_name = "ID", value_parser = order_id)]
    pub order: Option<OrderId>,
    /// Only those of this tenant
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    pub tenant: Option<TenantId>,
    /// Only those that failed at or after this time (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub since: Option<OffsetDateTime>,
    /// Only those that failed before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<OffsetDateTime>,
}

impl Which {
    /// Whether it selects all dead letters.
    pub fn is_everything(&self) -> bool {
        let Self { source, event_type, order, tenant, since, until } = self;
        source.is_none()
            && event_type.is_none()
            && order.is_none()
            && tenant.is_none()
            && since.is_none()
            && until.is_none()
    }

    /// The filter, for these numbers if there are any.
    pub fn filter(&self, ids: &[i64], open: bool) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: (!ids.is_empty()).then(|| ids.to_vec()),
            source: self.source.clone(),
            event_type: self.event_type.clone(),
            order: self.order,
            since: self.since,
            until: self.until,
            open,
            tenant: self.tenant,
        }
    }
}

/// `worker dead-letters list`
#[derive(Debug, Args)]
pub struct List {
    /// The filter.
    #[command(flatten)]
    pub which: Which,
    /// Also those that were published again
    #[arg(long)]
    pub redriven: bool,
    /// The largest number of rows
    #[arg(long, default_value_t = 50, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// One JSON object per line, with the body
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
    /// Numbers in the list; these are published again even if they were before
    pub ids: Vec<i64>,
    /// A filter for those that were not published again yet.
    #[command(flatten)]
    pub which: Which,
    /// All that were not published again yet
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// The largest number per second: `100/s`, or `100`
    #[arg(long, value_name = "N/s", value_parser = rate)]
    pub rate: Option<u32>,
}

/// `worker dead-letters purge`
#[derive(Debug, Args)]
pub struct Purge {
    /// Numbers in the list
    pub ids: Vec<i64>,
    /// The filter.
    #[command(flatten)]
    pub which: Which,
    /// All of them
    #[arg(long, conflicts_with = "ids")]
    pub all: bool,
    /// Remove them; without this, only print how many there are
    #[arg(long)]
    pub yes: bool,
}

/// `worker replay`
#[derive(Debug, Args)]
pub struct Replay {
    /// Which events.
    #[command(flatten)]
    pub which: ReplayWhich,
    /// Of these, only the events of this tenant
    #[arg(long, value_name = "ID", value_parser = tenant_id)]
    pub tenant: Option<TenantId>,
    /// Pass the events only to this handler, in this process and without the broker: `history`, `cache`, or one of your own.
    /// For a handler that is new or whose effects were lost; the reconciler and `verify` know only the history
    #[arg(long, value_name = "NAME")]
    pub handler: Option<String>,
}

/// Which events are published again.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct ReplayWhich {
    /// All events recorded at or after this time (RFC 3339, or a date in UTC)
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub from: Option<OffsetDateTime>,
    /// All events of this order
    #[arg(long, value_name = "ID", value_parser = order_id)]
    pub order: Option<OrderId>,
}

/// `worker verify`
#[derive(Debug, Args)]
pub struct Verify {
    /// Repair differences: publish missing events from the log, correct the history from the log, and remove or correct
    /// wrong cache entries
    #[arg(long)]
    pub repair: bool,
}

fn order_id(text: &str) -> Result<OrderId, String> {
    let id: i64 = text.parse().map_err(|_| "must be a positive number".to_owned())?;
    OrderId::try_from(id).map_err(|error| error.to_string())
}

fn tenant_id(text: &str) -> Result<TenantId, String> {
    let id: i32 = text.parse().map_err(|_| "must be the number of a tenant".to_owned())?;
    TenantId::try_from(id).map_err(|error| error.to_string())
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
        _ => Err("must be a number of events per second, such as 100/s".to_owned()),
    }
}
