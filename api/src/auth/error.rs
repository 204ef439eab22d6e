//! Why a token is refused, or authentication fails.

use std::error::Error as StdError;

use shared::platform::{db::DbError, redis::RedisFailure};

use crate::tenants::TenantError;

/// Why a token is refused. The client needs the reason, because it must react to each in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is no bearer token.
    #[error("a bearer token is required")]
    Missing,
    /// It is not a token.
    #[error("the token cannot be read")]
    Malformed,
    /// It is signed by an algorithm that is not accepted here.
    #[error("the token is signed in a way that is not accepted")]
    Algorithm,
    /// It is not signed by a key that is accepted here.
    #[error("the token's signature is not valid")]
    Signature,
    /// It is a refresh token and an access token is needed, or the reverse.
    #[error("the token is of the wrong type")]
    WrongType,
    /// It is too late.
    #[error("the token has expired")]
    Expired,
    /// It is too early.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token was used before, or the session was ended.
    #[error("the session is over: log in again")]
    SessionOver,
    /// Issuer or audience are not ours, or no customer is named.
    #[error("the token is not meant for this service")]
    NotForUs,
    /// There is no such tenant, or no longer.
    #[error("the token's tenant does not exist")]
    NoTenant,
}

/// Why a token, a session or an account cannot be made, read or ended.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// A token is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// One session was refreshed too often in a short time.
    #[error("the session was refreshed more than {times} times in {seconds} s")]
    RefreshedTooOften {
        /// How often a session can be refreshed in that time.
        times: usize,
        /// That time.
        seconds: i64,
    },
    /// One network has too many requests in a queue for hashing passwords.
    #[error("more than {0} requests with a password at once from one address")]
    NetworkQueueFull(usize),
    /// A queue for hashing passwords is full, or was too slow.
    #[error("too many requests wait for a password to be hashed")]
    QueueFull,
    /// A new password is easy to guess.
    #[error("is too common or too close to the address: choose one that is harder to guess")]
    WeakPassword,
    /// The keys of the identity provider are not known.
    #[error(transparent)]
    ProviderKeys(Box<dyn StdError + Send + Sync>),
    /// Redis, which holds the sessions, does not answer.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// The tenant of the identity provider's tokens is not known.
    #[error(transparent)]
    Tenant(#[from] TenantError),
    /// PostgreSQL, which holds the accounts, does not answer.
    #[error(transparent)]
    Database(#[from] DbError),
    /// A fault of ours.
    #[error(transparent)]
    Internal(Box<dyn StdError + Send + Sync>),
}

impl AuthError {
    /// A fault of ours.
    pub(super) fn internal(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Internal(cause.into())
    }
}
