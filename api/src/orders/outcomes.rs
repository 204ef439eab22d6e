//! Whether PostgreSQL takes writes: known from the real ones, and from a trial while those fail.
//!
//! A server whose disk is full, or whose rights were taken away, still answers every question about its health.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::platform::db::{DbConnection, DbError, DbPool};
use sqlx::Connection as _;

use crate::http::error::{ApiError, Code};

/// For this long after a real write failed, and no other has succeeded since, a trial that succeeds proves nothing: it is
/// smaller than a write, and touches fewer tables.
const BELIEVED: Duration = Duration::from_secs(10);

/// What the last write of an order came to.
#[derive(Debug, Default)]
pub struct WriteOutcomes(Mutex<Option<FailedWrite>>);

#[derive(Clone, Debug)]
struct FailedWrite {
    at: Instant,
    cause: String,
}

impl WriteOutcomes {
    /// Takes note of what a write came to.
    pub fn record<T>(&self, outcome: &Result<T, ApiError>) {
        let failure = match outcome {
            Ok(_) => None,
            Err(error) => match error.code() {
                Code::Unavailable | Code::InternalError | Code::Timeout => {
                    let cause = error.chain().unwrap_or_else(|| error.to_string());
                    Some(FailedWrite { at: Instant::now(), cause })
                }
                // The client's fault: PostgreSQL has answered.
                _ => return,
            },
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Why writes fail now, if they do.
    pub(crate) async fn failing(&self, db: &DbPool) -> Option<String> {
        let failed = self.failed()?;
        if failed.at.elapsed() < BELIEVED {
            return Some(failed.cause);
        }
        match try_to_write(db).await {
            Ok(()) => {
                let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                // Only what was seen before the trial.
                if last.as_ref().is_some_and(|last| last.at == failed.at) {
                    *last = None;
                }
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    fn failed(&self) -> Option<FailedWrite> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes an event to the log and takes it back. It is large enough to need a new page of the disk, for what fits into a page
/// that is there already can be written to a full disk too. Done only while writes fail, so it leaves little behind.
async fn try_to_write(db: &DbPool) -> Result<(), DbError> {
    db.run_once(|mut connection: DbConnection| async move {
        let mut transaction = connection.begin().await?;
        sqlx::query!(
            "INSERT INTO outbox (event_id, event_type, order_id, version, payload)
             SELECT gen_random_uuid(), 'Trial', 0, 0, string_agg(md5(random()::text), '') FROM generate_series(1, 1024)"
        )
        .execute(&mut *transaction)
        .await?;
        transaction.rollback().await
    })
    .await
}
