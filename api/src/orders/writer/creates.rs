//! Batches of new orders: one statement, one commit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shared::{
    domain::{
        event::Envelope,
        order::{CustomerId, Order, OrderId, OrderKey},
    },
    platform::{
        batching::BatchHandler,
        db::{DbError, DbPool, WriteError},
    },
};

use super::{
    super::{
        error::OrderError,
        ids::IdSource,
        load::load_orders,
        response::{OrderResponse, RenderRefusal},
    },
    BATCH_BYTES,
    context::WriterContext,
    job::{Reply, WriteJob, batch_size, fail_jobs, is_fault_of_one, send_reply, split_duplicate_keys},
    references::{ATTEMPTS, Holders, Wanted},
};
use crate::db::{self, CreatedOrder, IdempotencyClaim, NotCreated, REFERENCE_UNIQUE};

/// An order to create, with everything that is written and answered ready.
pub(crate) struct CreateJob {
    pub(crate) order: Order,
    pub(crate) event: Envelope,
    pub(crate) response: OrderResponse,
    pub(crate) claim: Option<IdempotencyClaim>,
    pub(crate) render_refusal: RenderRefusal,
    pub(crate) reply: Reply,
}

impl CreateJob {
    /// The reference that it asks for.
    fn wanted(&self) -> Option<Wanted> {
        Some((self.order.owner(), self.order.reference.clone()?))
    }
}

impl WriteJob for CreateJob {
    fn claim(&self) -> Option<&IdempotencyClaim> {
        self.claim.as_ref()
    }

    /// None: the cache holds nothing of a new order that could be older than the response.
    fn changed_order(&self) -> Option<OrderKey> {
        None
    }

    /// The request names the owner, so an equal request comes from a caller who can place orders of that owner.
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

/// What remains of a batch that was written.
#[derive(Default)]
struct Unwritten {
    /// Their key is taken.
    key_taken: Vec<CreateJob>,
    /// Another order has their reference.
    refused: Vec<(CreateJob, OrderId)>,
    /// Who has the references of the batch now.
    holders: Holders,
}

/// Writes batches of new orders.
pub(super) struct CreateHandler {
    db: DbPool,
    ids: Arc<IdSource>,
    context: Arc<WriterContext>,
}

impl BatchHandler<CreateJob> for CreateHandler {
    async fn handle(&self, jobs: Vec<CreateJob>) -> Vec<CreateJob> {
        let (jobs, later) = split_beyond_limit(jobs);
        let (batch, mut taken) = split_duplicate_keys(jobs);
        let (batch, rivals) = split_rivals(batch);
        metrics::histogram!("write_batch_size", "kind" => "create").record(batch_size(&batch));
        let mut unwritten = Unwritten::default();
        match self.write_batch(&batch, false).await {
            Ok(refused) => self.respond_written(batch, &refused, &mut unwritten),
            Err(failure) if is_fault_of_one(&failure.error) => {
                self.write_one_by_one(batch, failure.in_doubt, &mut unwritten).await;
            }
            Err(failure) => fail_jobs(batch, failure.error),
        }
        let Unwritten { key_taken, mut refused, holders } = unwritten;
        let (losers, mut held) = holders.divide(rivals);
        refused.extend(losers);
        taken.extend(key_taken);
        taken.extend(self.context.respond_reference_taken(refused, &HashMap::new()).await);
        held.extend(self.context.replay(taken).await);
        held.extend(later);
        held
    }
}

/// Separates the jobs that are too much for one statement.
fn split_beyond_limit(mut jobs: Vec<CreateJob>) -> (Vec<CreateJob>, Vec<CreateJob>) {
    let mut bytes = 0;
    let fits = |job: &&CreateJob| {
        let fits = bytes < BATCH_BYTES;
        bytes += job.event.body.len();
        fits
    };
    let count = jobs.iter().take_while(fits).count();
    let later = jobs.split_off(count);
    (jobs, later)
}

/// Separates the jobs that ask for the same reference as another job of the batch.
fn split_rivals(jobs: Vec<CreateJob>) -> (Vec<CreateJob>, Vec<(CreateJob, Wanted)>) {
    let (mut seen, mut batch, mut rivals) = (HashSet::new(), Vec::with_capacity(jobs.len()), Vec::new());
    for job in jobs {
        match job.wanted() {
            Some(wanted) if !seen.insert(wanted.clone()) => rivals.push((job, wanted)),
            _ => batch.push(job),
        }
    }
    (batch, rivals)
}

impl CreateHandler {
    /// `db` has a connection for each batch that is written at a time.
    pub(super) fn new(db: DbPool, ids: Arc<IdSource>, context: &Arc<WriterContext>) -> Self {
        Self { db, ids, context: Arc::clone(context) }
    }

