//! One step of the relay: gives positions to new events, and publishes the next batch behind the last published position.

use std::{sync::Arc, time::Duration};

use shared::{
    broker::{BrokerError, EventSink},
    platform::db::DbPool,
};
use tokio::{sync::Mutex, time::Instant};

use super::{
    Lease, OutboxError, PartitionSettings, RelayStatus,
    log::{self, LoggedEvent, Page},
    metrics,
    publish::{PublishResult, Publisher},
};

/// How the relay works.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// How many events a batch has at most; fewer if they are large.
    pub batch: usize,
    /// How long the lease lasts without renewal: a killed relay is replaced soon after this time.
    pub lease: Duration,
    /// Which days of the log are kept.
    pub partitions: PartitionSettings,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { batch: 500, lease: Duration::from_secs(5), partitions: PartitionSettings::default() }
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
    /// The broker takes no more events, from any replica, until consumers have handled some.
    BrokerFull {
        /// How many events of the batch wait.
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
    pub(super) partitions: PartitionSettings,
    /// Held for a whole step, so that steps never overlap. `None` until the lease is held.
    progress: Mutex<Option<Progress>>,
}

/// What one holder of the lease has read and not published.
#[derive(Debug)]
struct Progress {
    /// The epoch of the lease.
    epoch: i64,
    /// The server that the events below were read from; see [`Page::timeline`].
    timeline: i64,
    /// Events that the broker has not confirmed yet; they are published first.
    unconfirmed: Vec<LoggedEvent>,
    /// The page after the last published one, read while that was being published.
    ahead: Option<Page>,
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
            partitions: settings.partitions,
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
            Ok(RelayStep::Unconfirmed { .. } | RelayStep::BrokerFull { .. }) => {}
            _ => self.status.set_last_error(None),
        }
        match step {
            Err(OutboxError::LeaseLost) => {
                *progress = None;
                Ok(RelayStep::Standby)
            }
            Err(error) => {
                if let Some(Progress { epoch, .. }) = progress.take() {
                    self.lease.forget(epoch);
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
            Some(progress) if progress.epoch == epoch => progress,
            _ => progress.insert(Progress { epoch, timeline: 0, unconfirmed: Vec::new(), ahead: None }),
        };

        let (batch, has_next) = if progress.unconfirmed.is_empty() {
            let page = self.next_page(progress).await?;
            (page.events, page.has_next)
        } else {
            (std::mem::take(&mut progress.unconfirmed), false)
        };
        let Some(last) = batch.last().map(|event| event.position) else { return Ok(RelayStep::Idle) };

        // The next page is read while this one is being published.
        let reads_ahead = has_next && progress.ahead.is_none();
        let started = Instant::now();
        let ages: Vec<_> = batch.iter().map(|event| (event.position, event.age_seconds())).collect();
        let (published, ahead) = tokio::join!(self.publish(epoch, batch), async {
            if reads_ahead { self.read_page(epoch, Some(last)).await.map(Some) } else { Ok(None) }
        });
        let published = published?;
        if let Some(ahead) = ahead? {
            progress.ahead = Some(ahead);
        }
        self.record_result(progress, published, &ages, started).await
    }

    /// The page to publish now; empty if there are no events.
    async fn next_page(&self, progress: &mut Progress) -> Result<Page, OutboxError> {
        let page = match progress.ahead.take() {
            Some(page) if !page.events.is_empty() => page,
            _ => {
                self.sequence(progress.epoch).await?;
                self.read_page(progress.epoch, None).await?
            }
        };
        progress.timeline = page.timeline;
        Ok(page)
    }

    async fn read_page(&self, epoch: i64, after: Option<i64>) -> Result<Page, OutboxError> {
        let most = i32::try_from(self.batch).unwrap_or(i32::MAX);
        log::read_page(&self.pool, &self.lease, epoch, after, most).await
    }

    /// Gives positions to new events, if this replica holds the lease; returns how many these were. A step does so by itself. While
    /// a broker does not answer, steps take long, and those who read the log must not wait for it.
    pub async fn sequence_once(&self) -> Result<i64, OutboxError> {
        let Some(epoch) = self.lease.held_epoch() else { return Ok(0) };
        self.sequence(epoch).await
    }

    async fn sequence(&self, epoch: i64) -> Result<i64, OutboxError> {
        let sequenced = log::sequence(&self.pool, &self.lease, epoch).await?;
        self.status.record_sequenced(sequenced);
        Ok(sequenced)
    }

    /// Publishes a batch, unless the lease expires first.
    async fn publish(&self, epoch: i64, batch: Vec<LoggedEvent>) -> Result<PublishResult, OutboxError> {
        tokio::select! {
            biased;
            () = self.lease.wait_until_lost(epoch) => Err(OutboxError::LeaseLost),
            result = self.publisher.publish_batch(batch) => Ok(result?),
        }
    }

    /// Moves the published position after the confirmed events, and no further. `ages` has the position of each event of the batch
    /// and how many seconds old it was when it was published.
    async fn record_result(
        &self,
        progress: &mut Progress,
        result: PublishResult,
        ages: &[(i64, f64)],
        started: Instant,
    ) -> Result<RelayStep, OutboxError> {
        let PublishResult { confirmed, rejected, unconfirmed, first_error } = result;
        let took = started.elapsed();
        let waiting: Vec<_> = unconfirmed.iter().map(|event| event.position).collect();
        metrics::record_lag(
            self.publisher.sink.system(),
            ages.iter()
                .filter(|(position, _)| waiting.binary_search(position).is_err())
                .map(|(_, age)| age + took.as_secs_f64()),
        );

        let last = ages.last().map_or(0, |(position, _)| *position);
        let (published, step) = if let Some(first) = waiting.first() {
            let is_full = matches!(first_error, Some(BrokerError::Full { .. }));
            let error = first_error.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(
                relay.epoch = progress.epoch,
                batch.events = ages.len(),
                batch.unconfirmed = waiting.len(),
                error,
                "the broker did not confirm all events: they are published again"
            );
            self.status.set_last_error(Some(format!("the broker does not confirm events: {error}")));
            progress.unconfirmed = unconfirmed;
            let events = waiting.len();
            (
                first - 1,
                if is_full { RelayStep::BrokerFull { events } } else { RelayStep::Unconfirmed { events } },
            )
        } else {
            let more = progress.ahead.as_ref().is_some_and(|ahead| !ahead.events.is_empty());
            (last, RelayStep::Published { confirmed, rejected, more })
        };
        log::save_published(&self.pool, &self.lease, progress.epoch, published, progress.timeline).await?;
        tracing::debug!(
            relay.epoch = progress.epoch,
            batch.events = ages.len(),
            batch.confirmed = confirmed,
            batch.rejected = rejected,
            duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "published a batch"
        );
        Ok(step)
    }

    /// Releases the lease after the step in progress, so that another replica takes over at once.
    pub async fn release(&self) -> Result<(), OutboxError> {
        let mut progress = self.progress.lock().await;
        *progress = None;
        Ok(self.lease.release().await?)
    }
}
