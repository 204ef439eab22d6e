//! Errors of authentication as problems.

use axum::http::{HeaderValue, header};

use crate::{
    auth::{AuthError, TokenError},
    http::{
        error::{ApiError, Code, FieldError},
        extract::field_code,
    },
    tenants::TenantError,
};

impl From<TokenError> for ApiError {
    /// 401 with the challenge of RFC 6750, section 3.
    fn from(error: TokenError) -> Self {
        let challenge = match error {
            TokenError::Missing => r#"Bearer realm="orders""#.to_owned(),
            error => {
                format!(r#"Bearer realm="orders", error="invalid_token", error_description="{error}""#)
            }
        };
        let challenge = HeaderValue::try_from(challenge).unwrap_or(HeaderValue::from_static("Bearer"));
        Self::new(Code::Unauthenticated, error.to_string()).with_header(header::WWW_AUTHENTICATE, challenge)
    }
}

impl From<AuthError> for ApiError {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::Token(error) => error.into(),
            AuthError::RefreshedTooOften { .. } | AuthError::NetworkQueueFull(_) => {
                Self::new(Code::RateLimited, error.to_string())
                    .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
            }
            AuthError::WeakPassword => {
                Self::validation(vec![FieldError::new("/password", field_code::TOO_WEAK, error.to_string())])
            }
            AuthError::QueueFull => Self::unavailable(error),
            AuthError::ProviderKeys(cause) => Self::unavailable(cause),
            AuthError::Redis(failure) => failure.into(),
            // `JWT_TENANT` names no tenant, or one that was removed.
            AuthError::Tenant(TenantError::Unknown) => TokenError::NoTenant.into(),
            AuthError::Tenant(error) => error.into(),
            AuthError::Database(error) => error.into(),
            AuthError::Internal(cause) => Self::internal(cause),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_that_is_refused_for_a_while_says_when_to_try_again() {
        for (error, code) in [
            (AuthError::NetworkQueueFull(24), Code::RateLimited),
            (AuthError::RefreshedTooOften { times: 64, seconds: 10 }, Code::RateLimited),
            (AuthError::QueueFull, Code::Unavailable),
        ] {
            let error = ApiError::from(error);
            assert_eq!(error.code(), code);
            assert!(error.headers().contains_key(header::RETRY_AFTER), "{error}");
        }
    }
}
