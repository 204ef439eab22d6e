//! The response to a login or a refresh.

use serde::Serialize;
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use crate::auth::{ACCESS_LIFETIME, sessions::SessionTokens};

/// An access token, and the refresh token that is exchanged for the next pair.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    /// For `Authorization: Bearer …`.
    access_token: String,
    /// Valid for one refresh.
    refresh_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds until the access token expires.
    #[schema(example = 1800)]
    expires_in: i64,
    /// The customer who is logged in.
    customer_id: CustomerId,
}

impl From<SessionTokens> for TokenPair {
    fn from(tokens: SessionTokens) -> Self {
        Self {
            access_token: tokens.access,
            refresh_token: tokens.refresh,
            token_type: "bearer",
            expires_in: ACCESS_LIFETIME.whole_seconds(),
            customer_id: tokens.caller.customer_id,
        }
    }
}
