//! Putting the parts together and running them.

use std::{net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::ExposeSecret as _;
use shared::{
    broker::EventSink,
    clock::Clock,
    db::{DbPool, PoolSettings, Servers},
    redis::Redis,
    service,
    shutdown::Shutdown,
};
use tokio::net::TcpListener;

use crate::{
    auth::Auth,
    broker::LateSink,
    config::ApiConfig,
    health::Health,
    limits::Limits,
    orders::Orders,
    outbox::{Relay, Wake},
    router::router,
    server,
    state::{AppState, State},
};

/// Open files beside the clients' and the pools' connections: Redis, broker, metrics, logs, password checks.
const OTHER_OPEN_FILES: usize = 128;

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
        let pooled = 2 * usize::try_from(config.database_max_connections).unwrap_or(usize::MAX / 4);
        let connections = &mut config.http.server.connections;
        *connections = server::fit_connections(*connections, pooled + OTHER_OPEN_FILES);
        let state = connect(config, clock, shutdown)?;
        Relay::start(&state.db, Arc::clone(&state.sink), state.wake.clone(), shutdown);
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

/// Serves `/metrics` on the operators' port: before the API itself, so that whoever sees the one finds the other.
pub async fn serve_metrics(
    address: SocketAddr,
    metrics: PrometheusHandle,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    service::serve(address, service::metrics_router(metrics.clone()), shutdown)
        .await
        .with_context(|| format!("METRICS_ADDR: cannot listen on {address}"))?;
    shutdown.spawn(service::upkeep(metrics, shutdown.clone()));
    Ok(())
}

/// The state, with pools that connect when first used.
fn connect(config: ApiConfig, clock: Clock, shutdown: &Shutdown) -> anyhow::Result<AppState> {
    let connections = config.database_max_connections;
    let servers = Servers::primary(&config.database_url).context("DATABASE_URL")?;
    let db = DbPool::new(servers, PoolSettings::new("api", connections));
    let settings = PoolSettings::new("api-read", connections);
    let read_db = if config.database_read_url.expose_secret() == config.database_url.expose_secret() {
        db.sibling(settings)
    } else {
        let servers = Servers::replica(&config.database_read_url).context("DATABASE_READ_URL")?;
        DbPool::new(servers, settings)
    };
    let redis = Redis::new(&config.redis_url).context("REDIS_URL")?;
    let sink: Arc<dyn EventSink> = Arc::new(LateSink::new(config.broker.clone()));
    let wake = Wake::default();
    Ok(AppState::new(State {
        limits: Limits::new(config.http.rate_limits, redis.clone(), clock.clone()),
        auth: Auth::new(&config.auth, redis.clone()).context("JWT_JWKS_URL")?,
        health: Health::new(db.clone(), redis.clone(), Arc::clone(&sink), clock.clone(), shutdown.clone()),
        orders: Orders::start(&config, &db, &clock, &wake, shutdown)?,
        wake,
        config,
        clock,
        db,
        read_db,
        redis,
        sink,
    }))
}
