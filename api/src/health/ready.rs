//! `GET /api/v1/health/ready`: whether requests should be sent here.

use axum::{Json, extract::State, http::HeaderValue, http::header};

use super::{Status, live::Alive};
use crate::{
    error::{ApiError, Code},
    state::AppState,
};

/// Whether requests should be sent here. Without PostgreSQL, and during a shutdown, they should not.
#[utoipa::path(
    get,
    path = "/api/v1/health/ready",
    tag = "health",
    security(()),
    responses((status = 200, description = "Ready", body = Alive)),
)]
pub async fn ready(State(state): State<AppState>) -> Result<Json<Alive>, ApiError> {
    let not_ready = |why: &str| {
        ApiError::new(Code::Unavailable, why).with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    };
    if state.health.shutdown.has_begun() {
        return Err(not_ready("this process is shutting down"));
    }
    if state.health.report(state.orders.cache_degraded()).await.services.database.status != Status::Healthy {
        return Err(not_ready("PostgreSQL does not answer"));
    }
    Ok(Json(Alive { status: "ready" }))
}
