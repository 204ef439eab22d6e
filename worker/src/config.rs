//! The worker's settings: read and checked before anything connects.

use std::{net::SocketAddr, time::Duration};

use rand::Rng as _;
use secrecy::SecretString;
use shared::{
    broker::BrokerConfig,
    platform::{
        config::{ConfigError, Env, UrlKind},
        telemetry::TelemetryConfig,
    },
};

/// The settings of the worker, from its environment.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// PostgreSQL: the history, the dead letters, and for commands the orders and their log.
    pub database_url: SecretString,
    /// Connections of the pool.
    pub database_max_connections: u32,
    /// Redis with the cache.
    pub redis_url: SecretString,
    /// How long a cached order lives.
    pub cache_ttl: Duration,
    /// Where events come from.
    pub broker: BrokerConfig,
    /// The name of this consumer: host, process id, and a random part.
    pub consumer: String,
    /// How many batches are in flight at the same time.
    pub concurrency: usize,
    /// How many events a batch has at most; fewer if they are large.
    pub batch_size: usize,
    /// After how many attempts an event becomes a dead letter.
    pub max_attempts: u32,
    /// The address of health checks and metrics.
    pub metrics: SocketAddr,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

impl WorkerConfig {
    /// Reads and checks all settings.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            database_url: env.required_url("DATABASE_URL", UrlKind::Postgres)?,
            database_max_connections: small_number(env, "DATABASE_MAX_CONNECTIONS", 16, 1000)?,
            redis_url: env.required_url("REDIS_URL", UrlKind::Redis)?,
            cache_ttl: Duration::from_secs(env.number_or("CACHE_TTL_SECONDS", 3600, 1..=31_536_000)?),
            broker: BrokerConfig::from_env(env)?,
            consumer: consumer_name(env),
            concurrency: small_number(env, "WORKER_CONCURRENCY", 4, 256)?,
            batch_size: small_number(env, "WORKER_BATCH_SIZE", 250, 1000)?,
            max_attempts: small_number(env, "EVENT_MAX_ATTEMPTS", 5, 1000)?,
            metrics: env.metrics_addr(9091)?,
            telemetry: TelemetryConfig::from_env(env)?.named("orders-worker"),
        })
    }
}

/// A number from 1 to `most`.
fn small_number<T: TryFrom<u64>>(
    env: &Env,
    name: &'static str,
    default: u64,
    most: u64,
) -> Result<T, ConfigError> {
    let number = env.number_or(name, default, 1..=most)?;
    T::try_from(number).map_err(|_| ConfigError::new(name, format!("{number} is too large")))
}

/// Unique per process, also for two containers that share a host name and a process id, and readable for operators.
fn consumer_name(env: &Env) -> String {
    let host = env.text("HOSTNAME").map(str::to_owned).or_else(|| {
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
        Some(name.trim().to_owned()).filter(|name| !name.is_empty())
    });
    let host = host.as_deref().unwrap_or("worker");
    format!("{host}-{}-{:08x}", std::process::id(), rand::rng().random::<u32>())
}
