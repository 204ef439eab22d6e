//! Publishing to brokers as the relay does.

use std::ops::Range;

use anyhow::ensure;
use secrecy::SecretString;
use shared::broker::{BrokerConfig, EventSink, PublishOutcome, connect_sink};

use crate::dataset;

/// Events published at a time.
const BATCH: usize = 500;

/// The key of the stream.
pub const STREAM: &str = "events:orders";

/// A sink on this Redis.
pub async fn redis_sink(url: &str) -> anyhow::Result<Box<dyn EventSink>> {
    Ok(connect_sink(&BrokerConfig::RedisStreams { url: SecretString::from(url.to_owned()) }).await?)
}

/// Publishes the creations of these orders, and closes the sink. Fails if the broker does not confirm all.
pub async fn publish_created_events(sink: &dyn EventSink, orders: Range<i64>) -> anyhow::Result<()> {
    let ids: Vec<i64> = orders.collect();
    for ids in ids.chunks(BATCH) {
        let batch = ids
            .iter()
            .map(|id| Ok(dataset::created_event(*id)?.to_envelope()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let outcomes = sink.publish(&batch).await;
        let confirmed = outcomes.iter().all(|outcome| matches!(outcome, PublishOutcome::Confirmed));
        ensure!(confirmed, "the broker did not take the events: {outcomes:?}");
    }
    sink.close().await;
    Ok(())
}
