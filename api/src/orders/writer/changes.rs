//! Batches of updates and deletions: one statement reads the orders, the decision is made here, one statement writes
//! what still is as it was read. What lost a race is read and decided again.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use shared::{
    cache::CacheWrite,
    event::{Envelope, Event, EventType},
    order::{LineId, Order, OrderId},
};
use sqlx::PgConnection;
use time::OffsetDateTime;

use super::{
    super::{
        answer::{Answer, Asked, written},
        decide::{self, Refusal, Update},
        lanes::Work,
        preconditions::Preconditions,
        session::{self, GaveUp},
    },
    Committed, Reply, Tools,
    creates::size,
    in_progress, one_per_key, send,
};
use crate::{
    auth::Caller,
    error::ApiError,
    store::{self, Change, ChangeOutcome, Claim},
};

/// After so many lost races a change waits for the lock instead, so that nobody starves.
const RACES: u32 = 3;
/// How long it waits; then PostgreSQL counts as unavailable for it.
const WAIT_FOR_LOCK: Duration = Duration::from_secs(8);

/// A change to decide and to write.
pub(in crate::orders) struct ChangeJob {
    pub(in crate::orders) id: OrderId,
    pub(in crate::orders) caller: Caller,
    pub(in crate::orders) preconditions: Preconditions,
    pub(in crate::orders) command: Command,
    pub(in crate::orders) claim: Option<Claim>,
    pub(in crate::orders) asked: Asked,
    pub(in crate::orders) traceparent: Option<String>,
    pub(in crate::orders) races: u32,
    pub(in crate::orders) reply: Reply,
}

/// What shall be done to the order.
pub(in crate::orders) enum Command {
    /// Change it; with an id at hand for each line of the update.
    Update(Update, Vec<LineId>),
    /// Remove it.
    Delete,
}

/// What was decided.
enum Decision {
    /// Nothing changes: the answer.
    Answer(Result<Answer, ApiError>),
    /// This is to be written.
    Write(Box<Prepared>),
}

/// A change with everything that is written and answered ready.
struct Prepared {
    before: Order,
    after: Option<Order>,
    event: Envelope,
    answer: Answer,
    cache: CacheWrite,
}

impl Prepared {
    fn as_change<'a>(&'a self, job: &'a ChangeJob) -> Change<'a> {
        Change {
            before: &self.before,
            after: self.after.as_ref(),
            event: &self.event,
            claim: job.claim.as_ref().map(|claim| (claim, self.answer.kept())),
        }
    }
}

pub(super) struct Changes(pub(super) Arc<Tools>);

type Pending = Vec<(ChangeJob, Box<Prepared>)>;

impl Work<ChangeJob> for Changes {
    async fn run(&self, jobs: Vec<ChangeJob>) -> Vec<ChangeJob> {
        let (jobs, mut held) = one_per_key(jobs, |job| job.claim.as_ref());
        metrics::histogram!("write_batch_size", "kind" => "change").record(size(&jobs));
        let mut ids: Vec<OrderId> = jobs.iter().map(|job| job.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let current = match session::orders(&self.0.db, &ids).await {
            Ok(orders) => orders,
            Err(failure) => {
                for job in jobs {
                    send(job.reply, Err(failure.to_api_error()));
                }
                return held;
            }
        };

        let now = self.0.clock.now();
        let (mut writes, mut answers, mut changing) = (Vec::new(), Vec::new(), HashSet::new());
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
        self.0.answer_unchanged(answers, now).await;
        if !writes.is_empty() {
            held.extend(self.write(writes, now).await);
        }
        held
    }
}

impl ChangeJob {
    fn decide(&self, current: Option<&Order>, now: OffsetDateTime) -> Decision {
        match self.next(current, now) {
            Ok(decision) => decision,
            Err(refusal) => {
                let error = ApiError::from(refusal);
                // Where there is a key, the refusal is kept as it is sent.
                Decision::Answer(match self.claim {
                    Some(_) => Ok(Answer::refused(&error, &self.asked)),
                    None => Err(error),
                })
            }
        }
    }

