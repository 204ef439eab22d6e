//! The writer: everything that changes orders goes through it, many changes to one commit.

mod change_job;
mod changes;
mod creates;
mod locked;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use axum::http::{HeaderValue, header};
use shared::{
    cache::CacheWrite,
    domain::{
        clock::Clock,
        order::{CustomerId, Order, OrderId},
    },
    platform::{
        batching::{BatchConfig, Batcher, Overloaded},
        db::{DbError, DbPool, PoolSettings},
        shutdown::Shutdown,
    },
};
use tokio::sync::{Semaphore, oneshot};

pub(crate) use self::{
    change_job::{ChangeJob, Command},
    creates::CreateJob,
};
use self::{changes::Changes, creates::Creates};
use super::{StaleEntries, session};
use crate::{
    db::{self, Found, IdempotencyClaim},
    http::{
        error::{ApiError, Code},
        orders::response::{Answer, written},
    },
    orders::outcomes::WriteOutcomes,
    outbox::Wake,
};

/// One lane: a batch is as large as what came while the one before it was written, and a large batch costs little more
/// than a small one. A second lane would halve the batches to gain the moment in which the first waits for the disk.
const CREATES: BatchConfig = BatchConfig { workers: 1, queue_size: 1024, batch_size: 128 };
/// One lane for the same reason, and so changes of one order do not race in one process.
const CHANGES: BatchConfig = BatchConfig { workers: 1, queue_size: 1024, batch_size: 128 };
/// Changes that may wait for a lock at once, each on a connection of its own.
const WAITING_FOR_LOCKS: usize = 4;

/// The lanes, and what they share.
pub(crate) struct Writer {
    creates: Batcher<CreateJob>,
    changes: Batcher<ChangeJob>,
    outcomes: Arc<WriteOutcomes>,
}

/// What all lanes use.
pub(crate) struct WriterContext {
    pub(crate) db: DbPool,
    pub(crate) clock: Clock,
    pub(crate) wake: Wake,
    pub(crate) stale: Arc<StaleEntries>,
    pub(crate) shutdown: Shutdown,
    waiting_for_locks: Semaphore,
}

/// Where the answer to a job goes. The client may be gone; the job is done all the same.
pub(crate) type Reply = oneshot::Sender<Result<Answer, ApiError>>;

impl Writer {
    pub(crate) fn start(
        db: &DbPool,
        clock: Clock,
        wake: Wake,
        stale: Arc<StaleEntries>,
        shutdown: &Shutdown,
    ) -> Self {
        let tools = Arc::new(WriterContext {
            db: connections(db, CHANGES.workers + WAITING_FOR_LOCKS),
            clock,
            wake,
            stale,
            shutdown: shutdown.clone(),
            waiting_for_locks: Semaphore::new(WAITING_FOR_LOCKS),
        });
        Self {
            creates: Batcher::start(
                CREATES,
                Creates::new(connections(db, CREATES.workers), &tools),
                shutdown,
            ),
            changes: Batcher::start(CHANGES, Changes(tools), shutdown),
            outcomes: Arc::default(),
        }
    }

    pub(crate) async fn create(&self, job: impl FnOnce(Reply) -> CreateJob) -> Result<Answer, ApiError> {
        let (reply, answered) = oneshot::channel();
        self.creates.submit(job(reply)).map_err(overloaded)?;
        self.answer(answered).await
    }

    pub(crate) async fn change(&self, job: impl FnOnce(Reply) -> ChangeJob) -> Result<Answer, ApiError> {
        let (reply, answered) = oneshot::channel();
        self.changes.submit(job(reply)).map_err(overloaded)?;
        self.answer(answered).await
    }

    /// What became of the last writes.
    pub(crate) fn outcomes(&self) -> Arc<WriteOutcomes> {
        Arc::clone(&self.outcomes)
    }

    async fn answer(
        &self,
        answered: oneshot::Receiver<Result<Answer, ApiError>>,
    ) -> Result<Answer, ApiError> {
        let answer =
            answered.await.unwrap_or_else(|_| Err(ApiError::internal("a batch ended without an answer")));
        self.outcomes.record(&answer);
        answer
    }
}

/// Connections of the writer's own, so that reads never keep a commit waiting. New orders have theirs apart: a server process
/// that does the same every time does it faster. The statements are large, and their best plan does not depend on their values.
fn connections(db: &DbPool, most: usize) -> DbPool {
    let settings = PoolSettings::new("api-write", u32::try_from(most).unwrap_or(u32::MAX));
    db.sibling(settings.with_session("SET plan_cache_mode = force_generic_plan"))
}

