//! `POST /api/v1/auth/login-test`: tokens for any customer, in development only.

use axum::{Json, extract::State};
use shared::domain::{order::CustomerId, tenant::TenantId};
use utoipa::ToSchema;

use super::token_pair::TokenPair;
use crate::{
    auth::{Caller, Role, accounts, sessions::SessionOrigin},
    http::{
        error::ApiError,
        extract::{FieldErrors, JsonBody, Object, Value},
    },
    state::AppState,
};

/// Who is logged in.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"customer_id": 123}))]
pub struct TestLoginRequest {
    /// The customer.
    customer_id: CustomerId,
    /// The role; `customer` if it is missing.
    #[schema(value_type = Option<Role>, nullable = false)]
    role: Role,
}

impl TestLoginRequest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let customer_id = fields.required("customer_id", Value::id, &mut errors);
        let role = fields.optional("role", Value::parsed, &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| Some(Self { customer_id: customer_id?, role: role?.unwrap_or(Role::Customer) }))
    }
}

/// Log in as any customer, for trying things out.
///
/// Exists only with `DEBUG=true`.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login-test",
    tag = "auth",
    request_body = TestLoginRequest,
    security(()),
    responses((status = 200, description = "Logged in", body = TokenPair)),
)]
pub async fn login_test(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let login = TestLoginRequest::parse(&body)?;
    let caller = Caller { tenant: TenantId::DEFAULT, customer_id: login.customer_id, role: login.role };
    let generation = accounts::load_status(&state.db, caller.customer_id).await?.generation;
    let origin = SessionOrigin::TestLogin { generation };
    Ok(Json(state.auth.log_in(caller, origin, state.clock.now()).await?.into()))
}
