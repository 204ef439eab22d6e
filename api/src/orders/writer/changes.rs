//! Batches of updates and deletions: one statement reads the orders, the decision is made here, one statement writes
//! what still is as it was read. What lost a race is read and decided again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shared::{
    domain::order::{Order, OrderId},
    platform::{batching::BatchHandler, db::WriteError},
};
use time::OffsetDateTime;

use super::{
    super::session,
    Keyed as _, WriterContext,
    change_job::{ChangeJob, Decision, Prepared},
    creates::size,
    fail, is_fault_of_one, one_per_key,
};
use crate::{
    db::{self, Change, ChangeOutcome},
    http::{error::ApiError, orders::response::Answer},
};

/// After so many lost races a change waits for the lock instead, so that nobody starves.
const RACES: u32 = 3;

pub(crate) struct Changes(pub(super) Arc<WriterContext>);

type Pending = Vec<(ChangeJob, Box<Prepared>)>;

impl BatchHandler<ChangeJob> for Changes {
    async fn handle(&self, jobs: Vec<ChangeJob>) -> Vec<ChangeJob> {
        let (jobs, mut taken) = one_per_key(jobs);
        metrics::histogram!("write_batch_size", "kind" => "change").record(size(&jobs));
        let mut ids: Vec<OrderId> = jobs.iter().map(|job| job.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let current = match session::orders(&self.0.db, &ids).await {
            Ok(orders) => orders,
            Err(error) => {
                fail(jobs.into_iter().chain(taken), &error);
                return Vec::new();
            }
        };

        let now = self.0.clock.now();
        let (mut writes, mut answers) = (Vec::new(), Vec::new());
        let (mut held, mut changing) = (Vec::new(), HashSet::new());
        for job in jobs {
            if changing.contains(&job.id) {
                // It must see what the other one leaves.
                held.push(job);
                continue;
            }
            match job.decide(current.get(&job.id), now) {
                Decision::Answer(answer) => answers.push((job, answer)),
                Decision::Write(prepared) => {
                    changing.insert(job.id);
                    writes.push((job, prepared));
                }
            }
        }
        taken.extend(self.0.answer_unchanged(answers, &current, now).await);
        if !writes.is_empty() {
            let (again, refused) = self.write(writes, now).await;
            held.extend(again);
            taken.extend(refused);
        }
        held.extend(self.0.replay(taken).await);
        held
    }
}

impl Changes {
    /// Writes what was decided, and gives back what must be decided again, and what has a key that is taken.
    async fn write(&self, writes: Pending, now: OffsetDateTime) -> (Vec<ChangeJob>, Vec<ChangeJob>) {
        match self.attempt(&writes, now, false).await {
            Ok((outcomes, in_doubt)) => self.settle(writes, &outcomes, in_doubt).await,
            Err(failure) if is_fault_of_one(&failure.error) => {
                self.write_alone(writes, now, failure.in_doubt).await
            }
            Err(failure) => {
                fail(writes.into_iter().map(|(job, _)| job), &failure.error);
                (Vec::new(), Vec::new())
            }
        }
    }

    /// Writes each change by itself, so that it is not the others' fault if one is refused.
    async fn write_alone(
        &self,
        writes: Pending,
        now: OffsetDateTime,
        in_doubt: bool,
    ) -> (Vec<ChangeJob>, Vec<ChangeJob>) {
        let (mut again, mut taken, mut writes) = (Vec::new(), Vec::new(), writes.into_iter());
        while let Some(write) = writes.next() {
            let alone = vec![write];
            match self.attempt(&alone, now, in_doubt).await {
                Ok((outcomes, in_doubt)) => {
                    let (raced, refused) = self.settle(alone, &outcomes, in_doubt).await;
                    again.extend(raced);
                    taken.extend(refused);
                }
                Err(WriteError { error, .. }) => {
                    fail(alone.into_iter().map(|(job, _)| job), &error);
                    if !is_fault_of_one(&error) {
                        // The others would only wait in vain, one after the other.
                        fail(writes.by_ref().map(|(job, _)| job), &error);
                    }
                }
            }
        }
        (again, taken)
    }

    async fn attempt(
        &self,
        writes: &Pending,
        now: OffsetDateTime,
        in_doubt: bool,
    ) -> Result<Outcomes, WriteError> {
        let changes: Vec<Change<'_>> = writes.iter().map(|(job, prepared)| prepared.as_change(job)).collect();
        let changes = &changes;
        self.0
            .db
            .write_with_retry(in_doubt, |mut db| async move { db::change(&mut db, changes, now).await })
            .await
    }

