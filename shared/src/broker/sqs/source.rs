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

use super::{BATCH, SYSTEM, SqsOptions, heartbeat, poll::Shared, queue::Queue};
use crate::broker::{Backlog, BrokerError, Delivery, EventSource, EventSystem, Outcome, Settlement, passing};

/// The shortest `receive`: one round trip must fit.
const SHORTEST_WAIT: Duration = Duration::from_millis(500);
/// How long a `receive` that has something waits for the other calls, when the queue is full.
const LINGER: Duration = Duration::from_millis(20);
/// How long closing waits for messages to be handed back.
const CLOSE_PATIENCE: Duration = Duration::from_secs(5);

/// Takes events from the queue.
///
/// Cancelling [`EventSource::receive`] loses nothing: its calls go on, and what they bring comes with the next one.
#[derive(Debug)]
pub struct SqsSource {
    shared: Arc<Shared>,
    turn: Mutex<()>,
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
        passing(attributes.map(|_| ()))?;
        let shared = Arc::new(Shared::new(queue, options));
        let heartbeat = tokio::spawn(heartbeat::run(Arc::clone(&shared)));
        Ok(Self { shared, turn: Mutex::new(()), heartbeat: std::sync::Mutex::new(Some(heartbeat)) })
    }

    /// Starts as many calls as could fill a batch, or one where the queue seems empty.
    fn start_polls(&self, max: usize, wait: Duration) {
        let mut state = self.shared.state();
        let missing = max.saturating_sub(state.buffer.len()).div_ceil(BATCH);
        let wanted = if state.busy { missing.clamp(1, self.shared.options.receivers.max(1)) } else { 1 };
        while state.polls < wanted {
            state.polls += 1;
            let shared = Arc::clone(&self.shared);
            tokio::spawn(async move { shared.poll(wait).await });
        }
    }

    async fn wait_for_some(&self, max: usize, wait: Duration) -> Result<(), BrokerError> {
        let deadline = Instant::now() + wait.max(SHORTEST_WAIT);
        loop {
            if !self.shared.state().buffer.is_empty() {
                return Ok(());
            }
            if let Some(failure) = self.shared.state().failure.take() {
                return Err(failure);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.start_polls(max, left.min(wait));
            tokio::select! {
                biased;
                () = self.shared.closed.cancelled() => return Ok(()),
                () = self.shared.arrived.notified() => {}
                () = sleep(left) => {}
            }
        }
    }

    /// With a full queue the calls come back almost together: a moment's wait makes one batch of them.
    async fn wait_for_more(&self, max: usize) {
        let more = async {
            loop {
                {
                    let state = self.shared.state();
                    if !state.busy || state.polls == 0 || state.buffer.len() >= max {
                        return;
                    }
                }
                self.shared.arrived.notified().await;
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
        let closed = &self.shared.closed;
        let _turn = tokio::select! {
            biased;
            () = closed.cancelled() => return Ok(Vec::new()),
            turn = self.turn.lock() => turn,
        };
        if max == 0 || closed.is_cancelled() {
            return Ok(Vec::new());
        }
        self.wait_for_some(max, wait).await?;
        self.wait_for_more(max).await;
        let mut state = self.shared.state();
        // Closed meanwhile: `close` hands the rest back.
        if closed.is_cancelled() { Ok(Vec::new()) } else { Ok(state.hand_out(max, Instant::now())) }
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let (mut done, mut slow, mut later) = (Vec::new(), Vec::new(), Vec::new());
        let queue = &self.shared.queue;
        let visibility = self.shared.options.visibility;
        {
            let mut state = self.shared.state();
            for Settlement { receipt, outcome } in settlements {
                let age = state.held.remove(&receipt).map(|held| held.received.elapsed());
                match outcome {
                    Outcome::Ack => {
                        // LocalStack 4.9 counts a FIFO receipt's life from the receipt, not from its extension.
                        if let Some(age) = age.filter(|age| queue.is_fifo() && *age + LINGER >= visibility) {
                            slow.push((receipt.clone(), age + visibility));
                        }
                        done.push(receipt);
                    }
                    Outcome::Retry { after, .. } => later.push((receipt, after)),
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
        let attributes = self.shared.queue.attributes(&counts).await?;
        let count = |name| attributes.get(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        Ok(Backlog { messages: counts.iter().map(count).sum(), oldest_age: None })
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.shared.queue.attributes(&[QueueAttributeName::QueueArn]).await.map(|_| ())
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        let heartbeat = self.heartbeat.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(heartbeat) = heartbeat else { return };
        // It ends by itself; an extension must not come after what follows.
        let _ended = heartbeat.await;
        let held: Vec<(String, Duration)> = {
            let mut state = self.shared.state();
            state.buffer.clear();
            state.held.drain().map(|(receipt, _)| (receipt, Duration::ZERO)).collect()
        };
        match timeout(CLOSE_PATIENCE, self.shared.queue.set_visibility(held)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                tracing::warn!(error.message = %error, "SQS: messages could not be handed back and come again later");
            }
            Err(_) => tracing::warn!("SQS: messages could not be handed back in time and come again later"),
        }
    }
}

impl Drop for SqsSource {
    /// Without [`EventSource::close`], what is held is visible to others after the visibility time-out.
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}
