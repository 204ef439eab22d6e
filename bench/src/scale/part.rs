//! The processes of `cargo xtask bench scale`: one that publishes, and workers whose handlers are slow.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use shared::broker::{EventSource, connect_sink, connect_source};
use shared::cache::Cache;
use shared::domain::clock::Clock;
use shared::platform::config::Env;
use shared::platform::db;
use shared::platform::shutdown::Shutdown;
use worker::config::WorkerConfig;
use worker::consumer::{Consumer, ConsumerSettings};
use worker::handlers::cache::CacheHandler;
use worker::handlers::history::HistoryHandler;
use worker::handlers::{EventHandler, HandlerError, HandlerEvent};

use crate::broker;

/// Added for each event to each handler.
const DELAY: Duration = Duration::from_millis(5);
/// As the worker has it.
const CACHE_DEADLINE: Duration = Duration::from_millis(500);

/// A handler with a delay in front of it.
struct Slow<H>(H);

#[async_trait]
impl<H: EventHandler> EventHandler for Slow<H> {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        tokio::time::sleep(DELAY * u32::try_from(batch.len()).unwrap_or(u32::MAX)).await;
        self.0.handle(batch).await
    }
}

/// Publishes this many creations.
pub async fn publish(count: i64) -> anyhow::Result<()> {
    let config = WorkerConfig::from_env(&Env::from_process()?)?;
    let sink = connect_sink(&config.broker).await?;
    broker::publish_created_events(&*sink, 1..count + 1).await
}

/// The worker's consumer with slow handlers, until SIGTERM.
pub async fn consume() -> anyhow::Result<()> {
    let config = WorkerConfig::from_env(&Env::from_process()?)?;
    let shutdown = Shutdown::new();
    shutdown.listen_for_signals()?;
    let db = db::pool(&config.database_url, config.database_max_connections, "worker")?;
    let cache = Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE)?;
    let source: Arc<dyn EventSource> = Arc::from(connect_source(&config.broker, &config.consumer).await?);
    let handlers: Vec<Arc<dyn EventHandler>> = vec![
        Arc::new(Slow(HistoryHandler::new(db.clone(), &shutdown))),
        Arc::new(Slow(CacheHandler::new(cache, db.clone(), config.cache_ttl))),
    ];
    let settings = ConsumerSettings {
        batch_size: config.batch_size,
        concurrency: config.concurrency,
        max_attempts: config.max_attempts,
        ..ConsumerSettings::default()
    };
    Consumer::new(source, handlers, db, Clock::System, settings, shutdown).consume_until_shutdown().await;
    Ok(())
}
