//! The only SQL of the worker, as functions on a connection.
//! What the rows mean, and when they are read or written, is decided by the handlers and the commands.

pub mod cache_debts;
pub mod comparison;
pub mod dead_letters;
pub mod history;
pub mod log;
pub mod orders;
pub mod removal;
pub mod tenants;

use std::{io, time::Duration};

/// The limit of a command's statement over some rows, for a server that does not respond.
const FEW_ROWS: Duration = Duration::from_secs(30);
/// The limit of a command's statement over a whole table: a minute more than the server's own limit.
const WHOLE_TABLE: Duration = Duration::from_mins(11);

/// Limits a command's statement on the client.
async fn run_within<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let in_time = tokio::time::timeout(limit, statement).await;
    in_time.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