    fn next(&self, current: Option<&Order>, now: OffsetDateTime) -> Result<Decision, Refusal> {
        let current =
            current.filter(|order| self.caller.may_access(order.customer_id)).ok_or(Refusal::NotFound)?;
        decide::check(current, &self.preconditions)?;
        match &self.command {
            Command::Delete => Ok(self.prepared(current, None, now)),
            Command::Update(update, spare) => match decide::update(current, update, now, spare)? {
                Some(next) => Ok(self.prepared(current, Some(next), now)),
                None => Ok(Decision::Answer(
                    written(current).map(|(_, body)| Answer::found(current.version, body)),
                )),
            },
        }
    }

    fn prepared(&self, before: &Order, after: Option<Order>, now: OffsetDateTime) -> Decision {
        let version = before.version + 1;
        let (content, answer) = match after.as_ref().map(written) {
            None => (None, Answer::deleted()),
            Some(Ok(content)) => (Some(content.clone()), Answer::found(version, content.1)),
            Some(Err(error)) => return Decision::Answer(Err(error)),
        };
        let event_type = if after.is_some() { EventType::OrderUpdated } else { EventType::OrderDeleted };
        let event = Event::new(
            event_type,
            now.max(before.updated_at),
            self.caller.customer_id,
            version,
            Order::changes(Some(before), after.as_ref()),
            after.as_ref().unwrap_or(before).clone(),
            self.traceparent.clone(),
        );
        let cache = CacheWrite { id: before.id, version, content, may_create: true };
        let event = event.to_envelope();
        Decision::Write(Box::new(Prepared { before: before.clone(), after, event, answer, cache }))
    }
}

impl Changes {
    /// Writes what was decided, and gives back what must be decided again.
    async fn write(&self, writes: Pending, now: OffsetDateTime) -> Vec<ChangeJob> {
        match self.attempt(&writes, now, false).await {
            Ok((outcomes, in_doubt)) => self.settle(writes, &outcomes, in_doubt).await,
            // Something of one of them is refused: each alone, so that it is not the others' fault.
            Err(GaveUp::Refused { in_doubt, .. }) => {
                let mut again = Vec::new();
                for write in writes {
                    let alone = vec![write];
                    match self.attempt(&alone, now, in_doubt).await {
                        Ok((outcomes, in_doubt)) => {
                            again.extend(self.settle(alone, &outcomes, in_doubt).await);
                        }
                        Err(failure) => fail(alone, &failure),
                    }
                }
                again
            }
            Err(failure) => {
                fail(writes, &failure);
                Vec::new()
            }
        }
    }

    async fn attempt(
        &self,
        writes: &Pending,
        now: OffsetDateTime,
        in_doubt: bool,
    ) -> Result<Outcomes, GaveUp> {
        let changes: Vec<Change<'_>> = writes.iter().map(|(job, prepared)| prepared.as_change(job)).collect();
        let changes = &changes;
        session::run_again(&self.0.db, in_doubt, |mut db| async move {
            store::change(&mut db, changes, now).await
        })
        .await
    }

    async fn settle(
        &self,
        writes: Pending,
        outcomes: &HashMap<OrderId, ChangeOutcome>,
        in_doubt: bool,
    ) -> Vec<ChangeJob> {
        let (mut committed, mut taken, mut raced) = (Vec::new(), Vec::new(), Vec::new());
        for (job, prepared) in writes {
            match outcomes.get(&job.id) {
                Some(ChangeOutcome::Written) => committed.push(prepared.commit(job.reply)),
                Some(ChangeOutcome::KeyTaken) => taken.extend(job.claim.map(|claim| (claim, job.reply))),
                Some(ChangeOutcome::Raced) | None => raced.push((job, prepared)),
            }
        }
        self.0.publish(committed);
        self.0.replay_all(taken).await;
        if in_doubt {
            raced = self.resolve(raced).await;
        }
        let mut again = Vec::new();
        for (mut job, _) in raced {
            job.races += 1;
            metrics::counter!("write_races_total").increment(1);
            if job.races < RACES { again.push(job) } else { self.0.wait_for_lock(job) }
        }
        again
    }

