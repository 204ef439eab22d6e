//! Redis Streams as the relay and the worker use them.

use secrecy::SecretString;
use shared::broker::{BrokerConfig, EventSink, connect_sink};

/// The key of the stream.
pub const STREAM: &str = "events:orders";

/// A sink on this Redis.
pub async fn redis_sink(url: &str) -> anyhow::Result<Box<dyn EventSink>> {
    Ok(connect_sink(&BrokerConfig::RedisStreams { url: SecretString::from(url.to_owned()) }).await?)
}
