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
    RPC_TIMEOUT, RabbitMqOptions, SYSTEM, broker_error,
    delay::{self, Delay},
    delay_queues::{DelayQueues, DelayedCopy},
    supervisor::{Session, Supervisor, check_connection},
    topology::short,
};
use crate::broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem, Settlement, SettlementKind};

/// Takes events from the queue.
///
/// Cancelling [`EventSource::receive`] loses nothing: messages that have arrived stay in the consumer's buffer for the next call.
#[derive(Debug)]
pub struct RabbitMqSource {
    supervisor: Supervisor,
    options: RabbitMqOptions,
    consumer: String,
    receiving: Mutex<ActiveConsumers>,
    unsettled: std::sync::Mutex<HashMap<String, UnsettledMessage>>,
    delay_queues: DelayQueues,
}

/// What one `receive` at a time uses.
#[derive(Default)]
struct ActiveConsumers {
    session: u64,
    /// More than one if a later `receive` asked for more: the prefetch of a consumer is set when it starts.
    consumers: SelectAll<Consumer>,
    prefetch: u16,
    /// A further consumer that is being started, with its prefetch.
    starting: Option<JoinHandle<Result<(Consumer, u16), BrokerError>>>,
    started: u32,
}

impl std::fmt::Debug for ActiveConsumers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ActiveConsumers").field("prefetch", &self.prefetch).finish_non_exhaustive()
    }
}

/// A delivery that is not settled.
#[derive(Debug)]
struct UnsettledMessage {
    acker: Acker,
    properties: BasicProperties,
}

impl RabbitMqSource {
    /// Connects and declares the topology. A broker that cannot be reached yet is no error: it is tried again.
    pub async fn connect(options: RabbitMqOptions, consumer: &str) -> Result<Self, BrokerError> {
        let supervisor = Supervisor::start(options.clone(), "source").await?;
        Ok(Self {
            supervisor,
            delay_queues: DelayQueues::new(options.clone()),
            options,
            consumer: consumer.to_owned(),
            receiving: Mutex::default(),
            unsettled: std::sync::Mutex::default(),
        })
    }

    fn unsettled(&self) -> std::sync::MutexGuard<'_, HashMap<String, UnsettledMessage>> {
        self.unsettled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts consumers, so that the broker sends up to two batches ahead: one to hand out while the other is handled.
    ///
    /// They are started by a separate task: a consumer that was half started by a cancelled `receive` would hold messages
    /// that no caller gets.
    async fn start_consumers(
        &self,
        active: &mut ActiveConsumers,
        session: &Arc<Session>,
        max: usize,
    ) -> Result<(), BrokerError> {
        if active.session != session.number {
            *active = ActiveConsumers { session: session.number, ..ActiveConsumers::default() };
            // The broker has requeued the messages of the former session.
            self.unsettled().clear();
        }
        let wanted = u16::try_from(max.saturating_mul(2)).unwrap_or(u16::MAX).clamp(2, 2000);
        while wanted > active.prefetch {
            let starting = active.starting.get_or_insert_with(|| {
                let more = wanted - active.prefetch;
                active.started += 1;
                let tag = format!("{}-{}-{}", self.consumer, session.number, active.started);
                let (session, queue) = (Arc::clone(session), self.options.queue.clone());
                tokio::spawn(async move {
                    let consumer = session
                        .run_limited(RPC_TIMEOUT, start_consumer(&session, &queue, &tag, more))
                        .await?;
                    Ok((consumer.map_err(|error| broker_error(&error))?, more))
                })
            });
            let started = starting.await;
            active.starting = None;
            let (consumer, more) =
                started.unwrap_or_else(|error| Err(BrokerError::unavailable(SYSTEM, error)))?;
            active.consumers.push(consumer);
            active.prefetch += more;
        }
        Ok(())
    }

    /// Registers a message as unsettled, and hands it out.
    fn hand_out(&self, session: u64, message: lapin::message::Delivery) -> Delivery {
        let receipt = format!("{session}-{}", message.delivery_tag);
        let attempt = delay::attempt(&message.properties, message.redelivered);
        let published_at = message
            .properties
            .timestamp()
            .and_then(|seconds| OffsetDateTime::from_unix_timestamp(i64::try_from(seconds).ok()?).ok());
        let unsettled = UnsettledMessage { acker: message.acker, properties: message.properties };
        self.unsettled().insert(receipt.clone(), unsettled);
        Delivery { body: Bytes::from(message.data), attempt, published_at, receipt }
    }

    async fn queue_length(&self, session: &Session, queue: &str) -> lapin::Result<u64> {
        // A declaration that is not passive would need the settings of the queue. A passive one closes the channel if the
        // queue does not exist.
        let channel = session.connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(short(queue), options, FieldTable::default()).await?;
        let _best_effort = channel.close(200, "done".into()).await;
        Ok(queue.message_count().into())
    }
}

