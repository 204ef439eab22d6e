//! The loop: receives batches and processes several of them at the same time, until shutdown.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use shared::{
    broker::{BrokerError, Delivery, EventSource},
    domain::clock::Clock,
    platform::{db::DbPool, page_size::PageSize, shutdown::Shutdown},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

use super::{held::HeldBatches, outcome::BatchSummary, settings::ConsumerSettings, telemetry};
use crate::{errors::chain, handlers::EventHandler};

/// How long a stop waits for batches in flight. The rest of the ten seconds is for releasing events.
const DRAIN_LIMIT: Duration = Duration::from_secs(6);
/// How long the source may take to close.
const CLOSE_LIMIT: Duration = Duration::from_secs(3);

/// The bytes that a batch should have. Its events are in memory several times until they are settled: as they came, parsed, and in
/// what is written of them.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The events of a batch as long as their size is not known.
const FIRST_BATCH: usize = 50;
/// The fewest events of a batch, if there are as many.
const FEWEST_EVENTS: usize = 16;

/// Receives batches and processes them. Clones share one state.
#[derive(Clone)]
pub struct Consumer {
    pub(super) source: Arc<dyn EventSource>,
    pub(super) handlers: Arc<[Arc<dyn EventHandler>]>,
    /// Where dead letters are stored.
    pub(super) db: DbPool,
    pub(super) clock: Clock,
    pub(super) settings: ConsumerSettings,
    pub(super) held: HeldBatches,
    /// Of the next batch.
    batch_size: Arc<Mutex<PageSize>>,
    shutdown: Shutdown,
}

impl Consumer {
    /// Receives from `source`, passes every event to every handler, and stores dead letters in `db`.
    pub fn new(
        source: Arc<dyn EventSource>,
        handlers: Vec<Arc<dyn EventHandler>>,
        db: impl Into<DbPool>,
        clock: Clock,
        settings: ConsumerSettings,
        shutdown: Shutdown,
    ) -> Self {
        let batch_size = PageSize::new(BATCH_BYTES, FEWEST_EVENTS..=settings.batch_size, FIRST_BATCH);
        Self {
            source,
            handlers: handlers.into(),
            db: db.into(),
            clock,
            settings,
            held: HeldBatches::default(),
            batch_size: Arc::new(Mutex::new(batch_size)),
            shutdown,
        }
    }

    /// Lists in `held` the batches that it holds while a dependency is down.
    #[must_use]
    pub fn with_held_batches(self, held: HeldBatches) -> Self {
        Self { held, ..self }
    }

    /// Receives one batch, which can be empty, and processes it.
    pub async fn consume_once(&self) -> Result<BatchSummary, BrokerError> {
        let deliveries = self.receive().await?;
        Ok(self.process_batch(deliveries).await)
    }

    /// Consumes until shutdown. Then finishes the batches in flight, or leaves them to another worker, and closes the source.
    pub async fn consume_until_shutdown(&self) {
        let permits = Arc::new(Semaphore::new(self.settings.concurrency));
        let mut batches = JoinSet::new();
        let mut failures = 0;
        while let Some(permit) = self.acquire_permit(&permits).await {
            match self.receive().await {
                Ok(deliveries) => {
                    failures = 0;
                    if !deliveries.is_empty() {
                        let consumer = self.clone();
                        batches.spawn(async move {
                            consumer.process_batch(deliveries).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    failures += 1;
                    telemetry::record_source_failure(self.source.system(), &error, failures);
                    self.pause(self.settings.hold.delay(failures)).await;
                }
            }
            while let Some(ended) = batches.try_join_next() {
                self.log_panic(ended);
            }
        }
        self.stop(batches).await;
    }

    /// Waits until a batch may be received. `None` after shutdown has begun.
    async fn acquire_permit(&self, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.shutdown.begun() => None,
            permit = permits.clone().acquire_owned() => permit.ok(),
        }
    }

    async fn receive(&self) -> Result<Vec<Delivery>, BrokerError> {
        let most = self.lock_batch_size().items();
        // Never cancelled: events that the source is about to hand out would be lost until they are delivered again.
        let received = self.source.receive(most, self.settings.wait).await;
        let mut batch_size = self.lock_batch_size();
        match &received {
            Ok(deliveries) => batch_size.fit(deliveries.iter().map(|delivery| delivery.body.len())),
            Err(_) => batch_size.shrink(),
        }
        received
    }

    fn lock_batch_size(&self) -> MutexGuard<'_, PageSize> {
        self.batch_size.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits. `false` if shutdown begins first.
    pub(super) async fn pause(&self, delay: Duration) -> bool {
        tokio::select! {
            () = self.shutdown.begun() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }

    async fn stop(&self, mut batches: JoinSet<()>) {
        let drained = tokio::time::timeout(DRAIN_LIMIT, async {
            while let Some(ended) = batches.join_next().await {
                self.log_panic(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(batches = batches.len(), "releasing batches that did not finish in time");
            batches.shutdown().await;
        }
        if tokio::time::timeout(CLOSE_LIMIT, self.source.close()).await.is_err() {
            tracing::warn!("the events could not be released in time; the broker delivers them again later");
        }
    }

    fn log_panic(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            // A panic of a handler is caught, so this is a bug in the consumer itself. The events come again.
            tracing::error!(error = chain(&error), broker = %self.source.system(), "a batch ended without settlement");
        }
    }
}
