//! Asking each dependency, all at once and each for a bounded time.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use shared::platform::redis::RedisMemory;

use crate::{
    orders::ReplicaHealth,
    outbox::{Lag, OutboxBacklog, backlog},
};

use super::{
    EventsHealth, Health, HealthReport, HistoryHealth, ReadReplicaHealth, ServiceHealth, Services, Status,
};

/// A dependency that takes longer counts as down.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Events that wait longer than this to be published mean that the relay or the broker is in trouble. A relay whose process
/// was killed is replaced within about five seconds.
const UNPUBLISHED_LIMIT_SECONDS: f64 = 5.0;

/// Events that wait longer than this for the history mean that workers are in trouble. What a killed worker held is taken over
/// after half a minute.
const UNRECORDED_LIMIT_SECONDS: f64 = 30.0;

impl Health {
    pub(super) async fn probe(&self, cache_degraded: bool) -> HealthReport {
        let (database, redis, broker, backlog, lag) = tokio::join!(
            self.database(),
            self.probe_redis(),
            service(self.sink.check()),
            in_time(PROBE_TIMEOUT, backlog(&self.db)),
            in_time(PROBE_TIMEOUT, self.lag.measure()),
        );
        let database = database.service.clone();
        let events = self.events(broker, backlog.ok());
        let history = history(lag.ok());
        let database_read = self.read_db.replica_health().map(read_replica);
        let worst = [redis.status, events.status, history.status, database.status]
            .into_iter()
            .chain(database_read.iter().map(|replica| replica.status))
            .max()
            .unwrap_or(Status::Healthy);
        let status = if database.status == Status::Unhealthy {
            Status::Unhealthy
        } else if worst > Status::Healthy || cache_degraded {
            Status::Degraded
        } else {
            Status::Healthy
        };
        HealthReport {
            status,
            timestamp: self.clock.now(),
            version: env!("CARGO_PKG_VERSION"),
            services: Services { database, database_read, redis, events, history },
        }
    }

    /// Whether Redis takes writes, and has room for more.
    async fn probe_redis(&self) -> ServiceHealth {
        let start = Instant::now();
        match in_time(PROBE_TIMEOUT, self.redis.check_writable()).await {
            Ok(memory) => {
                let full = memory.is_nearly_full();
                let RedisMemory { used, limit, evicted_keys } = memory;
                ServiceHealth {
                    status: if full { Status::Degraded } else { Status::Healthy },
                    latency_ms: Some(milliseconds(start.elapsed())),
                    detail: full.then(|| {
                        format!("memory runs out: {used} of {limit} bytes are used, {evicted_keys} keys were evicted")
                    }),
                }
            }
            Err(error) => ServiceHealth::unhealthy(error),
        }
    }

    fn events(&self, broker: ServiceHealth, backlog: Option<OutboxBacklog>) -> EventsHealth {
        let oldest = backlog.map(|backlog| backlog.oldest_seconds.unwrap_or(0.0));
        let waiting = backlog.is_none_or(|backlog| backlog.unpublished > 0);
        let ServiceHealth { mut status, mut detail, .. } = broker;
        if let Some(trouble) = self.relay.last_error()
            && waiting
        {
            status = status.max(Status::Degraded);
            detail.get_or_insert(format!("the relay does not get on: {trouble}"));
        }
        if let Some(seconds) = oldest.filter(|seconds| *seconds > UNPUBLISHED_LIMIT_SECONDS) {
            status = status.max(Status::Degraded);
            detail.get_or_insert(format!("an event has waited for {seconds:.0} s to be published"));
        }
        EventsHealth {
            system: self.sink.system().as_str(),
            status,
            unpublished: backlog.map(|backlog| backlog.unpublished),
            oldest_unpublished_seconds: oldest,
            detail,
        }
    }
}

fn read_replica(replica: ReplicaHealth) -> ReadReplicaHealth {
    let ReplicaHealth { latency, lag_seconds, trouble } = replica;
    ReadReplicaHealth {
        status: if trouble.is_some() { Status::Degraded } else { Status::Healthy },
        latency_ms: latency.map(milliseconds),
        lag_seconds,
        detail: trouble.map(|trouble| format!("the primary answers in its place: {trouble}")),
    }
}

fn history(lag: Option<Lag>) -> HistoryHealth {
    let oldest = lag.map(|lag| lag.oldest_seconds);
    let late = oldest.filter(|seconds| *seconds > UNRECORDED_LIMIT_SECONDS);
    HistoryHealth {
        status: if late.is_some() { Status::Degraded } else { Status::Healthy },
        unrecorded: lag.map(|lag| lag.events),
        oldest_unrecorded_seconds: oldest,
        detail: late
            .map(|seconds| format!("an event has waited for {seconds:.0} s for its entry in the history")),
    }
}

/// Whether something answers, and how fast.
async fn service<T, E: Display>(probe: impl Future<Output = Result<T, E>>) -> ServiceHealth {
    let start = Instant::now();
    match in_time(PROBE_TIMEOUT, probe).await {
        Ok(_) => ServiceHealth {
            status: Status::Healthy,
            latency_ms: Some(milliseconds(start.elapsed())),
            detail: None,
        },
        Err(error) => ServiceHealth::unhealthy(error),
    }
}

/// Microseconds are enough.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// What a probe found within its time, or why not.
pub(super) async fn in_time<T, E: Display>(
    limit: Duration,
    probe: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, probe).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}
