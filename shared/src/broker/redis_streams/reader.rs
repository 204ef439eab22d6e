//! Reading new entries, ahead of those who handle them while there are many: otherwise Redis would have nothing to do
//! while they take one batch, and they nothing while Redis gathers the next.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use redis::{RedisError, Value};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};

use super::{
    SYSTEM,
    entries::{self, Entry},
    group::is_gone,
    source::{CLOSE_PATIENCE, Shared},
};
use crate::{
    broker::metered,
    platform::redis::{DedicatedConnection, RedisFailure},
};

/// The smallest full batch after which the next is read. Where fewer are taken at a time, other consumers shall have
/// the others.
const WORTH_READING_AHEAD: usize = 50;
/// Batches that wait to be taken; one more may have been read.
const AHEAD: usize = 1;
/// How much longer than it blocks a read may take before the connection counts as dead.
const GRACE: Duration = Duration::from_secs(2);

/// Whoever receives; one at a time.
pub(super) struct Reader {
    /// Of the reads alone, because they block.
    connection: Option<DedicatedConnection>,
    reading: Option<Reading>,
    /// Read, in the ledger, and not handed out yet.
    ahead: VecDeque<Entry>,
    /// Where the search for idle entries goes on.
    pub(super) cursor: String,
    pub(super) next_reclaim: Instant,
    /// A `receive` was cancelled or failed: entries may be pending that nobody has seen.
    pub(super) interrupted: bool,
}

/// Reads that follow each other by themselves, until there is no more.
struct Reading {
    batches: mpsc::Receiver<Vec<Entry>>,
    end: JoinHandle<End>,
}

/// How they ended; without the connection where it is of no more use.
type End = (Option<DedicatedConnection>, Result<(), RedisFailure>);

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

impl Reader {
    pub(super) fn new() -> Self {
        Self {
            connection: None,
            reading: None,
            ahead: VecDeque::new(),
            cursor: "0-0".to_owned(),
            next_reclaim: Instant::now(),
            interrupted: false,
        }
    }

    /// Up to `max` new entries, which are held from now on: those read ahead, or else the next there are, for which it
    /// waits up to `block`. May be cancelled.
    pub(super) async fn read(
        &mut self,
        shared: &Arc<Shared>,
        max: usize,
        block: Option<Duration>,
    ) -> Result<Vec<Entry>, RedisFailure> {
        if self.ahead.is_empty() {
            if self.reading.is_none() {
                let (sender, batches) = mpsc::channel(AHEAD);
                let reads = read(Arc::clone(shared), self.connection.take(), max, block, sender);
                self.reading = Some(Reading { batches, end: tokio::spawn(reads) });
            }
            self.next().await?;
        }
        Ok(self.ahead.drain(..max.min(self.ahead.len())).collect())
    }

    /// Has the reads end, and takes in what they have brought.
    pub(super) async fn finish(&mut self) -> Result<(), RedisFailure> {
        if let Some(reading) = &mut self.reading {
            reading.batches.close();
        }
        while self.reading.is_some() {
            self.next().await?;
        }
        Ok(())
    }

    /// Ends for good. What has been read and not handed out is left to be given back.
    pub(super) async fn close(&mut self) {
        if let Some(Reading { batches, end }) = self.reading.take() {
            drop(batches);
            let _however = end.await;
        }
        self.connection = None;
    }

    /// The next batch that was read, or the end of the reads.
    async fn next(&mut self) -> Result<(), RedisFailure> {
        let Some(reading) = &mut self.reading else { return Ok(()) };
        if let Some(batch) = reading.batches.recv().await {
            self.ahead.extend(batch);
            return Ok(());
        }
        let ended = (&mut reading.end).await;
        self.reading = None;
        let (connection, done) =
            ended.unwrap_or_else(|error| (None, Err(RedisError::from(std::io::Error::other(error)).into())));
        self.connection = connection;
        done
    }
}

async fn read(
    shared: Arc<Shared>,
    connection: Option<DedicatedConnection>,
    max: usize,
    mut block: Option<Duration>,
    batches: mpsc::Sender<Vec<Entry>>,
) -> End {
    let mut connection = match connection {
        Some(connection) => connection,
        None => match open(&shared).await {
            Ok(connection) => connection,
            Err(error) => return (None, Err(error)),
        },
    };
    loop {
        let entries = match read_once(&shared, &mut connection, max, block.take()).await {
            Ok(answer) => entries::from_read(answer),
            Err(error) if is_gone(&error) => return (Some(connection), shared.group.ensure().await),
            Err(error) => return (None, Err(error)),
        };
        shared.ledger().hand_out(entries.iter().map(|entry| entry.id.as_str()));
        let more = entries.len() == max && max >= WORTH_READING_AHEAD;
        if let Err(mpsc::error::SendError(entries)) = batches.send(entries).await {
            // Nobody takes them any more: they count as seen by nobody.
            shared.ledger().lose(entries.iter().map(|entry| &entry.id));
            return (Some(connection), Ok(()));
        }
        if !more {
            return (Some(connection), Ok(()));
        }
    }
}

async fn read_once(
    shared: &Shared,
    DedicatedConnection { connection, client_id }: &mut DedicatedConnection,
    max: usize,
    block: Option<Duration>,
) -> Result<Value, RedisFailure> {
    let command = shared.group.read_new(max, block);
    let patience = block.unwrap_or_default() + GRACE;
    let mut read = std::pin::pin!(command.query_async(connection));
    tokio::select! {
        biased;
        answer = timeout(patience, &mut read) => {
            answer.map_err(|_| RedisFailure::Deadline(patience))?.map_err(RedisFailure::from)
        }
        () = shared.closed.cancelled() => {
            // Woken, the read ends with what it has; that is given back.
            if let Some(id) = client_id {
                let mut unblock = redis::cmd("CLIENT");
                unblock.arg("UNBLOCK").arg(*id);
                let _best_effort: Result<Value, RedisFailure> = shared.group.redis.run(&unblock).await;
            }
            let _given_back = timeout(CLOSE_PATIENCE / 2, read).await;
            Ok(Value::Nil)
        }
    }
}

async fn open(shared: &Shared) -> Result<DedicatedConnection, RedisFailure> {
    let connection = shared.group.redis.dedicated().await?;
    if shared.read_before.swap(true, Ordering::Relaxed) {
        metered::reconnected(SYSTEM, "source");
    }
    Ok(connection)
}
