//! Health of the API and of what it depends on.

mod database;
mod fresh;
mod health_log;
mod live;
mod operators;
mod probe;
mod ready;
mod report;
mod rights;

use std::sync::Arc;

use shared::{
    broker::EventSink,
    domain::clock::Clock,
    platform::{db::DbPool, redis::Redis, schema::SchemaCheck, shutdown::Shutdown},
};

pub use live::{__path_live, live};
pub use operators::Operators;
pub use ready::{__path_ready, ready};
pub use report::{
    __path_health, EventsHealth, HealthReport, HistoryHealth, ReadReplicaHealth, ServiceHealth, Services,
    Status, health,
};
pub use rights::RIGHTS;

use self::{database::DatabaseHealth, fresh::Fresh, health_log::HealthLog};
use crate::{
    orders::{ReadDb, outcomes::WriteOutcomes},
    outbox::{HistoryLag, RelayStatus},
};

/// The routes that are asked often, and by machines.
pub const ROUTES: [&str; 4] = ["/health", "/api/v1/health", "/api/v1/health/ready", "/api/v1/health/live"];

/// What health is made of.
pub struct Watched {
    /// PostgreSQL, on a pool that requests do not use.
    pub db: DbPool,
    /// What lists and histories are read from.
    pub read_db: Arc<ReadDb>,
    /// What became of the last writes.
    pub writes: Arc<WriteOutcomes>,
    /// Redis with sessions and limits.
    pub redis: Redis,
    /// The broker.
    pub sink: Arc<dyn EventSink>,
    /// The relay of this process.
    pub relay: RelayStatus,
}

/// What the health routes report.
pub struct Health {
    db: DbPool,
    schema: SchemaCheck,
    read_db: Arc<ReadDb>,
    writes: Arc<WriteOutcomes>,
    redis: Redis,
    sink: Arc<dyn EventSink>,
    relay: RelayStatus,
    lag: HistoryLag,
    clock: Clock,
    shutdown: Shutdown,
    last_database: Fresh<DatabaseHealth>,
    last_report: Fresh<HealthReport>,
    changes: HealthLog,
}

impl Health {
    /// Watches these dependencies.
    pub fn new(watched: Watched, clock: Clock, shutdown: Shutdown) -> Self {
        let Watched { db, read_db, writes, redis, sink, relay } = watched;
        Self {
            schema: SchemaCheck::new(RIGHTS),
            lag: HistoryLag::new(db.clone()),
            db,
            read_db,
            writes,
            redis,
            sink,
            relay,
            clock,
            shutdown,
            last_database: Fresh::new(),
            last_report: Fresh::new(),
            changes: HealthLog::default(),
        }
    }

    /// How things stand, as of at most a second ago.
    pub async fn report(&self, cache_degraded: bool) -> Arc<HealthReport> {
        self.last_report
            .get(async {
                let report = Box::pin(self.probe(cache_degraded)).await;
                self.changes.log(&report.services);
                report
            })
            .await
    }

    /// How the database stands, as of at most a second ago.
    async fn database(&self) -> Arc<DatabaseHealth> {
        self.last_database.get(Box::pin(self.probe_database())).await
    }
}
