//! The metrics of every event system: a sink and a source that wrap those of any backend.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use metrics::{counter, histogram};

use super::{
    Backlog, BrokerError, Delivery, EventSink, EventSource, EventSystem, PublishOutcome, Settlement,
    SettlementKind,
};
use crate::domain::{event::Envelope, tenant::TenantId};

/// Counts the events that go through a sink.
#[derive(Debug)]
pub(super) struct MeteredSink(pub(super) Box<dyn EventSink>);

/// Counts the events that go through a source.
#[derive(Debug)]
pub(super) struct MeteredSource(pub(super) Box<dyn EventSource>);

/// Records that a lost connection has been replaced; `side` is `sink` or `source`.
pub(super) fn record_reconnect(system: EventSystem, side: &'static str) {
    counter!("broker_reconnects_total", "broker" => system.as_str(), "side" => side).increment(1);
    tracing::info!(broker = system.as_str(), side, "connected to the broker again");
}

fn count_events(name: &'static str, system: EventSystem, events: usize) {
    if events > 0 {
        counter!(name, "broker" => system.as_str()).increment(u64::try_from(events).unwrap_or(u64::MAX));
    }
}

impl MeteredSink {
    async fn count_outcomes(
        &self,
        publishing: impl Future<Output = Vec<PublishOutcome>>,
    ) -> Vec<PublishOutcome> {
        let start = Instant::now();
        let outcomes = publishing.await;
        let system = self.system();
        histogram!("broker_publish_duration_seconds", "broker" => system.as_str()).record(start.elapsed());
        let number_of =
            |is: fn(&PublishOutcome) -> bool| outcomes.iter().filter(|outcome| is(outcome)).count();
        count_events("broker_published_total", system, outcomes.len());
        count_events(
            "broker_confirmed_total",
            system,
            number_of(|outcome| matches!(outcome, PublishOutcome::Confirmed)),
        );
        count_events(
            "broker_publish_retries_total",
            system,
            number_of(|outcome| matches!(outcome, PublishOutcome::Retry(_))),
        );
        count_events(
            "broker_rejected_total",
            system,
            number_of(|outcome| matches!(outcome, PublishOutcome::Rejected(_))),
        );
        outcomes
    }
}

#[async_trait]
impl EventSink for MeteredSink {
    fn system(&self) -> EventSystem {
        self.0.system()
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.count_outcomes(self.0.publish(batch)).await
    }

    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        self.count_outcomes(self.0.republish(batch)).await
    }

    fn takeovers(&self) -> u64 {
        self.0.takeovers()
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
        count_events("broker_received_total", self.system(), deliveries.len());
        count_events("broker_redelivered_total", self.system(), again);
        Ok(deliveries)
    }

    async fn settle(&self, settlements: Vec<Settlement>) -> Result<(), BrokerError> {
        let acks =
            settlements.iter().filter(|settlement| matches!(settlement.outcome, SettlementKind::Ack)).count();
        let retries = settlements.len() - acks;
        self.0.settle(settlements).await?;
        count_events("broker_settled_total", self.system(), acks);
        count_events("broker_retried_total", self.system(), retries);
        Ok(())
    }

    async fn backlog(&self) -> Result<Backlog, BrokerError> {
        self.0.backlog().await
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.0.check().await
    }

    async fn forget_tenant(&self, tenant: TenantId) -> Result<usize, BrokerError> {
        self.0.forget_tenant(tenant).await
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;
    use uuid::Uuid;

    use super::*;
    use crate::broker::{MAX_EVENT_BYTES, contract::Bench as _, redis_streams::tests::RedisBench};

    /// On one thread, because the recorder belongs to the thread.
    #[tokio::test]
    async fn events_through_a_broker_are_counted_under_its_name() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let _guard = metrics::set_default_local_recorder(&recorder);
        let bench = RedisBench::start().await;
        let sink = MeteredSink(bench.sink().await);
        let source = MeteredSource(bench.source("one").await);
        let event = |body: String| Envelope {
            id: Uuid::now_v7(),
            event_type: "OrderCreated".to_owned(),
            key: 1,
            sequence: 1,
            position: None,
            body,
        };
        let batch = [event("1".into()), event("x".repeat(MAX_EVENT_BYTES + 1)), event("2".into())];
        let _answered = sink.publish(&batch).await;
        let mut received = Vec::new();
        while received.len() < 2 {
            received.extend(source.receive(2, Duration::from_secs(5)).await.expect("received"));
        }
        let retried = received.pop().expect("two came").retry(Duration::ZERO);
        let settlements = received.into_iter().map(Delivery::ack).chain([retried]).collect();
        source.settle(settlements).await.expect("settled");

        let metrics = recorder.handle().render();
        for (name, count) in [
            ("broker_published_total", 3),
            ("broker_confirmed_total", 2),
            ("broker_rejected_total", 1),
            ("broker_received_total", 2),
            ("broker_settled_total", 1),
            ("broker_retried_total", 1),
            ("broker_publish_duration_seconds_count", 1),
        ] {
            let line = format!("{name}{{broker=\"local\"}} {count}");
            assert!(metrics.lines().any(|seen| seen == line), "{line} is not in:\n{metrics}");
        }
    }
}
