//! `POST /api/v1/auth/refresh`: the next token pair.

use axum::{Json, extract::State};
use utoipa::ToSchema;

use super::{tenant::admit_tenant, token_pair::TokenPair};
use crate::{
    auth::{Caller, accounts},
    http::{
        error::{ApiError, Problem},
        extract::{FieldErrors, JsonBody, Object, Value},
    },
    state::AppState,
};

/// A refresh token: the body of `refresh` and `logout`.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RefreshRequest {
    /// The token that the login or the last refresh returned.
    pub(super) refresh_token: String,
}

impl RefreshRequest {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let refresh_token = fields.required("refresh_token", Value::string, &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { refresh_token: refresh_token?.into_owned() }))
    }
}

/// Exchange a refresh token for the next pair.
///
/// The token can be used once. If it is used again within 10 s, the same next pair is returned; later, that ends the session.
/// The new pair has the role that the account has now. A session ends 90 days after its login, with its account, and by a
/// logout.
#[utoipa::path(
    post,
    path = "/api/v1/auth/refresh",
    tag = "auth",
    request_body = RefreshRequest,
    security(()),
    responses(
        (status = 200, description = "The next pair", body = TokenPair),
        (status = 401, description = "The token is not valid, or the session is over",
         body = Problem, content_type = "application/problem+json"),
        (status = 403, description = "The tenant is suspended (`tenant_suspended`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn refresh(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let request = RefreshRequest::parse(&body)?;
    let now = state.clock.now();
    let presented = state.auth.verify_refresh(&request.refresh_token, now)?;
    let Caller { home, customer_id, .. } = presented.caller;
    admit_tenant(&state.tenants, home).await?;
    let status = accounts::load_status(&state.db, home, customer_id).await?;
    Ok(Json(state.auth.refresh(&presented, &status, now).await?.into()))
}
