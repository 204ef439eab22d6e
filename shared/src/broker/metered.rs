//! What every event system is counted by, in one place: a sink and a source around any other.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{counter, histogram};

use super::{
    Backlog, BrokerError, Delivery, EventSink, EventSource, EventSystem, Outcome, PublishOutcome, Settlement,
};
use crate::event::Envelope;

/// Counts what goes through a sink.
#[derive(Debug)]
pub(super) struct MeteredSink(pub(super) Box<dyn EventSink>);

/// Counts what goes through a source.
#[derive(Debug)]
pub(super) struct MeteredSource(pub(super) Box<dyn EventSource>);

/// A lost connection has been replaced; `side` is `sink` or `source`.
pub(super) fn reconnected(system: EventSystem, side: &'static str) {
    counter!("broker_reconnects_total", "system" => system.as_str(), "side" => side).increment(1);
    tracing::info!(system = system.as_str(), side, "connected to the broker again");
}

fn count(name: &'static str, system: EventSystem, events: usize) {
    if events > 0 {
        counter!(name, "system" => system.as_str()).increment(u64::try_from(events).unwrap_or(u64::MAX));
    }
}

#[async_trait]
impl EventSink for MeteredSink {
    fn system(&self) -> EventSystem {
        self.0.system()
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        let start = Instant::now();
        let outcomes = self.0.publish(batch).await;
        let system = self.system();
        histogram!("broker_publish_duration_seconds", "system" => system.as_str()).record(start.elapsed());
        let of = |is: fn(&PublishOutcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
        count("broker_published_total", system, batch.len());
        count("broker_confirmed_total", system, of(|outcome| matches!(outcome, PublishOutcome::Confirmed)));
        count(
            "broker_publish_retries_total",
            system,
            of(|outcome| matches!(outcome, PublishOutcome::Retry(_))),
        );
        count("broker_rejected_total", system, of(|outcome| matches!(outcome, PublishOutcome::Rejected(_))));
        outcomes
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.0.check().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[async_trait]
impl EventSource for MeteredSource {
    fn system(&self) -> EventSystem {
        self.0.system()
    }

    async fn receive(&self, max: usize, wait: Duration) -> Result<Vec<Delivery>, BrokerError> {
        let deliveries = self.0.receive(max, wait).await?;
        let again = deliveries.iter().filter(|delivery| delivery.attempt > 1).count();
        count("broker_received_total", self.system(), deliveries.len());
        count("broker_redelivered_total", self.system(), again);
        Ok(deliveries)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let acks = settlements.iter().filter(|settlement| matches!(settlement.outcome, Outcome::Ack)).count();
        let retries = settlements.len() - acks;
        self.0.settle(settlements).await?;
        count("broker_settled_total", self.system(), acks);
        count("broker_retried_total", self.system(), retries);
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        self.0.backlog().await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.0.check().await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}
