//! Probes what the API depends on, all at once, and puts the results together.

use std::{sync::Arc, time::Instant};

use shared::{
    broker::EventSink,
    domain::clock::Clock,
    platform::{
        db::DbPool,
        redis::{Redis, RedisMemory},
        schema::SchemaCheck,
        service::GAUGE_TIMEOUT,
        shutdown::Shutdown,
    },
};

use super::{
    database::probe_database,
    health_log::HealthLog,
    probe::{PROBE_TIMEOUT, history_health, milliseconds, probe_service, replica_health, with_timeout},
    recent_value::RecentValue,
    report::{EventsHealth, HealthReport, HealthStatus, ServiceHealth, Services},
    rights::RIGHTS,
};
use crate::{
    orders::{ReadDb, outcomes::WriteOutcomes},
    outbox::{
        HistoryLag, Lag, OutboxBacklog, RelayStatus, backlog, set_backlog_gauges, set_lag_gauges,
        set_lease_gauge,
    },
};

/// Events that wait longer than this to be published mean that the relay or the broker fails. A relay whose process was
/// killed is replaced within about five seconds.
const UNPUBLISHED_LIMIT_SECONDS: f64 = 5.0;

/// What health is measured of.
pub struct HealthDependencies {
    /// PostgreSQL, on a pool that requests do not use.
    pub db: DbPool,
    /// The database of lists and histories.
    pub read_db: Arc<ReadDb>,
    /// The results of the last writes.
    pub writes: Arc<WriteOutcomes>,
    /// Redis with sessions and limits.
    pub redis: Redis,
    /// The broker.
    pub sink: Arc<dyn EventSink>,
    /// The relay of this process.
    pub relay: RelayStatus,
}

/// Measures health. A measurement is used for a second.
pub struct HealthMonitor {
    dependencies: HealthDependencies,
    schema: SchemaCheck,
    lag: HistoryLag,
    clock: Clock,
    shutdown: Shutdown,
    last_database: RecentValue<ServiceHealth>,
    last_report: RecentValue<HealthReport>,
    log: HealthLog,
}

impl HealthMonitor {
    /// Measures these dependencies.
    pub fn new(dependencies: HealthDependencies, clock: Clock, shutdown: Shutdown) -> Self {
        Self {
            schema: SchemaCheck::new(RIGHTS),
            lag: HistoryLag::new(dependencies.db.clone()),
            dependencies,
            clock,
            shutdown,
            last_database: RecentValue::new(),
            last_report: RecentValue::new(),
            log: HealthLog::default(),
        }
    }

    /// The health of everything, at most a second old.
    pub async fn report(&self, cache_degraded: bool) -> Arc<HealthReport> {
        self.last_report
            .get(async {
                let report = Box::pin(self.probe_all(cache_degraded)).await;
                self.log.log_changes(&report.services);
                report
            })
            .await
    }

    /// Why no request should be sent here, or `None` if this process is ready.
    pub async fn reason_not_ready(&self) -> Option<String> {
        if self.shutdown.has_begun() {
            return Some("this process is shutting down".to_owned());
        }
        // A database that only refuses writes still serves reads, and is degraded.
        let database = self.database().await;
        let reason = database.detail.as_deref().unwrap_or("PostgreSQL does not answer");
        (database.status == HealthStatus::Unhealthy).then(|| format!("not ready: {reason}"))
    }

    /// How far the history is behind; fails with the reason if that is not known.
    pub async fn history_lag(&self) -> Result<Lag, String> {
        with_timeout(GAUGE_TIMEOUT, self.lag.measure()).await
    }

    /// Sets the gauges that are read from PostgreSQL.
    pub async fn set_gauges(&self) {
        let (backlog, lag) =
            tokio::join!(with_timeout(GAUGE_TIMEOUT, backlog(&self.dependencies.db)), self.history_lag());
        set_backlog_gauges(backlog.ok());
        set_lag_gauges(lag.ok());
        set_lease_gauge(self.dependencies.relay.lease_held());
    }

    /// The health of PostgreSQL, at most a second old.
    async fn database(&self) -> Arc<ServiceHealth> {
        let HealthDependencies { db, writes, .. } = &self.dependencies;
        self.last_database.get(Box::pin(probe_database(db, &self.schema, writes))).await
    }

    async fn probe_all(&self, cache_degraded: bool) -> HealthReport {
        let HealthDependencies { db, read_db, sink, .. } = &self.dependencies;
        let (database, redis, broker, backlog, lag) = tokio::join!(
            self.database(),
            self.probe_redis(cache_degraded),
            probe_service(sink.check()),
            with_timeout(PROBE_TIMEOUT, backlog(db)),
            with_timeout(PROBE_TIMEOUT, self.lag.measure()),
        );
        let database = ServiceHealth::clone(&database);
        let events = self.events_health(broker, backlog.ok());
        let history = history_health(lag.ok());
        let database_read = read_db.replica_health().map(replica_health);
        let worst = [redis.status, events.status, history.status, database.status]
            .into_iter()
            .chain(database_read.iter().map(|replica| replica.status))
            .max()
            .unwrap_or(HealthStatus::Healthy);
        let status = if database.status == HealthStatus::Unhealthy {
            HealthStatus::Unhealthy
        } else if worst > HealthStatus::Healthy {
            HealthStatus::Degraded
        } else {
            HealthStatus::Healthy
        };
        HealthReport {
            status,
            timestamp: self.clock.now(),
            version: env!("CARGO_PKG_VERSION"),
            services: Services { database, database_read, redis, events, history },
        }
    }

    /// Whether Redis accepts writes, has room for more, and holds no cached order that is known to be old.
    async fn probe_redis(&self, cache_degraded: bool) -> ServiceHealth {
        let start = Instant::now();
        match with_timeout(PROBE_TIMEOUT, self.dependencies.redis.check_writable()).await {
            Ok(memory) => {
                let full = memory.is_nearly_full();
                let RedisMemory { used, limit, evicted_keys } = memory;
                let detail = if full {
                    Some(format!(
                        "memory runs out: {used} of {limit} bytes are used, {evicted_keys} keys were evicted"
                    ))
                } else if cache_degraded {
                    Some("some cached orders are old: this replica reads them from PostgreSQL until they are corrected".to_owned())
                } else {
                    None
                };
                ServiceHealth {
                    status: if detail.is_some() { HealthStatus::Degraded } else { HealthStatus::Healthy },
                    latency_ms: Some(milliseconds(start.elapsed())),
                    detail,
                }
            }
            Err(error) => ServiceHealth::unhealthy(error),
        }
    }

    fn events_health(&self, broker: ServiceHealth, backlog: Option<OutboxBacklog>) -> EventsHealth {
        let oldest = backlog.map(|backlog| backlog.oldest_seconds.unwrap_or(0.0));
        let waiting = backlog.is_none_or(|backlog| backlog.unpublished > 0);
        let ServiceHealth { mut status, mut detail, .. } = broker;
        if let Some(error) = self.dependencies.relay.last_error()
            && waiting
        {
            status = status.max(HealthStatus::Degraded);
            detail.get_or_insert(format!("the relay makes no progress: {error}"));
        }
        if let Some(seconds) = oldest.filter(|seconds| *seconds > UNPUBLISHED_LIMIT_SECONDS) {
            status = status.max(HealthStatus::Degraded);
            detail.get_or_insert(format!("an event has waited for {seconds:.0} s to be published"));
        }
        EventsHealth {
            system: self.dependencies.sink.system().as_str(),
            status,
            unpublished: backlog.map(|backlog| backlog.unpublished),
            oldest_unpublished_seconds: oldest,
            detail,
        }
    }
}
