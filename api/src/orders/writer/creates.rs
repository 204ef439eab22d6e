//! Batches of new orders: one statement, one commit.

use std::{collections::HashSet, sync::Arc};

use shared::{
    domain::{
        event::Envelope,
        order::{CustomerId, Order, OrderId},
    },
    platform::{
        batching::BatchHandler,
        db::{DbError, DbPool, WriteError},
    },
};

use super::{
    super::{ids::IdSource, load::load_orders, response::OrderResponse},
    context::WriterContext,
    job::{Reply, WriteJob, batch_size, fail_jobs, is_fault_of_one, send_reply, split_duplicate_keys},
};
use crate::db::{self, CreatedOrder, IdempotencyClaim};

/// An order to create, with everything that is written and answered ready.
pub(crate) struct CreateJob {
    pub(crate) order: Order,
    pub(crate) event: Envelope,
    pub(crate) response: OrderResponse,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) reply: Reply,
}

impl WriteJob for CreateJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    /// None: the cache holds nothing of a new order that could be older than the response.
    fn changed_order(&self) -> Option<OrderId> {
        None
    }

    /// The request names the owner, so an equal request comes from a caller who can place orders of that owner.
    fn may_access(&self, _owner: CustomerId) -> bool {
        true
    }

    fn into_reply(self) -> Reply {
        self.reply
    }
}

/// Writes batches of new orders.
pub(super) struct CreateHandler {
    db: DbPool,
    ids: Arc<IdSource>,
    context: Arc<WriterContext>,
}

impl BatchHandler<CreateJob> for CreateHandler {
    async fn handle(&self, jobs: Vec<CreateJob>) -> Vec<CreateJob> {
        let (batch, mut taken) = split_duplicate_keys(jobs);
        metrics::histogram!("write_batch_size", "kind" => "create").record(batch_size(&batch));
        match self.write_batch(&batch, false).await {
            Ok(written) => taken.extend(self.respond_written(batch, &written)),
            Err(failure) if is_fault_of_one(&failure.error) => {
                taken.extend(self.write_one_by_one(batch, failure.in_doubt).await);
            }
            Err(failure) => fail_jobs(batch, failure.error),
        }
        self.context.replay(taken).await
    }
}

impl CreateHandler {
    /// `db` has a connection for each batch that is written at a time.
    pub(super) fn new(db: DbPool, ids: Arc<IdSource>, context: &Arc<WriterContext>) -> Self {
        Self { db, ids, context: Arc::clone(context) }
    }

    /// Returns the orders that were written; the keys of the others are taken.
    async fn write_batch(&self, batch: &[CreateJob], in_doubt: bool) -> Result<HashSet<OrderId>, WriteError> {
        let created: Vec<CreatedOrder<'_>> = batch
            .iter()
            .map(|job| CreatedOrder {
                order: &job.order,
                event: &job.event,
                claim: job.claim.as_ref().map(|claim| (claim, &job.response.stored)),
            })
            .collect();
        let created = &created;
        let (written, _) = self
            .db
            .write_with_retry(in_doubt, |mut db| async move { db::insert_orders(&mut db, created).await })
            .await?;
        Ok(written)
    }

    /// Writes each job by itself, so that one that is refused does not fail the others. Returns those whose key is taken.
    async fn write_one_by_one(&self, batch: Vec<CreateJob>, in_doubt: bool) -> Vec<CreateJob> {
        let (mut taken, mut jobs) = (Vec::new(), batch.into_iter());
        while let Some(job) = jobs.next() {
            let alone = [job];
            match self.write_batch(&alone, in_doubt).await {
                Ok(written) => taken.extend(self.respond_written(alone.into(), &written)),
                Err(WriteError { error, in_doubt }) if error.violates("orders_pkey") => {
                    let [job] = alone;
                    self.respond_to_taken_id(job, error, in_doubt).await;
                }
                Err(WriteError { error, .. }) if is_fault_of_one(&error) => fail_jobs(alone, error),
                // The others would only wait in vain, one after the other.
                Err(WriteError { error, .. }) => fail_jobs(alone.into_iter().chain(jobs.by_ref()), error),
            }
        }
        taken
    }

    /// Answers a job whose id is in use already: by this order, if an attempt whose outcome was unknown has written it, or by
    /// another one, because a standby was promoted that had not received how far the sequence was.
    async fn respond_to_taken_id(&self, job: CreateJob, error: DbError, in_doubt: bool) {
        let order = &job.order;
        let is_written = match load_orders(&self.db, &[order.id]).await {
            Ok(found) => {
                in_doubt
                    && found.get(&order.id).is_some_and(|found| {
                        (found.created_at, found.customer_id) == (order.created_at, order.customer_id)
                    })
            }
            Err(unread) => return fail_jobs([job], DbError::Lost(unread.into_cause())),
        };
        if is_written {
            self.context.wake.notify();
            send_reply(job.reply, Ok(job.response));
        } else {
            // A repeated request gets another id.
            self.ids.discard().await;
            fail_jobs([job], DbError::Unavailable(error.into_cause()));
        }
    }

    /// Answers those that were written, and returns the others, whose key is taken.
    ///
    /// The cache is left to the worker: it holds nothing of a new order that could be wrong, and so nobody writes twice.
    fn respond_written(&self, batch: Vec<CreateJob>, written: &HashSet<OrderId>) -> Vec<CreateJob> {
        self.context.wake.notify();
        let mut taken = Vec::new();
        for job in batch {
            if written.contains(&job.order.id) {
                send_reply(job.reply, Ok(job.response));
            } else {
                taken.push(job);
            }
        }
        taken
    }
}
