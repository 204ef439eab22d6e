//! Whether PostgreSQL accepts writes: known from the real ones, and from a trial while those fail.
//!
//! A server whose disk is full, or whose rights were taken away, still answers every question about its health.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use shared::platform::db::DbPool;

use super::error::OrderError;
use crate::db;

/// For this long after a real write failed, and no other has succeeded since, a trial that succeeds proves nothing, because it
/// is smaller than a write and touches fewer tables.
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
    /// Records what a write came to.
    pub fn record<T>(&self, outcome: &Result<T, OrderError>) {
        let failure = match outcome {
            Ok(_) => None,
            // PostgreSQL has answered these, or was not asked.
            Err(
                OrderError::Rule(_)
                | OrderError::KeyReused
                | OrderError::KeyInProgress
                | OrderError::TenantRemoved
                | OrderError::Overloaded(_),
            ) => return,
            Err(error) => Some(FailedWrite { at: Instant::now(), cause: error.to_string() }),
        };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// Why writes fail now, if they do.
    pub(crate) async fn failing(&self, db: &DbPool) -> Option<String> {
        let failed = self.last_failure()?;
        if failed.at.elapsed() < BELIEVED {
            return Some(failed.cause);
        }
        match db.run_once(|mut db| async move { db::try_to_write(&mut db).await }).await {
            Ok(()) => {
                let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                // A write may have failed during the trial.
                if last.as_ref().is_some_and(|last| last.at == failed.at) {
                    *last = None;
                }
                None
            }
            Err(error) => Some(error.to_string()),
        }
    }

    fn last_failure(&self) -> Option<FailedWrite> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
