//! `POST /api/v1/auth/logout-all`: the end of every session of a customer.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
};
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use super::X_TENANT_ID;
use crate::{
    auth::{Action, Caller, accounts},
    http::{
        error::{ApiError, Code, FieldError, Problem},
        extract::{FieldErrors, JsonBody, Object, Value, field_code},
    },
    state::AppState,
};

/// The customer whose sessions end.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"customer_id": 123}))]
pub struct LogoutAllRequest {
    /// The caller if it is left out; only administrators may name others, of their tenant.
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

/// End every session of the caller, or, as an administrator, of another customer of the tenant.
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
        (status = 403, description = "Only administrators may name another customer, or the tenant is suspended (`tenant_suspended`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn logout_all(
    State(state): State<AppState>,
    caller: Caller,
    headers: HeaderMap,
    body: Option<JsonBody>,
) -> Result<StatusCode, ApiError> {
    let named = match body {
        Some(JsonBody(body)) => LogoutAllRequest::parse(&body)?.customer_id,
        None => None,
    };
    if named.is_none() && headers.contains_key(X_TENANT_ID) {
        // The operator's own number is that of another customer there.
        let detail = "is required if X-Tenant-Id is given";
        let error = FieldError::new("/customer_id", field_code::REQUIRED, detail);
        return Err(ApiError::validation(vec![error]));
    }
    let customer = named.unwrap_or(caller.customer_id);
    if !caller.may(Action::EndSessions, customer) {
        return Err(ApiError::new(Code::Forbidden, "only administrators may end the sessions of others"));
    }
    accounts::end_sessions(&state.db, caller.tenant, customer, state.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}
