//! Probes of one dependency, each with a time-out, and how their results are judged.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

use super::report::{HealthStatus, HistoryHealth, ReadReplicaHealth, ServiceHealth};
use crate::{orders::ReplicaHealth, outbox::Lag};

/// A dependency that takes longer is down.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// Events that wait longer than this for the history mean that workers fail. Another worker takes over the events of a killed
/// one after half a minute.
const UNRECORDED_LIMIT_SECONDS: f64 = 30.0;

pub(super) fn replica_health(replica: ReplicaHealth) -> ReadReplicaHealth {
    let ReplicaHealth { latency, lag_seconds, unusable } = replica;
    ReadReplicaHealth {
        status: if unusable.is_some() { HealthStatus::Degraded } else { HealthStatus::Healthy },
        latency_ms: latency.map(milliseconds),
        lag_seconds,
        detail: unusable.map(|reason| format!("the primary answers in its place: {reason}")),
    }
}

pub(super) fn history_health(lag: Option<Lag>) -> HistoryHealth {
    let oldest = lag.map(|lag| lag.oldest_seconds);
    let late = oldest.filter(|seconds| *seconds > UNRECORDED_LIMIT_SECONDS);
    HistoryHealth {
        status: if late.is_some() { HealthStatus::Degraded } else { HealthStatus::Healthy },
        unrecorded: lag.map(|lag| lag.events),
        oldest_unrecorded_seconds: oldest,
        detail: late
            .map(|seconds| format!("an event has waited for {seconds:.0} s for its entry in the history")),
    }
}

/// Whether a service answers, and how fast.
pub(super) async fn probe_service<T, E: Display>(probe: impl Future<Output = Result<T, E>>) -> ServiceHealth {
    let start = Instant::now();
    match with_timeout(PROBE_TIMEOUT, probe).await {
        Ok(_) => ServiceHealth {
            status: HealthStatus::Healthy,
            latency_ms: Some(milliseconds(start.elapsed())),
            detail: None,
        },
        Err(error) => ServiceHealth::unhealthy(error),
    }
}

/// Milliseconds, rounded to microseconds.
pub(super) fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// Returns the result of a probe, or the reason for its failure as text.
pub(super) async fn with_timeout<T, E: Display>(
    limit: Duration,
    probe: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, probe).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {limit:?}")),
    }
}
