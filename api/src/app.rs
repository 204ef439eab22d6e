//! Putting the parts together and running them.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use shared::{
    broker::EventSink,
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
    http::{
        health::{Health, Operators, Watched},
        router::router,
        server,
    },
    limits::Limits,
    orders::Orders,
    outbox::{Relay, Wake},
    state::{AppState, State},
};

/// Open files beside the clients' and the pools' connections: Redis, broker, metrics, logs, password checks.
const OTHER_OPEN_FILES: usize = 128;
/// For the questions of health and metrics, apart from those of requests.
const HEALTH_CONNECTIONS: u32 = 3;

/// A running API.
pub struct App {
    /// Where it listens; the port is the one that was free, where the settings ask for port 0.
    pub addr: SocketAddr,
    /// What its handlers use.
    pub state: AppState,
}

impl App {
    /// Builds everything and begins to serve. Ends with `shutdown`, which tracks all it runs.
    ///
    /// No dependency needs to be up: those that are missing are connected to when they are back.
    pub async fn start(mut config: ApiConfig, clock: Clock, shutdown: &Shutdown) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .await
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener.local_addr()?;
        let pools = if config.database_read_url.is_some() { 3 } else { 2 };
        let pooled = pools * usize::try_from(config.database_max_connections).unwrap_or(usize::MAX / 4);
        let connections = &mut config.http.server.connections;
        *connections = server::fit_connections(*connections, pooled + OTHER_OPEN_FILES);
        let state = connect(config, clock, shutdown)?;
        shutdown.spawn(server::serve(
            listener,
            router(state.clone()),
            state.config.http.server,
            shutdown.clone(),
        ));
        tracing::info!(%addr, "listening");
        if state.config.auth.test_login {
            tracing::warn!(%addr, "DEBUG=true: login-test gives an admin's token to everyone who can reach this address");
        }
        Ok(Self { addr, state })
    }
}

/// Serves the operators' port: before the API itself, so that whoever sees the one finds the other.
pub async fn serve_operators(
    address: SocketAddr,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> anyhow::Result<Operators> {
    let operators = Operators::default();
    service::serve(address, operators.router(metrics.clone()), shutdown)
        .await
        .with_context(|| format!("METRICS_ADDR: cannot listen on {address}"))?;
    shutdown.spawn(service::upkeep(metrics, shutdown.clone()));
    Ok(operators)
}

/// The state, with pools that connect when first used.
fn connect(config: ApiConfig, clock: Clock, shutdown: &Shutdown) -> anyhow::Result<AppState> {
    let connections = config.database_max_connections;
    let servers = Servers::primary(&config.database_url).context("DATABASE_URL")?;
    let db = DbPool::new(servers, PoolSettings::new("api", connections));
    let redis = Redis::new(&config.redis_url).context("REDIS_URL")?;
    let sink: Arc<dyn EventSink> = Arc::new(LazySink::new(config.broker.clone()));
    let wake = Wake::default();
    let orders = Orders::start(&config, &db, &clock, &wake, shutdown)?;
    let watched = Watched {
        db: db.sibling(PoolSettings::new("health", HEALTH_CONNECTIONS)),
        read_db: orders.read_db(),
        writes: orders.write_outcomes(),
        redis: redis.clone(),
        sink: Arc::clone(&sink),
        relay: Relay::start(&db, Arc::clone(&sink), wake.clone(), shutdown),
    };
    Ok(AppState::new(State {
        limits: Limits::new(config.http.rate_limits, redis.clone(), clock.clone()),
        auth: Auth::new(&config.auth, redis.clone()).context("JWT_JWKS_URL")?,
        health: Health::new(watched, clock.clone(), shutdown.clone()),
        orders,
        wake,
        config,
        clock,
        db,
        redis,
        sink,
    }))
}
