//! The check after a load: whatever was answered is in the history, each version once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use sqlx::PgPool;

/// The reconciler looks every minute; twice that is patience enough.
const HISTORY_TIMEOUT: Duration = Duration::from_mins(2);
const PAUSE: Duration = Duration::from_millis(200);
/// Orders in one statement.
const CHUNK: usize = 10_000;

/// What was found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Complete {
    /// Orders that the load changed.
    pub(crate) orders: usize,
    /// Their rows of the history.
    pub(crate) versions: i64,
    /// How long after the load the last of them was there.
    pub(crate) after: Duration,
}

/// Waits until each order's history has every version up to the last that was answered, and no version twice.
pub(crate) async fn history(pool: &PgPool, promised: &HashMap<i64, i64>) -> anyhow::Result<Complete> {
    let begun = Instant::now();
    let mut open: Vec<(i64, i64)> = promised.iter().map(|(id, version)| (*id, *version)).collect();
    let mut versions = 0;
    loop {
        let mut left = Vec::new();
        for chunk in open.chunks(CHUNK) {
            let (ids, wanted): (Vec<i64>, Vec<i64>) = chunk.iter().copied().unzip();
            let found: Vec<(i64, i64, i64, i64)> = sqlx::query_as(
                "SELECT p.id, p.version, count(h.version), coalesce(max(h.version), 0)
                 FROM unnest($1::bigint[], $2::bigint[]) AS p (id, version)
                 LEFT JOIN order_history h ON h.order_id = p.id
                 GROUP BY p.id, p.version",
            )
            .bind(ids)
            .bind(wanted)
            .fetch_all(pool)
            .await?;
            for (id, wanted, rows, last) in found {
                // The key of the table allows no version twice, so as many rows as the last version leave no gap.
                ensure!(rows <= last, "order {id} has {rows} rows of history up to version {last}");
                if rows == last && last >= wanted {
                    versions += rows;
                } else {
                    left.push((id, wanted));
                }
            }
        }
        if left.is_empty() {
            return Ok(Complete { orders: promised.len(), versions, after: begun.elapsed() });
        }
        if begun.elapsed() > HISTORY_TIMEOUT {
            bail!(
                "the history of {} orders is not complete {HISTORY_TIMEOUT:?} after the load, for example of order {}",
                left.len(),
                left[0].0
            );
        }
        open = left;
        tokio::time::sleep(PAUSE).await;
    }
}
