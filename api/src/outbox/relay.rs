//! One step of the relay: publishes a batch of the log.

use std::{sync::Arc, time::Duration};

use shared::{broker::EventSink, platform::db::DbPool};
use tokio::{sync::Mutex, time::Instant};

use super::{
    Lease, OutboxError, RelayStatus, metrics,
    position::{LogPosition, OutboxRow},
    publish::{PublishResult, Publisher},
};

/// How the relay works.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// How many events a batch has at most.
    pub batch: usize,
    /// How long the lease lasts without renewal: a killed relay is replaced soon after this time.
    pub lease: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { batch: 500, lease: Duration::from_secs(5) }
    }
}

/// The result of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// Another replica relays.
    Standby,
    /// There was nothing to publish.
    Idle,
    /// A batch was published, and the position is after it.
    Published {
        /// How many events the broker confirmed.
        confirmed: u64,
        /// How many it rejected.
        rejected: u64,
        /// Whether more events wait already.
        more: bool,
    },
    /// The broker did not confirm some events: the next step publishes them again, before all others.
    Unconfirmed {
        /// How many.
        events: usize,
    },
}

/// Publishes the log while it holds the lease.
#[derive(Debug)]
pub struct Relay {
    pub(super) pool: DbPool,
    pub(super) publisher: Publisher,
    pub(super) lease: Arc<Lease>,
    status: RelayStatus,
    batch: usize,
    /// Held for a whole step, so that steps never overlap. `None` until the lease is held.
    progress: Mutex<Option<Progress>>,
}

/// The progress of one holder of the lease.
#[derive(Debug)]
struct Progress {
    position: LogPosition,
    /// Events that the broker has not confirmed yet; they are published first.
    unconfirmed: Vec<OutboxRow>,
    /// The page after the last published one, read while that was being published.
    ahead: Option<Vec<OutboxRow>>,
}

impl Relay {
    /// A relay that has not asked for the lease yet.
    pub fn new(pool: impl Into<DbPool>, sink: Arc<dyn EventSink>, settings: RelaySettings) -> Self {
        let pool = pool.into();
        let lease = Arc::new(Lease::new(pool.clone(), settings.lease));
        Self {
            status: RelayStatus::new(Arc::clone(&lease)),
            lease,
            publisher: Publisher { sink, pool: pool.clone() },
            pool,
            batch: settings.batch.max(1),
            progress: Mutex::new(None),
        }
    }

    /// The lease of this relay.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Its status, for health and metrics.
    pub fn status(&self) -> &RelayStatus {
        &self.status
    }

    /// Publishes the next batch, if this replica holds the lease.
    ///
    /// After an error the state of this process may be wrong: the next step reads the position from the database, and in the
    /// worst case publishes a batch again.
    pub async fn relay_once(&self) -> Result<RelayStep, OutboxError> {
        let mut progress = self.progress.lock().await;
        let mut step = self.publish_next(&mut progress).await;
        if matches!(step, Err(OutboxError::ServerReplaced)) {
            *progress = None;
            step = self.publish_next(&mut progress).await;
        }
        match &step {
            Err(error) if !matches!(error, OutboxError::LeaseLost) => {
                self.status.set_last_error(Some(error.to_string()));
            }
            // The error of the broker is set already.
            Ok(RelayStep::Unconfirmed { .. }) => {}
            _ => self.status.set_last_error(None),
        }
        match step {
            Err(OutboxError::LeaseLost) => {
                *progress = None;
                Ok(RelayStep::Standby)
            }
            Err(error) => {
                if let Some(Progress { position, .. }) = progress.take() {
                    self.lease.forget(position.epoch);
                }
                Err(error)
            }
            step => step,
        }
    }

