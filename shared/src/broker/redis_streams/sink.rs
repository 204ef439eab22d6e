//! Publishing to the stream.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use redis::{Cmd, Pipeline, RedisError, Value};

use super::{RedisStreamsOptions, SYSTEM, broker_error, connection, entries, room::StreamRoom};
use crate::{
    broker::{BrokerError, EventSink, EventSystem, PublishOutcome, too_large},
    domain::event::Envelope,
    platform::redis::{Redis, RedisFailure},
};

/// The most events in one round trip.
const MAX_EVENTS: usize = 500;
/// The most bytes in one round trip: client and server have to buffer them.
const MAX_BYTES: usize = 8 * 1024 * 1024;
/// How long `WAITAOF` waits for the disk: more than the second between two fsyncs of `appendfsync everysec`.
const DISK_TIMEOUT_MS: u32 = 3000;

/// Appends events to the stream.
#[derive(Debug)]
pub struct RedisStreamsSink {
    redis: Redis,
    stream: String,
    /// The era of the server that was written to last; see [`Redis::last_era`].
    last_era: Mutex<Option<String>>,
    takeovers: AtomicU64,
    room: StreamRoom,
}

impl RedisStreamsSink {
    /// Prepares a sink. A server that cannot be reached yet is no error: it is tried again with each batch.
    pub async fn connect(options: &RedisStreamsOptions) -> Result<Self, BrokerError> {
        let sink = Self {
            redis: connection(options, "sink")?,
            stream: options.stream.clone(),
            last_era: Mutex::default(),
            takeovers: AtomicU64::new(0),
            room: StreamRoom::default(),
        };
        crate::broker::ignore_unavailable(sink.check().await)?;
        Ok(sink)
    }

    /// Publishes a chunk in one round trip. Also returns whether the connection still works.
    async fn publish_chunk(&self, chunk: &[Envelope]) -> (Vec<PublishOutcome>, bool) {
        let mut pipe = Pipeline::with_capacity(chunk.len() + 1);
        pipe.ignore_errors();
        for event in chunk.iter().filter(|event| too_large(event).is_none()) {
            let mut add = Cmd::with_capacity(7, 160 + event.body.len());
            add.arg("XADD").arg(&self.stream).arg("*").arg(entries::BODY).arg(&event.body);
            if let Some(position) = event.position {
                add.arg(entries::POSITION).arg(position);
            }
            pipe.add_command(add);
        }
        let answers = if pipe.is_empty() { Ok(Answers::default()) } else { self.send_pipeline(pipe).await };
        let connected = answers.is_ok();
        let mut answers = answers.map(|answers| (answers.added.into_iter(), answers.not_on_disk));
        let outcomes = chunk.iter().map(|event| {
            if let Some(problem) = too_large(event) {
                return PublishOutcome::Rejected(problem);
            }
            match &mut answers {
                Ok((added, not_on_disk)) => outcome(added.next(), not_on_disk.as_deref()),
                Err(error) => PublishOutcome::Retry(broker_error(error)),
            }
        });
        (outcomes.collect(), connected)
    }

    /// Counts a takeover if the server is another one than before: replication is asynchronous, so that a promoted replica may
    /// lack entries.
    async fn note_server(&self) {
        let Some(era) = self.redis.last_era().await else { return };
        let mut last = self.last_era.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref() != Some(&era) && last.replace(era).is_some() {
            self.takeovers.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                stream = self.stream,
                "another server has the stream now: it may lack the last events"
            );
        }
    }

    async fn send_pipeline(&self, mut pipe: Pipeline) -> Result<Answers, RedisFailure> {
        let waits_for_disk = self.redis.waits_for_disk().await?;
        if waits_for_disk {
            pipe.cmd("WAITAOF").arg(1).arg(0).arg(DISK_TIMEOUT_MS);
        }
        let mut added = self.redis.run_pipeline_each_once(&pipe).await?;
        let not_on_disk = if waits_for_disk { disk_problem(added.pop()) } else { None };
        Ok(Answers { added, not_on_disk })
    }
}

/// The answers of one round trip.
#[derive(Default)]
struct Answers {
    /// One answer for each `XADD`.
    added: Vec<Value>,
    /// Why the entries may not be on disk.
    not_on_disk: Option<String>,
}

fn outcome(added: Option<Value>, not_on_disk: Option<&str>) -> PublishOutcome {
    match added {
        Some(Value::ServerError(error)) => {
            PublishOutcome::Retry(broker_error(&RedisError::from(error).into()))
        }
        Some(Value::BulkString(_) | Value::SimpleString(_)) => match not_on_disk {
            None => PublishOutcome::Confirmed,
            Some(problem) => PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, problem)),
        },
        other => PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, format!("XADD answered {other:?}"))),
    }
}

/// `WAITAOF` answers on how many servers, this one and replicas, the entries are on disk.
fn disk_problem(answer: Option<Value>) -> Option<String> {
    match answer {
        Some(Value::Array(counts)) if matches!(counts.first(), Some(Value::Int(local)) if *local >= 1) => {
            None
        }
        Some(Value::ServerError(error)) => Some(format!("WAITAOF: {error}")),
        _ => Some("the append-only file was not flushed in time".to_owned()),
    }
}

/// How many of `events` go into the next round trip: at least one.
fn chunk_length(events: &[Envelope]) -> usize {
    let mut bytes = 0;
    let fitting = events.iter().take(MAX_EVENTS).take_while(|event| {
        bytes += event.body.len();
        bytes <= MAX_BYTES
    });
    fitting.count().max(1)
}

#[async_trait]
impl EventSink for RedisStreamsSink {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut reason = BrokerError::unavailable(SYSTEM, "the connection was lost before its turn");
        while outcomes.len() < batch.len() {
            let rest = &batch[outcomes.len()..];
            let chunk = &rest[..chunk_length(rest)];
            let bytes = chunk.iter().map(|event| event.body.len()).sum();
            if let Some(message) = self.room.problem(&self.redis, &self.stream, bytes).await {
                reason = BrokerError::Full { system: SYSTEM, message };
                break;
            }
            let (answered, connected) = self.publish_chunk(chunk).await;
            outcomes.extend(answered);
            if !connected {
                break;
            }
        }
        // The rest is not offered: an event must not overtake an earlier one of its key.
        outcomes.extend(batch[outcomes.len()..].iter().map(|_| PublishOutcome::Retry(reason.clone())));
        self.note_server().await;
        outcomes
    }

    fn takeovers(&self) -> u64 {
        self.takeovers.load(Ordering::Relaxed)
    }

    async fn check(&self) -> Result<(), BrokerError> {
        // In a cluster the hash tag leads to the stream's slot.
        let key = format!("{stream}:probe:{{{stream}}}", stream = self.stream);
        self.redis.check_writable_at(key).await.map_err(|failure| broker_error(&failure))?;
        self.note_server().await;
        let mut command = redis::cmd("TYPE");
        command.arg(&self.stream);
        match self.redis.run_command::<String>(&command).await {
            Ok(kind) if kind != "stream" && kind != "none" => {
                let message =
                    format!("the key {} is a {kind} and not a stream: rename or delete it", self.stream);
                Err(BrokerError::misconfigured(SYSTEM, message))
            }
            // A user who may not ask for the type may still publish.
            Err(failure) if !failure.has_code(&["NOPERM"]) => Err(broker_error(&failure)),
            _ => Ok(()),
        }
    }

    async fn close(&self) {
        self.redis.disconnect();
    }
}
