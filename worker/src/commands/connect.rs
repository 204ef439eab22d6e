//! Connections of commands.

use std::time::Duration;

use anyhow::Context as _;
use shared::{
    cache::Cache,
    platform::db::{DbConnection, DbPool},
};

use crate::config::WorkerConfig;

/// Commands read many entries at a time and can wait for an answer.
const CACHE_DEADLINE: Duration = Duration::from_secs(5);

/// The cache, with the deadline of commands.
pub(super) fn connect_cache(config: &WorkerConfig) -> anyhow::Result<Cache> {
    Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE).context("REDIS_URL cannot be used")
}

/// A connection to PostgreSQL.
pub(super) async fn acquire_connection(db: &DbPool) -> anyhow::Result<DbConnection> {
    db.acquire().await.context("PostgreSQL does not answer; check DATABASE_URL and the server")
}