    async fn publish_next(&self, progress: &mut Option<Progress>) -> Result<RelayStep, OutboxError> {
        let epoch = match self.lease.held_epoch() {
            Some(epoch) => epoch,
            None => match self.lease.acquire().await? {
                Some(epoch) => epoch,
                None => return Err(OutboxError::LeaseLost),
            },
        };
        let progress = match progress {
            Some(progress) if progress.position.epoch == epoch => progress,
            _ => {
                let position = LogPosition::load(&self.pool, &self.lease, epoch).await?;
                progress.insert(Progress { position, unconfirmed: Vec::new(), ahead: None })
            }
        };

        let batch = if progress.unconfirmed.is_empty() {
            self.next_page(progress).await?
        } else {
            std::mem::take(&mut progress.unconfirmed)
        };
        let Some(last) = batch.last().map(|event| event.id) else { return Ok(RelayStep::Idle) };

        // Only a full page can have another one after it, which is read while this one is being published.
        let reads_ahead = batch.len() == self.batch && progress.ahead.is_none();
        let started = Instant::now();
        let ages: Vec<_> = batch.iter().map(|event| (event.id, event.age_seconds())).collect();
        let (published, ahead) = tokio::join!(self.publish(epoch, batch), async {
            if reads_ahead {
                progress.position.read_page(&self.pool, Some(last), self.page_size()).await.map(Some)
            } else {
                Ok(None)
            }
        });
        let published = published?;
        if let Some(ahead) = ahead? {
            progress.ahead = Some(ahead);
        }
        self.record_result(progress, published, &ages, started).await
    }

    /// The page to publish now; empty if there are no events. Only an empty page after a full one shows the end of a window;
    /// then the next window is opened.
    async fn next_page(&self, progress: &mut Progress) -> Result<Vec<OutboxRow>, OutboxError> {
        if let Some(ahead) = progress.ahead.take()
            && !ahead.is_empty()
        {
            return Ok(ahead);
        }
        let page = progress.position.read_page(&self.pool, None, self.page_size()).await?;
        if page.is_empty() && progress.position.in_window() {
            progress.position.close_window();
            progress.position.save(&self.pool, &self.lease).await?;
            return progress.position.read_page(&self.pool, None, self.page_size()).await;
        }
        Ok(page)
    }

    /// Publishes a batch, unless the lease expires first.
    async fn publish(&self, epoch: i64, batch: Vec<OutboxRow>) -> Result<PublishResult, OutboxError> {
        tokio::select! {
            biased;
            () = self.lease.wait_until_lost(epoch) => Err(OutboxError::LeaseLost),
            result = self.publisher.publish_batch(batch) => Ok(result?),
        }
    }

    /// Moves the position after the confirmed events, and no further. `ages` has the id of each event of the batch and how
    /// many seconds old it was when it was published.
    async fn record_result(
        &self,
        progress: &mut Progress,
        result: PublishResult,
        ages: &[(i64, f64)],
        started: Instant,
    ) -> Result<RelayStep, OutboxError> {
        let PublishResult { confirmed, rejected, unconfirmed, first_error } = result;
        let took = started.elapsed();
        let waiting: Vec<_> = unconfirmed.iter().map(|event| event.id).collect();
        metrics::record_lag(
            self.publisher.sink.system(),
            ages.iter()
                .filter(|(id, _)| waiting.binary_search(id).is_err())
                .map(|(_, age)| age + took.as_secs_f64()),
        );

        let step = if let Some(first) = waiting.first() {
            progress.position.advance_to(first - 1);
            let error = first_error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(
                relay.epoch = progress.position.epoch,
                batch.events = ages.len(),
                batch.unconfirmed = waiting.len(),
                error,
                "the broker did not confirm all events: they are published again"
            );
            self.status.set_last_error(Some(format!("the broker does not confirm events: {error}")));
            progress.unconfirmed = unconfirmed;
            RelayStep::Unconfirmed { events: waiting.len() }
        } else {
            progress.position.advance_to(ages.last().map_or(0, |(id, _)| *id));
            let more = progress.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty());
            if !more {
                progress.ahead = None;
                progress.position.close_window();
            }
            RelayStep::Published { confirmed, rejected, more }
        };
        progress.position.save(&self.pool, &self.lease).await?;
        tracing::debug!(
            relay.epoch = progress.position.epoch,
            batch.events = ages.len(),
            batch.confirmed = confirmed,
            batch.rejected = rejected,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "published a batch"
        );
        Ok(step)
    }

    fn page_size(&self) -> i32 {
        i32::try_from(self.batch).unwrap_or(i32::MAX)
    }

    /// Releases the lease after the step in progress, so that another replica takes over at once.
    pub async fn release(&self) -> Result<(), OutboxError> {
        let mut progress = self.progress.lock().await;
        *progress = None;
        Ok(self.lease.release().await?)
    }
}
