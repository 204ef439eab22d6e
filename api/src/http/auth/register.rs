//! `POST /api/v1/auth/register`: a new account.

use std::sync::Arc;

use axum::{Extension, Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use crate::{
    auth::{
        Email,
        accounts::{self, Created},
        passwords::{self, Password},
    },
    http::{
        error::{ApiError, Code, FieldError},
        extract::{FieldErrors, JsonBody, Object, Value},
        layer::Context,
    },
    limits::{Policy, Quota, Subject},
    state::AppState,
};

/// New accounts from one network. Each costs a hash and a row.
const FROM_NETWORK: Policy =
    Policy { name: "register-network", counts: "registrations", quota: Quota::new(60, 3600) };

/// An address and a password.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "correct horse"}))]
pub struct Credentials {
    /// Compared without regard to case.
    #[schema(value_type = String, pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$", max_length = 254)]
    pub(super) email: Email,
    /// Any characters but control characters. A new one must not be common, nor made of the address (`too_weak`). Compared
    /// as RFC 8265 says (`OpaqueString`).
    #[schema(value_type = String, min_length = 8, max_length = 128)]
    pub(super) password: Password,
}

/// The new account.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    /// Who it is for.
    customer_id: CustomerId,
}

impl Credentials {
    /// Reads both; `password` says which passwords are taken.
    pub(super) fn parse(
        body: &[u8],
        password: impl FnOnce(&Value<'_>) -> Result<Password, FieldError>,
    ) -> Result<Self, ApiError> {
        let mut faults = FieldErrors::new();
        let mut fields = Object::parse(body)?;
        let email = fields.required("email", Value::parsed, &mut faults);
        let password = fields.required("password", password, &mut faults);
        fields.reject_unknown(&mut faults);
        faults.into_result(|| Some(Self { email: email?, password: password? }))
    }
}

/// Open an account.
///
/// A network may open 60 accounts an hour: beyond that, or with too many at once, it is 429.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = Credentials,
    security(()),
    responses(
        (status = 201, description = "The account is there", body = Registered),
        (status = 409, description = "Another account has this address (`email_taken`)",
         body = crate::http::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn register(
    State(state): State<AppState>,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Registered>), ApiError> {
    let Credentials { email, password } = Credentials::parse(&body, Password::of_new_account)?;
    let network = context.client.into();
    let place = state.auth.passwords.queue_registration(network)?;
    state.limits.take(FROM_NETWORK, Subject::Network(network)).await.check()?;
    let hash = passwords::hash(place, password, &email).await?;
    let beside_provider = state.config.auth.provider.is_some();
    match accounts::create(&state.db, &email, &hash, beside_provider).await? {
        Created::Account(customer_id) => Ok((StatusCode::CREATED, Json(Registered { customer_id }))),
        Created::EmailTaken => Err(ApiError::new(Code::EmailTaken, "another account has this address")),
    }
}
