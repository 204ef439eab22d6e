//! Amazon SQS, or LocalStack: a standard queue, or a FIFO queue if the name ends in `.fifo`.
//!
//! What holds here, and how:
//!
//! - **Confirmed** means that the entry is among the `Successful` of `SendMessageBatch`: SQS has stored it on several
//!   servers. Each of the `Failed` is answered alone: a fault of the sender is
//!   [`Rejected`](super::PublishOutcome::Rejected), anything else, throttling included, is
//!   [`Retry`](super::PublishOutcome::Retry).
//! - **Order**: a standard queue promises none, and batches are sent side by side. A FIFO queue keeps the order of each
//!   message group (the event's key): no two batches with the same group are in progress at the same time, and after an entry that
//!   was not taken no later one of its group is sent.
//! - **Duplicates**: a FIFO queue drops what it has seen in the last five minutes under the same deduplication id. That is the
//!   event's id, so a relay that starts again repeats nothing; [`republish`](super::EventSink::republish) adds a new id, so a
//!   repair, a replay and a redrive arrive.
//! - **Attempts** are `ApproximateReceiveCount`; published at is `SentTimestamp`.
//! - **Kept**: a heartbeat extends the visibility time-out of every message that this process holds. SQS bounds it at 12 hours.
//! - **Reclaimed**: the messages of a dead consumer are visible again after [`SqsOptions::visibility`].
//! - **`retry(after)`** sets the visibility time-out, which counts in whole seconds (rounded up) and at most 12 hours. In a
//!   FIFO queue the rest of the group waits too.
//! - **Closing** makes held messages visible at once. A message that is being handed out at that moment can stay invisible for
//!   the visibility time-out.
//! - **Dead letters**: the queue's redrive policy applies after the worker's own limit of attempts. A missing policy is logged as
//!   a warning at start. A queue that does not exist or cannot be read is an error at start.
//! - **The backlog** is the sum of SQS's three approximate counts. It does not report an age.

mod heartbeat;
mod plan;
mod queue;
mod receiver;
mod sink;
mod source;
#[cfg(test)]
pub(super) mod tests;

use std::time::Duration;

use super::EventSystem;

pub use sink::SqsSink;
pub use source::SqsSource;

/// Where the events are.
#[derive(Clone, Debug)]
pub struct SqsOptions {
    /// The queue's full URL.
    pub queue_url: String,
    /// A client to use instead of one with region, endpoint and credentials by the SDK's default chain.
    pub client: Option<aws_sdk_sqs::Client>,
    /// The most bytes in one `SendMessageBatch`, and so in one event. AWS takes 1 MiB, LocalStack 4.9 256 KiB.
    pub max_batch_bytes: usize,
    /// How long the messages of a dead consumer stay invisible, in whole seconds.
    pub visibility: Duration,
    /// After which time a held message's visibility is extended: well below `visibility`.
    pub heartbeat: Duration,
    /// The most `ReceiveMessage` calls at once; each brings up to 10 messages.
    pub receivers: usize,
    /// The most `SendMessageBatch` calls at once.
    pub senders: usize,
}

impl SqsOptions {
    /// The settings of production.
    pub fn new(queue_url: impl Into<String>) -> Self {
        Self {
            queue_url: queue_url.into(),
            client: None,
            max_batch_bytes: 256 * 1024,
            visibility: Duration::from_secs(30),
            heartbeat: Duration::from_secs(10),
            receivers: 10,
            senders: 16,
        }
    }
}

const SYSTEM: EventSystem = EventSystem::Sqs;

/// How many entries a batch call of SQS takes.
const BATCH: usize = 10;

/// Whole seconds, as SQS counts them: never shorter than asked for, and at most its 12 hours.
fn seconds(duration: Duration) -> i32 {
    let whole = duration.as_secs().saturating_add(u64::from(duration.subsec_nanos() > 0));
    i32::try_from(whole.min(12 * 60 * 60)).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod unit_tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_up_and_bounded() {
        assert_eq!(seconds(Duration::ZERO), 0);
        assert_eq!(seconds(Duration::from_millis(1)), 1);
        assert_eq!(seconds(Duration::from_secs(30)), 30);
        assert_eq!(seconds(Duration::MAX), 43_200);
    }
}
