//! `POST /api/v1/auth/logout`: the end of a session.

use axum::{extract::State, http::StatusCode};

use super::{refresh::RefreshRequest, tenant::require_tenant};
use crate::{
    http::{
        error::{ApiError, Problem},
        extract::JsonBody,
    },
    state::AppState,
};

/// End the session that a refresh token belongs to.
///
/// None of its refresh tokens works any more; access tokens run out within 30 minutes. This also works while the tenant is suspended.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout",
    tag = "auth",
    request_body = RefreshRequest,
    security(()),
    responses(
        (status = 204, description = "Logged out"),
        (status = 401, description = "The token is not valid, or the session is over",
         body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The tenant is being removed (`tenant_suspended`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn logout(State(state): State<AppState>, JsonBody(body): JsonBody) -> Result<StatusCode, ApiError> {
    let request = RefreshRequest::parse(&body)?;
    let presented = state.auth.verify_refresh(&request.refresh_token, state.clock.now())?;
    require_tenant(&state.tenants, presented.caller.home).await?;
    state.auth.log_out(&presented).await?;
    Ok(StatusCode::NO_CONTENT)
}
