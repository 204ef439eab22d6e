//! The health report: the API and each service that it depends on.

use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

/// Whether a service works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It works.
    Healthy,
    /// Requests are served, but some work fails or is late.
    Degraded,
    /// It does not work.
    Unhealthy,
}

/// The API and each service that it depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `unhealthy` without PostgreSQL, `degraded` while anything else fails or is late.
    pub status: HealthStatus,
    /// When this was measured.
    #[serde(with = "shared::domain::timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: OffsetDateTime,
    /// The version of this build.
    pub version: &'static str,
    /// Each service.
    pub services: Services,
}

/// The services that the API depends on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Services {
    /// PostgreSQL.
    pub database: ServiceHealth,
    /// The read replica; only with `DATABASE_READ_URL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub database_read: Option<ReadReplicaHealth>,
    /// Redis.
    pub redis: ServiceHealth,
    /// The outbox and the broker.
    pub events: EventsHealth,
    /// The workers, as far as the database shows their work.
    pub history: HistoryHealth,
}

/// One service.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// `unhealthy` if it does not answer or cannot be used, `degraded` if it answers and some work fails.
    pub status: HealthStatus,
    /// How long it took to answer; `null` if it did not.
    pub latency_ms: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

impl ServiceHealth {
    pub(super) fn unhealthy(why: impl std::fmt::Display) -> Self {
        Self { status: HealthStatus::Unhealthy, latency_ms: None, detail: Some(why.to_string()) }
    }
}

/// The read replica for lists and histories.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadReplicaHealth {
    /// `degraded` while the primary is read in its place, because it is down or over 10 seconds behind.
    pub status: HealthStatus,
    /// How long it took to answer; `null` if it did not.
    pub latency_ms: Option<f64>,
    /// How far it is behind the primary, to within about a second; `null` if that is not known.
    pub lag_seconds: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// The publishing of events.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsHealth {
    /// The event system: the value of `EVENT_SYSTEM`.
    #[schema(example = "local")]
    pub system: &'static str,
    /// `unhealthy` while the broker accepts no events, `degraded` while the relay fails or an event has waited for over 5
    /// seconds.
    pub status: HealthStatus,
    /// Events in the outbox that no broker has confirmed; `null` if that is not known.
    pub unpublished: Option<u64>,
    /// How long the oldest of them has waited; 0 if none waits, `null` if that is not known.
    pub oldest_unpublished_seconds: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// How far the history is behind the orders.
#[derive(Debug, Serialize, ToSchema)]
pub struct HistoryHealth {
    /// `degraded` while an event has waited for over 30 seconds.
    pub status: HealthStatus,
    /// Events in the outbox that the history lacks; estimated beyond 1,000, `null` if that is not known.
    pub unrecorded: Option<u64>,
    /// How long the oldest of them has waited; 0 if none waits, `null` if that is not known.
    pub oldest_unrecorded_seconds: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}
