//! The sink of the API, which exists from the start even if the broker cannot be reached or is not set up yet.

use async_trait::async_trait;
use shared::{
    broker::{BrokerConfig, BrokerError, EventSink, EventSystem, PublishOutcome, connect_sink},
    domain::event::Envelope,
};
use tokio::sync::OnceCell;

/// A sink that connects when first used, and tries again until it succeeds.
///
/// If an operator has not created the queue yet, the API still takes orders: events wait in the outbox.
#[derive(Debug)]
pub struct LazySink {
    config: BrokerConfig,
    sink: OnceCell<Box<dyn EventSink>>,
}

impl LazySink {
    /// A sink for the chosen event system.
    pub fn new(config: BrokerConfig) -> Self {
        Self { config, sink: OnceCell::new() }
    }

    async fn get_or_connect(&self) -> Result<&dyn EventSink, BrokerError> {
        let sink = self.sink.get_or_try_init(|| connect_sink(&self.config)).await?;
        Ok(sink.as_ref())
    }

    /// The outcomes while there is no connection.
    fn retry_all(&self, batch: &[Envelope], error: &BrokerError) -> Vec<PublishOutcome> {
        let retry = |_| PublishOutcome::Retry(BrokerError::unavailable(self.system(), error));
        batch.iter().map(retry).collect()
    }
}

#[async_trait]
impl EventSink for LazySink {
    fn system(&self) -> EventSystem {
        self.config.system()
    }

    async fn publish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        match self.get_or_connect().await {
            Ok(sink) => sink.publish(batch).await,
            Err(error) => self.retry_all(batch, &error),
        }
    }

    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        match self.get_or_connect().await {
            Ok(sink) => sink.republish(batch).await,
            Err(error) => self.retry_all(batch, &error),
        }
    }

    fn takeovers(&self) -> u64 {
        self.sink.get().map_or(0, |sink| sink.takeovers())
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.get_or_connect().await?.check().await
    }

    async fn close(&self) {
        if let Some(sink) = self.sink.get() {
            sink.close().await;
        }
    }
}
