//! From the outbox to the broker: the relay, its lease, the reconciler and the partitions. Nothing here knows HTTP, or what
//! an event means.
//!
//! The outbox is a log that the transactions of orders append to. One replica at a time relays, the holder of the [`Lease`]. It
//! does two things: it gives a position to what a new snapshot of the database shows and the last one did not, in the order of
//! the ids; and it publishes the events behind the last published position. It also maintains the log: [`Reconciler`] and
//! [`maintain_partitions`].
//!
//! The guarantee: every committed event gets one position, dense and ascending with the version of its order, whatever becomes
//! of the broker; and it is published at least once, as soon as possible, whatever fails in between. Events of one order are
//! published in the order of their versions, except that an event that the broker did not confirm can come again after later
//! ones. How positions are given out is defined in one place, the function `log_sequence` of the migrations.

mod backlog;
mod lag;
mod lease;
mod log;
mod loops;
mod metrics;
mod partitions;
mod publish;
mod reconcile;
mod relay;
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

/// The limit of a statement that can read many rows, such as the first one after a long outage of the broker.
const LARGE_WORK: Duration = Duration::from_mins(2);

/// Why a step failed. All of these are temporary: the caller tries again after a pause.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// A statement failed.
    #[error("the outbox cannot be read or its cursor not moved: {0}")]
    Database(#[from] DbError),
    /// Another replica holds the lease now: the position that this one knows is out of date.
    #[error("the lease of the relay is lost")]
    LeaseLost,
    /// PostgreSQL was restarted or replaced: the position is read again from what it has kept.
    #[error("PostgreSQL was restarted or replaced by another server")]
    ServerReplaced,
}
