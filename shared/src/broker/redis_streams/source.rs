//! Consuming from the stream.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{task::JoinHandle, time::timeout};
use uuid::Uuid;

use super::{
    CLOSE_TIMEOUT, RedisStreamsOptions, SYSTEM, broker_error,
    consumer_state::ConsumerState,
    group::Group,
    maintenance,
    reader::Reader,
    reclaim::{self, Reclaim},
    removal,
};
use crate::{
    broker::{
        Backlog, BrokerError, Delivery, EventSource, EventSystem, Settlement, SettlementKind,
        ignore_unavailable,
    },
    domain::tenant::TenantId,
    platform::redis::RedisFailure,
};

/// The longest blocking read: delayed entries that become due are noticed between two reads.
const MAX_BLOCK: Duration = Duration::from_millis(500);

/// Takes events from the stream as one consumer of the group.
///
/// Cancelling [`EventSource::receive`] loses nothing: entries that were being read come with the next call, and entries that
/// were being claimed too, as their next attempt.
#[derive(Debug)]
pub struct RedisStreamsSource {
    pub(super) state: Arc<ConsumerState>,
    pub(super) receiving: tokio::sync::Mutex<ReceiveState>,
    maintenance: Mutex<Option<JoinHandle<()>>>,
    options: RedisStreamsOptions,
}

/// What one `receive` at a time uses.
#[derive(Debug)]
pub(super) struct ReceiveState {
    reader: Reader,
    reclaim: Reclaim,
    /// Whether a `receive` was cancelled or failed: there may be pending entries that no caller has seen.
    pub(super) interrupted: bool,
}

impl RedisStreamsSource {
    /// Joins the group. A server that cannot be reached yet is no error: it is tried again with each `receive`.
    ///
    /// `consumer` is made unique, so that a restarted process never mistakes the entries of its predecessor for its own.
    pub async fn connect(options: RedisStreamsOptions, consumer: &str) -> Result<Self, BrokerError> {
        let unique = Uuid::now_v7().simple().to_string();
        let group = Group::new(&options, format!("{consumer}-{}", &unique[20..]))?;
        ignore_unavailable(group.ensure().await.map_err(|error| broker_error(&error)))?;
        let state = Arc::new(ConsumerState::new(group));
        let maintenance = tokio::spawn(maintenance::maintain(Arc::clone(&state), options.clone()));
        let receiving =
            ReceiveState { reader: Reader::new(), reclaim: Reclaim::new(&options), interrupted: false };
        Ok(Self {
            state,
            receiving: tokio::sync::Mutex::new(receiving),
            maintenance: Mutex::new(Some(maintenance)),
            options,
        })
    }

    /// Collects entries once from every place they can come from; blocks up to `block` for new entries if there are none.
    async fn collect_batch(
        &self,
        receiving: &mut ReceiveState,
        max: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, RedisFailure> {
        let mut batch = Vec::new();
        if std::mem::replace(&mut receiving.interrupted, true) {
            // An entry that is still on its way would look unseen.
            receiving.reader.end_task().await?;
            batch.extend(reclaim::recover_unseen(&self.state, max).await?);
        }
        if batch.len() < max {
            batch.extend(reclaim::take_due(&self.state, max - batch.len()).await?);
        }
        if batch.len() < max && receiving.reclaim.is_due() {
            batch.extend(receiving.reclaim.take_over(&self.state, max - batch.len()).await?);
        }
        let claimed = batch.len();
        let mut lost = false;
        if claimed < max {
            let due = self.state.in_flight().next_due();
            let block = due.map_or(block, |due| block.min(due.saturating_duration_since(Instant::now())));
            let block = block.min(MAX_BLOCK).min(self.options.reclaim_every);
            let block = (claimed == 0 && !block.is_zero()).then_some(block);
            match receiving.reader.take_new(&self.state, max - claimed, block).await {
                Ok(new) => batch.extend(new.into_iter().map(|entry| entry.into_delivery(1))),
                // Some are claimed already: hand these out, and let the next call recover what may be unseen.
                Err(_) if claimed > 0 => lost = true,
                Err(error) => return Err(error),
            }
        }
        self.state.in_flight().hand_out(batch[..claimed].iter().map(|delivery| delivery.receipt.as_str()));
        receiving.interrupted = lost;
        Ok(batch)
    }
}

#[async_trait]
impl EventSource for RedisStreamsSource {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        let closed = &self.state.closed;
        let mut receiving = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            receiving = self.receiving.lock() => receiving,
        };
        while max > 0 && !closed.is_cancelled() {
            let left = deadline.saturating_duration_since(Instant::now());
            let batch =
                self.collect_batch(&mut receiving, max, left).await.map_err(|error| broker_error(&error))?;
            if !batch.is_empty() || left.is_zero() {
                return Ok(batch);
            }
        }
        Ok(Vec::new())
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let mut done = Vec::with_capacity(settlements.len());
        {
            let now = Instant::now();
            let mut in_flight = self.state.in_flight();
            for Settlement { receipt, outcome } in settlements {
                match outcome {
                    // Without a heartbeat the entry comes again by itself if the acknowledgement is lost.
                    SettlementKind::Ack => {
                        in_flight.settle(&receipt);
                        done.push(receipt);
                    }
                    SettlementKind::Retry { after, .. } => in_flight.delay(&receipt, now + after),
                }
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        self.state.group.ack(&done).await.map_err(|error| broker_error(&error))
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        self.state.group.backlog().await.map_err(|error| broker_error(&error))
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.state.group.check().await.map_err(|error| broker_error(&error))
    }

    async fn forget_tenant(&self, tenant: TenantId) -> Result<usize, BrokerError> {
        removal::remove_tenant(&self.state.group, tenant).await.map_err(|error| broker_error(&error))
    }

    async fn close(&self) {
        self.state.closed.cancel();
        let maintenance = self.maintenance.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(maintenance) = maintenance else { return };
        // The background task ends by itself; no heartbeat may come after the entries are released.
        let _ended = maintenance.await;
        if let Ok(mut receiving) = timeout(CLOSE_TIMEOUT, self.receiving.lock()).await {
            let _released_later = timeout(CLOSE_TIMEOUT, receiving.reader.close()).await;
        }
        let release = reclaim::release_entries(&self.state, self.options.min_idle);
        if let Err(error) = timeout(CLOSE_TIMEOUT, release).await.unwrap_or(Ok(())) {
            tracing::warn!(error.message = %error, "Redis Streams: entries could not be released and are taken over later");
        }
        self.state.group.redis.disconnect();
    }
}

impl Drop for RedisStreamsSource {
    /// Without [`EventSource::close`], other consumers take over the entries once they have been idle for long enough.
    fn drop(&mut self) {
        self.state.closed.cancel();
    }
}
