//! Records every version of every order.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures_util::future::join_all;
use shared::{
    domain::event::Event,
    platform::{
        batching::{BatchConfig, BatchHandler, Batcher},
        db::{DbError, DbPool},
        shutdown::Shutdown,
    },
};
use sqlx::PgConnection;
use tokio::sync::oneshot;

use super::{EventHandler, HandlerError, HandlerEvent};
use crate::store::history;

/// One statement at a time writes the batches that came during the one before: a few large commits instead of many small
/// ones. At most four batches, so that a statement of large batches stays well below its time limit.
const BATCHING: BatchConfig = BatchConfig { workers: 1, queue_size: 10_000, batch_size: 4 };

/// For this long after an event that was already recorded, every statement expects more of them: repeated events come
/// together, as in a replay.
const EXPECT_REPEATED: Duration = Duration::from_mins(1);

/// Records the batches that wait in one statement. A version that is already recorded stays as it is.
pub struct HistoryHandler {
    batcher: Batcher<HistoryBatch>,
}

impl HistoryHandler {
    /// Records into `db`, until it is dropped.
    pub fn new(db: impl Into<DbPool>, shutdown: &Shutdown) -> Self {
        Self { batcher: Batcher::start(BATCHING, Recorder::new(db.into()), shutdown) }
    }
}

#[async_trait]
impl EventHandler for HistoryHandler {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let events = batch.iter().map(|item| Arc::clone(&item.event)).collect();
        let (reply_to, recorded) = oneshot::channel();
        self.batcher
            .submit(HistoryBatch { events, reply_to })
            .map_err(|error| HandlerError::Unavailable(error.into()))?;
        recorded.await.map_err(|_| HandlerError::Transient("a statement ended without an outcome".into()))?
    }
}

/// A batch to record.
struct HistoryBatch {
    events: Vec<Arc<Event>>,
    reply_to: oneshot::Sender<Result<(), HandlerError>>,
}

struct Recorder {
    db: DbPool,
    /// When an event last came that was already recorded.
    last_repeated: Mutex<Option<Instant>>,
}

impl BatchHandler<HistoryBatch> for Recorder {
    async fn handle(&self, batches: Vec<HistoryBatch>) -> Vec<HistoryBatch> {
        match self.record_events(batches.iter().flat_map(|batch| &batch.events)).await {
            Err(DbError::Refused(_)) if batches.len() > 1 => {
                // One of the batches is at fault: record each alone, all at the same time.
                join_all(batches.into_iter().map(async |batch| {
                    let done = self.record_events(&batch.events).await;
                    reply(batch, done.map_err(HandlerError::from));
                }))
                .await;
            }
            done => {
                let done = done.map_err(Arc::new);
                for batch in batches {
                    reply(batch, done.clone().map_err(HandlerError::from));
                }
            }
        }
        Vec::new()
    }
}

impl Recorder {
    const fn new(db: DbPool) -> Self {
        Self { db, last_repeated: Mutex::new(None) }
    }

    async fn record_events<'a>(
        &self,
        events: impl IntoIterator<Item = &'a Arc<Event>>,
    ) -> Result<(), DbError> {
        let mut events: Vec<_> = events.into_iter().map(Arc::as_ref).collect();
        // All workers lock in the same order, so that two with the same events cannot deadlock.
        let place = |event: &&Event| (event.data.order_id, event.data.version);
        events.sort_unstable_by_key(place);
        events.dedup_by_key(|event| place(event));
        let events = &events;
        let inserted =
            self.db.run_once(|mut db| async move { self.insert_rows(&mut db, events).await }).await?;
        metrics::counter!("worker_history_rows_total").increment(inserted);
        Ok(())
    }

    /// Inserts the events as new ones, which they nearly always are, unless some lately were not.
    async fn insert_rows(&self, connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
        let repeated = *self.last_repeated.lock().unwrap_or_else(PoisonError::into_inner);
        if repeated.is_none_or(|at| at.elapsed() > EXPECT_REPEATED) {
            match history::insert_new_versions(connection, events).await {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                    *self.last_repeated.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                done => return done,
            }
        }
        history::insert_versions(connection, events).await
    }
}

fn reply(batch: HistoryBatch, result: Result<(), HandlerError>) {
    let _caller_gave_up = batch.reply_to.send(result);
}
