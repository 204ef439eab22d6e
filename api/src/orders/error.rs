//! Why an order could not be read or written.

use std::sync::Arc;

use shared::{
    domain::order::NotPositive,
    platform::{batching::Overloaded, db::DbError},
};

use super::rules::RuleViolation;

/// Why a request was not carried out. `crate::http::orders` turns it into a problem document.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OrderError {
    /// The request was refused at once, because more requests wait than can be served in time.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// The state of the order does not allow it.
    #[error(transparent)]
    Rule(#[from] RuleViolation),
    /// Another request has used the `Idempotency-Key`.
    #[error("the Idempotency-Key was used for another request")]
    KeyReused,
    /// The first request with the `Idempotency-Key` is still running.
    #[error("the first request with this Idempotency-Key is still running")]
    KeyInProgress,
    /// The removal of the tenant began meanwhile. Nothing was changed.
    #[error("the tenant is being removed")]
    TenantRemoved,
    /// Another session holds a lock on the order for longer than a change can wait. Nothing was changed.
    #[error("the order is locked by another session")]
    OrderLocked,
    /// It is not known whether the change took effect.
    #[error("{0}")]
    UnknownOutcome(String),
    /// PostgreSQL failed. A whole batch of requests can share the failure.
    #[error(transparent)]
    Database(Arc<DbError>),
    /// A sequence returned an id that is none.
    #[error(transparent)]
    InvalidId(#[from] NotPositive),
    /// The batch of the request panicked.
    #[error("a batch ended without a response")]
    BatchLost,
}

impl From<DbError> for OrderError {
    fn from(error: DbError) -> Self {
        Self::Database(Arc::new(error))
    }
}

/// Refuses a request that comes while too many wait, and counts it.
pub(super) fn refuse_overload(error: Overloaded) -> OrderError {
    metrics::counter!("requests_shed_total").increment(1);
    error.into()
}
