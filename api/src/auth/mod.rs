//! Who is calling, and how they prove it.

pub(crate) mod accounts;
mod caller;
mod claims;
mod config;
mod email;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod hash_queue;
mod jwt;
mod pair;
pub(crate) mod passwords;
mod provider;
pub(crate) mod sessions;
mod token_error;
mod tokens;

use shared::{domain::order::CustomerId, platform::redis::Redis};
use time::OffsetDateTime;

pub use caller::{Caller, Role};
pub use config::{AuthConfig, PUBLISHED_SECRET, ProviderConfig};
pub use email::{Email, NotAnEmail};
pub use pair::TokenPair;
pub use sessions::MAX_SESSION_AGE;
pub use token_error::TokenError;
pub use tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME, RefreshToken};

use crate::http::error::ApiError;
use accounts::{LOCAL_IDS, Standing};
use jwt::Unverified;
use passwords::Passwords;
use provider::Provider;
use sessions::{Origin, SessionRules};
use tokens::Tokens;

/// Tokens and sessions.
pub struct Auth {
    tokens: Tokens,
    pub(crate) passwords: Passwords,
    provider: Option<Provider>,
    test_login: bool,
    local_accounts: bool,
    redis: Redis,
}

impl Auth {
    /// Builds the keys; nothing connects yet.
    pub fn new(config: &AuthConfig, redis: Redis) -> Result<Self, reqwest::Error> {
        Ok(Self {
            tokens: Tokens::new(config),
            passwords: Passwords::new(),
            provider: config.provider.clone().map(Provider::new).transpose()?,
            test_login: config.test_login,
            local_accounts: config.local_accounts,
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

    /// Whether the account of this customer may be used. Beside an identity provider only ids that it cannot name may:
    /// any other might be a customer of the provider.
    pub(crate) fn may_use_account(&self, customer: CustomerId) -> bool {
        self.local_accounts && (self.provider.is_none() || LOCAL_IDS.contains(&customer.get()))
    }

    /// Begins a session: the first token pair.
    pub(crate) async fn log_in(
        &self,
        caller: Caller,
        origin: Origin,
        now: OffsetDateTime,
    ) -> Result<TokenPair, ApiError> {
        let pair = sessions::begin(&self.redis, &self.tokens, caller, origin, now).await?;
        Ok(TokenPair::new(pair, caller))
    }

    /// Reads a refresh token. Whether it is spent is not looked at.
    pub fn verify_refresh(&self, token: &str, now: OffsetDateTime) -> Result<RefreshToken, ApiError> {
        Ok(self.tokens.verify_refresh(token, now)?)
    }

    /// Exchanges a refresh token for the next pair, with the rights that its customer has now.
    pub(crate) async fn refresh(
        &self,
        presented: &RefreshToken,
        standing: &Standing,
        now: OffsetDateTime,
    ) -> Result<TokenPair, ApiError> {
        let account = self.may_use_account(presented.caller.customer_id);
        let rules = SessionRules { test_login: self.test_login, account };
        let rotated = sessions::rotate(&self.redis, &self.tokens, presented, standing, rules, now).await?;
        let (pair, caller) = rotated?;
        Ok(TokenPair::new(pair, caller))
    }

    /// Ends the session that a refresh token belongs to.
    pub async fn log_out(&self, token: &str, now: OffsetDateTime) -> Result<(), ApiError> {
        let presented = self.tokens.verify_refresh(token, now)?;
        sessions::end(&self.redis, &presented).await
    }
}
