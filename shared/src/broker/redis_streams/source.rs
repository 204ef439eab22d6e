//! Consuming from the stream.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    RedisStreamsOptions, SYSTEM, broker_error, group::Group, keeper, ledger::Ledger, reader::Reader,
};
use crate::{
    broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem, Outcome, Settlement, passing},
    platform::redis::RedisFailure,
};

/// The longest blocking read: between two of them, entries that have become due are noticed.
const SLICE: Duration = Duration::from_millis(500);
/// How long closing waits for a read that it has interrupted.
pub(super) const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Takes events from the stream as one consumer of the group.
///
/// Cancelling [`EventSource::receive`] loses nothing: what was being read comes with the next call, and what was being
/// claimed too, as its next attempt.
#[derive(Debug)]
pub struct RedisStreamsSource {
    pub(super) shared: Arc<Shared>,
    pub(super) reader: tokio::sync::Mutex<Reader>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    pub(super) options: RedisStreamsOptions,
}

/// What the background task needs too.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Group,
    ledger: Mutex<Ledger>,
    /// A read has had a connection.
    pub(super) read_before: AtomicBool,
    pub(super) closed: CancellationToken,
}

impl Shared {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RedisStreamsSource {
    /// Joins the group. A server that cannot be reached yet is no error: it is tried again with each `receive`.
    ///
    /// `consumer` is made unique, so that a restarted process never takes the entries of its former life for its own.
    pub async fn connect(options: RedisStreamsOptions, consumer: &str) -> Result<Self, BrokerError> {
        let unique = Uuid::now_v7().simple().to_string();
        let group = Group::new(&options, format!("{consumer}-{}", &unique[20..]))?;
        passing(group.ensure().await.map_err(|error| broker_error(&error)))?;
        let shared = Arc::new(Shared {
            group,
            ledger: Mutex::default(),
            read_before: AtomicBool::new(false),
            closed: CancellationToken::new(),
        });
        let keeper = tokio::spawn(keeper::run(Arc::clone(&shared), options.clone()));
        Ok(Self {
            shared,
            reader: tokio::sync::Mutex::new(Reader::new()),
            keeper: Mutex::new(Some(keeper)),
            options,
        })
    }

    /// One look at everything that could be handed out; blocks up to `block` for new entries when there is nothing.
    async fn look(
        &self,
        reader: &mut Reader,
        max: usize,
        block: Duration,
    ) -> Result<Vec<Delivery>, RedisFailure> {
        let mut batch = Vec::new();
        if std::mem::replace(&mut reader.interrupted, true) {
            // What is still on its way would look as if it had been lost.
            reader.finish().await?;
            batch.extend(self.adopt(max).await?);
        }
        if batch.len() < max {
            batch.extend(self.take_due(max - batch.len()).await?);
        }
        if batch.len() < max && reader.next_reclaim <= Instant::now() {
            batch.extend(self.reclaim(reader, max - batch.len()).await?);
        }
        let claimed = batch.len();
        let mut lost = false;
        if claimed < max {
            let due = self.shared.ledger().next_due();
            let block = due.map_or(block, |due| block.min(due.saturating_duration_since(Instant::now())));
            let block = block.min(SLICE).min(self.options.reclaim_every);
            let block = (claimed == 0 && !block.is_zero()).then_some(block);
            match reader.read(&self.shared, max - claimed, block).await {
                Ok(new) => batch.extend(new.into_iter().map(|entry| entry.into_delivery(1))),
                // Some are in hand already: hand these out, and look with the next call for what may be lost.
                Err(_) if claimed > 0 => lost = true,
                Err(error) => return Err(error),
            }
        }
        self.shared.ledger().hand_out(batch[..claimed].iter().map(|delivery| delivery.receipt.as_str()));
        reader.interrupted = lost;
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
        let closed = &self.shared.closed;
        let mut reader = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            reader = self.reader.lock() => reader,
        };
        while max > 0 && !closed.is_cancelled() {
            let left = deadline.saturating_duration_since(Instant::now());
            let batch = self.look(&mut reader, max, left).await.map_err(|error| broker_error(&error))?;
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
            let mut ledger = self.shared.ledger();
            for Settlement { receipt, outcome } in settlements {
                match outcome {
                    // Without a heartbeat it comes again by itself, should the acknowledgement get lost.
                    Outcome::Ack => {
                        ledger.settle(&receipt);
                        done.push(receipt);
                    }
                    Outcome::Retry { after, .. } => ledger.hold_back(&receipt, now + after),
                }
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        self.shared.group.ack(&done).await.map_err(|error| broker_error(&error))
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        self.shared.group.backlog().await.map_err(|error| broker_error(&error))
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.shared.group.check().await.map_err(|error| broker_error(&error))
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keeper) = keeper else { return };
        // The background task ends by itself; a heartbeat must not come after what follows.
        let _ended = keeper.await;
        if let Ok(mut reader) = timeout(CLOSE_PATIENCE, self.reader.lock()).await {
            let _given_back_later = timeout(CLOSE_PATIENCE, reader.close()).await;
        }
        if let Err(error) = timeout(CLOSE_PATIENCE, self.give_back()).await.unwrap_or(Ok(())) {
            tracing::warn!(error.message = %error, "Redis Streams: entries could not be handed back and are taken over later");
        }
        self.shared.group.redis.disconnect();
    }
}

impl Drop for RedisStreamsSource {
    /// Without [`EventSource::close`], what is held comes to others when it has been idle for long enough.
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
