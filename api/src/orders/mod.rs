//! Orders behind their routes: the rules of a change, the reader, the writer, and the cache that both keep exact.
//!
//! Nothing here knows HTTP: requests and problem documents are in `crate::http::orders`, SQL is in `crate::db`.

mod cache_entry;
mod error;
pub(crate) mod export;
mod idempotency_expiry;
mod ids;
pub mod input;
mod load;
pub mod outcomes;
mod place;
pub mod preconditions;
mod read_db;
mod reader;
pub mod response;
pub(crate) mod row_keys;
pub mod rules;
mod write_through;
pub(crate) mod writer;

use std::sync::Arc;

use shared::{
    cache::Cache,
    domain::clock::Clock,
    platform::{db::DbPool, shutdown::Shutdown},
};

pub(crate) use self::place::OrderBatch;
pub use self::{
    error::OrderError,
    idempotency_expiry::expire_once,
    read_db::{ReadDb, ReplicaHealth},
};
use self::{
    export::ExportReader, ids::IdSource, outcomes::WriteOutcomes, reader::OrderReader,
    write_through::StaleEntries, writer::OrderWriter,
};
use crate::outbox::Wake;

/// Reads and writes orders, and keeps the cache exact.
pub struct Orders {
    pub(crate) reader: OrderReader,
    pub(crate) writer: OrderWriter,
    pub(crate) ids: Arc<IdSource>,
    pub(crate) read_db: Arc<ReadDb>,
    pub(crate) export_reader: Arc<ExportReader>,
    stale: Arc<StaleEntries>,
}

impl Orders {
    /// Starts reader and writer, the repair of the cache and the expiry of stored responses.
    ///
    /// No server needs to be up: connections are made when they are first used. `max_exports` can read at a time.
    pub fn start(
        db: &DbPool,
        read_db: ReadDb,
        cache: Cache,
        clock: &Clock,
        wake: &Wake,
        max_exports: u32,
        shutdown: &Shutdown,
    ) -> Self {
        let stale = Arc::new(StaleEntries::new(cache.clone()));
        let ids = Arc::new(IdSource::new(db.clone()));
        let (repaired, repair_db, expiry_db) = (Arc::clone(&stale), db.clone(), db.clone());
        shutdown.spawn_restarting("cache repair", move |until| {
            Arc::clone(&repaired).keep_repairing(repair_db.clone(), until)
        });
        shutdown.spawn_restarting("expiry of keys", move |until| {
            idempotency_expiry::keep_expiring(expiry_db.clone(), until)
        });
        Self {
            read_db: Arc::new(read_db),
            export_reader: Arc::new(ExportReader::new(db, max_exports)),
            reader: OrderReader::start(db.clone(), cache, Arc::clone(&stale), shutdown),
            writer: OrderWriter::start(
                db,
                clock.clone(),
                wake.clone(),
                Arc::clone(&ids),
                Arc::clone(&stale),
                shutdown,
            ),
            ids,
            stale,
        }
    }

    /// The databases that lists and histories are read from.
    pub fn read_db(&self) -> Arc<ReadDb> {
        Arc::clone(&self.read_db)
    }

    /// What the last writes came to.
    pub fn write_outcomes(&self) -> Arc<WriteOutcomes> {
        self.writer.outcomes()
    }

    /// Whether some order is served from PostgreSQL because its cache entry may be older than what was
    /// answered. This ends by itself as soon as Redis answers.
    pub fn cache_degraded(&self) -> bool {
        self.stale.is_degraded()
    }
}
