//! `worker run`: from connecting to the last batch.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{
    broker::{BrokerConfig, BrokerError, EventSource, connect_source},
    cache::Cache,
    domain::clock::Clock,
    platform::{
        backoff::Backoff,
        config::ConfigError,
        db::{self, PoolSettings},
        redis::{self, Redis},
        schema::SchemaCheck,
        service,
        shutdown::{DRAIN_DEADLINE, Shutdown},
        telemetry,
    },
};
use tokio::sync::OnceCell;

use crate::{
    cache_debts::CacheDebts,
    config::WorkerConfig,
    consumer::{Consumer, ConsumerSettings, HeldBatches, set_backlog_gauges},
    errors::chain,
    handlers,
    health::{self, Health},
    rights::RIGHTS,
    tenant_removal::{self, TenantRemoval},
};

/// The deadline of cache writes. No client waits for them, so it is longer than that of the API.
const CACHE_DEADLINE: Duration = Duration::from_millis(500);
/// The connections of the health checks, which do not use those of the handlers.
const HEALTH_CONNECTIONS: u32 = 2;

/// Consumes events until a signal. Fails only if the set-up is wrong; it waits for a dependency that is down.
pub async fn run_worker(config: WorkerConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;
    redis::check_url(&config.redis_url).await.map_err(|problem| ConfigError::new("REDIS_URL", problem))?;
    config.broker.check_server().await?;
    let metrics = telemetry::install_metrics().context("cannot install metrics")?;
    let db = db::pool(&config.database_url, config.database_max_connections, "worker")
        .context("DATABASE_URL cannot be used")?;
    let cache = Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE)
        .context("REDIS_URL cannot be used")?;
    let source: Arc<OnceCell<Arc<dyn EventSource>>> = Arc::default();
    let held = HeldBatches::default();

    let health = Arc::new(Health {
        db: db.sibling(PoolSettings::new("worker health", HEALTH_CONNECTIONS)),
        schema: SchemaCheck::new(RIGHTS),
        cache: cache.clone(),
        source: Arc::clone(&source),
        held: held.clone(),
    });
    let system = config.broker.system();
    let watched = Arc::clone(&source);
    let metrics_router = service::metrics_router(metrics.clone(), move || {
        let source = watched.get().cloned();
        async move { set_backlog_gauges(system, source.as_deref()).await }
    });
    let reporting = Arc::clone(&health);
    shutdown
        .spawn_restarting("table locks", move |until| health::log_table_locks(Arc::clone(&reporting), until));
    let router = health::router(health).merge(metrics_router);
    let address = service::serve(config.metrics, router, &shutdown)
        .await
        .with_context(|| format!("METRICS_ADDR: cannot listen on {}", config.metrics))?;
    shutdown.spawn_restarting("upkeep of metrics", move |until| service::upkeep(metrics.clone(), until));
    tracing::info!(%address, consumer = config.consumer, events = %config.broker.system(), "worker starts");

    let connected = connect_to_broker(&config.broker, &config.consumer, &shutdown).await?;
    if let Some(connected) = connected {
        // The cell is set only here.
        let _first = source.set(Arc::clone(&connected));
        let debts = Arc::new(CacheDebts::new(db.clone(), cache.clone()));
        shutdown.spawn_restarting("cache debts", move |until| Arc::clone(&debts).pay_until_shutdown(until));
        let redis = Redis::new(&config.redis_url).context("REDIS_URL cannot be used")?;
        let removal = TenantRemoval::new(db.sibling(tenant_removal::POOL), redis, Arc::clone(&connected));
        let removal = Arc::new(removal);
        shutdown.spawn_restarting("removal of tenants", move |until| {
            Arc::clone(&removal).run_until_shutdown(until)
        });
        let handlers = handlers::all_handlers(&db, &cache, config.cache_ttl, &shutdown);
        let settings = ConsumerSettings {
            batch_size: config.batch_size,
            concurrency: config.concurrency,
            max_attempts: config.max_attempts,
            ..ConsumerSettings::default()
        };
        let consumer = Consumer::new(connected, handlers, db, Clock::System, settings, shutdown.clone())
            .with_held_batches(held);
        // On the worker threads and not on the main thread, which would have to be woken for each answer.
        tokio::spawn(async move { consumer.consume_until_shutdown().await })
            .await
            .context("the consumer ended unexpectedly")?;
    }
    if !shutdown.drained(DRAIN_DEADLINE).await {
        tracing::warn!("worker ends although some tasks still run");
    }
    tracing::info!("worker ends");
    Ok(())
}

/// Connects, however long the broker is down. `None` if shutdown begins first.
async fn connect_to_broker(
    config: &BrokerConfig,
    consumer: &str,
    shutdown: &Shutdown,
) -> Result<Option<Arc<dyn EventSource>>, BrokerError> {
    let backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    let mut attempts = 0_u32;
    loop {
        let error = tokio::select! {
            () = shutdown.begun() => return Ok(None),
            connected = connect_source(config, consumer) => match connected {
                Ok(source) => return Ok(Some(Arc::from(source))),
                Err(error @ BrokerError::Misconfigured { .. }) => return Err(error),
                Err(error) => error,
            },
        };
        attempts = attempts.saturating_add(1);
        if attempts.is_power_of_two() {
            tracing::warn!(error = chain(&error), attempts, "waiting for the broker");
        }
        tokio::select! {
            () = shutdown.begun() => return Ok(None),
            () = tokio::time::sleep(backoff.delay(attempts)) => {}
        }
    }
}
