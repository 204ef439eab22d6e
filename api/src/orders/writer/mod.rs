//! The writer: everything that changes orders goes through it, many changes to one commit.
//!
//! What a change does to an order is decided by `super::rules`, what is written by `crate::db`.

mod all_or_nothing;
mod change_job;
mod changes;
mod context;
mod creates;
mod job;
mod locked;
mod references;
mod replay;
mod unchanged;

use std::sync::Arc;

use shared::{
    domain::clock::Clock,
    platform::{
        batching::{BatchConfig, Batcher},
        db::{DbPool, PoolSettings},
        shutdown::Shutdown,
    },
};
use tokio::sync::oneshot;

pub(crate) use self::{
    all_or_nothing::CreateAllJob,
    change_job::{ChangeJob, OrderChange},
    creates::CreateJob,
};
use self::{
    all_or_nothing::{AllOrNothing, MAX_TRANSACTIONS},
    changes::ChangeHandler,
    context::{MAX_LOCK_WAITS, WriterContext},
    creates::CreateHandler,
    job::Reply,
};
use super::{
    error::{OrderError, refuse_overload},
    ids::IdSource,
    outcomes::WriteOutcomes,
    response::OrderResponse,
    write_through::StaleEntries,
};
use crate::outbox::Wake;

/// One batch at a time: it is as large as what came while the one before it was written, and a large batch costs little more
/// than a small one. Two at a time would be half as large, to gain the moment in which the first waits for the disk.
const CREATES: BatchConfig = BatchConfig { workers: 1, queue_size: 1024, batch_size: 128 };
/// One batch at a time for the same reason, and so changes of one order do not race in one process.
const CHANGES: BatchConfig = BatchConfig { workers: 1, queue_size: 1024, batch_size: 128 };
/// The bytes of events after which a batch ends, whatever their number: everybody in it waits for the whole statement, and if that takes
/// too long it fails for all.
const BATCH_BYTES: usize = 2 * 1024 * 1024;

/// Writes orders: new ones and changes in batches of their own.
pub(crate) struct OrderWriter {
    creates: Batcher<CreateJob>,
    changes: Batcher<ChangeJob>,
    all_or_nothing: Arc<AllOrNothing>,
    outcomes: Arc<WriteOutcomes>,
}

impl OrderWriter {
    pub(super) fn start(
        db: &DbPool,
        clock: Clock,
        wake: Wake,
        ids: Arc<IdSource>,
        stale: Arc<StaleEntries>,
        shutdown: &Shutdown,
    ) -> Self {
        let changes_db = write_pool(db, CHANGES.workers + MAX_LOCK_WAITS);
        let context = Arc::new(WriterContext::new(changes_db, clock, wake, stale, shutdown.clone()));
        let together = AllOrNothing::new(write_pool(db, MAX_TRANSACTIONS), Arc::clone(&ids), &context);
        let creates = CreateHandler::new(write_pool(db, CREATES.workers), ids, &context);
        Self {
            creates: Batcher::start(CREATES, creates, shutdown),
            changes: Batcher::start(CHANGES, ChangeHandler::new(context), shutdown),
            all_or_nothing: Arc::new(together),
            outcomes: Arc::default(),
        }
    }

    /// Writes a new order, and waits for the response.
    pub(crate) async fn create(
        &self,
        job: impl FnOnce(Reply) -> CreateJob,
    ) -> Result<OrderResponse, OrderError> {
        self.submit(&self.creates, job).await
    }

    /// Changes or deletes an order, and waits for the response.
    pub(crate) async fn change(
        &self,
        job: impl FnOnce(Reply) -> ChangeJob,
    ) -> Result<OrderResponse, OrderError> {
        self.submit(&self.changes, job).await
    }

    /// Writes new orders together or not at all, and waits for the response.
    pub(crate) async fn create_all(
        &self,
        job: impl FnOnce(Reply) -> CreateAllJob,
    ) -> Result<OrderResponse, OrderError> {
        let (reply, response) = oneshot::channel();
        self.all_or_nothing.start(job(reply));
        self.wait_for(response).await
    }

    async fn submit<J: Send + 'static>(
        &self,
        queue: &Batcher<J>,
        job: impl FnOnce(Reply) -> J,
    ) -> Result<OrderResponse, OrderError> {
        let (reply, response) = oneshot::channel();
        queue.submit(job(reply)).map_err(refuse_overload)?;
        self.wait_for(response).await
    }

    async fn wait_for(
        &self,
        response: oneshot::Receiver<Result<OrderResponse, OrderError>>,
    ) -> Result<OrderResponse, OrderError> {
        let response = response.await.unwrap_or(Err(OrderError::BatchLost));
        self.outcomes.record(&response);
        response
    }

    /// What the last writes came to.
    pub(super) fn outcomes(&self) -> Arc<WriteOutcomes> {
        Arc::clone(&self.outcomes)
    }
}

/// Connections of the writer's own, so that reads never keep a commit waiting. New orders have a pool of their own, because a
/// server process that always does the same does it faster. The statements are large, and their best plan does not depend on
/// their values.
fn write_pool(db: &DbPool, max_connections: usize) -> DbPool {
    let settings = PoolSettings::new("api-write", u32::try_from(max_connections).unwrap_or(u32::MAX));
    db.sibling(settings.with_session("SET plan_cache_mode = force_generic_plan"))
}
