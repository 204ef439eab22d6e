//! `POST /api/v1/auth/register`: a new account.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;
use shared::order::CustomerId;
use utoipa::ToSchema;

use super::{
    Email,
    accounts::{self, Created},
    passwords,
};
use crate::{
    error::{ApiError, Code, Fault},
    extract::{Faults, JsonBody, Object, Value, fault},
    state::AppState,
};

/// An address and a password.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"email": "ada@example.com", "password": "correct horse"}))]
pub struct Credentials {
    /// Compared without regard to case.
    #[schema(value_type = String, pattern = r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+$", max_length = 254)]
    pub(super) email: Email,
    /// Any characters.
    #[schema(min_length = 8, max_length = 128)]
    pub(super) password: String,
}

/// The new account.
#[derive(Serialize, ToSchema)]
pub struct Registered {
    /// Who it is for.
    customer_id: CustomerId,
}

impl Credentials {
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let mut faults = Faults::new();
        let mut fields = Object::parse(body)?;
        let email = fields.required("email", Value::parsed, &mut faults);
        let password = fields.required("password", password, &mut faults);
        fields.finish(&mut faults);
        faults.unless_any(|| Some(Self { email: email?, password: password? }))
    }
}

fn password(value: &Value<'_>) -> Result<String, Fault> {
    let text = value.string()?;
    if passwords::LENGTH.contains(&text.chars().count()) {
        return Ok(text.into_owned());
    }
    let (least, most) = (passwords::LENGTH.start(), passwords::LENGTH.end());
    Err(value.fault(fault::INVALID_LENGTH, format!("must have {least} to {most} characters")))
}

/// Open an account.
#[utoipa::path(
    post,
    path = "/api/v1/auth/register",
    tag = "auth",
    request_body = Credentials,
    security(()),
    responses(
        (status = 201, description = "The account is there", body = Registered),
        (status = 409, description = "Another account has this address (`email_taken`)",
         body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn register(
    State(state): State<AppState>,
    JsonBody(body): JsonBody,
) -> Result<(StatusCode, Json<Registered>), ApiError> {
    let Credentials { email, password } = Credentials::parse(&body)?;
    let hash = state.auth.passwords.hash(password).await?;
    match accounts::create(&state.db, &email, &hash).await? {
        Created::Account(customer_id) => Ok((StatusCode::CREATED, Json(Registered { customer_id }))),
        Created::EmailTaken => Err(ApiError::new(Code::EmailTaken, "another account has this address")),
    }
}
