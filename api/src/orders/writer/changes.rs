//! Batches of updates and deletions: one statement reads the orders, the decision is made here, one statement writes
//! what is still as it was read. A change that lost a race is read and decided again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shared::{
    domain::order::{OrderId, OrderKey},
    platform::{batching::BatchHandler, db::WriteError},
};

use super::{
    super::{error::OrderError, load::load_orders},
    BATCH_BYTES,
    change_job::{ChangeDecision, ChangeJob, PreparedChange},
    context::WriterContext,
    job::{WriteJob as _, batch_size, fail_jobs, is_fault_of_one, split_duplicate_keys},
    references::{ATTEMPTS, Holders},
};
use crate::db::{self, ChangeOutcome, ChangedOrder, REFERENCE_UNIQUE};

/// After this many lost races a change waits for the lock instead, so that it is written in the end.
const MAX_RACES: u32 = 3;

/// Writes batches of changes.
pub(super) struct ChangeHandler(Arc<WriterContext>);

/// Changes that were decided and must be written.
type PreparedJobs = Vec<(ChangeJob, Box<PreparedChange>)>;

/// What remains of a batch that was written.
#[derive(Default)]
struct Unwritten {
    /// They lost a race, and must be decided again.
    raced: Vec<ChangeJob>,
    /// Their key is taken.
    taken: Vec<ChangeJob>,
    /// Another order has their reference.
    refused: Vec<(ChangeJob, OrderId)>,
    /// Who has the references of the batch now.
    holders: Holders,
}

impl BatchHandler<ChangeJob> for ChangeHandler {
    async fn handle(&self, jobs: Vec<ChangeJob>) -> Vec<ChangeJob> {
        let (jobs, mut taken) = split_duplicate_keys(jobs);
        let mut orders: Vec<OrderKey> = jobs.iter().map(ChangeJob::order).collect();
        orders.sort_unstable();
        orders.dedup();
        let current = match load_orders(&self.0.db, &orders).await {
            Ok(orders) => orders,
            Err(error) => {
                fail_jobs(jobs.into_iter().chain(taken), error);
                return Vec::new();
            }
        };

        let now = self.0.clock.now();
        let (mut writes, mut unchanged) = (Vec::new(), Vec::new());
        let (mut held, mut changing) = (Vec::new(), HashSet::new());
        let (mut rivals, mut wanted_references) = (Vec::new(), HashSet::new());
        let mut bytes = 0;
        for job in jobs {
            // It must see the order as the other change leaves it, or would be too much for one statement.
            if changing.contains(&job.order()) || bytes >= BATCH_BYTES {
                held.push(job);
                continue;
            }
            match job.decide(current.get(&job.order()), now) {
                ChangeDecision::Respond(response) => unchanged.push((job, response)),
                ChangeDecision::Write(prepared) => match prepared.wanted() {
                    Some(wanted) if !wanted_references.insert(wanted.clone()) => rivals.push((job, wanted)),
                    _ => {
                        changing.insert(job.order());
                        bytes += prepared.event_bytes();
                        writes.push((job, prepared));
                    }
                },
            }
        }
        taken.extend(self.0.respond_unchanged(unchanged, &current).await);
        if !writes.is_empty() {
            metrics::histogram!("write_batch_size", "kind" => "change").record(batch_size(&writes));
            let unwritten = self.write_batch(writes).await;
            held.extend(unwritten.raced);
            taken.extend(unwritten.taken);
            let (losers, unknown) = unwritten.holders.divide(rivals);
            held.extend(unknown);
            let refused = unwritten.refused.into_iter().chain(losers);
            taken.extend(self.0.respond_reference_taken(refused, &current).await);
        }
        held.extend(self.0.replay(taken).await);
        held
    }
}

impl ChangeHandler {
    pub(super) fn new(context: Arc<WriterContext>) -> Self {
        Self(context)
    }

    /// Writes what was decided, and answers what was written.
    async fn write_batch(&self, writes: PreparedJobs) -> Unwritten {
        match self.try_write(&writes, false).await {
            Ok((outcomes, in_doubt)) => self.respond_written(writes, &outcomes, in_doubt).await,
            Err(failure) if is_fault_of_one(&failure.error) => {
                self.write_one_by_one(writes, failure.in_doubt).await
            }
            Err(failure) => {
                fail_jobs(writes.into_iter().map(|(job, _)| job), failure.error);
                Unwritten::default()
            }
        }
    }

