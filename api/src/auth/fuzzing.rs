//! The parsers of tokens, for the fuzz targets.

use shared::domain::tenant::TenantId;
use time::OffsetDateTime;

use super::{
    Caller, ProviderConfig, TokenError,
    provider::{self, IdentityProvider},
};

/// Reads the claims of a provider's tokens and returns the caller they name, or `None` if they are not claims.
pub fn provider_claims(
    config: ProviderConfig,
) -> impl Fn(&[u8], OffsetDateTime) -> Option<Result<Caller, TokenError>> {
    let provider = IdentityProvider::new(config).expect("an HTTP client");
    move |json, now| {
        Some(provider.caller_from_claims(
            serde_json::from_slice(json).ok()?,
            TenantId::DEFAULT,
            |text| text == "1",
            now,
        ))
    }
}

/// Whether a key of a provider's set can be used here.
pub fn provider_key(json: &[u8]) -> bool {
    serde_json::from_slice(json).is_ok_and(|key| provider::parse_key(key).is_some())
}
