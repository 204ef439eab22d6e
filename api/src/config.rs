//! The API's settings, read and checked before anything connects.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use secrecy::SecretString;
use shared::{
    broker::BrokerConfig,
    platform::{
        config::{ConfigError, Env, UrlKind},
        telemetry::TelemetryConfig,
    },
};

use crate::{
    auth::AuthConfig,
    feed::FeedSettings,
    http::{extract::BodyLimits, layer::Origins, orders::bulk_limits::BulkConfig, server::ServerLimits},
    limits::RateLimits,
};

/// How long a request can take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// All settings of `api serve`.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// PostgreSQL for everything that must be current.
    pub database_url: SecretString,
    /// A read replica for list and history; it can lag.
    pub database_read_url: Option<SecretString>,
    /// Connections of each pool.
    pub database_max_connections: u32,
    /// Redis for the cache, sessions and rate limits.
    pub redis_url: SecretString,
    /// The broker of events.
    pub broker: BrokerConfig,
    /// How long a cached order lives.
    pub cache_ttl: Duration,
    /// Days before today for which events can be read from the log.
    pub event_retention_days: i32,
    /// The public address.
    pub listen: SocketAddr,
    /// The operators' address.
    pub metrics: SocketAddr,
    /// Test login, readable logs.
    pub debug: bool,
    /// Logs.
    pub telemetry: TelemetryConfig,
    /// Authentication.
    pub auth: AuthConfig,
    /// Requests and connections.
    pub http: HttpConfig,
    /// The event feed.
    pub feed: FeedSettings,
}

/// Settings of requests and connections.
#[derive(Clone, Debug, Default)]
pub struct HttpConfig {
    /// Proxies in front that append to `X-Forwarded-For`.
    pub trusted_proxies: usize,
    /// A request that takes longer fails with 504.
    pub request_timeout: Duration,
    /// Limits of connections.
    pub server: ServerLimits,
    /// Limits of request bodies.
    pub bodies: BodyLimits,
    /// How many exports, imports and batches run at a time.
    pub bulk: BulkConfig,
    /// Pages that can call from a browser.
    pub origins: Origins,
    /// How many requests a customer or an address can send.
    pub rate_limits: RateLimits,
}

impl HttpConfig {
    fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let trusted_proxies = env.number_or("TRUSTED_PROXIES", 0, 0..=16)?;
        let trusted_proxies = usize::try_from(trusted_proxies).unwrap_or(0);
        Ok(Self {
            trusted_proxies,
            request_timeout: REQUEST_TIMEOUT,
            server: ServerLimits::behind(trusted_proxies),
            bodies: BodyLimits::default(),
            bulk: BulkConfig::default(),
            origins: Origins::from_env(env)?,
            rate_limits: RateLimits::from_env(env)?,
        })
    }
}

impl ApiConfig {
    /// Reads and checks all settings.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let database_url = env.required_url("DATABASE_URL", UrlKind::Postgres)?;
        let debug = env.flag("DEBUG")?;
        // With the test login everyone can be an admin, so other machines reach it only if an operator sets HOST.
        let host = if debug { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
        let host = env.expected_or("HOST", "an IP address, such as 127.0.0.1 or ::", IpAddr::from(host))?;
        let port = env.expected_or("PORT", "a port from 0 to 65535", 8000)?;
        Ok(Self {
            database_read_url: env.url("DATABASE_READ_URL", UrlKind::PostgresReplica)?,
            database_url,
            database_max_connections: u32::try_from(env.number_or(
                "DATABASE_MAX_CONNECTIONS",
                16,
                1..=1000,
            )?)
            .unwrap_or(16),
            redis_url: env.required_url("REDIS_URL", UrlKind::Redis)?,
            broker: BrokerConfig::from_env(env)?,
            cache_ttl: Duration::from_secs(env.number_or("CACHE_TTL_SECONDS", 3600, 1..=31_536_000)?),
            event_retention_days: i32::try_from(env.number_or("EVENT_RETENTION_DAYS", 14, 1..=90)?)
                .unwrap_or(14),
            listen: SocketAddr::new(host, port),
            metrics: env.metrics_addr(9090)?,
            debug,
            telemetry: TelemetryConfig::from_env(env)?.named("orders-api"),
            auth: AuthConfig::from_env(env, debug)?,
            http: HttpConfig::from_env(env)?,
            feed: FeedSettings::default(),
        })
    }
}
