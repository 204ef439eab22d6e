//! The parts of a signed token before its signature has been checked.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, de::DeserializeOwned};
use shared::domain::tenant::TenantId;

use super::TokenError;

/// Longer texts are not decoded: they are not tokens.
const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// The one extension that we understand: the tenant of a token, which its claims repeat.
pub(crate) const TENANT_HEADER: &str = "tenant";

/// A token whose signature has not been checked yet.
#[derive(Debug)]
pub(crate) struct UnverifiedToken<'a> {
    /// The whole token.
    pub(crate) text: &'a str,
    /// The signed part: header and payload as sent.
    pub(crate) message: &'a str,
    pub(crate) signature: &'a str,
    payload: &'a str,
    pub(crate) header: TokenHeader,
    /// The tenant in the header of our own tokens, if it is not the default one. It is an extension that must be understood, so
    /// that a version that knows no tenants refuses the token, and does not take its customer for one of the default tenant.
    pub(crate) tenant: Option<TenantId>,
}

/// The header of a token: how to check its signature.
#[derive(Debug, Deserialize)]
pub(crate) struct TokenHeader {
    pub(crate) alg: String,
    /// Which key of an identity provider signed it; our own tokens name none.
    #[serde(default)]
    pub(crate) kid: Option<String>,
    /// What kind of token it is (RFC 7519, section 5.1).
    #[serde(default)]
    typ: Option<String>,
    /// Extensions that a verifier must understand (RFC 7515, section 4.1.11).
    #[serde(default)]
    crit: Option<Vec<String>>,
    /// The value of the one that we understand. It means nothing in a token that does not name it in `crit`.
    #[serde(default)]
    tenant: Option<serde_json::Value>,
}

impl<'a> UnverifiedToken<'a> {
    /// Splits a token in compact form.
    pub(crate) fn parse(token: &'a str) -> Result<Self, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
        let header: TokenHeader = decode_part(header)?;
        let tenant = match (&header.crit, &header.tenant) {
            (None, _) => None,
            (Some(extensions), Some(tenant)) if extensions == &[TENANT_HEADER] => {
                Some(TenantId::deserialize(tenant).map_err(|_| TokenError::Malformed)?)
            }
            _ => return Err(TokenError::Algorithm),
        };
        if !header.typ.as_deref().is_none_or(is_access_token_type) {
            return Err(TokenError::WrongType);
        }
        Ok(Self { text: token, message, signature, payload, header, tenant })
    }

    /// Reads the claims. They must not be used before the signature has been checked.
    pub(crate) fn claims<T: DeserializeOwned>(&self) -> Result<T, TokenError> {
        decode_part(self.payload)
    }
}

/// Whether `typ` is a type of access tokens: the general one, or that of RFC 9068. Tokens for logout, proof of possession
/// or security events are signed by the same keys and have other types.
fn is_access_token_type(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn decode_part<T: DeserializeOwned>(part: &str) -> Result<T, TokenError> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&json).map_err(|_| TokenError::Malformed)
}
