//! The way out of losing races: a change in a transaction of its own that holds the lock from the beginning.

use std::{collections::HashMap, sync::Arc, time::Duration};

use shared::domain::order::{Order, OrderId};
use sqlx::{Connection as _, PgConnection};
use time::OffsetDateTime;

use super::{
    Keyed as _, WriterContext,
    change_job::{ChangeJob, Decision, Prepared},
    fail, in_progress,
};
use crate::{
    db::{self, ChangeOutcome},
    http::{error::ApiError, orders::response::Answer},
};

/// How long a change waits for its lock; then PostgreSQL counts as unavailable for it.
const WAIT: Duration = Duration::from_secs(8);

impl WriterContext {
    /// Decides and writes a change that lost several races in a transaction that holds the lock from the beginning.
    pub(crate) fn wait_for_lock(self: &Arc<Self>, job: ChangeJob) {
        metrics::counter!("write_lock_waits_total").increment(1);
        let tools = Arc::clone(self);
        self.shutdown.spawn(async move {
            let locked = async {
                let _permit = tools.waiting_for_locks.acquire().await;
                let (now, job) = (tools.clock.now(), &job);
                tools.db.run_once(|mut db| async move { decide_locked(&mut db, job, now).await }).await
            };
            let outcome = match tokio::time::timeout(WAIT, locked).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(error)) => return fail([job], &error),
                Err(_) => {
                    return job.answer(Err(ApiError::unavailable("the order is locked by something else")));
                }
            };
            let taken = match outcome {
                Locked::Encoded(prepared) => return tools.publish(vec![prepared.commit(job.reply)]),
                Locked::Answer(answer, current) => {
                    tools.answer_unchanged(vec![(job, answer)], &current, tools.clock.now()).await
                }
                Locked::KeyTaken => vec![job],
            };
            // A key that is free again by now: whoever repeats the request gets it.
            for job in tools.replay(taken).await {
                job.answer(Err(in_progress()));
            }
        });
    }
}

enum Locked {
    /// Nothing changes: the answer, and the order that it is about, if it exists.
    Answer(Result<Answer, ApiError>, HashMap<OrderId, Order>),
    Encoded(Box<Prepared>),
    KeyTaken,
}

async fn decide_locked(
    db: &mut PgConnection,
    job: &ChangeJob,
    now: OffsetDateTime,
) -> Result<Locked, sqlx::Error> {
    let mut transaction = db.begin().await?;
    db::lock(&mut transaction, job.id).await?;
    // Read after the lock, by a statement of its own: one that waited would show the lines as they were before.
    let current = db::orders(&mut transaction, &[job.id]).await?;
    let prepared = match job.decide(current.first(), now) {
        Decision::Answer(answer) => {
            // Dropped, it would end, and let the order go, only with the connection's next use.
            transaction.rollback().await?;
            return Ok(Locked::Answer(answer, current.into_iter().map(|order| (order.id, order)).collect()));
        }
        Decision::Write(prepared) => prepared,
    };
    let outcomes = db::change(&mut transaction, &[prepared.as_change(job)], now).await?;
    transaction.commit().await?;
    Ok(match outcomes.get(&job.id) {
        Some(ChangeOutcome::Encoded) => Locked::Encoded(prepared),
        _ => Locked::KeyTaken,
    })
}
