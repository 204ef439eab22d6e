//! Consuming from the queue.

use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use aws_sdk_sqs::types::QueueAttributeName;
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{BATCH, SYSTEM, SqsOptions, heartbeat, queue::Queue, receiver::SqsReceiver};
use crate::broker::{
    Backlog, BrokerError, Delivery, EventSource, EventSystem, Settlement, SettlementKind, ignore_unavailable,
};

/// The shortest `receive`: long enough for one round trip.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// How long a `receive` with some messages waits for the other calls if the queue is full.
const LINGER: Duration = Duration::from_millis(20);
/// How long closing waits until messages are released.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Takes events from the queue.
///
/// Cancelling [`EventSource::receive`] loses nothing: its calls continue, and their messages come with the next `receive`.
#[derive(Debug)]
pub struct SqsSource {
    receiver: Arc<SqsReceiver>,
    /// Held by the `receive` in progress.
    receiving: Mutex<()>,
    heartbeat: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl SqsSource {
    /// Checks that the queue exists and has a redrive policy. One that cannot be reached yet is no error.
    pub async fn connect(options: SqsOptions) -> Result<Self, BrokerError> {
        let queue = Queue::new(&options).await?;
        let asked = [QueueAttributeName::RedrivePolicy, QueueAttributeName::QueueArn];
        let attributes = queue.attributes(&asked).await;
        if attributes.as_ref().is_ok_and(|found| !found.contains_key(&QueueAttributeName::RedrivePolicy)) {
            tracing::warn!(
                queue = options.queue_url,
                "the SQS queue has no redrive policy: a message that kills its consumers comes back for ever"
            );
        }
        ignore_unavailable(attributes.map(|_| ()))?;
        let receiver = Arc::new(SqsReceiver::new(queue, options));
        let heartbeat = tokio::spawn(heartbeat::keep_invisible(Arc::clone(&receiver)));
        Ok(Self { receiver, receiving: Mutex::new(()), heartbeat: std::sync::Mutex::new(Some(heartbeat)) })
    }

    /// Starts as many calls as can fill a batch, or one if the queue seems empty.
    fn start_calls(&self, max: usize, wait: Duration) {
        let mut messages = self.receiver.messages();
        let missing = max.saturating_sub(messages.buffer.len()).div_ceil(BATCH);
        let wanted = if messages.more { missing.clamp(1, self.receiver.options.receivers.max(1)) } else { 1 };
        while messages.calls < wanted {
            messages.calls += 1;
            let receiver = Arc::clone(&self.receiver);
            tokio::spawn(async move { receiver.receive_once(wait).await });
        }
    }

    async fn wait_for_some(&self, max: usize, wait: Duration) -> Result<(), BrokerError> {
        let deadline = Instant::now() + wait.max(SHORTEST_WAIT);
        loop {
            if !self.receiver.messages().buffer.is_empty() {
                return Ok(());
            }
            if let Some(failure) = self.receiver.messages().failure.take() {
                return Err(failure);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.start_calls(max, left.min(wait));
            tokio::select! {
                biased;
                () = self.receiver.closed.cancelled() => return Ok(()),
                () = self.receiver.call_ended.notified() => {}
                () = sleep(left) => {}
            }
        }
    }

    /// With a full queue the calls end almost together: a short wait makes one batch of them.
    async fn wait_for_more(&self, max: usize) {
        let more = async {
            loop {
                {
                    let messages = self.receiver.messages();
                    if !messages.more || messages.calls == 0 || messages.buffer.len() >= max {
                        return;
                    }
                }
                self.receiver.call_ended.notified().await;
            }
        };
        let _all_or_some = timeout(LINGER, more).await;
    }
}

#[async_trait]
impl EventSource for SqsSource {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let closed = &self.receiver.closed;
        let _receiving = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            guard = self.receiving.lock() => guard,
        };
        if max == 0 || closed.is_cancelled() {
            return Ok(Vec::new());
        }
        self.wait_for_some(max, wait).await?;
        self.wait_for_more(max).await;
        let mut messages = self.receiver.messages();
        // Closed meanwhile: `close` releases the messages.
        if closed.is_cancelled() { Ok(Vec::new()) } else { Ok(messages.hand_out(max, Instant::now())) }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let (mut done, mut slow, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let queue = &self.receiver.queue;
        let visibility = self.receiver.options.visibility;
        {
            let mut messages = self.receiver.messages();
            for Settlement { receipt, outcome } in settlements {
                let age = messages.held.remove(&receipt).map(|held| held.received.elapsed());
                match outcome {
                    SettlementKind::Ack => {
                        // LocalStack 4.9 counts the life of a FIFO receipt from when it was received, not from its extension.
                        if let Some(age) = age.filter(|age| queue.is_fifo() && *age + LINGER >= visibility) {
                            slow.push((receipt.clone(), age + visibility));
                        }
                        done.push(receipt);
                    }
                    SettlementKind::Retry { after, .. } => later.push((receipt, after)),
                }
            }
        }
        let delete = async {
            queue.set_visibility(slow).await?;
            queue.delete(done).await
        };
        let (deleted, postponed) = tokio::join!(delete, queue.set_visibility(later));
        let postponed = postponed?.into_iter().map(|(_, why)| why);
        let failures: Vec<String> = deleted?.into_iter().chain(postponed).collect();
        match failures.first() {
            Some(first) => {
                let message =
                    format!("{} messages could not be settled and come again: {first}", failures.len());
                Err(BrokerError::unavailable(SYSTEM, message))
            }
            None => Ok(()),
        }
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let attributes = self.receiver.queue.attributes(&counts).await?;
        let count = |name| attributes.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Ok(Backlog { messages: counts.iter().map(count).sum(), oldest_age: None })
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.receiver.queue.attributes(&[QueueAttributeName::QueueArn]).await.map(|_| ())
    }

    async fn close(&self) {
        self.receiver.closed.cancel();
        let heartbeat = self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(heartbeat) = heartbeat else { return };
        // It ends by itself; no extension may come after the messages are released.
        let _ended = heartbeat.await;
        let held: Vec<(String, Duration)> = {
            let mut messages = self.receiver.messages();
            messages.buffer.clear();
            messages.held.drain().map(|(receipt, _)| (receipt, Duration::ZERO)).collect()
        };
        match timeout(CLOSE_TIMEOUT, self.receiver.queue.set_visibility(held)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error.message = %error, "SQS: messages could not be released and come again later");
            }
            Err(_) => tracing::warn!("SQS: messages could not be released in time and come again later"),
        }
    }
}

impl Drop for SqsSource {
    /// Without [`EventSource::close`], a held message becomes visible to others after the visibility time-out.
    fn drop(&mut self) {
        self.receiver.closed.cancel();
    }
}