    /// Returns the orders that were not written. A lost race for a reference is no failure: the next attempt finds the order that has won.
    async fn write_batch(
        &self,
        batch: &[CreateJob],
        mut in_doubt: bool,
    ) -> Result<HashMap<OrderId, NotCreated>, WriteError> {
        let created: Vec<CreatedOrder<'_>> = batch
            .iter()
            .map(|job| CreatedOrder {
                order: &job.order,
                event: &job.event,
                claim: job.claim.as_ref().map(|claim| (claim, &job.response.stored)),
            })
            .collect();
        let created = &created;
        let mut attempt = 1;
        loop {
            let written = self.db.write_with_retry(in_doubt, |mut db| async move {
                db::insert_orders(&mut db, created).await
            });
            match written.await {
                Ok((refused, _)) => return Ok(refused),
                Err(failure) if failure.error.violates(REFERENCE_UNIQUE) && attempt < ATTEMPTS => {
                    (in_doubt, attempt) = (failure.in_doubt, attempt + 1);
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    /// Writes each job by itself, so that one that is refused does not fail the others.
    async fn write_one_by_one(&self, batch: Vec<CreateJob>, in_doubt: bool, unwritten: &mut Unwritten) {
        let mut jobs = batch.into_iter();
        while let Some(job) = jobs.next() {
            let alone = [job];
            match self.write_batch(&alone, in_doubt).await {
                Ok(refused) => self.respond_written(alone.into(), &refused, unwritten),
                Err(WriteError { error, in_doubt }) if error.violates("orders_pkey") => {
                    let [job] = alone;
                    self.respond_to_taken_id(job, error, in_doubt).await;
                }
                Err(WriteError { error, .. }) if is_fault_of_one(&error) => fail_jobs(alone, error),
                // The others would only wait in vain, one after the other.
                Err(WriteError { error, .. }) => fail_jobs(alone.into_iter().chain(jobs.by_ref()), error),
            }
        }
    }

    /// Answers a job whose id is in use already: by this order, if an attempt whose outcome was unknown has written it, or by
    /// another one, because a standby was promoted that had not received how far the sequence was.
    async fn respond_to_taken_id(&self, job: CreateJob, error: DbError, in_doubt: bool) {
        let order = &job.order;
        let is_written = match load_orders(&self.db, &[order.key()]).await {
            Ok(found) => {
                in_doubt
                    && found.get(&order.key()).is_some_and(|found| {
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

    /// Answers those that were written, and keeps the others.
    ///
    /// The cache is left to the worker: it holds nothing of a new order that could be wrong, and so nobody writes twice.
    fn respond_written(
        &self,
        batch: Vec<CreateJob>,
        refused: &HashMap<OrderId, NotCreated>,
        unwritten: &mut Unwritten,
    ) {
        self.context.wake.notify();
        for job in batch {
            let (id, wanted) = (job.order.id, job.wanted());
            let holder = match refused.get(&id) {
                None => {
                    send_reply(job.reply, Ok(job.response));
                    Some(id)
                }
                Some(NotCreated::ReferenceTaken(other)) => {
                    unwritten.refused.push((job, *other));
                    Some(*other)
                }
                Some(NotCreated::KeyTaken) => {
                    unwritten.key_taken.push(job);
                    None
                }
                Some(NotCreated::TenantRemoved) => {
                    send_reply(job.reply, Err(OrderError::TenantRemoved));
                    None
                }
            };
            if let Some((wanted, holder)) = wanted.zip(holder) {
                unwritten.holders.insert(wanted, holder);
            }
        }
    }
}
