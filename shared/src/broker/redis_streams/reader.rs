//! Reading new entries. While there are many, the next batch is read ahead: otherwise Redis would be idle while the worker
//! handles a batch, and the worker while Redis collects the next one.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use redis::{RedisError, Value};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    CLOSE_TIMEOUT, SYSTEM,
    consumer_state::ConsumerState,
    entries::{self, StreamEntry},
    group::is_gone,
};
use crate::{
    broker::metered,
    platform::redis::{DedicatedConnection, RedisFailure},
};

/// The smallest full batch after which the next one is read ahead. Smaller batches leave the rest to other consumers.
const MIN_BATCH_TO_READ_AHEAD: usize = 50;
/// How many batches wait to be taken; one more can be read already.
const AHEAD: usize = 1;
/// How much longer than its block time a read can take before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

/// Reads new entries on a connection of its own.
pub(super) struct Reader {
    /// Only for reads, because they block.
    connection: Option<DedicatedConnection>,
    task: Option<ReadTask>,
    /// Read and in flight, but not handed out yet.
    ahead: VecDeque<StreamEntry>,
    /// How many entries were wanted last; also a task that is running reads no more at a time.
    max: Arc<AtomicUsize>,
}

/// A task that reads batch after batch until the stream has no more.
struct ReadTask {
    batches: mpsc::Receiver<Vec<StreamEntry>>,
    end: JoinHandle<End>,
}

/// How a task ended; without the connection if it cannot be used any more.
type End = (Option<DedicatedConnection>, Result<(), RedisFailure>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("ahead", &self.ahead.len()).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self { connection: None, task: None, ahead: VecDeque::new(), max: Arc::default() }
    }

    /// Takes up to `max` new entries, which are in flight from now on: those that were read ahead, or else the next ones,
    /// for which it waits up to `block`. Can be cancelled.
    pub(super) async fn take_new(
        &mut self,
        state: &Arc<ConsumerState>,
        max: usize,
        block: Option<Duration>,
    ) -> Result<Vec<StreamEntry>, RedisFailure> {
        self.max.store(max, Ordering::Relaxed);
        if self.ahead.is_empty() {
            if self.task.is_none() {
                let (sender, batches) = mpsc::channel(AHEAD);
                let max = Arc::clone(&self.max);
                let reads = read_batches(Arc::clone(state), self.connection.take(), max, block, sender);
                self.task = Some(ReadTask { batches, end: tokio::spawn(reads) });
            }
            self.next_batch().await?;
        }
        Ok(self.ahead.drain(..max.min(self.ahead.len())).collect())
    }

    /// Ends the task, and keeps what it has read.
    pub(super) async fn end_task(&mut self) -> Result<(), RedisFailure> {
        if let Some(task) = &mut self.task {
            task.batches.close();
        }
        while self.task.is_some() {
            self.next_batch().await?;
        }
        Ok(())
    }

    /// Ends for good. Entries that were read and not handed out remain pending, to be released.
    pub(super) async fn close(&mut self) {
        if let Some(ReadTask { batches, end }) = self.task.take() {
            drop(batches);
            let _however = end.await;
        }
        self.connection = None;
    }

    /// Waits for the next batch, or for the end of the task.
    async fn next_batch(&mut self) -> Result<(), RedisFailure> {
        let Some(task) = &mut self.task else { return Ok(()) };
        if let Some(batch) = task.batches.recv().await {
            self.ahead.extend(batch);
            return Ok(());
        }
        let ended = (&mut task.end).await;
        self.task = None;
        let (connection, done) =
            ended.unwrap_or_else(|error| (None, Err(RedisError::from(std::io::Error::other(error)).into())));
        self.connection = connection;
        done
    }
}

async fn read_batches(
    state: Arc<ConsumerState>,
    connection: Option<DedicatedConnection>,
    max: Arc<AtomicUsize>,
    mut block: Option<Duration>,
    batches: mpsc::Sender<Vec<StreamEntry>>,
) -> End {
    let mut connection = match connection {
        Some(connection) if !connection.is_abandoned() => connection,
        _ => match open_connection(&state).await {
            Ok(connection) => connection,
            Err(error) => return (None, Err(error)),
        },
    };
    loop {
        let max = max.load(Ordering::Relaxed);
        let entries = match read_batch(&state, &mut connection, max, block.take()).await {
            Ok(answer) => entries::from_read(answer),
            Err(error) if is_gone(&error) => return (Some(connection), state.group.ensure().await),
            Err(error) => {
                state.group.redis.report_dedicated_error(&error);
                return (None, Err(error));
            }
        };
        state.in_flight().hand_out(entries.iter().map(|entry| entry.id.as_str()));
        let more = entries.len() == max && max >= MIN_BATCH_TO_READ_AHEAD;
        if let Err(mpsc::error::SendError(entries)) = batches.send(entries).await {
            // The reader is gone: they count as unseen.
            state.in_flight().forget(entries.iter().map(|entry| &entry.id));
            return (Some(connection), Ok(()));
        }
        if !more || connection.is_abandoned() {
            return (Some(connection), Ok(()));
        }
    }
}

async fn read_batch(
    state: &ConsumerState,
    DedicatedConnection { connection, client_id, .. }: &mut DedicatedConnection,
    max: usize,
    block: Option<Duration>,
) -> Result<Value, RedisFailure> {
    let command = state.group.read_new(max, block);
    let limit = block.unwrap_or_default() + GRACE;
    let mut read = std::pin::pin!(command.query_async(connection));
    tokio::select! {
        biased;
        answer = timeout(limit, &mut read) => {
            answer.map_err(|_| RedisFailure::Deadline(limit))?.map_err(RedisFailure::from)
        }
        () = state.closed.cancelled() => {
            // A read that is woken returns what it has, which is released.
            if let Some(id) = client_id {
                let mut unblock = redis::cmd("CLIENT");
                unblock.arg("UNBLOCK").arg(*id);
                let _best_effort: Result<Value, RedisFailure> = state.group.redis.run_command(&unblock).await;
            }
            let _released = timeout(CLOSE_TIMEOUT / 2, read).await;
            Ok(Value::Nil)
        }
    }
}

async fn open_connection(state: &ConsumerState) -> Result<DedicatedConnection, RedisFailure> {
    let connection = state.group.redis.connect_dedicated().await?;
    if state.was_connected.swap(true, Ordering::Relaxed) {
        metered::record_reconnect(SYSTEM, "source");
    }
    Ok(connection)
}
