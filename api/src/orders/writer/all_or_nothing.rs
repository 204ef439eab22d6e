//! Several new orders that are written all together or not at all, in a transaction of their own.

use std::{collections::HashMap, sync::Arc};

use shared::{
    domain::{
        event::Envelope,
        order::{CustomerId, Order, OrderKey},
    },
    platform::db::{DbError, DbPool, WriteError},
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    super::{
        error::OrderError,
        ids::IdSource,
        load::load_orders,
        response::{OrderResponse, RenderRefusal},
        rules::RuleViolation,
    },
    context::WriterContext,
    job::{Reply, WriteJob, fail_jobs},
};
use crate::db::{self, CreatedOrder, IdempotencyClaim, REFERENCE_UNIQUE, TogetherOutcome};

/// Such transactions at a time.
pub(super) const MAX_TRANSACTIONS: usize = 2;
/// How often it is tried if a key becomes free meanwhile, or a race for a reference is lost.
const ATTEMPTS: usize = 3;

/// Orders to create together, with everything that is written and answered ready.
pub(crate) struct CreateAllJob {
    pub(crate) orders: Vec<Order>,
    /// The events of the orders, in the same order.
    pub(crate) events: Vec<Envelope>,
    pub(crate) response: OrderResponse,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) render_refusal: RenderRefusal,
    pub(crate) reply: Reply,
    /// Bounds how many there are. The client may be gone before they are written.
    pub(crate) _permit: Arc<OwnedSemaphorePermit>,
}

impl WriteJob for CreateAllJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    /// None: the cache holds nothing of a new order that could be older than the response.
    fn changed_order(&self) -> Option<OrderKey> {
        None
    }

    /// The request names the owners, so an equal request comes from a caller who can place their orders.
    fn may_access(&self, _owner: CustomerId) -> bool {
        true
    }

    fn render_refusal(&self) -> &RenderRefusal {
        &self.render_refusal
    }

    fn into_reply(self) -> Reply {
        self.reply
    }
}

/// Writes them.
pub(super) struct AllOrNothing {
    db: DbPool,
    ids: Arc<IdSource>,
    context: Arc<WriterContext>,
}

impl AllOrNothing {
    /// `db` has a connection for each transaction.
    pub(super) fn new(db: DbPool, ids: Arc<IdSource>, context: &Arc<WriterContext>) -> Self {
        Self { db, ids, context: Arc::clone(context) }
    }

    /// Writes the orders of a job and answers it, in a task that neither its client nor a shutdown ends.
    pub(super) fn start(self: &Arc<Self>, job: CreateAllJob) {
        let writer = Arc::clone(self);
        self.context.shutdown.spawn(async move { writer.write_and_respond(job).await });
    }

    async fn write_and_respond(&self, mut job: CreateAllJob) {
        for attempt in 1..=ATTEMPTS {
            let taken = match self.write(&job).await {
                Ok(TogetherOutcome::Written) => return self.respond_written(job),
                Ok(TogetherOutcome::TenantRemoved) => return job.respond(Err(OrderError::TenantRemoved)),
                Ok(TogetherOutcome::KeyTaken) => vec![job],
                Ok(TogetherOutcome::ReferencesTaken(taken)) => {
                    let response = job.refuse(RuleViolation::ReferencesTaken { taken });
                    self.context.respond_unchanged(vec![(job, response)], &HashMap::new()).await
                }
                // Another order has just got a reference, and is seen by the next attempt.
                Err(WriteError { error, .. }) if error.violates(REFERENCE_UNIQUE) && attempt < ATTEMPTS => {
                    continue;
                }
                Err(WriteError { error, in_doubt }) if error.violates("orders_pkey") => {
                    return self.respond_to_taken_id(job, error, in_doubt).await;
                }
                Err(WriteError { error, .. }) => return fail_jobs([job], error),
            };
            match self.context.replay(taken).await.pop() {
                // The key is free again by now.
                Some(again) => job = again,
                None => return,
            }
        }
        job.respond(Err(OrderError::KeyInProgress));
    }

    async fn write(&self, job: &CreateAllJob) -> Result<TogetherOutcome, WriteError> {
        let orders = job.orders.iter().zip(&job.events);
        let created: Vec<CreatedOrder<'_>> =
            orders.map(|(order, event)| CreatedOrder { order, event, claim: None }).collect();
        let (created, claim) = (&created, job.claim.as_ref().map(|claim| (claim, &job.response.stored)));
        let (outcome, _) = self
            .db
            .write_with_retry(false, |mut db| async move {
                db::insert_orders_together(&mut db, created, claim).await
            })
            .await?;
        Ok(outcome)
    }

    fn respond_written(&self, job: CreateAllJob) {
        self.context.wake.notify();
        let response = job.response.clone();
        job.respond(Ok(response));
    }

    /// Answers a job one of whose ids is in use already: by this job, if an attempt whose outcome was unknown has written it, or
    /// by another order, because a standby was promoted that had not received how far the sequence was.
    async fn respond_to_taken_id(&self, job: CreateAllJob, error: DbError, in_doubt: bool) {
        let Some(first) = job.orders.first() else { return fail_jobs([job], error) };
        let is_written = match load_orders(&self.db, &[first.key()]).await {
            Ok(found) => {
                in_doubt
                    && found.get(&first.key()).is_some_and(|found| {
                        (found.created_at, found.customer_id) == (first.created_at, first.customer_id)
                    })
            }
            Err(unread) => return fail_jobs([job], DbError::Lost(unread.into_cause())),
        };
        if is_written {
            self.respond_written(job);
        } else {
            // A repeated request gets other ids.
            self.ids.discard().await;
            fail_jobs([job], DbError::Unavailable(error.into_cause()));
        }
    }
}
