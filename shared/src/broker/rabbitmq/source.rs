//! Consuming from the queue.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::join_all, stream::SelectAll};
use lapin::{
    Acker, BasicProperties, Consumer,
    options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, QueueDeclareOptions},
    types::FieldTable,
};
use time::OffsetDateTime;
use tokio::{sync::Mutex, task::JoinHandle, time::timeout};

use super::{
    RabbitMqOptions, SYSTEM, broker_error,
    delay::{self, Delay},
    supervisor::{Session, Supervisor},
    topology::short,
    waiting::{Waiting, WaitingRoom},
};
use crate::broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem, Outcome, Settlement};

/// How long one exchange with the broker may take before the connection counts as dead.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Takes events from the queue.
///
/// Cancelling [`EventSource::receive`] loses nothing: what has come stays in the consumer's buffer for the next call.
#[derive(Debug)]
pub struct RabbitMqSource {
    supervisor: Supervisor,
    options: RabbitMqOptions,
    consumer: String,
    reader: Mutex<Reader>,
    held: std::sync::Mutex<HashMap<String, Held>>,
    waiting: WaitingRoom,
}

/// Whoever receives; one at a time.
#[derive(Default)]
struct Reader {
    session: u64,
    /// More than one where a later `receive` asked for more: a consumer's prefetch is set when it starts.
    consumers: SelectAll<Consumer>,
    prefetch: u16,
    /// One more that is being started, with what it adds to the prefetch.
    starting: Option<JoinHandle<Result<(Consumer, u16), BrokerError>>>,
    started: u32,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("prefetch", &self.prefetch).finish_non_exhaustive()
    }
}

/// A delivery that is not settled.
#[derive(Debug)]
struct Held {
    acker: Acker,
    properties: BasicProperties,
}

impl RabbitMqSource {
    /// Connects and declares the topology. A broker that cannot be reached yet is no error: it is tried again.
    pub async fn connect(options: RabbitMqOptions, consumer: &str) -> Result<Self, BrokerError> {
        let supervisor = Supervisor::start(options.clone(), "source").await?;
        Ok(Self {
            supervisor,
            waiting: WaitingRoom::new(options.clone()),
            options,
            consumer: consumer.to_owned(),
            reader: Mutex::default(),
            held: std::sync::Mutex::default(),
        })
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the broker send up to two batches ahead: one to hand out while the other is handled.
    ///
    /// Consumers are started by a task of their own: one that was half started by a cancelled `receive` would hold
    /// messages that nobody sees.
    async fn prepare(
        &self,
        reader: &mut Reader,
        session: &Arc<Session>,
        max: usize,
    ) -> Result<(), BrokerError> {
        if reader.session != session.number {
            *reader = Reader { session: session.number, ..Reader::default() };
            // The broker has requeued what the former session held.
            self.held().clear();
        }
        let wanted = u16::try_from(max.saturating_mul(2)).unwrap_or(u16::MAX).clamp(2, 2000);
        while wanted > reader.prefetch {
            let starting = reader.starting.get_or_insert_with(|| {
                let more = wanted - reader.prefetch;
                reader.started += 1;
                let tag = format!("{}-{}-{}", self.consumer, session.number, reader.started);
                let (session, queue) = (Arc::clone(session), self.options.queue.clone());
                tokio::spawn(async move {
                    let consumer = session.run(PATIENCE, consume(&session, &queue, &tag, more)).await?;
                    Ok((consumer.map_err(|error| broker_error(&error))?, more))
                })
            });
            let started = starting.await;
            reader.starting = None;
            let (consumer, more) =
                started.unwrap_or_else(|error| Err(BrokerError::unavailable(SYSTEM, error)))?;
            reader.consumers.push(consumer);
            reader.prefetch += more;
        }
        Ok(())
    }

    /// Takes a delivery into this process's hands.
    fn hold(&self, session: u64, message: lapin::message::Delivery) -> Delivery {
        let receipt = format!("{session}-{}", message.delivery_tag);
        let attempt = delay::attempt(&message.properties, message.redelivered);
        let published_at = message
            .properties
            .timestamp()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok());
        let held = Held { acker: message.acker, properties: message.properties };
        self.held().insert(receipt.clone(), held);
        Delivery { body: Bytes::from(message.data), attempt, published_at, receipt }
    }

    async fn queue_length(&self, session: &Session, queue: &str) -> lapin::Result<u64> {
        // An active look would need the queue's settings; a passive one costs the channel where it is gone.
        let channel = session.connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(short(queue), options, FieldTable::default()).await?;
        let _best_effort = channel.close(200, "done".into()).await;
        Ok(queue.message_count().into())
    }
}

/// Starts one consumer.
async fn consume(session: &Session, queue: &str, tag: &str, prefetch: u16) -> lapin::Result<Consumer> {
    let channel = &session.consuming;
    channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
    channel
        .basic_consume(short(queue), short(tag), BasicConsumeOptions::default(), FieldTable::default())
        .await
}