/// 503: what is taken in is answered in time, and the rest is refused at once.
pub(crate) fn overloaded(error: Overloaded) -> ApiError {
    metrics::counter!("requests_shed_total").increment(1);
    ApiError::unavailable(error)
}

/// A change that has been committed.
pub(crate) struct Committed {
    cache: CacheWrite,
    reply: Reply,
    answer: Answer,
}

impl WriterContext {
    /// After a commit.
    fn publish(&self, committed: Vec<Committed>) {
        if committed.is_empty() {
            return;
        }
        self.wake.notify();
        let mut entries = Vec::with_capacity(committed.len());
        let mut answers = Vec::with_capacity(committed.len());
        for Committed { cache, reply, answer } in committed {
            entries.push(cache);
            answers.push((reply, Ok(answer)));
        }
        self.answer_after(entries, answers);
    }

    /// Sends answers once the cache has the entries, so that whoever is answered reads what the answer shows; in a task
    /// of its own, so that the lane goes on meanwhile. What does not reach the cache is served from PostgreSQL.
    fn answer_after(&self, entries: Vec<CacheWrite>, answers: Vec<(Reply, Result<Answer, ApiError>)>) {
        let stale = Arc::clone(&self.stale);
        self.shutdown.spawn(async move {
            stale.write_through(entries).await;
            for (reply, answer) in answers {
                send(reply, answer);
            }
        });
    }

    /// Answers requests that wrote nothing themselves, once the cache is as new as what they show: `current`, the orders
    /// as PostgreSQL has them. The replica that committed the newest version may have died before it wrote the entry.
    async fn answer_as_stored<J: Keyed>(
        &self,
        answers: Vec<(J, Result<Answer, ApiError>)>,
        current: &HashMap<OrderId, Order>,
    ) {
        if answers.is_empty() {
            return;
        }
        let shown: HashSet<OrderId> = answers.iter().filter_map(|(job, _)| job.changed_order()).collect();
        match self.entries(&shown, current).await {
            Ok(entries) => {
                let answers = answers.into_iter().map(|(job, answer)| (job.into_reply(), answer)).collect();
                self.answer_after(entries, answers);
            }
            Err(error) => fail(answers.into_iter().map(|(job, _)| job), &error),
        }
    }

    /// The entries of these orders as PostgreSQL has them: for one that was deleted, a tombstone.
    async fn entries(
        &self,
        ids: &HashSet<OrderId>,
        current: &HashMap<OrderId, Order>,
    ) -> Result<Vec<CacheWrite>, DbError> {
        let (existing, gone): (Vec<OrderId>, Vec<OrderId>) =
            ids.iter().partition(|id| current.contains_key(id));
        let mut entries: Vec<CacheWrite> = existing
            .iter()
            .filter_map(|id| current.get(id))
            .map(|order| CacheWrite {
                id: order.id,
                version: order.version,
                content: Some(written(order)),
                may_create: true,
            })
            .collect();
        if !gone.is_empty() {
            let gone = &gone;
            let deletions =
                self.db.read_with_retry(|mut db| async move { db::deletions(&mut db, gone).await });
            entries.extend(deletions.await?.into_iter().map(|deletion| CacheWrite {
                id: deletion.order_id,
                version: deletion.version,
                content: None,
                may_create: true,
            }));
        }
        Ok(entries)
    }
}

fn send(reply: Reply, answer: Result<Answer, ApiError>) {
    let _client_is_gone = reply.send(answer);
}

/// A request that may carry a key, and waits for its answer.
trait Keyed: Sized {
    fn claim(&self) -> Option<&IdempotencyClaim>;
    /// The order whose version its answer may show, if the cache may hold an older one.
    fn changed_order(&self) -> Option<OrderId>;
    /// Whether its caller may see what belongs to `owner`.
    fn may_access(&self, owner: CustomerId) -> bool;
    fn into_reply(self) -> Reply;

    fn answer(self, answer: Result<Answer, ApiError>) {
        send(self.into_reply(), answer);
    }
}

/// Sorts out the jobs whose key another job of the batch has as well: they follow when that one is done, and then
/// find its answer. So two equal requests in one process never meet as "in progress".
fn one_per_key<J: Keyed>(jobs: Vec<J>) -> (Vec<J>, Vec<J>) {
    let mut seen: HashSet<(CustomerId, String)> = HashSet::new();
    jobs.into_iter()
        .partition(|job| job.claim().is_none_or(|claim| seen.insert((claim.caller, claim.key.clone()))))
}

