//! `worker run`: everything put together, from connecting to the last batch.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{
    broker::{BrokerConfig, BrokerError, EventSource, connect_source},
    cache::Cache,
    clock::Clock,
    db, service,
    shutdown::{DRAIN_DEADLINE, Shutdown},
    telemetry,
};
use tokio::sync::OnceCell;

use crate::{
    cache_debts::CacheDebts,
    config::WorkerConfig,
    consumer::{Backoff, Consumer, ConsumerSettings, report_backlog},
    errors::chain,
    handlers::{EventHandler, cache::CacheHandler, history::HistoryHandler},
    health::{self, Health},
};

/// No client waits for the worker's cache writes, so they get more time than the API gives its own.
const CACHE_DEADLINE: Duration = Duration::from_millis(500);
/// Between samples of the backlog.
const BACKLOG_EVERY: Duration = Duration::from_secs(5);

/// Consumes until a signal. Fails only where the set-up is wrong; what is merely down is waited for.
pub async fn run(config: WorkerConfig) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;
    let metrics = telemetry::install_metrics().context("cannot install metrics")?;
    let db = db::pool(&config.database_url, config.database_max_connections, "worker")
        .context("DATABASE_URL cannot be used")?;
    let cache = Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE)
        .context("REDIS_URL cannot be used")?;
    let source = Arc::new(OnceCell::new());

    let health = Health { db: db.clone(), cache: cache.clone(), source: Arc::clone(&source) };
    let router = health::router(health).merge(service::metrics_router(metrics.clone()));
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
        shutdown.spawn(report_backlog(Arc::clone(&connected), BACKLOG_EVERY, shutdown.clone()));
        let handlers: Vec<Arc<dyn EventHandler>> = vec![
            Arc::new(HistoryHandler::new(db.clone(), &shutdown)),
            Arc::new(CacheHandler::new(cache, db.clone(), config.cache_ttl)),
        ];
        let settings = ConsumerSettings {
            batch_size: config.batch_size,
            concurrency: config.concurrency,
            max_attempts: config.max_attempts,
            ..ConsumerSettings::default()
        };
        let consumer = Consumer::new(connected, handlers, db, Clock::System, settings, shutdown.clone());
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
