//! Asking each dependency, all at once and each for a bounded time.

use std::time::{Duration, Instant};

use crate::outbox::{OutboxBacklog, backlog};

use super::{EventsHealth, Health, HealthReport, ServiceHealth, Services, Status};

/// A dependency that takes longer counts as down.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Events that wait longer than this mean that something is wrong with the way out.
const TOO_OLD_SECONDS: f64 = 60.0;

impl Health {
    pub(super) async fn probe(&self, cache_degraded: bool) -> HealthReport {
        let (database, redis, broker, backlog) = tokio::join!(
            timed(self.db.read(|mut db| async move { sqlx::query("SELECT 1").execute(&mut *db).await })),
            timed(self.redis.ping()),
            timed(self.sink.check()),
            tokio::time::timeout(PROBE_TIMEOUT, backlog(&self.db)),
        );
        let events = self.events(broker.status, backlog.ok().and_then(Result::ok));
        let worst = redis.status.max(events.status);
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
            services: Services { database, redis, events },
        }
    }

    fn events(&self, broker: Status, backlog: Option<OutboxBacklog>) -> EventsHealth {
        let oldest = backlog.map(|backlog| backlog.oldest_seconds.unwrap_or(0.0));
        let too_old = oldest.is_some_and(|seconds| seconds > TOO_OLD_SECONDS);
        EventsHealth {
            system: self.sink.system().as_str(),
            status: if too_old { broker.max(Status::Degraded) } else { broker },
            unpublished: backlog.map(|backlog| backlog.unpublished),
            oldest_unpublished_seconds: oldest,
        }
    }
}

/// Whether something answers, and how fast.
async fn timed<T, E>(probe: impl Future<Output = Result<T, E>>) -> ServiceHealth {
    let start = Instant::now();
    match tokio::time::timeout(PROBE_TIMEOUT, probe).await {
        Ok(Ok(_)) => ServiceHealth {
            status: Status::Healthy,
            // Microseconds are enough.
            latency_ms: Some((start.elapsed().as_secs_f64() * 1e6).round() / 1e3),
        },
        Ok(Err(_)) | Err(_) => ServiceHealth { status: Status::Unhealthy, latency_ms: None },
    }
}
