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
mod reader;
mod repair;
mod session;
pub mod update;
mod writer;

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use shared::{cache::Cache, clock::Clock, db::DbPool, shutdown::Shutdown};

pub use self::expiry::{ExpiryError, KEY_LIFETIME, expire_once};
use self::{ids::IdSource, reader::Reader, repair::Stale, writer::Writer};
use crate::{config::ApiConfig, outbox::Wake};

/// How long any answer may wait for Redis; then PostgreSQL answers.
const CACHE_DEADLINE: Duration = Duration::from_millis(50);

/// What stands behind the routes: it reads, writes, and keeps the cache exact.
pub struct Orders {
    reader: Reader,
    writer: Writer,
    ids: IdSource,
    stale: Arc<Stale>,
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
        Ok(Self {
            reader: Reader::start(db.clone(), cache, Arc::clone(&stale), shutdown),
            writer: Writer::start(db, clock.clone(), wake.clone(), Arc::clone(&stale), shutdown),
            ids: IdSource::new(db.clone()),
            stale,
        })
    }

    /// Whether some order is served from PostgreSQL because its entry in the cache may be older than what was
    /// answered. It corrects itself as soon as Redis answers.
    pub fn cache_degraded(&self) -> bool {
        self.stale.is_degraded()
    }
}
