//! From the broker to the handlers: batches, retries, dead letters. Generic over [`EventSource`] and
//! [`EventHandler`]; it knows envelopes and outcomes, not what events mean.
//!
//! Two kinds of failure are told apart. An event's **own** failure (an error it causes, a panic, a hang) costs only that
//! event: it is retried with backoff and set aside after its last attempt. A **dependency that is down** is no
//! event's failure: the batch is held, which the source's heartbeat allows for as long as it takes, and tried again until it works. So an
//! outage of PostgreSQL neither loses nor dead-letters anything; once every batch in flight is held, nothing more is taken.

mod backoff;
mod batch;
mod guard;
mod held;
mod observe;
mod traced;

use std::{sync::Arc, time::Duration};

use shared::{
    broker::{BrokerError, Delivery, EventSource},
    domain::clock::Clock,
    platform::{db::DbPool, shutdown::Shutdown},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

pub use backoff::Backoff;
pub use batch::Summary;
pub use held::{HeldBatches, HeldSummary};
pub use observe::set_backlog_gauges;

use crate::{errors::chain, handlers::EventHandler};

/// How long a stop waits for what is in flight; the rest of the ten seconds belongs to handing back.
const DRAIN: Duration = Duration::from_secs(6);
/// How long handing back may take.
const CLOSE: Duration = Duration::from_secs(3);

/// How a consumer works.
#[derive(Clone, Debug)]
pub struct ConsumerSettings {
    /// Events in a batch, at most.
    pub batch_size: usize,
    /// Batches in flight at a time.
    pub concurrency: usize,
    /// Attempts at an event before it is set aside.
    pub max_attempts: u32,
    /// How long one receive waits for events; a stop is noticed this late.
    pub wait: Duration,
    /// A handler that takes longer for a call hangs. Longer than any bound inside of handlers, so that a dependency
    /// that does not answer is never taken for a handler that hangs: the history may have to wait for a statement before
    /// its own, and each of both for a connection, a refused batch, and its parts alone.
    pub handler_deadline: Duration,
    /// Before an event's next attempt.
    pub retry: Backoff,
    /// Before a held batch is tried again, and before the source is asked again after an error.
    pub hold: Backoff,
}

impl Default for ConsumerSettings {
    fn default() -> Self {
        Self {
            batch_size: 250,
            concurrency: 4,
            max_attempts: 5,
            wait: Duration::from_secs(1),
            handler_deadline: Duration::from_secs(40),
            retry: Backoff::new(Duration::from_secs(1), Duration::from_mins(1)),
            hold: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
        }
    }
}

/// Takes batches and sees them through. Clones share one state.
#[derive(Clone)]
pub struct Consumer {
    source: Arc<dyn EventSource>,
    handlers: Arc<[Arc<dyn EventHandler>]>,
    /// Where dead letters go.
    db: DbPool,
    clock: Clock,
    settings: ConsumerSettings,
    held: HeldBatches,
    shutdown: Shutdown,
}

impl Consumer {
    /// Takes from `source`, gives every event to every handler, sets aside into `db`.
    pub fn new(
        source: Arc<dyn EventSource>,
        handlers: Vec<Arc<dyn EventHandler>>,
        db: impl Into<DbPool>,
        clock: Clock,
        settings: ConsumerSettings,
        shutdown: Shutdown,
    ) -> Self {
        let held = HeldBatches::default();
        Self { source, handlers: handlers.into(), db: db.into(), clock, settings, held, shutdown }
    }

    /// Lists in `held` what it holds while a dependency is down.
    #[must_use]
    pub fn listing_in(self, held: HeldBatches) -> Self {
        Self { held, ..self }
    }

    /// One step: receives a batch, which may be empty, and sees it through to its settlement.
    pub async fn consume_once(&self) -> Result<Summary, BrokerError> {
        let deliveries = self.receive().await?;
        Ok(self.process(deliveries).await)
    }

    /// Steps until shutdown, several at a time; then finishes or hands back what it holds and closes the source.
    pub async fn run(&self) {
        let permits = Arc::new(Semaphore::new(self.settings.concurrency));
        let mut batches = JoinSet::new();
        let mut failures = 0;
        while let Some(permit) = self.permit(&permits).await {
            match self.receive().await {
                Ok(deliveries) => {
                    failures = 0;
                    if !deliveries.is_empty() {
                        let consumer = self.clone();
                        batches.spawn(async move {
                            consumer.process(deliveries).await;
                            drop(permit);
                        });
                    }
                }
                Err(error) => {
                    failures += 1;
                    self.source_failed(&error, failures).await;
                }
            }
            while let Some(ended) = batches.try_join_next() {
                self.check(ended);
            }
        }
        self.stop(batches).await;
    }

    /// A place for a batch, before one is taken. `None` when no more shall be.
    async fn permit(&self, permits: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            () = self.shutdown.begun() => None,
            permit = permits.clone().acquire_owned() => permit.ok(),
        }
    }

    async fn receive(&self) -> Result<Vec<Delivery>, BrokerError> {
        // Never cancelled: what a source is about to hand out would be in nobody's hands.
        self.source.receive(self.settings.batch_size, self.settings.wait).await
    }

    async fn source_failed(&self, error: &BrokerError, failures: u32) {
        observe::source_failed(self.source.system(), error, failures);
        self.pause(self.settings.hold.delay(failures)).await;
    }

    /// Waits, unless the process shall stop: `false` then.
    async fn pause(&self, delay: Duration) -> bool {
        tokio::select! {
            () = self.shutdown.begun() => false,
            () = tokio::time::sleep(delay) => true,
        }
    }

    async fn stop(&self, mut batches: JoinSet<()>) {
        let drained = tokio::time::timeout(DRAIN, async {
            while let Some(ended) = batches.join_next().await {
                self.check(ended);
            }
        });
        if drained.await.is_err() {
            tracing::warn!(batches = batches.len(), "handing back batches that did not finish in time");
            batches.shutdown().await;
        }
        if tokio::time::timeout(CLOSE, self.source.close()).await.is_err() {
            tracing::warn!("the broker did not take back in time what was held; it will notice by itself");
        }
    }

    fn check(&self, ended: Result<(), tokio::task::JoinError>) {
        if let Err(error) = ended {
            // Handlers are guarded, so this is a fault of the consumer itself. Unsettled events come again.
            tracing::error!(error = chain(&error), broker = %self.source.system(), "a batch ended without settlement");
        }
    }
}
