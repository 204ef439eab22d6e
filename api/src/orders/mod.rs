//! What stands behind the routes of orders: what a change may do, reader, writer, and the cache that both keep exact.

mod idempotency_expiry;
mod ids;
pub(crate) mod outcomes;
mod read_db;
mod reader;
pub(crate) mod rules;
mod session;
mod write_through;
pub(crate) mod writer;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{
    cache::Cache,
    domain::clock::Clock,
    platform::{db::DbPool, shutdown::Shutdown},
};

pub use self::{
    idempotency_expiry::{ExpiryError, KEY_LIFETIME, expire_once},
    read_db::{ReadDb, ReplicaHealth},
};
use self::{ids::IdSource, reader::Reader, write_through::StaleEntries, writer::Writer};
use crate::{config::ApiConfig, orders::outcomes::WriteOutcomes, outbox::Wake};

/// How long any answer may wait for Redis; then PostgreSQL answers.
const CACHE_DEADLINE: Duration = Duration::from_millis(50);

/// What stands behind the routes: it reads, writes, and keeps the cache exact.
pub struct Orders {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
    pub(crate) ids: IdSource,
    stale: Arc<StaleEntries>,
    pub(crate) read_db: Arc<ReadDb>,
}

impl Orders {
    /// Starts the lanes of reader and writer, the repair of the cache and the expiry of kept answers.
    ///
    /// Nothing needs to be up: connections are made when first used.
    pub fn start(
        config: &ApiConfig,
        db: &DbPool,
        clock: &Clock,
        wake: &Wake,
        shutdown: &Shutdown,
    ) -> anyhow::Result<Self> {
        let cache = Cache::new(&config.redis_url, config.cache_ttl, CACHE_DEADLINE).context("REDIS_URL")?;
        let stale = Arc::new(StaleEntries::new(cache.clone()));
        shutdown.spawn(Arc::clone(&stale).keep_repairing(db.clone(), shutdown.clone()));
        shutdown.spawn(idempotency_expiry::keep_expiring(db.clone(), clock.clone(), shutdown.clone()));
        let read_db =
            ReadDb::start(db, config.database_read_url.as_ref(), config.database_max_connections, shutdown)?;
        Ok(Self {
            read_db: Arc::new(read_db),
            reader: Reader::start(db.clone(), cache, Arc::clone(&stale), shutdown),
            writer: Writer::start(db, clock.clone(), wake.clone(), Arc::clone(&stale), shutdown),
            ids: IdSource::new(db.clone()),
            stale,
        })
    }

    /// What lists and histories are read from.
    pub fn read_db(&self) -> Arc<ReadDb> {
        Arc::clone(&self.read_db)
    }

    /// What became of the last writes.
    pub fn write_outcomes(&self) -> Arc<WriteOutcomes> {
        self.writer.outcomes()
    }

    /// Whether some order is served from PostgreSQL because its entry in the cache may be older than what was
    /// answered. It corrects itself as soon as Redis answers.
    pub fn cache_degraded(&self) -> bool {
        self.stale.is_degraded()
    }
}
