//! How many events wait in the outbox.

use shared::platform::db::{DbConnection, DbError, DbPool};

/// Up to this many events without a position are counted; beyond it their number is estimated.
const COUNTED: i32 = 1000;

/// The events that are committed and not published yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutboxBacklog {
    /// How many events: exact, except if more than 1,000 have no position yet. Those are estimated by the distance of the ids,
    /// which is too high by the transactions that rolled back.
    pub unpublished: u64,
    /// How long ago the first of them was recorded, by the database's clock.
    pub oldest_seconds: Option<f64>,
}

/// Counts the events that wait in the outbox. Costs a few index probes, even if millions wait.
pub async fn backlog(pool: &DbPool) -> Result<OutboxBacklog, DbError> {
    let work = |mut db: DbConnection| async move {
        sqlx::query!(
            r#"SELECT unpublished AS "unpublished!",
                  extract(epoch FROM clock_timestamp() - oldest)::double precision AS oldest_seconds
           FROM log_backlog($1)"#,
            COUNTED
        )
        .fetch_one(&mut *db)
        .await
    };
    let row = pool.read_with_retry(work).await?;
    Ok(OutboxBacklog {
        unpublished: u64::try_from(row.unpublished).unwrap_or(0),
        oldest_seconds: row.oldest_seconds.map(|seconds| seconds.max(0.0)),
    })
}
