//! Who is calling, and how they prove it.

mod caller;
mod claims;
mod config;
mod error;
mod jwt;
pub mod login_test;
pub mod logout;
mod pair;
pub mod refresh;
mod sessions;
mod tokens;

use time::OffsetDateTime;

pub use caller::{Caller, Role};
pub use config::AuthConfig;
pub use error::TokenError;
pub use pair::TokenPair;
pub use tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME};

use crate::{error::ApiError, redis::Redis};
use jwt::Unverified;
use tokens::Tokens;

/// Tokens and sessions.
pub struct Auth {
    tokens: Tokens,
    redis: Redis,
}

impl Auth {
    /// Builds the keys; nothing connects yet.
    pub fn new(config: &AuthConfig, redis: Redis) -> Self {
        Self { tokens: Tokens::new(config), redis }
    }

    /// Who an access token speaks for.
    #[expect(clippy::unused_async, reason = "keys of an identity provider may have to be fetched")]
    pub async fn verify(&self, token: &str, now: OffsetDateTime) -> Result<Caller, TokenError> {
        self.tokens.verify_access(&Unverified::parse(token)?, now)
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
