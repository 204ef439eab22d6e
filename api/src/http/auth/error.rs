//! How a refused token is answered.

use axum::http::{HeaderValue, header};

use crate::{
    auth::TokenError,
    http::error::{ApiError, Code},
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