/// Whether the broker answers and takes messages.
pub(super) async fn check(supervisor: &Supervisor) -> Result<(), BrokerError> {
    let Some(session) = supervisor.session(Duration::ZERO).await? else {
        return Err(BrokerError::unavailable(SYSTEM, "closed"));
    };
    if session.connection.status().blocked() {
        return Err(BrokerError::unavailable(
            SYSTEM,
            "the broker is short of memory or disk and takes no messages",
        ));
    }
    let probe = async {
        let channel = session.connection.create_channel().await?;
        channel.close(200, "done".into()).await
    };
    let answer = session.run(PATIENCE, probe).await?;
    answer.map_err(|error| broker_error(&error)).inspect_err(|_| session.give_up())
}

#[async_trait]
impl EventSource for RabbitMqSource {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        let closed = &self.supervisor.closed;
        let mut reader = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            reader = self.reader.lock() => reader,
        };
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(session) = self.supervisor.session(left).await? else { return Ok(Vec::new()) };
            self.prepare(&mut reader, &session, max).await.inspect_err(|_| session.give_up())?;
            let left = deadline.saturating_duration_since(Instant::now());
            let first = tokio::select! {
                biased;
                () = closed.cancelled() => return Ok(Vec::new()),
                first = timeout(left, reader.consumers.next()) => first,
            };
            let first = match first {
                Err(_) => return Ok(Vec::new()),
                Ok(Some(Ok(first))) => first,
                Ok(Some(Err(_)) | None) => {
                    // The queue was deleted or the connection lost. The supervisor knows, or knows now.
                    session.give_up();
                    reader.consumers.clear();
                    reader.prefetch = 0;
                    continue_after_loss(&self.supervisor, &session, deadline).await;
                    continue;
                }
            };
            // From here on nothing waits: a cancelled call must not take deliveries with it.
            let mut batch = vec![self.hold(session.number, first)];
            while batch.len() < max {
                match reader.consumers.next().now_or_never() {
                    Some(Some(Ok(next))) => batch.push(self.hold(session.number, next)),
                    _ => break,
                }
            }
            return Ok(batch);
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let (mut done, mut waiting, mut lost) = (Vec::new(), Vec::new(), 0_usize);
        {
            let mut held = self.held();
            for Settlement { receipt, outcome } in settlements {
                match (held.remove(&receipt), outcome) {
                    (None, _) => lost += 1,
                    (Some(held), Outcome::Ack) => done.push(held.acker),
                    (Some(held), Outcome::Retry { after, attempt, body, .. }) => waiting.push(Waiting {
                        acker: held.acker,
                        delay: Delay::for_wait(after),
                        body,
                        properties: delay::copy(&held.properties, attempt),
                    }),
                }
            }
        }
        let mut returned = Vec::new();
        if !waiting.is_empty() {
            let safe = self.waiting.send(&self.supervisor, &waiting).await;
            for (copy, safe) in waiting.into_iter().zip(safe) {
                if safe { done.push(copy.acker) } else { returned.push(copy.acker) }
            }
        }
        let acks = join_all(done.iter().map(|acker| acker.ack(BasicAckOptions::default())));
        let requeue = BasicNackOptions { multiple: false, requeue: true };
        let nacks = join_all(returned.iter().map(|acker| acker.nack(requeue)));
        let answers = timeout(PATIENCE, async { (acks.await, nacks.await.len()) }).await;
        let answers = answers.map_err(|_| BrokerError::unavailable(SYSTEM, "the broker takes nothing"))?;
        lost += answers.0.iter().filter(|answer| !matches!(answer, Ok(true))).count();
        if lost > 0 {
            let message = format!("{lost} deliveries were of a lost connection and come again");
            return Err(BrokerError::unavailable(SYSTEM, message));
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        let Some(session) = self.supervisor.session(Duration::ZERO).await? else {
            return Err(BrokerError::unavailable(SYSTEM, "closed"));
        };
        let delays = self.waiting.used().await;
        let count = async {
            // What is buffered here and not yet handed out is in no count: the consumer library does not tell.
            let mut messages = self.queue_length(&session, &self.options.queue).await?;
            for delay in delays {
                messages += self.queue_length(&session, &delay.queue(&self.options.queue)).await?;
            }
            Ok(messages)
        };
        let counted = session.run(PATIENCE, count).await?;
        let messages = counted.map_err(|error: lapin::Error| broker_error(&error))?;
        let held = u64::try_from(self.held().len()).unwrap_or(u64::MAX);
        Ok(Backlog { messages: messages + held, oldest_age: None })
    }

    async fn check(&self) -> Result<(), BrokerError> {
        check(&self.supervisor).await
    }

    async fn close(&self) {
        // The broker requeues at once what a closed connection held.
        self.supervisor.close().await;
    }
}

/// Waits until the lost session has been taken down, so that it is not found again.
async fn continue_after_loss(supervisor: &Supervisor, lost: &Arc<Session>, deadline: Instant) {
    while Instant::now() < deadline {
        match supervisor.session(Duration::ZERO).await {
            Ok(Some(session)) if session.number == lost.number => {
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            _ => return,
        }
    }
}
