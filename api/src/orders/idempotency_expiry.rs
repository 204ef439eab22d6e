//! Removing kept answers that have expired, a few at a time.

use std::time::Duration as StdDuration;

use shared::{
    domain::clock::Clock,
    platform::{
        db::{DbError, DbPool},
        shutdown::Shutdown,
    },
};
use time::Duration;

use crate::db;

/// How long an answer stands under its key. A new claim treats an older one as absent, whether removed or not.
pub const KEY_LIFETIME: Duration = Duration::hours(24);
/// Removed by one statement: short enough to disturb nobody.
const BATCH: i64 = 500;
/// Between two looks while there is nothing to remove.
const PAUSE: StdDuration = StdDuration::from_mins(1);

/// Removes expired answers until the shutdown begins.
pub(crate) async fn keep_expiring(db: DbPool, clock: Clock, shutdown: Shutdown) {
    loop {
        let full = match expire_once(&db, &clock).await {
            Ok(removed) => i64::try_from(removed).unwrap_or(i64::MAX) >= BATCH,
            Err(error) => {
                tracing::warn!(error = %error, "expired keys could not be removed");
                false
            }
        };
        // Batch after batch would crowd out the work of the day.
        let pause = if full { PAUSE / 600 } else { PAUSE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Removes one batch, and gives its size.
pub async fn expire_once(db: &DbPool, clock: &Clock) -> Result<u64, ExpiryError> {
    let before = clock.now() - KEY_LIFETIME;
    let removed =
        db.read_with_retry(|mut db| async move { db::expire(&mut db, before, BATCH).await }).await?;
    metrics::counter!("idempotency_keys_expired_total").increment(removed);
    Ok(removed)
}

/// Expired answers could not be removed; the next attempt comes by itself.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ExpiryError(#[from] DbError);
