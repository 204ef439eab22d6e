//! `GET /api/v1/health` and `GET /health`: the API and each dependency.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;

use crate::state::AppState;

/// How a thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// All is well.
    Healthy,
    /// Requests are served, with something missing behind them.
    Degraded,
    /// It does not work.
    Unhealthy,
}

/// The API and each dependency.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthReport {
    /// `unhealthy` without PostgreSQL, `degraded` while anything else is not well.
    pub status: Status,
    /// When this was found out.
    #[serde(with = "shared::domain::timestamp")]
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: OffsetDateTime,
    /// The version of this build.
    pub version: &'static str,
    /// Each dependency.
    pub services: Services,
}

/// Each dependency.
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

/// One dependency.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// `unhealthy` if it does not answer or cannot be used, `degraded` if it answers and some work fails.
    pub status: Status,
    /// How long it took to answer; `null` if it did not.
    pub latency_ms: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

impl ServiceHealth {
    pub(super) fn unhealthy(why: impl std::fmt::Display) -> Self {
        Self { status: Status::Unhealthy, latency_ms: None, detail: Some(why.to_string()) }
    }
}

/// The read replica of lists and histories.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadReplicaHealth {
    /// `degraded` while the primary answers in its place, because it is down or over 10 seconds behind.
    pub status: Status,
    /// How long it took to answer; `null` if it did not.
    pub latency_ms: Option<f64>,
    /// How far it is behind the primary, to within about a second; `null` if that is not known.
    pub lag_seconds: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// The way of events out of here.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsHealth {
    /// The event system, as `EVENT_SYSTEM` names it.
    #[schema(example = "local")]
    pub system: &'static str,
    /// `unhealthy` while the broker takes no events, `degraded` while the relay does not get on, or an event has waited for
    /// over 5 seconds.
    pub status: Status,
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
    pub status: Status,
    /// Events in the outbox that the history lacks; estimated beyond 1,000, `null` if that is not known.
    pub unrecorded: Option<u64>,
    /// How long the oldest of them has waited; 0 if none waits, `null` if that is not known.
    pub oldest_unrecorded_seconds: Option<f64>,
    /// What is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub detail: Option<String>,
}

/// The state of the API and of its dependencies.
///
/// Answers 200 while requests are served, also when `degraded`.
#[utoipa::path(
    get,
    path = "/api/v1/health",
    tag = "health",
    security(()),
    responses(
        (status = 200, description = "Healthy or degraded", body = HealthReport),
        (status = 503, description = "Unhealthy", body = HealthReport),
    ),
)]
pub async fn health(State(state): State<AppState>) -> Response {
    let report: Arc<HealthReport> = state.health.report(state.orders.cache_degraded()).await;
    let status = match report.status {
        Status::Healthy | Status::Degraded => StatusCode::OK,
        Status::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}
