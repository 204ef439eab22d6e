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
    #[serde(with = "shared::timestamp")]
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
    /// Redis.
    pub redis: ServiceHealth,
    /// The outbox and the broker.
    pub events: EventsHealth,
}

/// One dependency.
#[derive(Debug, Serialize, ToSchema)]
pub struct ServiceHealth {
    /// Whether it answers.
    pub status: Status,
    /// How long it took to answer; `null` where it did not.
    pub latency_ms: Option<f64>,
}

/// The way of events out of here.
#[derive(Debug, Serialize, ToSchema)]
pub struct EventsHealth {
    /// The event system, as `EVENT_SYSTEM` names it.
    #[schema(example = "local")]
    pub system: &'static str,
    /// `unhealthy` while the broker takes no events, `degraded` while events wait for over a minute.
    pub status: Status,
    /// Events in the outbox that no broker has confirmed; `null` where that cannot be told.
    pub unpublished: Option<u64>,
    /// How long the oldest of them has waited; 0 where none waits, `null` where that cannot be told.
    pub oldest_unpublished_seconds: Option<f64>,
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
