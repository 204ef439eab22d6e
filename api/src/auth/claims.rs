//! The claims of our own tokens.

use serde::{Deserialize, Serialize};
use shared::domain::{order::CustomerId, tenant::TenantId};

use super::Role;

/// What a token can be used for. One kind is never accepted in place of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TokenKind {
    /// Opens the API.
    Access,
    /// Is exchanged, once, for the next tokens.
    Refresh,
}

/// The claims that are signed.
#[derive(Serialize)]
pub(crate) struct SignedClaims<'a> {
    pub(crate) sub: String,
    pub(crate) customer_id: CustomerId,
    #[serde(skip_serializing_if = "TenantId::is_default")]
    pub(crate) tenant: TenantId,
    pub(crate) role: Role,
    #[serde(rename = "type")]
    pub(crate) kind: TokenKind,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    pub(crate) jti: &'a str,
}

/// The claims that are read of every token: numbers and enums only, so that reading an access token allocates nothing.
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct VerifiedClaims {
    pub(crate) customer_id: CustomerId,
    /// Tokens of the default tenant do not name it.
    #[serde(default)]
    pub(crate) tenant: TenantId,
    pub(crate) role: Role,
    #[serde(rename = "type")]
    pub(crate) kind: TokenKind,
    pub(crate) iat: i64,
    pub(crate) exp: i64,
    #[serde(default)]
    pub(crate) nbf: Option<i64>,
}

/// The claim that is read of every verified token, ours or a provider's, which may write fractions.
#[derive(Deserialize)]
pub(crate) struct TokenExpiry {
    /// Seconds since the Unix epoch.
    pub(crate) exp: f64,
}

/// The claim that is read of refresh tokens only.
#[derive(Deserialize)]
pub(crate) struct TokenId {
    pub(crate) jti: String,
}
