//! The caller of a request, from its access token.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};

use crate::{
    auth::{Caller, TokenError},
    http::{error::ApiError, layer::Context},
    state::AppState,
};

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = bearer_token(&parts.headers)?;
        let caller = state.auth.verify_access(token, state.clock.now()).await?;
        admit_caller(caller, parts, state).await?;
        Ok(caller)
    }
}

/// Records the caller of a request, and counts the request against the customer's limit.
pub(in crate::http) async fn admit_caller(
    caller: Caller,
    parts: &Parts,
    state: &AppState,
) -> Result<(), ApiError> {
    let context = parts.extensions.get::<Arc<Context>>();
    if let Some(context) = context {
        context.set_caller(caller);
    }
    if let Some(check) = state.rate_limiter.count_customer(caller.customer_id).await {
        if let Some(context) = context {
            context.add_limit(check);
        }
        check.require_allowed()?;
    }
    Ok(())
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1).
pub(in crate::http) fn bearer_token(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(TokenError::Missing);
    };
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(TokenError::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(TokenError::Missing) }
}
