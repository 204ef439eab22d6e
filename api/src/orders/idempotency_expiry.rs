//! Removes stored responses that have expired, a few at a time.
//!
//! They expire after 24 hours by the clock of PostgreSQL, which all replicas share: a replica whose clock is wrong would end the
//! keys of all the others. A new claim treats an expired response as absent, even if it is not removed yet.

use std::time::Duration;

use shared::platform::{
    db::{DbError, DbPool},
    shutdown::Shutdown,
};

use crate::db;

/// Responses that one statement removes: few enough to disturb nobody.
const BATCH: i64 = 500;
/// The pause while there is nothing to remove.
const PAUSE: Duration = Duration::from_mins(1);

/// Removes expired responses until the shutdown begins.
pub(super) async fn keep_expiring(db: DbPool, shutdown: Shutdown) {
    loop {
        let full = match expire_once(&db).await {
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
pub async fn expire_once(db: &DbPool) -> Result<u64, DbError> {
    let removed = db
        .read_with_retry(|mut db| async move { db::delete_expired_responses(&mut db, BATCH).await })
        .await?;
    metrics::counter!("idempotency_keys_expired_total").increment(removed);
    Ok(removed)
}
