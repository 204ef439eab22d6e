//! `worker run`: everything put together, from connecting to the last batch.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{
    broker::{BrokerConfig, BrokerError, EventSource, connect_source},
    cache::Cache,
    domain::clock::Clock,
    platform::{
        db::{self, PoolSettings},
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
    consumer::{Backoff, Consumer, ConsumerSettings, HeldBatches, set_backlog_gauges},
    errors::chain,
    handlers,
    health::{self, Health},
    rights::RIGHTS,
};

/// No client waits for the worker's cache writes, so they get more time than the API gives its own.
const CACHE_DEADLINE: Duration = Duration::from_millis(500);
/// For the questions of health, apart from what events need.
const HEALTH_CONNECTIONS: u32 = 2;

/// Consumes until a signal. Fails only where the set-up is wrong; what is merely down is waited for.
pub async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;
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
    shutdown.spawn(health::log_table_locks(Arc::clone(&health), shutdown.clone()));
    let router = health::router(health).merge(metrics_router);
    let address = service::serve(config.metrics, router, &shutdown)
        .await
        .with_context(|| format!("METRICS_ADDR: cannot listen on {}", config.metrics))?;
    shutdown.spawn(service::upkeep(metrics, shutdown.clone()));
    tracing::info!(%address, consumer = config.consumer, events = %config.broker.system(), "worker starts");

    let connected = connect(&config.broker, &config.consumer, &shutdown).await?;
    if let Some(connected) = connected {
        // Set once: nobody else does.
        let _first = source.set(Arc::clone(&connected));
        shutdown.spawn(CacheDebts::new(db.clone(), cache.clone()).run(shutdown.clone()));
        let handlers = handlers::all(&db, &cache, config.cache_ttl, &shutdown);
        let settings = ConsumerSettings {
            batch_size: config.batch_size,
            concurrency: config.concurrency,
            max_attempts: config.max_attempts,
            ..ConsumerSettings::default()
        };
        let consumer = Consumer::new(connected, handlers, db, Clock::System, settings, shutdown.clone())
            .listing_in(held);
        // Among the threads that its answers come to, and not on the main one, which would have to be woken each time.
        tokio::spawn(async move { consumer.run().await }).await.context("the consumer ended unexpectedly")?;
    }
    if !shutdown.drained(DRAIN_DEADLINE).await {
        tracing::warn!("ending although some tasks still run");
    }
    tracing::info!("worker ends");
    Ok(())
}

/// Connects however long the broker is down. `None` where the shutdown comes first.
async fn connect(
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
