//! The settings of the event system: one variant for each, checked before anything connects.

use std::{fmt, str::FromStr};

use secrecy::SecretString;

use crate::platform::{
    config::{ConfigError, Env, UrlKind},
    redis,
};

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
    /// The name in settings and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RedisStreams => "local",
            Self::Sqs => "sqs",
            Self::RabbitMq => "rabbitmq",
        }
    }

    /// The product name, for messages.
    pub const fn product(self) -> &'static str {
        match self {
            Self::RedisStreams => "Redis Streams (EVENT_SYSTEM=local)",
            Self::Sqs => "SQS",
            Self::RabbitMq => "RabbitMQ",
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
    /// Amazon SQS. Region, endpoint and credentials come from the SDK's default chain.
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
    /// Reads `EVENT_SYSTEM` and the settings of the chosen system. The addresses of the others are checked too if they are
    /// set, so that a mistake is found before the systems are switched.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let events_redis_url = env.url("EVENTS_REDIS_URL", UrlKind::Redis)?;
        let amqp_url = env.url("AMQP_URL", UrlKind::Amqp)?;
        let queue_url = sqs_queue_url(env)?;
        let max_batch_bytes = sqs_max_batch_bytes(env)?;
        let missing = |name| ConfigError::new(name, "is required but not set");
        Ok(match env.parsed_or("EVENT_SYSTEM", EventSystem::RedisStreams)? {
            EventSystem::RedisStreams => Self::RedisStreams {
                url: match events_redis_url {
                    Some(url) => url,
                    None => env.required_url("REDIS_URL", UrlKind::Redis)?,
                },
            },
            EventSystem::Sqs => {
                Self::Sqs { queue_url: queue_url.ok_or_else(|| missing("SQS_QUEUE_URL"))?, max_batch_bytes }
            }
            EventSystem::RabbitMq => Self::RabbitMq { url: amqp_url.ok_or_else(|| missing("AMQP_URL"))? },
        })
    }

    /// Checks, at the start, what only the server can say: see [`redis::check_url`].
    pub async fn check_server(&self) -> Result<(), ConfigError> {
        let Self::RedisStreams { url } = self else { return Ok(()) };
        redis::check_url(url).await.map_err(|problem| ConfigError::new("EVENTS_REDIS_URL", problem))
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

fn sqs_queue_url(env: &Env) -> Result<Option<String>, ConfigError> {
    // The SDK reads this variable, but finds a mistake only in the first call.
    env.http_url("AWS_ENDPOINT_URL")?;
    let Some(url) = env.http_url("SQS_QUEUE_URL")? else { return Ok(None) };
    let name = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default();
    if name.is_empty() || url.query().is_some() {
        return Err(ConfigError::new(
            "SQS_QUEUE_URL",
            "must be the queue's full URL, which ends with its name",
        ));
    }
    Ok(env.text("SQS_QUEUE_URL").map(str::to_owned))
}

/// The default is the limit of LocalStack; that of AWS is 1 MiB.
fn sqs_max_batch_bytes(env: &Env) -> Result<usize, ConfigError> {
    let bytes = env.number_or("SQS_MAX_BATCH_BYTES", 256 * 1024, 1024..=1024 * 1024)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}