    /// Writes each change by itself, so that one that is refused does not fail the others.
    async fn write_one_by_one(&self, writes: PreparedJobs, in_doubt: bool) -> Unwritten {
        let (mut unwritten, mut writes) = (Unwritten::default(), writes.into_iter());
        while let Some(write) = writes.next() {
            let alone = vec![write];
            match self.try_write(&alone, in_doubt).await {
                Ok((outcomes, in_doubt)) => {
                    let one = self.respond_written(alone, &outcomes, in_doubt).await;
                    unwritten.raced.extend(one.raced);
                    unwritten.taken.extend(one.taken);
                    unwritten.refused.extend(one.refused);
                    unwritten.holders.extend(one.holders);
                }
                Err(WriteError { error, .. }) if is_fault_of_one(&error) => {
                    fail_jobs(alone.into_iter().map(|(job, _)| job), error);
                }
                // The others would only wait in vain, one after the other.
                Err(WriteError { error, .. }) => {
                    fail_jobs(alone.into_iter().chain(writes.by_ref()).map(|(job, _)| job), error);
                }
            }
        }
        unwritten
    }

    /// Returns what became of each change, and whether an earlier attempt may have written it. A lost race for a reference is no
    /// failure: the next attempt finds the order that has won.
    async fn try_write(
        &self,
        writes: &PreparedJobs,
        mut in_doubt: bool,
    ) -> Result<(HashMap<OrderId, ChangeOutcome>, bool), WriteError> {
        let changes: Vec<ChangedOrder<'_>> =
            writes.iter().map(|(job, prepared)| prepared.as_row(job)).collect();
        let changes = &changes;
        let mut attempt = 1;
        loop {
            let written = self.0.db.write_with_retry(in_doubt, |mut db| async move {
                db::change_orders(&mut db, changes).await
            });
            match written.await {
                Err(failure) if failure.error.violates(REFERENCE_UNIQUE) && attempt < ATTEMPTS => {
                    (in_doubt, attempt) = (failure.in_doubt, attempt + 1);
                }
                done => return done,
            }
        }
    }

    /// Answers what was written.
    async fn respond_written(
        &self,
        writes: PreparedJobs,
        outcomes: &HashMap<OrderId, ChangeOutcome>,
        in_doubt: bool,
    ) -> Unwritten {
        let (mut committed, mut unwritten, mut raced) = (Vec::new(), Unwritten::default(), Vec::new());
        for (job, prepared) in writes {
            match outcomes.get(&job.id) {
                Some(ChangeOutcome::Written) => {
                    if let Some(wanted) = prepared.wanted() {
                        unwritten.holders.insert(wanted, job.id);
                    }
                    committed.push(prepared.into_committed(job.reply));
                }
                Some(ChangeOutcome::ReferenceTaken(other)) => {
                    if let Some(wanted) = prepared.wanted() {
                        unwritten.holders.insert(wanted, *other);
                    }
                    unwritten.refused.push((job, *other));
                }
                Some(ChangeOutcome::KeyTaken) => unwritten.taken.push(job),
                Some(ChangeOutcome::TenantRemoved) => job.respond(Err(OrderError::TenantRemoved)),
                Some(ChangeOutcome::Raced) | None => raced.push((job, prepared)),
            }
        }
        self.0.publish_changes(committed);
        if in_doubt {
            raced = self.resolve_doubt(raced).await;
        }
        for (mut job, _) in raced {
            job.races += 1;
            metrics::counter!("write_races_total").increment(1);
            if job.races < MAX_RACES { unwritten.raced.push(job) } else { self.0.write_locked(job) }
        }
        unwritten
    }

    /// An earlier attempt had no known outcome, and now the order is not as it was read: perhaps that attempt
    /// changed it. Answers what can be known, and returns what was certainly not done.
    async fn resolve_doubt(&self, raced: PreparedJobs) -> PreparedJobs {
        let orders: Vec<OrderKey> = raced.iter().map(|(job, _)| job.order()).collect();
        let current = match load_orders(&self.0.db, &orders).await {
            Ok(orders) => orders,
            Err(error) => {
                for (job, _) in raced {
                    job.respond(Err(OrderError::UnknownOutcome(error.to_string())));
                }
                return Vec::new();
            }
        };
        let (mut committed, mut undone) = (Vec::new(), Vec::new());
        for (job, prepared) in raced {
            let now = current.get(&job.order());
            let is_ours = now == prepared.after.as_ref();
            let is_older = now.is_some_and(|order| order.version <= prepared.cache.version);
            if is_ours {
                committed.push(prepared.into_committed(job.reply));
            } else if is_older {
                undone.push((job, prepared));
            } else {
                // Others have changed it since, or the order is gone: what happened in between cannot be known.
                job.respond(Err(OrderError::UnknownOutcome("the order has changed since".to_owned())));
            }
        }
        self.0.publish_changes(committed);
        undone
    }
}