impl WriterContext {
    /// Answers requests whose key is taken with what stands under it, or that the key is another request's. Gives
    /// back those whose key is free again or still: it has just expired, or the job that had it came to nothing.
    async fn replay<J: Keyed>(&self, taken: Vec<J>) -> Vec<J> {
        let keys: Vec<(CustomerId, &str)> =
            taken.iter().filter_map(Keyed::claim).map(|claim| (claim.caller, claim.key.as_str())).collect();
        if keys.is_empty() {
            return taken;
        }
        let ids: HashSet<OrderId> = taken.iter().filter_map(Keyed::changed_order).collect();
        let (found, current) = match self.found(&keys, ids.into_iter().collect()).await {
            Ok(found) => found,
            Err(error) => {
                fail(taken, &error);
                return Vec::new();
            }
        };
        let (mut replayed, mut free) = (Vec::new(), Vec::new());
        for job in taken {
            let Some(claim) = job.claim() else { continue };
            match found.get(&(claim.caller, claim.key.clone())) {
                Some(found) if is_same(&job, claim, found, &current) => {
                    let answer = Answer::replayed(found.answer.clone());
                    replayed.push((job, Ok(answer)));
                }
                Some(_) => job.answer(Err(reused())),
                None => free.push(job),
            }
        }
        self.answer_as_stored(replayed, &current).await;
        free
    }

    /// What stands under these keys, and then the orders that these answers are about, as they are now.
    async fn found(&self, keys: &[(CustomerId, &str)], ids: Vec<OrderId>) -> Result<Replays, DbError> {
        let found = self.db.read_with_retry(|mut db| async move { db::find(&mut db, keys).await }).await?;
        let current = if ids.is_empty() || found.is_empty() {
            HashMap::new()
        } else {
            session::orders(&self.db, &ids).await?
        };
        Ok((found, current))
    }
}

/// Kept answers by caller and key, and orders by id.
type Replays = (HashMap<(CustomerId, String), Found>, HashMap<OrderId, Order>);

/// Whether the answer under the key was given to this request.
///
/// An answer that an older version stored does not say to which role it was given. It goes to its caller all the same,
/// so that honest repetitions during an upgrade succeed, but only if the caller may see the order that it is about.
fn is_same<J: Keyed>(
    job: &J,
    claim: &IdempotencyClaim,
    found: &Found,
    current: &HashMap<OrderId, Order>,
) -> bool {
    if found.request_hash != claim.request_hash {
        return false;
    }
    if let Some(context_hash) = found.context_hash {
        return context_hash == claim.context_hash;
    }
    let order = job.changed_order().and_then(|id| current.get(&id));
    let owner = order.map(|order| order.customer_id).or_else(|| owner_in(&found.answer.body));
    owner.is_none_or(|owner| job.may_access(owner))
}

/// The owner of the order in the body of an answer, if it is one.
fn owner_in(body: &[u8]) -> Option<CustomerId> {
    #[derive(serde::Deserialize)]
    struct Owned {
        customer_id: CustomerId,
    }
    serde_json::from_slice(body).ok().map(|Owned { customer_id }| customer_id)
}

fn reused() -> ApiError {
    let detail = "this Idempotency-Key was used for another request; choose a new one";
    ApiError::new(Code::IdempotencyKeyReused, detail)
}

/// Whether a single request of a batch may be at fault, so that the others can be written without it. A lock on a whole table, or
/// PostgreSQL being away, is the fault of none.
fn is_fault_of_one(error: &DbError) -> bool {
    matches!(error, DbError::Refused(_)) || is_key_held(error)
}

/// Whether another transaction holds the key and did not end in time.
fn is_key_held(error: &DbError) -> bool {
    error.waited_for_row_of("idempotency_keys")
}

/// Answers requests that were not written.
fn fail<J: Keyed>(jobs: impl IntoIterator<Item = J>, error: &DbError) {
    for job in jobs {
        let has_key = job.claim().is_some();
        job.answer(Err(if has_key && is_key_held(error) { in_progress() } else { error.into() }));
    }
}

/// Another process holds the key in a transaction that has not ended.
fn in_progress() -> ApiError {
    ApiError::new(Code::IdempotencyInProgress, "the first request with this Idempotency-Key is still running")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}
