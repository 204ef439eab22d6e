//! Receiving: the calls continue when a `receive` ends, so that no message that they bring is lost.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use bytes::Bytes;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    BATCH, SqsOptions,
    queue::{Queue, broker_error},
    seconds,
};
use crate::broker::{BrokerError, Delivery};

/// How much longer than it waits for messages a call can take before its connection counts as dead.
const CALL_GRACE: Duration = Duration::from_secs(4);

/// Receives messages; shared by the source, the receiving calls and the heartbeat.
#[derive(Debug)]
pub(super) struct SqsReceiver {
    pub(super) queue: Queue,
    pub(super) options: SqsOptions,
    pub(super) closed: CancellationToken,
    /// A call has ended.
    pub(super) call_ended: Notify,
    messages: Mutex<Messages>,
}

/// The messages of this process.
#[derive(Debug, Default)]
pub(super) struct Messages {
    /// Received and not yet handed out.
    pub(super) buffer: VecDeque<Delivery>,
    /// Received and not settled, by receipt.
    pub(super) held: HashMap<String, HeldMessage>,
    /// How many calls are in progress.
    pub(super) calls: usize,
    /// Whether the last call returned a full batch, so that more messages probably wait.
    pub(super) more: bool,
    /// Why the last call failed.
    pub(super) failure: Option<BrokerError>,
}

/// A message that is received and not settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeldMessage {
    /// When the call that brought it began.
    pub(super) received: Instant,
    /// Until when it is invisible to other consumers.
    pub(super) until: Instant,
}

impl Messages {
    /// Hands out up to `max` messages. A message that waited here until others can have received it is left to them.
    pub(super) fn hand_out(&mut self, max: usize, now: Instant) -> Vec<Delivery> {
        let mut batch = Vec::new();
        while batch.len() < max
            && let Some(delivery) = self.buffer.pop_front()
        {
            if self.held.get(&delivery.receipt).is_some_and(|held| held.until > now) {
                batch.push(delivery);
            } else {
                self.held.remove(&delivery.receipt);
            }
        }
        batch
    }
}

impl SqsReceiver {
    pub(super) fn new(queue: Queue, options: SqsOptions) -> Self {
        Self {
            queue,
            options,
            closed: CancellationToken::new(),
            call_ended: Notify::new(),
            messages: Mutex::default(),
        }
    }

    pub(super) fn messages(&self) -> MutexGuard<'_, Messages> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `ReceiveMessage` once and buffers the messages. Ends early if the source is closed.
    pub(super) async fn receive_once(&self, wait: Duration) {
        let start = Instant::now();
        let answer = tokio::select! {
            biased;
            () = self.closed.cancelled() => Ok(Vec::new()),
            answer = self.call_receive(wait) => answer,
        };
        let mut buffered = self.messages();
        buffered.calls = buffered.calls.saturating_sub(1);
        match answer {
            Ok(messages) => {
                buffered.more = messages.len() == BATCH;
                // SQS counts from when it picked the message, which is no later than the end of the call.
                let until = start + self.options.visibility;
                let until = until.max(Instant::now() + self.options.visibility / 2);
                for message in messages {
                    let delivery = delivery(message);
                    buffered.held.insert(delivery.receipt.clone(), HeldMessage { received: start, until });
                    buffered.buffer.push_back(delivery);
                }
            }
            Err(error) => {
                buffered.more = false;
                buffered.failure = Some(error);
            }
        }
        drop(buffered);
        self.call_ended.notify_one();
    }

    async fn call_receive(&self, wait: Duration) -> Result<Vec<Message>, BrokerError> {
        let ask =
            [MessageSystemAttributeName::ApproximateReceiveCount, MessageSystemAttributeName::SentTimestamp];
        // SQS itself waits for at most 20 s.
        let wait = wait.min(Duration::from_secs(20));
        let answer = self.queue.call(wait + CALL_GRACE, |client| {
            client
                .receive_message()
                .queue_url(&self.queue.url)
                .max_number_of_messages(i32::try_from(BATCH).unwrap_or(1))
                .wait_time_seconds(seconds(wait))
                .visibility_timeout(seconds(self.options.visibility))
                .set_message_system_attribute_names(Some(ask.to_vec()))
                .send()
        });
        let answer = answer.await?.map_err(|error| broker_error(&error))?;
        Ok(answer.messages.unwrap_or_default())
    }
}

fn delivery(message: Message) -> Delivery {
    let number = |name: MessageSystemAttributeName| {
        message.attributes.as_ref().and_then(|attributes| attributes.get(&name)?.parse::<u64>().ok())
    };
    let attempt = number(MessageSystemAttributeName::ApproximateReceiveCount).unwrap_or(1);
    let published_at = number(MessageSystemAttributeName::SentTimestamp)
        .and_then(|millis| OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).ok());
    Delivery {
        attempt: u32::try_from(attempt).unwrap_or(u32::MAX).max(1),
        published_at,
        body: Bytes::from(message.body.unwrap_or_default()),
        receipt: message.receipt_handle.unwrap_or_default(),
    }
}
