//! The writer: everything that changes orders goes through it, many changes to one commit.

mod change_job;
mod changes;
mod creates;
mod locked;

use std::{collections::HashSet, sync::Arc};

use axum::http::{HeaderValue, header};
use shared::{
    cache::CacheWrite,
    clock::Clock,
    db::{DbError, DbPool, PoolSettings},
    lanes::{Lanes, Overloaded, Size},
    order::CustomerId,
    shutdown::Shutdown,
};
use tokio::sync::{Semaphore, oneshot};

pub(super) use self::{
    change_job::{ChangeJob, Command},
    creates::CreateJob,
};
use self::{changes::Changes, creates::Creates};
use super::{Stale, answer::Answer};
use crate::{
    error::{ApiError, Code},
    outbox::Wake,
    store::{self, Claim},
};

/// One lane: a batch is as large as what came while the one before it was written, and a large batch costs little more
/// than a small one. A second lane would halve the batches to gain the moment in which the first waits for the disk.
const CREATES: Size = Size { lanes: 1, waiting: 1024, batch: 128, halves: true };
/// One lane for the same reason, and so changes of one order do not race in one process.
const CHANGES: Size = Size { lanes: 1, waiting: 1024, batch: 128, halves: false };
/// Changes that may wait for a lock at once, each on a connection of its own.
const WAITING_FOR_LOCKS: usize = 4;

/// The lanes, and what they share.
pub(super) struct Writer {
    creates: Lanes<CreateJob>,
    changes: Lanes<ChangeJob>,
}

/// What all lanes use.
pub(super) struct Tools {
    pub(super) db: DbPool,
    pub(super) clock: Clock,
    pub(super) wake: Wake,
    pub(super) stale: Arc<Stale>,
    pub(super) shutdown: Shutdown,
    waiting_for_locks: Semaphore,
}

/// Where the answer to a job goes. The client may be gone; the job is done all the same.
pub(super) type Reply = oneshot::Sender<Result<Answer, ApiError>>;

impl Writer {
    pub(super) fn start(
        db: &DbPool,
        clock: Clock,
        wake: Wake,
        stale: Arc<Stale>,
        shutdown: &Shutdown,
    ) -> Self {
        let tools = Arc::new(Tools {
            db: connections(db, CHANGES.lanes + WAITING_FOR_LOCKS),
            clock,
            wake,
            stale,
            shutdown: shutdown.clone(),
            waiting_for_locks: Semaphore::new(WAITING_FOR_LOCKS),
        });
        Self {
            creates: Lanes::start(CREATES, Creates::new(connections(db, CREATES.lanes), &tools), shutdown),
            changes: Lanes::start(CHANGES, Changes(tools), shutdown),
        }
    }

    pub(super) async fn create(&self, job: impl FnOnce(Reply) -> CreateJob) -> Result<Answer, ApiError> {
        let (reply, answered) = oneshot::channel();
        self.creates.submit(job(reply)).map_err(overloaded)?;
        answer(answered).await
    }

    pub(super) async fn change(&self, job: impl FnOnce(Reply) -> ChangeJob) -> Result<Answer, ApiError> {
        let (reply, answered) = oneshot::channel();
        self.changes.submit(job(reply)).map_err(overloaded)?;
        answer(answered).await
    }
}

/// Connections of the writer's own, so that reads never keep a commit waiting. New orders have theirs apart: a server process
/// that does the same every time does it faster. The statements are large, and their best plan does not depend on their values.
fn connections(db: &DbPool, most: usize) -> DbPool {
    let settings = PoolSettings::new("api-write", u32::try_from(most).unwrap_or(u32::MAX));
    db.sibling(settings.with_session("SET plan_cache_mode = force_generic_plan"))
}

async fn answer(answered: oneshot::Receiver<Result<Answer, ApiError>>) -> Result<Answer, ApiError> {
    answered.await.unwrap_or_else(|_| Err(ApiError::internal("a batch ended without an answer")))
}

/// 503: what is taken in is answered in time, and the rest is refused at once.
pub(super) fn overloaded(error: Overloaded) -> ApiError {
    metrics::counter!("requests_shed_total").increment(1);
    ApiError::unavailable(error)
}

/// A change that has been committed.
struct Committed {
    cache: CacheWrite,
    reply: Reply,
    answer: Answer,
}

impl Tools {
    /// After a commit: the cache first, so that whoever is answered reads what it wrote; in a task of its own, so that
    /// the lane goes on meanwhile.
    fn publish(self: &Arc<Self>, committed: Vec<Committed>) {
        if committed.is_empty() {
            return;
        }
        self.wake.wake();
        let tools = Arc::clone(self);
        self.shutdown.spawn(async move {
            let mut writes = Vec::with_capacity(committed.len());
            let mut replies = Vec::with_capacity(committed.len());
            for Committed { cache, reply, answer } in committed {
                writes.push(cache);
                replies.push((reply, answer));
            }
            tools.stale.write_through(writes).await;
            for (reply, answer) in replies {
                send(reply, Ok(answer));
            }
        });
    }
}

fn send(reply: Reply, answer: Result<Answer, ApiError>) {
    let _client_is_gone = reply.send(answer);
}

/// A request that may carry a key, and waits for its answer.
trait Keyed {
    fn claim(&self) -> Option<&Claim>;
    fn answer(self, answer: Result<Answer, ApiError>);
}

/// Sorts out the jobs whose key another job of the batch has as well: they follow when that one is done, and then
/// find its answer. So two equal requests in one process never meet as "in progress".
fn one_per_key<J: Keyed>(jobs: Vec<J>) -> (Vec<J>, Vec<J>) {
    let mut seen: HashSet<(CustomerId, String)> = HashSet::new();
    jobs.into_iter()
        .partition(|job| job.claim().is_none_or(|claim| seen.insert((claim.caller, claim.key.clone()))))
}

impl Tools {
    /// Answers requests whose key is taken with what stands under it, or that the key is another request's. Gives
    /// back those whose key is free again or still: it has just expired, or the job that had it came to nothing.
    async fn replay<J: Keyed>(&self, taken: Vec<J>) -> Vec<J> {
        let keys: Vec<(CustomerId, &str)> =
            taken.iter().filter_map(Keyed::claim).map(|claim| (claim.caller, claim.key.as_str())).collect();
        if keys.is_empty() {
            return taken;
        }
        let keys = &keys;
        let found = self.db.read(|mut db| async move { store::find(&mut db, keys).await }).await;
        let mut free = Vec::new();
        for job in taken {
            let Some(claim) = job.claim() else { continue };
            match &found {
                Ok(found) => match found.get(&(claim.caller, claim.key.clone())) {
                    Some((hash, kept)) if *hash == claim.request_hash => {
                        job.answer(Ok(Answer::replayed(kept.clone())));
                    }
                    Some(_) => job.answer(Err(reused())),
                    None => free.push(job),
                },
                Err(error) => job.answer(Err(error.into())),
            }
        }
        free
    }
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
