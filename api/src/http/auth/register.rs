//! `POST /api/v1/auth/register`: a new account.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::domain::{order::CustomerId, tenant::TenantId};
use utoipa::ToSchema;

use super::{
    credentials::Credentials,
    tenant::{admit_tenant, find_tenant, no_such_tenant},
};
use crate::{
    auth::{
        accounts::{self, AccountCreation},
        passwords::{self, Password},
    },
    http::{
        error::{ApiError, Code, Problem},
        extract::JsonBody,
        layer::Context,
    },
    limits::{LimitKey, Policy, Quota},
    state::AppState,
};

/// New accounts from one network. Each costs a hash and a row.
const FROM_NETWORK: Policy =
    Policy { name: "register-network", counts: "registrations", quota: Quota::new(60, 3600) };

/// A new account.
#[derive(Serialize, ToSchema)]
pub struct NewAccount {
    /// The customer it belongs to.
    customer_id: CustomerId,
}

/// Open an account.
///
/// An address can have one account in each tenant. A network may open 60 accounts an hour: beyond that, or with too many at once,
/// it is 429.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = Credentials,
    security(()),
    responses(
        (status = 201, description = "The account was created", body = NewAccount),
        (status = 403, description = "The tenant is suspended (`tenant_suspended`)",
         body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another account has this address (`email_taken`)",
         body = Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn register(
    State(state): State<AppState>,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<NewAccount>), ApiError> {
    let Credentials { email, password, tenant } = Credentials::parse(&body, Password::for_new_account)?;
    let network = context.client.into();
    let place = state.auth.password_queues.enter_registration(network)?;
    state.rate_limiter.count(FROM_NETWORK, LimitKey::Network(network)).await.require_allowed()?;
    let tenant = match &tenant {
        Some(slug) => find_tenant(&state.db, slug).await?.ok_or_else(no_such_tenant)?,
        None => TenantId::DEFAULT,
    };
    admit_tenant(&state.tenants, tenant).await?;
    let hash = passwords::hash_password(place, password, &email).await?;
    let beside_provider = state.config.auth.provider.is_some();
    match accounts::create_account(&state.db, tenant, &email, &hash, beside_provider).await? {
        AccountCreation::Created(customer_id) => Ok((StatusCode::CREATED, Json(NewAccount { customer_id }))),
        AccountCreation::NoTenant => Err(no_such_tenant()),
        AccountCreation::EmailTaken => {
            Err(ApiError::new(Code::EmailTaken, "another account has this address"))
        }
    }
}
