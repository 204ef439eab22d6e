//! Removes stored responses that have expired, a few at a time.

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

/// How long a response stands under its key. A new claim treats an older one as absent, even if it is not removed yet.
pub const KEY_LIFETIME: Duration = Duration::hours(24);
/// Responses that one statement removes: few enough to disturb nobody.
const BATCH: i64 = 500;
/// The pause while there is nothing to remove.
const PAUSE: StdDuration = StdDuration::from_mins(1);

/// Removes expired responses until the shutdown begins.
pub(super) async fn keep_expiring(db: DbPool, clock: Clock, shutdown: Shutdown) {
    loop {
        let full = match expire_once(&db, &clock).await {
            Ok(removed) => i64::try_from(removed).unwrap_or(i64::MAX) >= BATCH,
            Err(error) => {
                tracing::warn!(error = %error, "expired idempotency keys could not be removed");
                false
            }
        };
        // Batch after batch without a pause would crowd out requests.
        let pause = if full { PAUSE / 600 } else { PAUSE };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.begun() => return,
        }
    }
}

/// Removes one batch, and returns how many responses it was. If it fails, the next attempt comes by itself.
pub async fn expire_once(db: &DbPool, clock: &Clock) -> Result<u64, DbError> {
    let before = clock.now() - KEY_LIFETIME;
    let removed = db
        .read_with_retry(|mut db| async move { db::delete_expired_responses(&mut db, before, BATCH).await })
        .await?;
    metrics::counter!("idempotency_keys_expired_total").increment(removed);
    Ok(removed)
}
