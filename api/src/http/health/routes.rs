//! `GET /api/v1/health` (also `/health`), `/api/v1/health/ready` and `/api/v1/health/live`.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::report::{HealthReport, HealthStatus};
use crate::{
    http::error::{ApiError, Code},
    state::AppState,
};

/// The routes of this file: machines call them often.
pub const ROUTES: [&str; 4] = ["/health", "/api/v1/health", "/api/v1/health/ready", "/api/v1/health/live"];

/// The response of a probe that succeeds.
#[derive(Serialize, ToSchema)]
pub struct ProbeStatus {
    /// `alive` or `ready`, as the route says.
    #[schema(example = "alive")]
    status: &'static str,
}

/// The state of the API and of the services that it depends on.
///
/// The status is 200 while requests are served, also when `degraded`.
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
        HealthStatus::Healthy | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(report)).into_response()
}

/// Whether requests should be sent here
///
/// They should not be sent without PostgreSQL, while the database has an older schema than this build needs or its role lacks
/// rights, and during a shutdown. The detail of the problem says what to do.
#[utoipa::path(
    get,
    path = "/api/v1/health/ready",
    tag = "health",
    security(()),
    responses((status = 200, description = "Ready", body = ProbeStatus)),
)]
pub async fn ready(State(state): State<AppState>) -> Result<Json<ProbeStatus>, ApiError> {
    match state.health.reason_not_ready().await {
        None => Ok(Json(ProbeStatus { status: "ready" })),
        Some(reason) => Err(ApiError::new(Code::Unavailable, reason)
            .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))),
    }
}

/// Whether the process runs. It does not depend on other services: a restart would not repair them.
#[utoipa::path(
    get,
    path = "/api/v1/health/live",
    tag = "health",
    security(()),
    responses((status = 200, description = "The process runs", body = ProbeStatus)),
)]
pub async fn live() -> Json<ProbeStatus> {
    Json(ProbeStatus { status: "alive" })
}
