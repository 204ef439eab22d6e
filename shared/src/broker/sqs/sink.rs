//! Publishing to the queue.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use aws_sdk_sqs::{
    error::ProvideErrorMetadata as _,
    types::{BatchResultErrorEntry, MessageAttributeValue, QueueAttributeName, SendMessageBatchRequestEntry},
};
use futures_util::StreamExt as _;
use uuid::Uuid;

use super::{
    SYSTEM, SqsOptions,
    plan::{Lane, NUMBER, POSITION, plan_lanes, sent_bytes},
    queue::{CALL_TIMEOUT, Queue, broker_error, describe},
};
use crate::{
    broker::{BrokerError, EventSink, EventSystem, PublishOutcome, ignore_unavailable, too_large},
    domain::event::Envelope,
};

/// Sends events to the queue.
#[derive(Debug)]
pub struct SqsSink {
    queue: Queue,
    max_batch_bytes: usize,
    senders: usize,
}

impl SqsSink {
    /// Checks that the queue exists. One that cannot be reached yet is no error.
    pub async fn connect(options: &SqsOptions) -> Result<Self, BrokerError> {
        let queue = Queue::new(options).await?;
        let sink = Self { queue, max_batch_bytes: options.max_batch_bytes, senders: options.senders.max(1) };
        ignore_unavailable(sink.check().await)?;
        Ok(sink)
    }

    /// Why an event can never be sent to this queue.
    fn refusal(&self, event: &Envelope) -> Option<String> {
        let bytes = sent_bytes(event);
        too_large(event).or_else(|| {
            (bytes > self.max_batch_bytes)
                .then(|| format!("the event has {bytes} bytes, and the queue takes {}", self.max_batch_bytes))
        })
    }

    async fn publish_all(&self, publication: Publication<'_>) -> Vec<PublishOutcome> {
        let batch = publication.events;
        let mut outcomes: Vec<Option<PublishOutcome>> =
            batch.iter().map(|event| self.refusal(event).map(PublishOutcome::Rejected)).collect();
        let fitting: Vec<(usize, &Envelope)> =
            batch.iter().enumerate().filter(|(index, _)| outcomes[*index].is_none()).collect();
        let lanes = plan_lanes(&fitting, self.queue.is_fifo(), self.max_batch_bytes, self.senders);
        let running = lanes.into_iter().map(|lane| self.publish_lane(publication, lane));
        let answered: Vec<_> =
            futures_util::stream::iter(running).buffer_unordered(self.senders).collect().await;
        for (index, outcome) in answered.into_iter().flatten() {
            outcomes[index] = Some(outcome);
        }
        let unknown = || PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, "it was not sent"));
        outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unknown)).collect()
    }

    async fn publish_lane(&self, publication: Publication<'_>, lane: Lane) -> Vec<(usize, PublishOutcome)> {
        let mut outcomes = Vec::new();
        let mut stuck = HashSet::new();
        let events = publication.events;
        for batch in lane {
            // In a FIFO queue an event must not overtake an earlier one of its group.
            let (blocked, free): (Vec<usize>, Vec<usize>) =
                batch.into_iter().partition(|index| stuck.contains(&events[*index].key));
            outcomes.extend(blocked.into_iter().map(|index| {
                let why = "an earlier event of the same key was not stored";
                (index, PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, why)))
            }));
            let answered = self.publish_batch(publication, free).await;
            if self.queue.is_fifo() {
                let failed =
                    answered.iter().filter(|(_, outcome)| matches!(outcome, PublishOutcome::Retry(_)));
                stuck.extend(failed.map(|(index, _)| events[*index].key));
            }
            outcomes.extend(answered);
        }
        outcomes
    }

    /// Sends one batch. If SQS refuses a batch as a whole for its contents, each entry is sent alone, so that a bad event does
    /// not block the others.
    async fn publish_batch(
        &self,
        publication: Publication<'_>,
        batch: Vec<usize>,
    ) -> Vec<(usize, PublishOutcome)> {
        match self.send_batch(publication, &batch).await {
            Ok(answered) => answered,
            Err(Refusal::Contents(_)) if batch.len() > 1 => {
                let mut answered = Vec::with_capacity(batch.len());
                for index in batch {
                    // One after the other, for the order of a FIFO queue; this is rare.
                    let alone = self.send_batch(publication, &[index]).await;
                    answered.extend(alone.unwrap_or_else(|refusal| vec![(index, refusal.outcome())]));
                }
                answered
            }
            Err(refusal) => batch.into_iter().map(|index| (index, refusal.outcome())).collect(),
        }
    }

    async fn send_batch(
        &self,
        publication: Publication<'_>,
        batch: &[usize],
    ) -> Result<Vec<(usize, PublishOutcome)>, Refusal> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let entries: Result<Vec<_>, _> = batch.iter().map(|index| self.entry(*index, publication)).collect();
        let entries = entries.map_err(|error| Refusal::Call(BrokerError::unavailable(SYSTEM, error)))?;
        let call = self.queue.call(CALL_TIMEOUT, |client| {
            client.send_message_batch().queue_url(&self.queue.url).set_entries(Some(entries)).send()
        });
        let answer = match call.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) if error.code().is_some_and(is_about_contents) => {
                return Err(Refusal::Contents(broker_error(&error).to_string()));
            }
            Ok(Err(error)) => return Err(Refusal::Call(broker_error(&error))),
            Err(error) => return Err(Refusal::Call(error)),
        };
        let taken: HashSet<String> = answer.successful.into_iter().map(|entry| entry.id).collect();
        let failed: BTreeMap<String, BatchResultErrorEntry> =
            answer.failed.into_iter().map(|entry| (entry.id.clone(), entry)).collect();
        let outcome = |index: usize| {
            let id = index.to_string();
            match failed.get(&id) {
                Some(failure) => failed_outcome(failure),
                None if taken.contains(&id) => PublishOutcome::Confirmed,
                None => PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, "the answer leaves it out")),
            }
        };
        Ok(batch.iter().map(|index| (*index, outcome(*index))).collect())
    }

    fn entry(
        &self,
        index: usize,
        publication: Publication<'_>,
    ) -> Result<SendMessageBatchRequestEntry, aws_sdk_sqs::error::BuildError> {
        let event = &publication.events[index];
        let mut entry =
            SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(&event.body);
        if let Some(position) = event.position {
            let value = MessageAttributeValue::builder().data_type(NUMBER).string_value(position.to_string());
            entry = entry.message_attributes(POSITION, value.build()?);
        }
        if self.queue.is_fifo() {
            entry = entry
                .message_group_id(event.key.to_string())
                .message_deduplication_id(publication.deduplication_id(event));
        }
        entry.build()
    }
}

