//! Which event system, and its settings: one variant each, read and checked before anything connects.

use std::{fmt, str::FromStr};

use secrecy::SecretString;

use crate::config::{ConfigError, Env, REDIS_SCHEMES};

/// The event systems, as `EVENT_SYSTEM` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventSystem {
    /// `local`: Redis Streams.
    RedisStreams,
    /// `sqs`: Amazon SQS, or LocalStack.
    Sqs,
    /// `rabbitmq`: RabbitMQ.
    RabbitMq,
}

impl EventSystem {
    /// The name in settings, metrics and messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RedisStreams => "local",
            Self::Sqs => "sqs",
            Self::RabbitMq => "rabbitmq",
        }
    }
}

impl fmt::Display for EventSystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventSystem {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::RedisStreams, Self::Sqs, Self::RabbitMq]
            .into_iter()
            .find(|system| system.as_str() == text)
            .ok_or("must be local, sqs or rabbitmq")
    }
}

/// The settings of the chosen event system.
#[derive(Clone, Debug)]
pub enum BrokerConfig {
    /// Redis Streams.
    RedisStreams {
        /// The Redis that holds the stream.
        url: SecretString,
    },
    /// Amazon SQS. Region, endpoint and credentials come by the SDK's default chain.
    Sqs {
        /// The queue's full URL.
        queue_url: String,
        /// The most bytes in one batch, and so in one event.
        max_batch_bytes: usize,
    },
    /// RabbitMQ.
    RabbitMq {
        /// Address, credentials and virtual host.
        url: SecretString,
    },
}

impl BrokerConfig {
    /// Reads `EVENT_SYSTEM` and what the chosen one needs.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(match env.parsed_or("EVENT_SYSTEM", EventSystem::RedisStreams)? {
            EventSystem::RedisStreams => Self::RedisStreams {
                url: match env.url("EVENTS_REDIS_URL", REDIS_SCHEMES)? {
                    Some(url) => url,
                    None => env.required_url("REDIS_URL", REDIS_SCHEMES)?,
                },
            },
            EventSystem::Sqs => {
                Self::Sqs { queue_url: sqs_queue_url(env)?, max_batch_bytes: sqs_max_batch_bytes(env)? }
            }
            EventSystem::RabbitMq => {
                Self::RabbitMq { url: env.required_url("AMQP_URL", &["amqp", "amqps"])? }
            }
        })
    }

    /// Which event system these settings are for.
    pub const fn system(&self) -> EventSystem {
        match self {
            Self::RedisStreams { .. } => EventSystem::RedisStreams,
            Self::Sqs { .. } => EventSystem::Sqs,
            Self::RabbitMq { .. } => EventSystem::RabbitMq,
        }
    }
}

fn sqs_queue_url(env: &Env) -> Result<String, ConfigError> {
    let url = env.required("SQS_QUEUE_URL")?;
    if url.starts_with("http://") || url.starts_with("https://") {
        Ok(url.to_owned())
    } else {
        Err(ConfigError::new(
            "SQS_QUEUE_URL",
            "must be the queue's full URL, beginning with http:// or https://",
        ))
    }
}

/// What LocalStack takes; AWS takes up to 1 MiB.
fn sqs_max_batch_bytes(env: &Env) -> Result<usize, ConfigError> {
    let bytes = env.number_or("SQS_MAX_BATCH_BYTES", 256 * 1024, 1024..=1024 * 1024)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}
