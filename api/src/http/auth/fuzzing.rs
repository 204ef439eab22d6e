//! The parser of the `Authorization` header, for the fuzz targets.

use axum::http::HeaderMap;

use super::caller;
use crate::auth::TokenError;

/// The token of a request.
pub fn bearer_token(headers: &HeaderMap) -> Result<&str, TokenError> {
    caller::bearer_token(headers)
}
