//! One step of the relay: a batch from the log to the broker.

use std::{sync::Arc, time::Duration};

use shared::{broker::EventSink, platform::db::DbPool};
use tokio::{sync::Mutex, time::Instant};

use super::{
    Lease, OutboxError, RelayStatus,
    cursor::{Cursor, Logged},
    metrics,
    publish::{Publisher, Sent},
};

/// How the relay works.
#[derive(Clone, Copy, Debug)]
pub struct RelaySettings {
    /// How many events go out at a time.
    pub batch: usize,
    /// How long the lease lasts without renewal: a killed relay is replaced after this time and a little.
    pub lease: Duration,
}

impl Default for RelaySettings {
    fn default() -> Self {
        Self { batch: 500, lease: Duration::from_secs(5) }
    }
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// Another replica relays.
    Standby,
    /// There was nothing to publish.
    Idle,
    /// A batch went out, and the cursor stands behind it.
    Published {
        /// How many events the broker confirmed.
        confirmed: u64,
        /// How many it refused for good.
        rejected: u64,
        /// Whether there is more to publish already.
        more: bool,
    },
    /// The broker did not confirm some events: the next step sends them again, before all others.
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
    /// Held for a whole step, so that steps never overlap. Empty until the lease is held.
    work: Mutex<Option<Work>>,
}

/// What one tenure of the lease is at.
#[derive(Debug)]
struct Work {
    cursor: Cursor,
    /// What the broker has not confirmed yet; goes before everything else.
    unconfirmed: Vec<Logged>,
    /// The page after the last one published, read while that was on its way.
    ahead: Option<Vec<Logged>>,
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
            work: Mutex::new(None),
        }
    }

    /// The claim on the lease.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What it is at, for health and metrics.
    pub fn status(&self) -> &RelayStatus {
        &self.status
    }

    /// Publishes the next batch where it is this replica's turn.
    ///
    /// After an error nothing of this process is believed: the next step reads the cursor anew, and at worst
    /// publishes a batch again.
    pub async fn relay_once(&self) -> Result<RelayStep, OutboxError> {
        let mut work = self.work.lock().await;
        let step = self.step(&mut work).await;
        match &step {
            Err(error) if !matches!(error, OutboxError::LeaseLost) => {
                self.status.set_trouble(Some(error.to_string()));
            }
            // It has noted the broker's error itself.
            Ok(RelayStep::Unconfirmed { .. }) => {}
            _ => self.status.set_trouble(None),
        }
        match step {
            Err(OutboxError::LeaseLost) => {
                *work = None;
                Ok(RelayStep::Standby)
            }
            Err(error) => {
                if let Some(Work { cursor, .. }) = work.take() {
                    self.lease.forget(cursor.epoch);
                }
                Err(error)
            }
            step => step,
        }
    }

    async fn step(&self, work: &mut Option<Work>) -> Result<RelayStep, OutboxError> {
        let epoch = match self.lease.held() {
            Some(epoch) => epoch,
            None => match self.lease.acquire().await? {
                Some(epoch) => epoch,
                None => return Err(OutboxError::LeaseLost),
            },
        };
        let work = match work {
            Some(work) if work.cursor.epoch == epoch => work,
            _ => {
                let cursor = Cursor::load(&self.pool, &self.lease, epoch).await?;
                work.insert(Work { cursor, unconfirmed: Vec::new(), ahead: None })
            }
        };

        let batch = if work.unconfirmed.is_empty() {
            self.next_page(work).await?
        } else {
            std::mem::take(&mut work.unconfirmed)
        };
        let Some(last) = batch.last().map(|event| event.id) else { return Ok(RelayStep::Idle) };

        // Only a full page can have another one behind it, and it is read while this one is on its way.
        let full = batch.len() == self.batch && work.ahead.is_none();
        let started = Instant::now();
        let recorded: Vec<_> = batch.iter().map(|event| (event.id, event.age_seconds())).collect();
        let (sent, ahead) = tokio::join!(self.send(epoch, batch), async {
            if full {
                work.cursor.page(&self.pool, Some(last), self.page_size()).await.map(Some)
            } else {
                Ok(None)
            }
        });
        let sent = sent?;
        if let Some(ahead) = ahead? {
            work.ahead = Some(ahead);
        }
        self.settle(work, sent, &recorded, started).await
    }

    /// The page to publish now; empty where there is nothing. The end of a window is only seen by an empty page
    /// after a full one, and then the next window is looked at.
    async fn next_page(&self, work: &mut Work) -> Result<Vec<Logged>, OutboxError> {
        if let Some(ahead) = work.ahead.take()
            && !ahead.is_empty()
        {
            return Ok(ahead);
        }
        let page = work.cursor.page(&self.pool, None, self.page_size()).await?;
        if page.is_empty() && work.cursor.in_window() {
            work.cursor.finish();
            work.cursor.save(&self.pool, &self.lease).await?;
            return Ok(work.cursor.page(&self.pool, None, self.page_size()).await?);
        }
        Ok(page)
    }

    /// Sends a batch unless the lease runs out first.
    async fn send(&self, epoch: i64, batch: Vec<Logged>) -> Result<Sent, OutboxError> {
        tokio::select! {
            biased;
            () = self.lease.lost(epoch) => Err(OutboxError::LeaseLost),
            sent = self.publisher.send(batch) => Ok(sent?),
        }
    }

    /// Moves the cursor behind what is confirmed, and no further. `recorded` has the id of each event of the batch
    /// and how old it was when the batch was sent.
    async fn settle(
        &self,
        work: &mut Work,
        sent: Sent,
        recorded: &[(i64, f64)],
        started: Instant,
    ) -> Result<RelayStep, OutboxError> {
        let Sent { confirmed, rejected, unconfirmed, trouble } = sent;
        let took = started.elapsed();
        let waiting: Vec<_> = unconfirmed.iter().map(|event| event.id).collect();
        metrics::record_lag(
            self.publisher.sink.system(),
            recorded
                .iter()
                .filter(|(id, _)| waiting.binary_search(id).is_err())
                .map(|(_, age)| age + took.as_secs_f64()),
        );

        let step = if let Some(first) = waiting.first() {
            work.cursor.pass(first - 1);
            let error = trouble.map(|error| error.to_string()).unwrap_or_default();
            tracing::warn!(
                relay.epoch = work.cursor.epoch,
                batch.events = recorded.len(),
                batch.unconfirmed = waiting.len(),
                error,
                "the broker did not confirm all events: they are sent again"
            );
            self.status.set_trouble(Some(format!("the broker does not confirm events: {error}")));
            work.unconfirmed = unconfirmed;
            RelayStep::Unconfirmed { events: waiting.len() }
        } else {
            work.cursor.pass(recorded.last().map_or(0, |(id, _)| *id));
            let more = work.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty());
            if !more {
                work.ahead = None;
                work.cursor.finish();
            }
            RelayStep::Published { confirmed, rejected, more }
        };
        work.cursor.save(&self.pool, &self.lease).await?;
        tracing::debug!(
            relay.epoch = work.cursor.epoch,
            batch.events = recorded.len(),
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

    /// Gives the lease back after the step in progress, so that another replica takes over at once.
    pub async fn release(&self) -> Result<(), OutboxError> {
        let mut work = self.work.lock().await;
        *work = None;
        Ok(self.lease.release().await?)
    }
}