/// The events of one call of `publish` or `republish`.
#[derive(Clone, Copy)]
struct Publication<'a> {
    events: &'a [Envelope],
    /// Set if a FIFO queue must take the events although it may have seen them.
    again: Option<Uuid>,
}

impl Publication<'_> {
    /// By this a FIFO queue recognises a duplicate: the id of the event, so that a relay that starts again after a crash
    /// repeats nothing; and an id of the repetition, if it is intended.
    fn deduplication_id(&self, event: &Envelope) -> String {
        match self.again {
            None => event.id.to_string(),
            Some(repetition) => format!("{}:{repetition}", event.id),
        }
    }
}

/// Why a whole call failed.
enum Refusal {
    /// The contents of one of its entries.
    Contents(String),
    /// Anything else.
    Call(BrokerError),
}

impl Refusal {
    /// The outcome for each entry of the call.
    fn outcome(&self) -> PublishOutcome {
        match self {
            Self::Contents(message) => PublishOutcome::Rejected(message.clone()),
            Self::Call(error) => PublishOutcome::Retry(error.clone()),
        }
    }
}

/// Codes by which SQS refuses a batch, or an entry that is alone in it, for its contents.
fn is_about_contents(code: &str) -> bool {
    ["InvalidMessageContents", "InvalidParameterValue", "BatchRequestTooLong"]
        .iter()
        .any(|known| code.contains(known))
}

/// The outcome of one of the `Failed` entries. What SQS calls the sender's fault can still be temporary, or need an operator.
fn failed_outcome(failure: &BatchResultErrorEntry) -> PublishOutcome {
    let message = describe(failure);
    let temporary = ["Throttl", "OverLimit", "Kms", "KMS", "AccessDenied", "Internal", "Unavailable"];
    // LocalStack does not set `sender_fault` if the contents are invalid.
    let lasting = failure.sender_fault && !temporary.iter().any(|code| failure.code.contains(code));
    if lasting || is_about_contents(&failure.code) {
        PublishOutcome::Rejected(message)
    } else {
        PublishOutcome::Retry(BrokerError::unavailable(SYSTEM, message))
    }
}

#[async_trait]
impl EventSink for SqsSink {
    fn system(&self) -> EventSystem {
        SYSTEM
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.publish_all(Publication { events: batch, again: None }).await
    }

    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.publish_all(Publication { events: batch, again: Some(Uuid::now_v7()) }).await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.queue.attributes(&[QueueAttributeName::QueueArn]).await.map(|_| ())
    }

    /// Does nothing: the client's connections end with it.
    async fn close(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_lasting_fault_of_the_sender_is_a_rejection() {
        let failure = |code: &str, sender_fault| {
            let entry = BatchResultErrorEntry::builder().id("0").code(code).sender_fault(sender_fault);
            failed_outcome(&entry.build().expect("complete"))
        };
        assert!(matches!(failure("InvalidMessageContents", true), PublishOutcome::Rejected(_)));
        assert!(matches!(failure("InvalidMessageContents", false), PublishOutcome::Rejected(_)));
        assert!(matches!(failure("InternalError", false), PublishOutcome::Retry(_)));
        assert!(matches!(failure("RequestThrottled", true), PublishOutcome::Retry(_)));
        assert!(matches!(failure("KmsAccessDenied", true), PublishOutcome::Retry(_)));
    }
}
