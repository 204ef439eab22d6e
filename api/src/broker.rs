//! The broker as the API sees it: there from the first moment, whether or not it can be reached or is set up yet.

use async_trait::async_trait;
use shared::{
    broker::{BrokerConfig, BrokerError, EventSink, EventSystem, PublishOutcome, connect_sink},
    domain::event::Envelope,
};
use tokio::sync::OnceCell;

/// A sink that connects when first used, and again until it succeeds.
///
/// A queue that an operator has yet to create must not keep the API from taking orders: events wait in the outbox.
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

    async fn sink(&self) -> Result<&dyn EventSink, BrokerError> {
        let sink = self.sink.get_or_try_init(|| connect_sink(&self.config)).await?;
        Ok(sink.as_ref())
    }

    /// The answer while there is no sink.
    fn later(&self, batch: &[Envelope], error: &BrokerError) -> Vec<PublishOutcome> {
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
        match self.sink().await {
            Ok(sink) => sink.publish(batch).await,
            Err(error) => self.later(batch, &error),
        }
    }

    async fn republish(&self, batch: &[Envelope]) -> Vec<PublishOutcome> {
        match self.sink().await {
            Ok(sink) => sink.republish(batch).await,
            Err(error) => self.later(batch, &error),
        }
    }

    async fn check(&self) -> Result<(), BrokerError> {
        self.sink().await?.check().await
    }

    async fn close(&self) {
        if let Some(sink) = self.sink.get() {
            sink.close().await;
        }
    }
}
