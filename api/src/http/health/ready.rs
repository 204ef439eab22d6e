//! `GET /api/v1/health/ready`: whether requests should be sent here.

use axum::{Json, extract::State, http::HeaderValue, http::header};

use super::live::Alive;
use crate::{
    http::error::{ApiError, Code},
    state::AppState,
};

/// Whether requests should be sent here
///
/// They should not without PostgreSQL, while the database has an older schema than this build needs or its role lacks rights,
/// and during a shutdown. The detail of the problem says what to do.
#[utoipa::path(
    get,
    path = "/api/v1/health/ready",
    tag = "health",
    security(()),
    responses((status = 200, description = "Ready", body = Alive)),
)]
pub async fn ready(State(state): State<AppState>) -> Result<Json<Alive>, ApiError> {
    let not_ready = |why: String| {
        ApiError::new(Code::Unavailable, why).with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
    };
    if state.health.shutdown.has_begun() {
        return Err(not_ready("this process is shutting down".to_owned()));
    }
    if let Some(why) = state.health.database().await.not_ready() {
        return Err(not_ready(format!("not ready: {why}")));
    }
    Ok(Json(Alive { status: "ready" }))
}
