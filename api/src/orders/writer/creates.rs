//! Batches of new orders: one statement, one commit.

use std::sync::Arc;

use shared::{
    domain::{
        event::Envelope,
        order::{CustomerId, Order, OrderId},
    },
    platform::{
        batching::BatchHandler,
        db::{DbPool, WriteError},
    },
};

use super::{Keyed, Reply, WriterContext, fail, is_fault_of_one, one_per_key, send};
use crate::{
    db::{self, IdempotencyClaim, NewOrder},
    http::orders::response::Answer,
};

/// An order to create, with everything that is written and answered ready.
pub(crate) struct CreateJob {
    pub(crate) order: Order,
    pub(crate) event: Envelope,
    pub(crate) answer: Answer,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) reply: Reply,
}

impl Keyed for CreateJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    /// None: the cache holds nothing of a new order that could be older than the answer.
    fn changed_order(&self) -> Option<OrderId> {
        None
    }

    /// The request names the owner, so an equal request is of somebody who may place orders of that owner.
    fn may_access(&self, _owner: CustomerId) -> bool {
        true
    }

    fn into_reply(self) -> Reply {
        self.reply
    }
}

pub(crate) struct Creates {
    db: DbPool,
    tools: Arc<WriterContext>,
}

impl BatchHandler<CreateJob> for Creates {
    async fn handle(&self, jobs: Vec<CreateJob>) -> Vec<CreateJob> {
        let (batch, mut taken) = one_per_key(jobs);
        metrics::histogram!("write_batch_size", "kind" => "create").record(size(&batch));
        match self.write(&batch, false).await {
            Ok(written) => taken.extend(self.settle(batch, &written)),
            Err(failure) if is_fault_of_one(&failure.error) => {
                taken.extend(self.write_alone(batch, failure.in_doubt).await);
            }
            Err(failure) => fail(batch, &failure.error),
        }
        self.tools.replay(taken).await
    }
}

impl Creates {
    /// `db` has a connection for each lane.
    pub(crate) fn new(db: DbPool, tools: &Arc<WriterContext>) -> Self {
        Self { db, tools: Arc::clone(tools) }
    }

    /// Tells for each job whether it was written; otherwise its key is taken.
    async fn write(&self, batch: &[CreateJob], in_doubt: bool) -> Result<Vec<bool>, WriteError> {
        let new: Vec<NewOrder<'_>> = batch
            .iter()
            .map(|job| NewOrder {
                order: &job.order,
                event: &job.event,
                claim: job.claim.as_ref().map(|claim| (claim, job.answer.kept())),
            })
            .collect();
        let new = &new;
        let (written, _) = self
            .db
            .write_with_retry(in_doubt, |mut db| async move { db::create(&mut db, new).await })
            .await?;
        Ok(new.iter().map(|new| written.contains(&new.order.id)).collect())
    }

    /// Writes each job by itself, so that it is not the others' fault if one is refused, and gives back those whose key is taken.
    async fn write_alone(&self, batch: Vec<CreateJob>, in_doubt: bool) -> Vec<CreateJob> {
        let (mut taken, mut jobs) = (Vec::new(), batch.into_iter());
        while let Some(job) = jobs.next() {
            let alone = vec![job];
            match self.write(&alone, in_doubt).await {
                Ok(written) => taken.extend(self.settle(alone, &written)),
                // Its id is its own: the attempt whose outcome was unknown has written it.
                Err(WriteError { error, in_doubt: true }) if error.violates("orders_pkey") => {
                    taken.extend(self.settle(alone, &[true]));
                }
                Err(WriteError { error, .. }) => {
                    fail(alone, &error);
                    if !is_fault_of_one(&error) {
                        // The others would only wait in vain, one after the other.
                        fail(jobs.by_ref(), &error);
                    }
                }
            }
        }
        taken
    }

    /// Answers those that were written, and gives back those whose key is taken.
    ///
    /// The cache is left to the worker: it holds nothing of a new order that could be wrong, and so nobody writes twice.
    fn settle(&self, batch: Vec<CreateJob>, written: &[bool]) -> Vec<CreateJob> {
        self.tools.wake.notify();
        let mut taken = Vec::new();
        for (job, written) in batch.into_iter().zip(written) {
            if *written {
                send(job.reply, Ok(job.answer));
            } else {
                taken.push(job);
            }
        }
        taken
    }
}

#[expect(clippy::cast_precision_loss, reason = "a batch has a few dozen jobs")]
pub(crate) fn size<J>(batch: &[J]) -> f64 {
    batch.len() as f64
}
