//! `POST /api/v1/auth/login-test`: a token for anybody, in development only.

use axum::{Json, extract::State};
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use crate::{
    auth::{Caller, Role, TokenPair, accounts, sessions::Origin},
    http::{
        error::ApiError,
        extract::{FieldErrors, JsonBody, Object, Value},
    },
    state::AppState,
};

/// Whom to log in.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"customer_id": 123}))]
pub struct LoginTest {
    /// As this customer.
    customer_id: CustomerId,
    /// With these rights; `customer` where it is not said.
    #[schema(value_type = Option<Role>, nullable = false)]
    role: Role,
}

impl LoginTest {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut faults = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let customer_id = fields.required("customer_id", Value::id, &mut faults);
        let role = fields.optional("role", Value::parsed, &mut faults);
        fields.reject_unknown(&mut faults);
        faults.into_result(|| Some(Self { customer_id: customer_id?, role: role?.unwrap_or(Role::Customer) }))
    }
}

/// Log in as anybody, for trying things out.
///
/// Exists only with `DEBUG=true`.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login-test",
    tag = "auth",
    request_body = LoginTest,
    security(()),
    responses((status = 200, description = "Logged in", body = TokenPair)),
)]
pub async fn login_test(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let login = LoginTest::parse(&body)?;
    let caller = Caller { customer_id: login.customer_id, role: login.role };
    let generation = accounts::standing(&state.db, caller.customer_id).await?.generation;
    Ok(Json(state.auth.log_in(caller, Origin::TestLogin { generation }, state.clock.now()).await?))
}
