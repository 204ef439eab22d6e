//! What the fuzz targets reach of the token parsers.

use axum::http::HeaderMap;
use time::OffsetDateTime;

use super::{
    Caller, ProviderConfig, TokenError, caller,
    provider::{self, Provider},
};

/// The token that a request carries.
pub fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    caller::bearer(headers)
}

/// Reads the claims of a provider's tokens, and tells who they speak for; `None` for what are no claims.
pub fn provider_claims(
    config: ProviderConfig,
) -> impl Fn(&[u8], OffsetDateTime) -> Option<Result<Caller, TokenError>> {
    let provider = Provider::new(config).expect("a client of HTTP");
    move |json, now| Some(provider.caller(serde_json::from_slice(json).ok()?, now))
}

/// Whether a key of a provider's set can be used here.
pub fn provider_key(json: &[u8]) -> bool {
    serde_json::from_slice(json).is_ok_and(|key| provider::usable(key).is_some())
}
