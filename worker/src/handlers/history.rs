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

/// One statement at a time, of what came while the one before it was written: it costs a few large commits instead of
/// many small ones. Few batches, so that a statement stays well below its time limit also where batches are large.
const SIZE: BatchConfig = BatchConfig { workers: 1, queue_size: 10_000, batch_size: 4 };

/// How long after an event that had been recorded already each is looked for before it is recorded: repetitions come
/// together, as in a replay.
const CAREFUL: Duration = Duration::from_mins(1);

/// Writes the rows of the batches that wait in one statement. A version that is recorded already stays as it is.
pub struct HistoryHandler {
    lanes: Batcher<Batch>,
}

impl HistoryHandler {
    /// Records into `db`, until it is dropped.
    pub fn new(db: impl Into<DbPool>, shutdown: &Shutdown) -> Self {
        Self { lanes: Batcher::start(SIZE, Recorder::new(db.into()), shutdown) }
    }
}

#[async_trait]
impl EventHandler for HistoryHandler {
    fn name(&self) -> &'static str {
        "history"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let events = batch.iter().map(|item| Arc::clone(&item.event)).collect();
        let (reply, recorded) = oneshot::channel();
        self.lanes
            .submit(Batch { events, reply })
            .map_err(|error| HandlerError::Unavailable(error.into()))?;
        recorded.await.map_err(|_| HandlerError::Transient("a statement ended without an outcome".into()))?
    }
}

/// A batch to record.
struct Batch {
    events: Vec<Arc<Event>>,
    reply: oneshot::Sender<Result<(), HandlerError>>,
}

struct Recorder {
    db: DbPool,
    /// When an event came that had been recorded already.
    repeated: Mutex<Option<Instant>>,
}

impl BatchHandler<Batch> for Recorder {
    async fn handle(&self, batches: Vec<Batch>) -> Vec<Batch> {
        match self.record(batches.iter().flat_map(|batch| &batch.events)).await {
            Err(DbError::Refused(_)) if batches.len() > 1 => {
                // Some batch is at fault: each by itself, all at once, so that nobody waits for long.
                join_all(batches.into_iter().map(async |batch| {
                    let done = self.record(&batch.events).await;
                    answer(batch, done.map_err(HandlerError::from));
                }))
                .await;
            }
            done => {
                let done = done.map_err(Arc::new);
                for batch in batches {
                    answer(batch, done.clone().map_err(HandlerError::from));
                }
            }
        }
        Vec::new()
    }
}

impl Recorder {
    const fn new(db: DbPool) -> Self {
        Self { db, repeated: Mutex::new(None) }
    }

    async fn record<'a>(&self, events: impl IntoIterator<Item = &'a Arc<Event>>) -> Result<(), DbError> {
        let mut events: Vec<_> = events.into_iter().map(Arc::as_ref).collect();
        // One order of locking for all workers: two that got the same events cannot wait for each other.
        let place = |event: &&Event| (event.data.order_id, event.data.version);
        events.sort_unstable_by_key(place);
        events.dedup_by_key(|event| place(event));
        let events = &events;
        let inserted = self.db.run_once(|mut db| async move { self.insert(&mut db, events).await }).await?;
        metrics::counter!("worker_history_rows_total").increment(inserted);
        Ok(())
    }

    /// As if all were new, as nearly always, unless some were not lately.
    async fn insert(&self, connection: &mut PgConnection, events: &[&Event]) -> sqlx::Result<u64> {
        let repeated = *self.repeated.lock().unwrap_or_else(PoisonError::into_inner);
        if repeated.is_none_or(|at| at.elapsed() > CAREFUL) {
            match history::insert_new(connection, events).await {
                Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {
                    *self.repeated.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                }
                done => return done,
            }
        }
        history::insert(connection, events).await
    }
}

fn answer(batch: Batch, done: Result<(), HandlerError>) {
    let _given_up = batch.reply.send(done);
}
