//! What our tokens say.

use serde::{Deserialize, Serialize};
use shared::order::CustomerId;

use super::Role;

/// What a token is good for. One kind is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// Opens the API.
    Access,
    /// Is exchanged, once, for a new pair.
    Refresh,
}

/// The claims of a token, as they are signed.
#[derive(Serialize)]
pub(super) struct Claims<'a> {
    pub(super) sub: String,
    pub(super) customer_id: CustomerId,
    pub(super) role: Role,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) iat: i64,
    pub(super) exp: i64,
    pub(super) jti: &'a str,
}

/// What is read of any token: numbers and enums only, so that reading an access token allocates nothing.
#[derive(Clone, Copy, Deserialize)]
pub(super) struct Verified {
    pub(super) customer_id: CustomerId,
    pub(super) role: Role,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    pub(super) iat: i64,
    pub(super) exp: i64,
    #[serde(default)]
    pub(super) nbf: Option<i64>,
}

/// What is read of a refresh token besides.
#[derive(Deserialize)]
pub(super) struct Identified {
    pub(super) jti: String,
}
