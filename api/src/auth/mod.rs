//! Who is calling, and how they prove it.

mod accounts;
mod caller;
mod claims;
mod config;
mod email;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod jwt;
pub mod login;
pub mod login_test;
pub mod logout;
mod pair;
mod passwords;
mod provider;
pub mod refresh;
pub mod register;
mod sessions;
mod tokens;

use time::OffsetDateTime;

pub use caller::{Caller, Role};
pub use config::{AuthConfig, PUBLISHED_SECRET, ProviderConfig};
pub use email::{Email, NotAnEmail};
pub use error::TokenError;
pub use pair::TokenPair;
pub use tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME};

use shared::redis::Redis;

use crate::error::ApiError;
use jwt::Unverified;
use passwords::Passwords;
use provider::Provider;
use tokens::Tokens;

/// Tokens and sessions.
pub struct Auth {
    tokens: Tokens,
    passwords: Passwords,
    provider: Option<Provider>,
    redis: Redis,
}

impl Auth {
    /// Builds the keys; nothing connects yet.
    pub fn new(config: &AuthConfig, redis: Redis) -> Result<Self, reqwest::Error> {
        Ok(Self {
            tokens: Tokens::new(config),
            passwords: Passwords::new(),
            provider: config.provider.clone().map(Provider::new).transpose()?,
            redis,
        })
    }

    /// Who an access token speaks for.
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, ApiError> {
        if let Some(known) = self.tokens.known_access(token, now) {
            return Ok(known?);
        }
        let token = Unverified::parse(token)?;
        match &self.provider {
            Some(provider) if token.header.alg != tokens::ALGORITHM => provider.verify(&token, now).await,
            _ => Ok(self.tokens.verify_access(&token, now)?),
        }
    }

    /// Begins a session: the first token pair.
    pub async fn log_in(&self, caller: Caller, now: OffsetDateTime) -> Result<TokenPair, ApiError> {
        let pair = sessions::begin(&self.redis, &self.tokens, caller, now).await?;
        Ok(TokenPair::new(pair, caller))
    }

    /// Exchanges a refresh token for the next pair.
    pub async fn refresh(&self, token: &str, now: OffsetDateTime) -> Result<TokenPair, ApiError> {
        let presented = self.tokens.verify_refresh(token, now)?;
        let pair = sessions::rotate(&self.redis, &self.tokens, &presented, now).await??;
        Ok(TokenPair::new(pair, presented.caller))
    }

    /// Ends the session that a refresh token belongs to.
    pub async fn log_out(&self, token: &str, now: OffsetDateTime) -> Result<(), ApiError> {
        let presented = self.tokens.verify_refresh(token, now)?;
        sessions::end(&self.redis, &presented).await
    }
}