    /// An earlier attempt had no known outcome, and now the order is not as it was read: perhaps that attempt
    /// changed it. Answers what can be told, and gives back what was certainly not done.
    async fn resolve(&self, raced: Pending) -> Pending {
        let ids: Vec<OrderId> = raced.iter().map(|(job, _)| job.id).collect();
        let current = match session::orders(&self.0.db, &ids).await {
            Ok(orders) => orders,
            Err(failure) => {
                fail(raced, &GaveUp::Unknown(failure.to_string()));
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
                let unknown = GaveUp::Unknown("the order has changed since".to_owned());
                send(job.reply, Err(unknown.to_api_error()));
            }
        }
        self.0.publish(committed);
        undone
    }
}

type Outcomes = (HashMap<OrderId, ChangeOutcome>, bool);

impl Prepared {
    fn commit(self, reply: Reply) -> Committed {
        Committed { cache: self.cache, reply, answer: self.answer }
    }
}

impl Tools {
    /// Answers what changes nothing. Where there is a key, the answer is kept first, or the kept one given.
    async fn answer_unchanged(
        &self,
        answers: Vec<(ChangeJob, Result<Answer, ApiError>)>,
        now: OffsetDateTime,
    ) {
        let mut keeping = Vec::new();
        for (job, answer) in answers {
            match (job.claim, answer) {
                (Some(claim), Ok(answer)) => keeping.push((claim, answer, job.reply)),
                (_, answer) => send(job.reply, answer),
            }
        }
        if keeping.is_empty() {
            return;
        }
        let keep: Vec<_> = keeping.iter().map(|(claim, answer, _)| (claim, answer.kept())).collect();
        let keep = &keep;
        let kept =
            session::run_again(
                &self.db,
                false,
                |mut db| async move { store::keep(&mut db, keep, now).await },
            )
            .await;
        let mut taken = Vec::new();
        for (claim, answer, reply) in keeping {
            match &kept {
                Ok((kept, _)) if kept.contains(&(claim.caller, claim.key.clone())) => send(reply, Ok(answer)),
                Ok(_) => taken.push((claim, reply)),
                Err(failure) => send(reply, Err(failure.to_api_error())),
            }
        }
        self.replay_all(taken).await;
    }

    /// Decides and writes a change that lost several races in a transaction that holds the lock from the beginning.
    fn wait_for_lock(self: &Arc<Self>, job: ChangeJob) {
        metrics::counter!("write_lock_waits_total").increment(1);
        let tools = Arc::clone(self);
        self.shutdown.spawn(async move {
            let locked = async {
                let _permit = tools.waiting_for_locks.acquire().await;
                let (now, job) = (tools.clock.now(), &job);
                session::run(&tools.db, |mut db| async move { decide_locked(&mut db, job, now).await }).await
            };
            let outcome = match tokio::time::timeout(WAIT_FOR_LOCK, locked).await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(failure)) => return send(job.reply, Err(failure.into_api_error())),
                Err(_) => {
                    return send(
                        job.reply,
                        Err(ApiError::unavailable("the order is locked by something else")),
                    );
                }
            };
            match outcome {
                Locked::Answer(answer) => {
                    let now = tools.clock.now();
                    tools.answer_unchanged(vec![(job, answer)], now).await;
                }
                Locked::Written(prepared) => tools.publish(vec![prepared.commit(job.reply)]),
                Locked::KeyTaken => {
                    let taken = job.claim.map(|claim| (claim, job.reply));
                    tools.replay_all(taken.into_iter().collect()).await;
                }
            }
        });
    }
}

enum Locked {
    Answer(Result<Answer, ApiError>),
    Written(Box<Prepared>),
    KeyTaken,
}

async fn decide_locked(
    db: &mut PgConnection,
    job: &ChangeJob,
    now: OffsetDateTime,
) -> Result<Locked, sqlx::Error> {
    use sqlx::Connection as _;

    let mut transaction = db.begin().await?;
    store::lock(&mut transaction, job.id).await?;
    // Read after the lock, by a statement of its own: one that waited would show the lines as they were before.
    let current = store::orders(&mut transaction, &[job.id]).await?;
    let prepared = match job.decide(current.first(), now) {
        Decision::Answer(answer) => return Ok(Locked::Answer(answer)),
        Decision::Write(prepared) => prepared,
    };
    let outcomes = store::change(&mut transaction, &[prepared.as_change(job)], now).await?;
    transaction.commit().await?;
    Ok(match outcomes.get(&job.id) {
        Some(ChangeOutcome::Written) => Locked::Written(prepared),
        _ => Locked::KeyTaken,
    })
}

fn fail(writes: Pending, failure: &GaveUp) {
    for (job, _) in writes {
        let error = match failure {
            GaveUp::Refused { error, .. } if session::is_lock_timeout(error) => in_progress(),
            failure => failure.to_api_error(),
        };
        send(job.reply, Err(error));
    }
}
