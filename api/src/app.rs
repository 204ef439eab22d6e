//! Builds the parts of the API and starts them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    broker::EventSink,
    cache::Cache,
    domain::clock::Clock,
    platform::{
        db::{DbPool, PoolSettings, Servers},
        redis::Redis,
        service,
        shutdown::Shutdown,
    },
};
use tokio::net::TcpListener;

use crate::{
    auth::Auth,
    broker::LazySink,
    config::ApiConfig,
    feed::{Feed, FeedConfig},
    http::{
        health::{
            monitor::{HealthDependencies, HealthMonitor},
            operators::Operators,
        },
        orders::bulk_limits::BulkLimits,
        router::router,
        server,
    },
    limits::RateLimiter,
    orders::{Orders, ReadDb},
    outbox::{PartitionSettings, Relay, RelaySettings, Wake},
    state::{AppState, StateParts},
    tenants::Tenants,
};

/// Open files beside the clients' and the pools' connections: Redis, broker, metrics, logs, password checks.
const OTHER_OPEN_FILES: usize = 128;
/// How long any response can wait for Redis; then PostgreSQL answers.
const CACHE_DEADLINE: Duration = Duration::from_millis(50);
/// Connections for health and metrics, apart from those of requests.
const HEALTH_CONNECTIONS: u32 = 3;

/// A running API.
pub struct App {
    /// Where it listens. For port 0 of the settings this has the port that was free.
    pub addr: SocketAddr,
    /// The state of its handlers.
    pub state: AppState,
}

impl App {
    /// Builds everything and starts to serve. `shutdown` ends it and tracks all its tasks.
    ///
    /// No dependency needs to be up: the API connects to it when it is.
    pub async fn start(mut config: ApiConfig, clock: Clock, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let pools = if config.database_read_url.is_some() { 3 } else { 2 };
        let pooled = pools * usize::try_from(config.database_max_connections).unwrap_or(usize::MAX / 4);
        let connections = &mut config.http.server.connections;
        *connections = server::fit_connections(*connections, pooled + OTHER_OPEN_FILES);
        let state = build_state(config, clock, shutdown)?;
        shutdown.spawn(server::serve(
            listener,
            router(state.clone()),
            state.config.http.server,
            shutdown.clone(),
        ));
        tracing::info!(%addr, "listening");
        if state.config.auth.test_login {
            tracing::warn!(%addr, "DEBUG=true: login-test gives a token of any role and tenant to everyone who can reach this address");
        }
        Ok(Self { addr, state })
    }
}

/// Serves the operators' port. It is called before [`App::start`], so that a client that finds the API finds this port too.
pub async fn serve_operators(
    address: SocketAddr,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> anyhow::Result<Operators> {
    let operators = Operators::default();
    service::serve(address, operators.router(metrics.clone()), shutdown)
        .await
        .with_context(|| format!("METRICS_ADDR: cannot listen on {address}"))?;
    shutdown.spawn_restarting("upkeep of metrics", move |until| service::upkeep(metrics.clone(), until));
    Ok(operators)
}

/// Builds the state, with pools that connect when they are first used.
fn build_state(config: ApiConfig, clock: Clock, shutdown: &Shutdown) -> anyhow::Result<AppState> {
    let connections = config.database_max_connections;
    let servers = Servers::primary(&config.database_url).context("DATABASE_URL")?;
    let db = DbPool::new(servers, PoolSettings::new("api", connections));
    let redis = Redis::new(&config.redis_url).context("REDIS_URL")?;
    let sink: Arc<dyn EventSink> = Arc::new(LazySink::new(config.broker.clone()));
    let wake = Wake::default();
    let cache = Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE).context("REDIS_URL")?;
    let read_db = ReadDb::start(&db, config.database_read_url.as_ref(), connections, shutdown)?;
    let orders = Orders::start(&db, read_db, cache, &clock, &wake, config.http.bulk.exports.total, shutdown);
    let partitions =
        PartitionSettings { retention: config.event_retention_days, ..PartitionSettings::default() };
    let relay_settings = RelaySettings { partitions, ..RelaySettings::default() };
    let relay = Relay::start(relay_settings, &db, Arc::clone(&sink), wake.clone(), shutdown);
    let feed_config = FeedConfig { auth: &config.auth, settings: config.feed, sequenced: relay.sequenced() };
    let feed = Feed::start(&db, redis.clone(), feed_config, shutdown);
    let tenants = Tenants::start(&db, shutdown);
    let dependencies = HealthDependencies {
        db: db.sibling(PoolSettings::new("health", HEALTH_CONNECTIONS)),
        read_db: orders.read_db(),
        writes: orders.write_outcomes(),
        // Also says if cached orders cannot be used, because it is not certain that the server still is the primary.
        redis: redis.clone().guarded(),
        sink: Arc::clone(&sink),
        relay,
    };
    Ok(AppState::new(StateParts {
        rate_limiter: Arc::new(RateLimiter::new(config.http.rate_limits, redis.clone(), clock.clone())),
        auth: Auth::new(&config.auth, redis.clone(), tenants.clone()).context("JWT_JWKS_URL")?,
        health: Arc::new(HealthMonitor::new(dependencies, clock.clone(), shutdown.clone())),
        bulk: BulkLimits::new(config.http.bulk),
        shutdown: shutdown.clone(),
        tenants,
        orders,
        feed,
        wake,
        config,
        clock,
        db,
        redis,
        sink,
    }))
}