/// Starts one consumer.
async fn start_consumer(session: &Session, queue: &str, tag: &str, prefetch: u16) -> lapin::Result<Consumer> {
    let channel = &session.consuming;
    channel.basic_qos(prefetch, BasicQosOptions { global: false }).await?;
    channel
        .basic_consume(short(queue), short(tag), BasicConsumeOptions::default(), FieldTable::default())
        .await
}

#[async_trait]
impl EventSource for RabbitMqSource {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deadline = Instant::now() + wait;
        let closed = &self.supervisor.closed;
        let mut active = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            active = self.receiving.lock() => active,
        };
        if max == 0 {
            return Ok(Vec::new());
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(session) = self.supervisor.session(left).await? else { return Ok(Vec::new()) };
            self.start_consumers(&mut active, &session, max).await.inspect_err(|_| session.give_up())?;
            let left = deadline.saturating_duration_since(Instant::now());
            let first = tokio::select! {
                biased;
                () = closed.cancelled() => return Ok(Vec::new()),
                first = timeout(left, active.consumers.next()) => first,
            };
            let first = match first {
                Err(_) => return Ok(Vec::new()),
                Ok(Some(Ok(first))) => first,
                Ok(Some(Err(_)) | None) => {
                    // The queue was deleted or the connection was lost. The supervisor may not know yet.
                    session.give_up();
                    active.consumers.clear();
                    active.prefetch = 0;
                    wait_for_next_session(&self.supervisor, &session, deadline).await;
                    continue;
                }
            };
            // No `await` from here on: a cancelled call must not lose deliveries.
            let mut batch = vec![self.hand_out(session.number, first)];
            while batch.len() < max {
                match active.consumers.next().now_or_never() {
                    Some(Some(Ok(next))) => batch.push(self.hand_out(session.number, next)),
                    _ => break,
                }
            }
            return Ok(batch);
        }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let (mut done, mut delayed, mut lost) = (Vec::new(), Vec::new(), 0_usize);
        {
            let mut unsettled = self.unsettled();
            for Settlement { receipt, outcome } in settlements {
                match (unsettled.remove(&receipt), outcome) {
                    (None, _) => lost += 1,
                    (Some(message), SettlementKind::Ack) => done.push(message.acker),
                    (Some(message), SettlementKind::Retry { after, attempt, body, .. }) => {
                        delayed.push(DelayedCopy {
                            acker: message.acker,
                            delay: Delay::for_wait(after),
                            body,
                            properties: delay::copy(&message.properties, attempt),
                        });
                    }
                }
            }
        }
        let mut requeued = Vec::new();
        if !delayed.is_empty() {
            let stored = self.delay_queues.publish(&self.supervisor, &delayed).await;
            for (copy, is_stored) in delayed.into_iter().zip(stored) {
                if is_stored { done.push(copy.acker) } else { requeued.push(copy.acker) }
            }
        }
        let acks = join_all(done.iter().map(|acker| acker.ack(BasicAckOptions::default())));
        let requeue = BasicNackOptions { multiple: false, requeue: true };
        let nacks = join_all(requeued.iter().map(|acker| acker.nack(requeue)));
        let answers = timeout(RPC_TIMEOUT, async { (acks.await, nacks.await.len()) }).await;
        let answers =
            answers.map_err(|_| BrokerError::unavailable(SYSTEM, "the broker takes no acknowledgements"))?;
        lost += answers.0.iter().filter(|answer| !matches!(answer, Ok(true))).count();
        if lost > 0 {
            let message = format!("{lost} deliveries belong to a lost connection and come again");
            return Err(BrokerError::unavailable(SYSTEM, message));
        }
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        let Some(session) = self.supervisor.session(Duration::ZERO).await? else {
            return Err(BrokerError::unavailable(SYSTEM, "closed"));
        };
        let delays = self.delay_queues.used().await;
        let count = async {
            // Messages that are buffered here and not handed out are in no count: the client library does not report them.
            let mut messages = self.queue_length(&session, &self.options.queue).await?;
            for delay in delays {
                messages += self.queue_length(&session, &delay.queue(&self.options.queue)).await?;
            }
            Ok(messages)
        };
        let counted = session.run_limited(RPC_TIMEOUT, count).await?;
        let messages = counted.map_err(|error: lapin::Error| broker_error(&error))?;
        let unsettled = u64::try_from(self.unsettled().len()).unwrap_or(u64::MAX);
        Ok(Backlog { messages: messages + unsettled, oldest_age: None })
    }

    async fn check(&self) -> Result<(), BrokerError> {
        check_connection(&self.supervisor).await
    }

    async fn close(&self) {
        // When the connection closes, the broker requeues its messages at once.
        self.supervisor.close().await;
    }
}

/// Waits until the supervisor no longer returns the lost session.
async fn wait_for_next_session(supervisor: &Supervisor, lost: &Arc<Session>, deadline: Instant) {
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
