//! Receiving: calls that run on when a `receive` is over, so that nothing they bring is lost.

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

/// How much longer than it waits for messages a call may take before its connection counts as dead.
const POLL_GRACE: Duration = Duration::from_secs(4);

/// What the callers, the receiving calls and the heartbeat share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) queue: Queue,
    pub(super) options: SqsOptions,
    pub(super) closed: CancellationToken,
    /// Something has changed for whoever receives.
    pub(super) arrived: Notify,
    state: Mutex<State>,
}

/// What is here.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Received and not yet handed out.
    pub(super) buffer: VecDeque<Delivery>,
    /// Received and not settled, by receipt.
    pub(super) held: HashMap<String, Held>,
    /// Calls under way.
    pub(super) polls: usize,
    /// The last call came back full: there is more where that came from.
    pub(super) busy: bool,
    /// Why the last call failed.
    pub(super) failure: Option<BrokerError>,
}

/// A message in this process's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    /// When it came.
    pub(super) received: Instant,
    /// Until when it stays invisible to others.
    pub(super) until: Instant,
}

impl State {
    /// Hands out up to `max`. What has waited here for so long that others may have it is left to them.
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

impl Shared {
    pub(super) fn new(queue: Queue, options: SqsOptions) -> Self {
        Self {
            queue,
            options,
            closed: CancellationToken::new(),
            arrived: Notify::new(),
            state: Mutex::default(),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One `ReceiveMessage`, whose messages go into the buffer. Ends early when the source is closed.
    pub(super) async fn poll(&self, wait: Duration) {
        let start = Instant::now();
        let answer = tokio::select! {
            biased;
            () = self.closed.cancelled() => Ok(Vec::new()),
            answer = self.call(wait) => answer,
        };
        let mut state = self.state();
        state.polls = state.polls.saturating_sub(1);
        match answer {
            Ok(messages) => {
                state.busy = messages.len() == BATCH;
                // From the call's end at the latest: SQS counts from when it picked the message.
                let until = start + self.options.visibility;
                let until = until.max(Instant::now() + self.options.visibility / 2);
                for message in messages {
                    let delivery = delivery(message);
                    state.held.insert(delivery.receipt.clone(), Held { received: start, until });
                    state.buffer.push_back(delivery);
                }
            }
            Err(error) => {
                state.busy = false;
                state.failure = Some(error);
            }
        }
        drop(state);
        self.arrived.notify_one();
    }

    async fn call(&self, wait: Duration) -> Result<Vec<Message>, BrokerError> {
        let ask =
            [MessageSystemAttributeName::ApproximateReceiveCount, MessageSystemAttributeName::SentTimestamp];
        // SQS itself waits for at most 20 s.
        let wait = wait.min(Duration::from_secs(20));
        let answer = self.queue.call(wait + POLL_GRACE, |client| {
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
