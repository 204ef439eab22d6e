//! The routes of orders, and what stands behind them: reader, writer, cache.

mod answer;
mod changing;
pub mod create;
pub mod cursor;
mod decide;
pub mod delete;
mod described;
mod expiry;
mod fields;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
pub mod get;
pub mod history;
mod ids;
pub mod key;
pub mod list;
pub mod preconditions;
mod read_db;
mod reader;
mod repair;
mod session;
pub mod update;
mod writer;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{cache::Cache, clock::Clock, db::DbPool, shutdown::Shutdown};

pub use self::{
    expiry::{ExpiryError, KEY_LIFETIME, expire_once},
    read_db::{ReadDb, ReplicaHealth},
};
use self::{ids::IdSource, reader::Reader, repair::Stale, writer::Writer};
use crate::{config::ApiConfig, health::WriteOutcomes, outbox::Wake};

/// How long any answer may wait for Redis; then PostgreSQL answers.
const CACHE_DEADLINE: Duration = Duration::from_millis(50);

/// What stands behind the routes: it reads, writes, and keeps the cache exact.
pub struct Orders {
    reader: Reader,
    writer: Writer,
    ids: IdSource,
    stale: Arc<Stale>,
    read_db: Arc<ReadDb>,
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
        let stale = Arc::new(Stale::new(cache.clone()));
        shutdown.spawn(Arc::clone(&stale).keep_repairing(db.clone(), shutdown.clone()));
        shutdown.spawn(expiry::keep_expiring(db.clone(), clock.clone(), shutdown.clone()));
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
