//! Who is calling: what a verified access token says.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use shared::order::CustomerId;

use super::TokenError;
use crate::{error::ApiError, middleware::Context, state::AppState};

/// What a caller may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees and changes only its own orders.
    Customer,
    /// Sees and changes all.
    Admin,
}

impl Role {
    /// The name in tokens, bodies and the column.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Customer, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or("must be customer or admin")
    }
}

/// The authenticated caller. Handlers take it as their first argument; where it stands, the route needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who.
    pub customer_id: CustomerId,
    /// With which rights.
    pub role: Role,
}

impl Caller {
    /// Whether the caller may see and change what belongs to `owner`.
    pub fn may_access(&self, owner: CustomerId) -> bool {
        self.role == Role::Admin || self.customer_id == owner
    }
}

impl FromRequestParts<AppState> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers)?;
        let caller = state.auth.verify(token, state.clock.now()).await?;
        let context = parts.extensions.get::<Arc<Context>>();
        if let Some(context) = context {
            context.set_caller(caller);
        }
        if let Some(decision) = state.limits.customer(caller.customer_id).await {
            if let Some(context) = context {
                context.add_limit(decision);
            }
            decision.check()?;
        }
        Ok(caller)
    }
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<&str, TokenError> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(TokenError::Missing);
    };
    let (scheme, token) =
        value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(TokenError::Missing)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(token.trim()) } else { Err(TokenError::Missing) }
}
