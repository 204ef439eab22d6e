//! The one place that knows every event system.

use super::{BrokerConfig, BrokerError, EventSink, EventSource};

/// The sink of the chosen event system.
pub async fn connect_sink(config: &BrokerConfig) -> Result<Box<dyn EventSink>, BrokerError> {
    Err(BrokerError::misconfigured(config.system(), "not in this build"))
}

/// The source of the chosen event system. `consumer` names this process among its consumers.
pub async fn connect_source(
    config: &BrokerConfig,
    consumer: &str,
) -> Result<Box<dyn EventSource>, BrokerError> {
    Err(BrokerError::misconfigured(config.system(), format!("not in this build ({consumer})")))
}
