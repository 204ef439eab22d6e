//! Chooses the event system. This is the only place that knows all of them.

use super::{
    BrokerConfig, BrokerError, EventSink, EventSource,
    metered::{MeteredSink, MeteredSource},
    rabbitmq::{RabbitMqOptions, RabbitMqSink, RabbitMqSource},
    redis_streams::{RedisStreamsOptions, RedisStreamsSink, RedisStreamsSource},
    sqs::{SqsOptions, SqsSink, SqsSource},
};

/// The sink of the chosen event system.
///
/// Succeeds if the broker cannot be reached: the sink connects when the broker is back, and returns
/// [`PublishOutcome::Retry`](super::PublishOutcome::Retry) until then. Fails if the broker is not set up as needed.
pub async fn connect_sink(config: &BrokerConfig) -> Result<Box<dyn EventSink>, BrokerError> {
    let sink: Box<dyn EventSink> = match config {
        BrokerConfig::RedisStreams { url } => {
            Box::new(RedisStreamsSink::connect(&RedisStreamsOptions::new(url.clone())).await?)
        }
        BrokerConfig::RabbitMq { url } => {
            Box::new(RabbitMqSink::connect(&RabbitMqOptions::new(url.clone())).await?)
        }
        BrokerConfig::Sqs { queue_url, max_batch_bytes } => {
            Box::new(SqsSink::connect(&sqs_options(queue_url, *max_batch_bytes)).await?)
        }
    };
    Ok(Box::new(MeteredSink(sink)))
}

/// The source of the chosen event system. `consumer` names this process among its consumers.
///
/// As with [`connect_sink`], it succeeds if the broker cannot be reached.
pub async fn connect_source(
    config: &BrokerConfig,
    consumer: &str,
) -> Result<Box<dyn EventSource>, BrokerError> {
    let source: Box<dyn EventSource> = match config {
        BrokerConfig::RedisStreams { url } => {
            Box::new(RedisStreamsSource::connect(RedisStreamsOptions::new(url.clone()), consumer).await?)
        }
        BrokerConfig::RabbitMq { url } => {
            Box::new(RabbitMqSource::connect(RabbitMqOptions::new(url.clone()), consumer).await?)
        }
        BrokerConfig::Sqs { queue_url, max_batch_bytes } => {
            Box::new(SqsSource::connect(sqs_options(queue_url, *max_batch_bytes)).await?)
        }
    };
    Ok(Box::new(MeteredSource(source)))
}

fn sqs_options(queue_url: &str, max_batch_bytes: usize) -> SqsOptions {
    SqsOptions { max_batch_bytes, ..SqsOptions::new(queue_url) }
}
