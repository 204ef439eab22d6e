//! Who is calling, and how callers prove it: tokens, sessions, passwords and accounts.
//!
//! Reading requests and writing responses is in `http::auth`.

pub(crate) mod accounts;
mod caller;
mod claims;
mod config;
mod email;
mod error;
#[cfg(fuzzing)]
#[doc(hidden)]
pub mod fuzzing;
mod password_queue;
pub(crate) mod passwords;
mod provider;
pub mod rights;
mod role;
pub(crate) mod sessions;
mod tokens;
mod unverified_token;

use shared::{domain::order::CustomerId, platform::redis::Redis};
use time::{Duration, OffsetDateTime};

pub use caller::Caller;
pub use config::{AuthConfig, PUBLISHED_SECRET, ProviderConfig};
pub use email::{Email, EmailParseError};
pub use error::{AuthError, TokenError};
pub use rights::{Action, Extent};
pub use role::Role;
pub use sessions::MAX_SESSION_AGE;
pub use tokens::{ACCESS_LIFETIME, REFRESH_LIFETIME, RefreshToken};

use accounts::{CustomerStatus, LOCAL_IDS};
use claims::TokenExpiry;
use passwords::PasswordQueues;
use provider::IdentityProvider;
use sessions::{SessionOrigin, SessionRules, SessionTokens};
use tokens::TokenKeys;
use unverified_token::UnverifiedToken;

use crate::tenants::Tenants;

/// Makes and checks tokens and sessions.
pub struct Auth {
    keys: TokenKeys,
    pub(crate) password_queues: PasswordQueues,
    provider: Option<IdentityProvider>,
    test_login: bool,
    local_accounts: bool,
    tenants: Tenants,
    redis: Redis,
}

impl Auth {
    /// Builds the keys. Nothing connects yet.
    pub fn new(config: &AuthConfig, redis: Redis, tenants: Tenants) -> Result<Self, reqwest::Error> {
        Ok(Self {
            keys: TokenKeys::new(config),
            password_queues: PasswordQueues::new(),
            provider: config.provider.clone().map(IdentityProvider::new).transpose()?,
            test_login: config.test_login,
            local_accounts: config.local_accounts,
            tenants,
            redis,
        })
    }

    /// Returns the caller that an access token names.
    pub async fn verify_access(&self, token: &str, now: OffsetDateTime) -> Result<Caller, AuthError> {
        if let Some(known) = self.keys.verify_known_access(token, now) {
            return Ok(known?);
        }
        let token = UnverifiedToken::parse(token)?;
        match &self.provider {
            Some(provider) if token.header.alg != tokens::ALGORITHM => {
                provider.verify(&token, &self.tenants, now).await
            }
            _ => Ok(self.keys.verify_access(&token, now)?),
        }
    }

    /// Returns when an access token expires that was verified before.
    pub fn expiry_of_verified(&self, token: &str) -> Result<OffsetDateTime, TokenError> {
        let TokenExpiry { exp } = UnverifiedToken::parse(token)?.claims()?;
        OffsetDateTime::UNIX_EPOCH
            .checked_add(Duration::checked_seconds_f64(exp).ok_or(TokenError::Malformed)?)
            .ok_or(TokenError::Malformed)
    }

    /// Whether the account of this customer can be used. Beside an identity provider this needs an id that the provider
    /// cannot name: any other id can belong to a customer of the provider.
    pub(crate) fn can_use_account(&self, customer: CustomerId) -> bool {
        self.local_accounts && (self.provider.is_none() || LOCAL_IDS.contains(&customer.get()))
    }

    /// Begins a session and returns its first tokens.
    pub(crate) async fn log_in(
        &self,
        caller: Caller,
        origin: SessionOrigin,
        now: OffsetDateTime,
    ) -> Result<SessionTokens, AuthError> {
        sessions::begin_session(&self.redis, &self.keys, caller, origin, now).await
    }

    /// Checks the signature and the times of a refresh token, but not whether it was used before.
    pub fn verify_refresh(&self, token: &str, now: OffsetDateTime) -> Result<RefreshToken, TokenError> {
        self.keys.verify_refresh(token, now)
    }

    /// Exchanges a refresh token for the next tokens, with the role that its customer has now.
    pub(crate) async fn refresh(
        &self,
        presented: &RefreshToken,
        status: &CustomerStatus,
        now: OffsetDateTime,
    ) -> Result<SessionTokens, AuthError> {
        let account = self.can_use_account(presented.caller.customer_id);
        let rules = SessionRules { test_login: self.test_login, account };
        sessions::rotate_token(&self.redis, &self.keys, presented, status, rules, now).await
    }

    /// Ends the session of a refresh token.
    pub(crate) async fn log_out(&self, presented: &RefreshToken) -> Result<(), AuthError> {
        sessions::end_session(&self.redis, presented).await
    }
}
