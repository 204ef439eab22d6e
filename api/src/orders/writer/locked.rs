//! Changes that keep losing races: a transaction of its own holds the lock from the beginning.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::domain::order::{Order, OrderKey};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{
    super::{error::OrderError, response::OrderResponse, rules::RuleViolation},
    change_job::{ChangeDecision, ChangeJob, PreparedChange},
    context::WriterContext,
    job::{WriteJob as _, fail_jobs},
    references::ATTEMPTS,
};
use crate::db::{self, ChangeOutcome, REFERENCE_UNIQUE};

/// How long a change waits for its lock; then PostgreSQL counts as unavailable for it.
const LOCK_TIMEOUT: Duration = Duration::from_secs(8);

enum LockedOutcome {
    /// Nothing changes: the response, and the order that it is about, if it exists.
    Unchanged(Result<OrderResponse, OrderError>, HashMap<OrderKey, Order>),
    Written(Box<PreparedChange>),
    KeyTaken,
}

impl WriterContext {
    /// Decides and writes a change that lost several races, in a transaction that holds the lock from the beginning.
    pub(super) fn write_locked(self: &Arc<Self>, job: ChangeJob) {
        metrics::counter!("write_lock_waits_total").increment(1);
        let context = Arc::clone(self);
        self.shutdown.spawn(async move {
            let is_committing = AtomicBool::new(false);
            let locked = async {
                let _permit = context.lock_waits.acquire().await;
                let (now, job, is_committing) = (context.clock.now(), &job, &is_committing);
                let mut attempt = 1;
                loop {
                    let work = context.db.run_once(|mut db| async move {
                        decide_and_write(&mut db, job, now, is_committing).await
                    });
                    match work.await {
                        // Another order has just got the reference, and is seen by the next attempt.
                        Err(error) if error.violates(REFERENCE_UNIQUE) && attempt < ATTEMPTS => attempt += 1,
                        done => return done,
                    }
                }
            };
            let outcome = match tokio::time::timeout(LOCK_TIMEOUT, locked).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => return fail_jobs([job], error),
                Err(_) if is_committing.load(Ordering::Relaxed) => {
                    let cause = "PostgreSQL has not confirmed the commit in time".to_owned();
                    return job.respond(Err(OrderError::UnknownOutcome(cause)));
                }
                Err(_) => return job.respond(Err(OrderError::OrderLocked)),
            };
            let taken = match outcome {
                LockedOutcome::Written(prepared) => {
                    return context.publish_changes(vec![prepared.into_committed(job.reply)]);
                }
                LockedOutcome::Unchanged(response, current) => {
                    context.respond_unchanged(vec![(job, response)], &current).await
                }
                LockedOutcome::KeyTaken => vec![job],
            };
            // The key is free again by now: a repetition of the request can have it.
            for job in context.replay(taken).await {
                job.respond(Err(OrderError::KeyInProgress));
            }
        });
    }
}

async fn decide_and_write(
    db: &mut PgConnection,
    job: &ChangeJob,
    now: OffsetDateTime,
    is_committing: &AtomicBool,
) -> Result<LockedOutcome, sqlx::Error> {
    let mut transaction = db.begin().await?;
    db::lock_order(&mut transaction, job.order()).await?;
    // Read after the lock, by a statement of its own: one that waited would show the lines as they were before.
    let current = db::load_orders(&mut transaction, &[job.order()]).await?;
    let prepared = match job.decide(current.get(&job.order()), now) {
        ChangeDecision::Respond(response) => {
            // A dropped transaction would hold its lock until the connection is used again.
            transaction.rollback().await?;
            return Ok(LockedOutcome::Unchanged(response, current));
        }
        ChangeDecision::Write(prepared) => prepared,
    };
    let outcomes = match db::change_orders(&mut transaction, &[prepared.as_row(job)]).await {
        Ok(outcomes) => outcomes,
        Err(error) => {
            transaction.rollback().await?;
            return Err(error);
        }
    };
    is_committing.store(true, Ordering::Relaxed);
    transaction.commit().await?;
    Ok(match outcomes.get(&job.id) {
        Some(ChangeOutcome::Written) => LockedOutcome::Written(prepared),
        Some(ChangeOutcome::ReferenceTaken(other)) => {
            let refused = job.refuse(RuleViolation::ReferenceTaken { order_id: *other });
            LockedOutcome::Unchanged(refused, current)
        }
        Some(ChangeOutcome::TenantRemoved) => {
            LockedOutcome::Unchanged(Err(OrderError::TenantRemoved), current)
        }
        _ => LockedOutcome::KeyTaken,
    })
}
