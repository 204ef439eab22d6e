//! From the outbox to the broker: the relay, its lease, the reconciler, the partitions.
//!
//! The outbox is a log that the transactions of orders append to. The relay is a cursor over it: it publishes what a
//! new snapshot of the database shows and the last one did not, in the order of the ids. One replica at a time
//! relays, the holder of the [`Lease`]; it also looks after the log: [`Reconciler`] and [`maintain_partitions`].
//!
//! What is promised: every committed event is published at least once, as soon as it can be, whatever fails in
//! between; events of one order go out in the order of their versions, except that one the broker did not confirm
//! may come again after later ones. The SQL that says what is published and what is not stands in one place, the
//! functions `outbox_window` and `outbox_page` of the migrations.

mod backlog;
mod cursor;
mod lag;
mod lease;
mod metrics;
mod partitions;
mod publish;
mod reconcile;
mod relay;
mod run;
mod status;
mod wake;

use std::time::Duration;

use shared::platform::db::DbError;

pub(crate) use self::metrics::{set_backlog_gauges, set_lag_gauges, set_lease_gauge};
pub use backlog::{OutboxBacklog, backlog};
pub use lag::{HistoryLag, Lag};
pub use lease::Lease;
pub use partitions::{PartitionReport, PartitionSettings, maintain_partitions};
pub use reconcile::{Reconciled, Reconciler, ReconcilerSettings};
pub use relay::{Relay, RelaySettings, RelayStep};
pub use status::RelayStatus;
pub use wake::Wake;

/// How long a statement may take that has much to look at, such as the first one after a long outage of the broker.
const LARGE_WORK: Duration = Duration::from_mins(2);

/// Why the outbox could not go on. All of it may pass: the caller tries again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// PostgreSQL did not do what was asked.
    #[error("the outbox cannot be read or its cursor not moved: {0}")]
    Database(#[from] DbError),
    /// Another replica holds the lease now: what this one knows of the cursor is out of date.
    #[error("the lease of the relay is lost")]
    LeaseLost,
}
