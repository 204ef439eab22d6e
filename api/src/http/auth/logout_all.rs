//! `POST /api/v1/auth/logout-all`: the end of every session of a customer.

use axum::{extract::State, http::StatusCode};
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use crate::{
    auth::{Caller, Role, accounts},
    http::{
        error::{ApiError, Code, Problem},
        extract::{FieldErrors, JsonBody, Object, Value},
    },
    state::AppState,
};

/// The customer whose sessions end.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"customer_id": 123}))]
pub struct LogoutAllRequest {
    /// The caller if it is left out; only administrators may name others.
    #[schema(value_type = Option<CustomerId>, nullable = false)]
    customer_id: Option<CustomerId>,
}

impl LogoutAllRequest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let customer_id = fields.optional("customer_id", Value::id, &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { customer_id: customer_id? }))
    }
}

/// End every session of the caller, or, as an administrator, of another customer.
///
/// No refresh token that was issued before works any more; access tokens run out within 30 minutes. The body may be
/// left out.
#[utoipa::path(
    post,
    path = "/api/v1/auth/logout-all",
    tag = "auth",
    request_body(content = LogoutAllRequest),
    responses(
        (status = 204, description = "Every session is over"),
        (status = 403, description = "Only administrators may name another customer",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn logout_all(
    State(state): State<AppState>,
    caller: Caller,
    body: Option<JsonBody>,
) -> Result<StatusCode, ApiError> {
    let named = match body {
        Some(JsonBody(body)) => LogoutAllRequest::parse(&body)?.customer_id,
        None => None,
    };
    let customer = named.unwrap_or(caller.customer_id);
    if customer != caller.customer_id && caller.role != Role::Admin {
        return Err(ApiError::new(Code::Forbidden, "only administrators may end the sessions of others"));
    }
    accounts::end_sessions(&state.db, customer, state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
