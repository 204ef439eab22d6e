//! `POST /api/v1/auth/login`: a token pair for an address and its password.

use std::sync::Arc;

use axum::{
    Extension, Json,
    extract::State,
    http::{HeaderValue, header},
};
use sha2::{Digest as _, Sha256};

use super::{TokenPair, accounts, register::Credentials};
use crate::{
    error::{ApiError, Code},
    extract::JsonBody,
    limits::Quota,
    middleware::Context,
    state::AppState,
};

/// Failed logins of one account, from wherever: guessing a password of eight characters takes for ever at this rate.
const OF_ACCOUNT: (&str, Quota) = ("login-account", Quota::new(10, 900));
/// Failed logins of one address, on whatever accounts.
const OF_ADDRESS: (&str, Quota) = ("login-address", Quota::new(100, 900));

/// Log in with an address and a password.
///
/// A wrong password and an unknown address are answered alike, after the same time. Ten failed logins of an account
/// in 15 minutes, or a hundred from an address, are enough: then it is 429.
#[utoipa::path(
    post,
    path = "/api/v1/auth/login",
    tag = "auth",
    request_body = Credentials,
    security(()),
    responses(
        (status = 200, description = "Logged in", body = TokenPair),
        (status = 401, description = "The address or the password is wrong",
         body = crate::error::Problem, content_type = "application/problem+json"),
    ),
)]
pub async fn login(
    State(state): State<AppState>,
    Extension(context): Extension<Arc<Context>>,
    JsonBody(body): JsonBody,
) -> Result<Json<TokenPair>, ApiError> {
    let Credentials { email, password } = Credentials::parse(&body)?;
    let subjects = [(OF_ACCOUNT, fingerprint(email.as_str())), (OF_ADDRESS, context.client.to_string())];
    // Counted before the password is looked at, so that many at once cannot slip through; a good login is not counted.
    for ((policy, quota), subject) in &subjects {
        state.limits.take(policy, subject, *quota).await.check()?;
    }
    let account = accounts::find(&state.db, &email).await?;
    let hash = account.as_ref().map(|account| account.password_hash.clone());
    let is_right = state.auth.passwords.verify(password, hash).await?;
    let Some(account) = account.filter(|_| is_right) else {
        return Err(refused());
    };
    for ((policy, quota), subject) in &subjects {
        state.limits.give_back(policy, subject, *quota).await;
    }
    Ok(Json(state.auth.log_in(account.caller, state.clock.now()).await?))
}

fn refused() -> ApiError {
    ApiError::new(Code::Unauthenticated, "the address or the password is wrong")
        .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="orders""#))
}

/// Addresses do not stand in Redis.
fn fingerprint(email: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(email.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = std::fmt::Write::write_fmt(&mut hex, format_args!("{byte:02x}"));
    }
    hex
}
