//! `POST /api/v1/auth/login-test`: tokens for any customer, in development only.

use axum::{Json, extract::State};
use shared::domain::{order::CustomerId, tenant::TenantId};
use utoipa::ToSchema;

use super::{
    credentials::parse_slug,
    tenant::{admit_tenant, no_such_tenant},
    token_pair::TokenPair,
};
use crate::{
    auth::{Caller, Role, accounts, sessions::SessionOrigin},
    http::{
        error::{ApiError, FieldError, Problem},
        extract::{FieldErrors, JsonBody, Object, Value, field_code},
    },
    state::AppState,
    tenants::{TenantError, TenantName},
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
    /// The number of the tenant, or its slug; the default one if it is missing.
    #[schema(value_type = Option<TenantInBody>, nullable = false)]
    tenant: TenantName,
}

/// How a body names a tenant. It only describes: nothing builds it.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it only describes; nothing builds it")]
enum TenantInBody {
    /// By its number.
    Number(TenantId),
    /// By its slug.
    Slug(String),
}

impl TestLoginRequest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut errors = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let customer_id = fields.required("customer_id", Value::id, &mut errors);
        let role = fields.optional("role", Value::parsed, &mut errors);
        let tenant = fields.optional("tenant", parse_tenant, &mut errors);
        fields.reject_unknown(&mut errors);
        errors.into_result(|| {
            Some(Self {
                customer_id: customer_id?,
                role: role?.unwrap_or(Role::Customer),
                tenant: tenant?.unwrap_or(TenantName::Id(TenantId::DEFAULT)),
            })
        })
    }
}

fn parse_tenant(value: &Value<'_>) -> Result<TenantName, FieldError> {
    if value.json().starts_with('"') {
        return Ok(TenantName::Slug(parse_slug(value)?));
    }
    let number = value.integer(1..=i32::MAX.into())?;
    let tenant = i32::try_from(number).ok().and_then(|number| number.try_into().ok());
    tenant
        .map(TenantName::Id)
        .ok_or_else(|| value.error(field_code::OUT_OF_RANGE, "must be the number of a tenant"))
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
    responses(
        (status = 200, description = "Logged in", body = TokenPair),
        (status = 403, description = "The tenant is suspended (`tenant_suspended`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn login_test(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let login = TestLoginRequest::parse(&body)?;
    let tenant = match state.tenants.find(&login.tenant).await {
        Err(TenantError::Unknown) => return Err(no_such_tenant()),
        found => found?,
    };
    admit_tenant(&state.tenants, tenant).await?;
    let caller = Caller::at_home(tenant, login.customer_id, login.role);
    let generation = accounts::load_status(&state.db, tenant, caller.customer_id).await?.generation;
    let origin = SessionOrigin::TestLogin { generation };
    Ok(Json(state.auth.log_in(caller, origin, state.clock.now()).await?.into()))
}
