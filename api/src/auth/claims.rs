//! What our tokens say.

use serde::{Deserialize, Serialize};
use shared::domain::order::CustomerId;

use super::Role;

/// What a token is good for. One kind is never taken for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// Opens the API.
    Access,
    /// Is exchanged, once, for a new pair.
    Refresh,
}

/// The claims of a token, as they are signed.
#[derive(Serialize)]
pub(crate) struct Claims<'a> {
    pub(crate) sub: String,
    pub(crate) customer_id: CustomerId,
    pub(crate) role: Role,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    pub(crate) jti: &'a str,
}

/// What is read of any token: numbers and enums only, so that reading an access token allocates nothing.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Verified {
    pub(crate) customer_id: CustomerId,
    pub(crate) role: Role,
    #[serde(rename = "type")]
    pub(crate) kind: Kind,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    #[serde(default)]
    pub(crate) nbf: Option<i64>,
}

/// What is read of a refresh token besides.
#[derive(Deserialize)]
pub(crate) struct Identified {
    pub(crate) jti: String,
}
