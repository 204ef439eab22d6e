//! Consuming from the stream.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use redis::{RedisResult, Value, aio::MultiplexedConnection};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    RedisStreamsOptions, SYSTEM, broker_error,
    entries::{self, Entry},
    group::{Group, is_gone},
    keeper,
    ledger::Ledger,
    link,
};
use crate::broker::{
    Backlog, BrokerError, Delivery, EventSource, EventSystem, Outcome, Settlement, metered, passing,
};

/// The longest blocking read: between two of them, entries that have become due are noticed.
const SLICE: Duration = Duration::from_millis(500);
/// How much longer than it blocks a read may take before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(5);
/// How long closing waits for a read that it has interrupted.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// Takes events from the stream as one consumer of the group.
///
/// Cancelling [`EventSource::receive`] loses nothing: what was on its way comes with the next call, as its next
/// attempt.
#[derive(Debug)]
pub struct RedisStreamsSource {
    pub(super) shared: Arc<Shared>,
    reader: tokio::sync::Mutex<Reader>,
    keeper: Mutex<Option<JoinHandle<()>>>,
    pub(super) options: RedisStreamsOptions,
}

/// What the background task needs too.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) group: Group,
    ledger: Mutex<Ledger>,
    pub(super) closed: CancellationToken,
}

impl Shared {
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whoever receives; one at a time.
pub(super) struct Reader {
    /// For blocking reads, with the id by which another connection can wake it.
    blocking: Option<(MultiplexedConnection, u64)>,
    had_one: bool,
    /// Where the search for idle entries goes on.
    pub(super) cursor: String,
    pub(super) next_reclaim: Instant,
    /// A `receive` was cancelled or failed: entries may be pending that nobody has seen.
    interrupted: bool,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("cursor", &self.cursor).finish_non_exhaustive()
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
        let shared = Arc::new(Shared { group, ledger: Mutex::default(), closed: CancellationToken::new() });
        let keeper = tokio::spawn(keeper::run(Arc::clone(&shared), options.clone()));
        let reader = Reader {
            blocking: None,
            had_one: false,
            cursor: "0-0".to_owned(),
            next_reclaim: Instant::now(),
            interrupted: false,
        };
        Ok(Self {
            shared,
            reader: tokio::sync::Mutex::new(reader),
            keeper: Mutex::new(Some(keeper)),
            options,
        })
    }

    /// One look at everything that could be handed out; blocks up to `block` for new entries when there is nothing.
    async fn look(&self, reader: &mut Reader, max: usize, block: Duration) -> RedisResult<Vec<Delivery>> {
        let mut batch = Vec::new();
        if std::mem::replace(&mut reader.interrupted, true) {
            batch.extend(self.adopt(max).await?);
        }
        if batch.len() < max {
            batch.extend(self.take_due(max - batch.len()).await?);
        }
        if batch.len() < max && reader.next_reclaim <= Instant::now() {
            batch.extend(self.reclaim(reader, max - batch.len()).await?);
        }
        if batch.len() < max {
            let due = self.shared.ledger().next_due();
            let block = due.map_or(block, |due| block.min(due.saturating_duration_since(Instant::now())));
            let block = block.min(SLICE).min(self.options.reclaim_every);
            let block = (batch.is_empty() && !block.is_zero()).then_some(block);
            match self.read_new(reader, max - batch.len(), block).await {
                Ok(new) => batch.extend(new.into_iter().map(|entry| entry.into_delivery(1))),
                // Some are in hand already: hand these out, and meet the failure with the next call.
                Err(_) if !batch.is_empty() => {}
                Err(error) => return Err(error),
            }
        }
        self.shared.ledger().hand_out(batch.iter().map(|delivery| delivery.receipt.as_str()));
        reader.interrupted = false;
        Ok(batch)
    }

    async fn read_new(
        &self,
        reader: &mut Reader,
        max: usize,
        block: Option<Duration>,
    ) -> RedisResult<Vec<Entry>> {
        let answer = self.read_blocking(reader, max, block).await;
        if let Err(error) = &answer {
            if is_gone(error) {
                self.shared.group.ensure().await?;
                return Ok(Vec::new());
            }
            reader.blocking = None;
        }
        answer.map(entries::from_read)
    }

    async fn read_blocking(
        &self,
        reader: &mut Reader,
        max: usize,
        block: Option<Duration>,
    ) -> RedisResult<Value> {
        // Taken out, so that a cancelled read closes the connection it still waits on.
        let (connection, id) = match reader.blocking.take() {
            Some(open) => open,
            None => self.open(reader).await?,
        };
        let command = self.shared.group.read_new(max, block);
        let mut handle = connection.clone();
        let mut read = std::pin::pin!(command.query_async(&mut handle));
        let answer = tokio::select! {
            biased;
            answer = timeout(block.unwrap_or_default() + GRACE, &mut read) => answer,
            () = self.shared.closed.cancelled() => {
                // Woken, the read ends with what it has; `close` gives that back.
                let mut unblock = redis::cmd("CLIENT");
                unblock.arg("UNBLOCK").arg(id);
                let _best_effort: RedisResult<Value> = self.shared.group.link.run(&unblock).await;
                let _given_back = timeout(CLOSE_PATIENCE / 2, &mut read).await;
                return Ok(Value::Nil);
            }
        };
        let answer = answer
            .map_err(|_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))?;
        if !answer.as_ref().is_err_and(link::is_broken) {
            reader.blocking = Some((connection, id));
        }
        answer
    }

    async fn open(&self, reader: &mut Reader) -> RedisResult<(MultiplexedConnection, u64)> {
        let mut connection = self.shared.group.link.dedicated().await?;
        let ask = redis::cmd("CLIENT").arg("ID").to_owned();
        let id = timeout(GRACE, ask.query_async(&mut connection))
            .await
            .map_err(|_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut)))??;
        if std::mem::replace(&mut reader.had_one, true) {
            metered::reconnected(SYSTEM, "source");
        }
        Ok((connection, id))
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
        self.shared.group.ping().await.map_err(|error| broker_error(&error))
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        let keeper = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(keeper) = keeper else { return };
        // The background task ends by itself; a heartbeat must not come after what follows.
        let _ended = keeper.await;
        if let Ok(mut reader) = timeout(CLOSE_PATIENCE, self.reader.lock()).await {
            reader.blocking = None;
        }
        if let Err(error) = timeout(CLOSE_PATIENCE, self.give_back()).await.unwrap_or(Ok(())) {
            tracing::warn!(error.message = %error, "Redis Streams: entries could not be handed back and are taken over later");
        }
        self.shared.group.link.forget().await;
    }
}

impl Drop for RedisStreamsSource {
    /// Without [`EventSource::close`], what is held comes to others when it has been idle for long enough.
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
