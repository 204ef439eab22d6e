//! The only SQL of the worker: functions on a connection.

pub mod cache_debts;
pub mod comparison;
pub mod dead_letters;
pub mod history;
pub mod log;
pub mod orders;

use std::{io, time::Duration};

/// How long a statement over some rows may take for an operator's command. The server may be silent.
const FEW_ROWS: Duration = Duration::from_secs(30);
/// The same for a whole table: a little longer than the server works on it.
const WHOLE_TABLE: Duration = Duration::from_mins(11);

/// Bounds a statement of an operator's command on the client.
async fn bounded<T>(limit: Duration, statement: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let in_time = tokio::time::timeout(limit, statement).await;
    in_time.unwrap_or_else(|_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into())))
}
