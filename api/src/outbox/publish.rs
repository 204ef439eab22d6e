//! Publishes a batch and classifies the outcomes.

use std::sync::Arc;

use shared::{
    broker::{BrokerError, EventSink, PublishOutcome},
    domain::event::{Envelope, find_tenant},
    platform::db::{DbError, DbPool},
};
use tokio::time::Instant;

use super::{log::LoggedEvent, metrics};

/// Publishes events, and stores those that the broker rejects as dead letters.
#[derive(Clone, Debug)]
pub(super) struct Publisher {
    pub(super) sink: Arc<dyn EventSink>,
    pub(super) pool: DbPool,
}

/// The result of publishing a batch.
#[derive(Debug, Default)]
pub(super) struct PublishResult {
    /// How many events the broker has stored.
    pub(super) confirmed: u64,
    /// How many events are in `dead_letters` now.
    pub(super) rejected: u64,
    /// The events that must be published again, in the order of the log.
    pub(super) unconfirmed: Vec<LoggedEvent>,
    /// Why the first of these is not confirmed.
    pub(super) first_error: Option<BrokerError>,
}

impl Publisher {
    /// Publishes a batch in the given order.
    pub(super) async fn publish_batch(&self, batch: Vec<LoggedEvent>) -> Result<PublishResult, DbError> {
        let started = Instant::now();
        let outcomes = self.sink.publish(&envelopes(&batch)).await;
        self.classify(batch, outcomes, started).await
    }

    /// Publishes a batch that the broker had before and has lost.
    pub(super) async fn republish_batch(&self, batch: Vec<LoggedEvent>) -> Result<PublishResult, DbError> {
        let started = Instant::now();
        let outcomes = self.sink.republish(&envelopes(&batch)).await;
        self.classify(batch, outcomes, started).await
    }

    async fn classify(
        &self,
        batch: Vec<LoggedEvent>,
        outcomes: Vec<PublishOutcome>,
        started: Instant,
    ) -> Result<PublishResult, DbError> {
        metrics::record_publish_duration(self.sink.system(), started.elapsed());

        let mut result = PublishResult::default();
        // An event without an outcome is not confirmed.
        let outcomes = outcomes.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
        for (event, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                Some(PublishOutcome::Confirmed) => result.confirmed += 1,
                Some(PublishOutcome::Rejected(reason)) => {
                    self.dead_letter(&event, &reason).await?;
                    result.rejected += 1;
                }
                Some(PublishOutcome::Retry(error)) => {
                    result.first_error.get_or_insert(error);
                    result.unconfirmed.push(event);
                }
                None => result.unconfirmed.push(event),
            }
        }
        let unconfirmed = result.unconfirmed.len() as u64;
        metrics::count_batch(self.sink.system(), result.confirmed, result.rejected, unconfirmed);
        Ok(result)
    }

    /// Stores an event that the broker rejects, so that the relay can continue without it.
    async fn dead_letter(&self, event: &LoggedEvent, reason: &str) -> Result<(), DbError> {
        let LoggedEvent { envelope, .. } = event;
        let broker = self.sink.system().as_str();
        let statement = sqlx::query!(
            "INSERT INTO dead_letters
                 (event_id, event_type, order_id, version, body, source, reason, attempts, broker, tenant_id)
             SELECT $1::uuid, $2::text, $3::bigint, $4::bigint, $5::bytea, 'publish', $6::text, 1, $7::text, $8::integer
             -- Nothing is left of a tenant that was removed. Tenant 1 cannot be.
             WHERE $8 = 1 OR EXISTS (SELECT FROM tenants t WHERE t.id = $8 AND t.removal_began_at IS NULL)
             ON CONFLICT (source, sha256(body)) DO UPDATE
             SET attempts = dead_letters.attempts + 1, reason = excluded.reason, broker = excluded.broker,
                 failed_at = clock_timestamp(), redriven_at = NULL",
            envelope.id,
            envelope.event_type,
            envelope.key,
            envelope.sequence,
            envelope.body.as_bytes(),
            reason,
            broker,
            find_tenant(envelope.body.as_bytes()).unwrap_or_default().get()
        );
        self.pool.run_once(|mut db| async move { statement.execute(&mut *db).await }).await?;
        tracing::warn!(
            event.id = %envelope.id,
            event.r#type = envelope.event_type,
            order.id = envelope.key,
            version = envelope.sequence,
            broker,
            reason,
            "the broker rejected an event: it is a dead letter now"
        );
        Ok(())
    }
}

fn envelopes(batch: &[LoggedEvent]) -> Vec<Envelope> {
    batch.iter().map(|event| event.envelope.clone()).collect()
}