    async fn settle(
        &self,
        writes: Pending,
        outcomes: &HashMap<OrderId, ChangeOutcome>,
        in_doubt: bool,
    ) -> (Vec<ChangeJob>, Vec<ChangeJob>) {
        let (mut committed, mut taken, mut raced) = (Vec::new(), Vec::new(), Vec::new());
        for (job, prepared) in writes {
            match outcomes.get(&job.id) {
                Some(ChangeOutcome::Encoded) => committed.push(prepared.commit(job.reply)),
                Some(ChangeOutcome::KeyTaken) => taken.push(job),
                Some(ChangeOutcome::Raced) | None => raced.push((job, prepared)),
            }
        }
        self.0.publish(committed);
        if in_doubt {
            raced = self.resolve(raced).await;
        }
        let mut again = Vec::new();
        for (mut job, _) in raced {
            job.races += 1;
            metrics::counter!("write_races_total").increment(1);
            if job.races < RACES { again.push(job) } else { self.0.wait_for_lock(job) }
        }
        (again, taken)
    }

    /// An earlier attempt had no known outcome, and now the order is not as it was read: perhaps that attempt
    /// changed it. Answers what can be told, and gives back what was certainly not done.
    async fn resolve(&self, raced: Pending) -> Pending {
        let ids: Vec<OrderId> = raced.iter().map(|(job, _)| job.id).collect();
        let current = match session::orders(&self.0.db, &ids).await {
            Ok(orders) => orders,
            Err(error) => {
                for (job, _) in raced {
                    job.answer(Err(ApiError::unknown_outcome(error.to_string())));
                }
                return Vec::new();
            }
        };
        let (mut committed, mut undone) = (Vec::new(), Vec::new());
        for (job, prepared) in raced {
            let now = current.get(&job.id);
            let is_ours = now == prepared.after.as_ref();
            let not_ours = now.is_some_and(|order| order.version <= prepared.cache.version);
            if is_ours {
                committed.push(prepared.commit(job.reply));
            } else if not_ours {
                undone.push((job, prepared));
            } else {
                // Others have gone on since, or the order is gone: what happened in between cannot be told.
                job.answer(Err(ApiError::unknown_outcome("the order has changed since")));
            }
        }
        self.0.publish(committed);
        undone
    }
}

type Outcomes = (HashMap<OrderId, ChangeOutcome>, bool);

impl WriterContext {
    /// Answers what changes nothing, from the orders as they were read. If there is a key, the answer is kept first;
    /// gives back those whose key is taken.
    pub(crate) async fn answer_unchanged(
        &self,
        answers: Vec<(ChangeJob, Result<Answer, ApiError>)>,
        current: &HashMap<OrderId, Order>,
        now: OffsetDateTime,
    ) -> Vec<ChangeJob> {
        let (mut keeping, mut settled) = (Vec::new(), Vec::new());
        for (job, answer) in answers {
            match answer {
                Ok(answer) if job.claim.is_some() => keeping.push((job, answer)),
                answer => settled.push((job, answer)),
            }
        }
        let taken = self.keep(keeping, &mut settled, now).await;
        self.answer_as_stored(settled, current).await;
        taken
    }

    /// Keeps answers under their keys, and moves those that are kept to `settled`; gives back those whose key is taken.
    async fn keep(
        &self,
        keeping: Vec<(ChangeJob, Answer)>,
        settled: &mut Vec<(ChangeJob, Result<Answer, ApiError>)>,
        now: OffsetDateTime,
    ) -> Vec<ChangeJob> {
        let keep: Vec<_> =
            keeping.iter().filter_map(|(job, answer)| Some((job.claim.as_ref()?, answer.kept()))).collect();
        if keep.is_empty() {
            return Vec::new();
        }
        let keep = &keep;
        let kept =
            self.db.write_with_retry(false, |mut db| async move { db::keep(&mut db, keep, now).await }).await;
        let mut taken = Vec::new();
        for (job, answer) in keeping {
            let is_kept = |kept: &Vec<_>| {
                job.claim.as_ref().is_some_and(|claim| kept.contains(&(claim.caller, claim.key.clone())))
            };
            match &kept {
                Ok((kept, _)) if is_kept(kept) => settled.push((job, Ok(answer))),
                Ok(_) => taken.push(job),
                Err(failure) => fail([job], &failure.error),
            }
        }
        taken
    }
}
