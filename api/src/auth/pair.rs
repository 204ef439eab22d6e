//! The answer to a login or a refresh.

use serde::Serialize;
use shared::domain::order::CustomerId;
use utoipa::ToSchema;

use super::{ACCESS_LIFETIME, Caller, sessions::Pair};

/// An access token and the refresh token to get the next one with.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenPair {
    /// For `Authorization: Bearer …`.
    access_token: String,
    /// Good for one refresh.
    refresh_token: String,
    /// Always `bearer`.
    #[schema(example = "bearer")]
    token_type: &'static str,
    /// Seconds that the access token lives.
    #[schema(example = 1800)]
    expires_in: i64,
    /// Who is logged in.
    customer_id: CustomerId,
}

impl TokenPair {
    pub(crate) fn new(pair: Pair, caller: Caller) -> Self {
        Self {
            access_token: pair.access,
            refresh_token: pair.refresh,
            token_type: "bearer",
            expires_in: ACCESS_LIFETIME.whole_seconds(),
            customer_id: caller.customer_id,
        }
    }
}
