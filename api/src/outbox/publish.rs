//! Sending a batch and sorting what became of it.

use std::sync::Arc;

use shared::{
    broker::{BrokerError, EventSink, PublishOutcome},
    domain::event::Envelope,
    platform::db::{DbError, DbPool},
};
use tokio::time::Instant;

use super::{cursor::Logged, metrics};

/// Sends events and sets aside those that the broker refuses for good.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) pool: DbPool,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// Stored by the broker.
    pub(super) confirmed: u64,
    /// In `dead_letters` now.
    pub(super) rejected: u64,
    /// To be sent again, in the order of the log.
    pub(super) unconfirmed: Vec<Logged>,
    /// Why the first of those is not confirmed.
    pub(super) trouble: Option<BrokerError>,
}

impl Publisher {
    /// Sends a batch in the order given.
    pub(super) async fn send(&self, batch: Vec<Logged>) -> Result<Sent, DbError> {
        let started = Instant::now();
        let outcomes = self.sink.publish(&envelopes(&batch)).await;
        self.sort(batch, outcomes, started).await
    }

    /// The same for what the broker has had before, and has lost.
    pub(super) async fn send_again(&self, batch: Vec<Logged>) -> Result<Sent, DbError> {
        let started = Instant::now();
        let outcomes = self.sink.republish(&envelopes(&batch)).await;
        self.sort(batch, outcomes, started).await
    }

    async fn sort(
        &self,
        batch: Vec<Logged>,
        outcomes: Vec<PublishOutcome>,
        started: Instant,
    ) -> Result<Sent, DbError> {
        metrics::record_publish_duration(self.sink.system(), started.elapsed());

        let mut sent = Sent::default();
        // A sink that answers for fewer events than it was given has not confirmed the others.
        let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (event, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Some(PublishOutcome::Confirmed) => sent.confirmed += 1,
                Some(PublishOutcome::Rejected(reason)) => {
                    self.set_aside(&event, &reason).await?;
                    sent.rejected += 1;
                }
                Some(PublishOutcome::Retry(error)) => {
                    sent.trouble.get_or_insert(error);
                    sent.unconfirmed.push(event);
                }
                None => sent.unconfirmed.push(event),
            }
        }
        let unconfirmed = sent.unconfirmed.len() as u64;
        metrics::count_batch(self.sink.system(), sent.confirmed, sent.rejected, unconfirmed);
        Ok(sent)
    }

    /// Notes an event that the broker refuses for good, so that the log can go on without it.
    async fn set_aside(&self, event: &Logged, reason: &str) -> Result<(), DbError> {
        let Logged { envelope, .. } = event;
        let broker = self.sink.system().as_str();
        let statement = sqlx::query!(
            "INSERT INTO dead_letters (event_id, event_type, order_id, version, body, source, reason, attempts, broker)
             VALUES ($1, $2, $3, $4, $5, 'publish', $6, 1, $7)
             ON CONFLICT (source, sha256(body)) DO UPDATE
             SET attempts = dead_letters.attempts + 1, reason = excluded.reason, broker = excluded.broker,
                 failed_at = clock_timestamp(), redriven_at = NULL",
            envelope.id,
            envelope.event_type,
            envelope.key,
            envelope.sequence,
            envelope.body.as_bytes(),
            reason,
            broker
        );
        self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        tracing::warn!(
            event.id = %envelope.id,
            event.r#type = envelope.event_type,
            order.id = envelope.key,
            version = envelope.sequence,
            broker,
            reason,
            "the broker refused an event for good: it is a dead letter now"
        );
        Ok(())
    }
}

fn envelopes(batch: &[Logged]) -> Vec<Envelope> {
    batch.iter().map(|event| event.envelope.clone()).collect()
}
