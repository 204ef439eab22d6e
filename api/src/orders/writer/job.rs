//! What all jobs of the writer have in common: a key, a client that waits, and how a failure is answered.

use std::collections::HashSet;

use shared::{
    domain::order::{CustomerId, OrderKey},
    platform::db::DbError,
};
use tokio::sync::oneshot;

use super::super::{
    error::OrderError,
    response::{OrderResponse, RenderRefusal},
    rules::RuleViolation,
};
use crate::db::{IdempotencyClaim, REFERENCE_UNIQUE};

/// Where the response to a job goes. The client may be gone; the job is done all the same.
pub(crate) type Reply = oneshot::Sender<Result<OrderResponse, OrderError>>;

/// A request that can carry a key, and waits for its response.
pub(super) trait WriteJob: Sized {
    fn claim(&self) -> Option<&IdempotencyClaim>;
    /// The order whose version the response can show, if the cache can hold an older one.
    fn changed_order(&self) -> Option<OrderKey>;
    /// Whether its caller can see what belongs to `owner`.
    fn may_access(&self, owner: CustomerId) -> bool;
    fn render_refusal(&self) -> &RenderRefusal;
    fn into_reply(self) -> Reply;

    /// The response if the request is refused: with a key, the refusal is stored as it is sent.
    fn refuse(&self, violation: RuleViolation) -> Result<OrderResponse, OrderError> {
        match self.claim() {
            Some(_) => Ok(OrderResponse::first(self.render_refusal()(violation))),
            None => Err(violation.into()),
        }
    }

    fn respond(self, response: Result<OrderResponse, OrderError>) {
        send_reply(self.into_reply(), response);
    }
}

pub(super) fn send_reply(reply: Reply, response: Result<OrderResponse, OrderError>) {
    let _client_is_gone = reply.send(response);
}

/// Separates the jobs whose key another job of the batch has as well: they follow when that one is done, and then
/// find its response. So two equal requests in one process never meet as "in progress".
pub(super) fn split_duplicate_keys<J: WriteJob>(jobs: Vec<J>) -> (Vec<J>, Vec<J>) {
    let mut seen: HashSet<(CustomerId, String)> = HashSet::new();
    jobs.into_iter()
        .partition(|job| job.claim().is_none_or(|claim| seen.insert((claim.caller, claim.key.clone()))))
}

/// Whether one request of a batch can be the cause, so that the others can be written without it. A lock on a whole table, or
/// a PostgreSQL that is away, concerns all of them.
pub(super) fn is_fault_of_one(error: &DbError) -> bool {
    matches!(error, DbError::Refused(_)) || is_key_held(error)
}

/// Whether another transaction holds the key and did not end in time.
fn is_key_held(error: &DbError) -> bool {
    error.waited_for_row_of("idempotency_keys")
}

/// Answers requests that were not written.
pub(super) fn fail_jobs<J: WriteJob>(jobs: impl IntoIterator<Item = J>, error: DbError) {
    let is_key_held = is_key_held(&error);
    let error = OrderError::from(match error {
        // Others gave the reference away and took it back at each attempt.
        error if error.violates(REFERENCE_UNIQUE) => DbError::Unavailable(error.into_cause()),
        error => error,
    });
    for job in jobs {
        let has_key = job.claim().is_some();
        job.respond(Err(if has_key && is_key_held { OrderError::KeyInProgress } else { error.clone() }));
    }
}

/// The size of a batch, for the histogram.
#[expect(clippy::cast_precision_loss, reason = "a batch has at most 128 jobs")]
pub(super) fn batch_size<J>(batch: &[J]) -> f64 {
    batch.len() as f64
}
