//! Why the cache did not do what was asked.

use crate::platform::redis::RedisFailure;

/// The cache did not do what was asked. PostgreSQL has what it holds.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Redis refused, cannot be reached, or did not answer in time.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// Redis failed several times in a row. It is asked again within a second.
    #[error("the cache is not asked after several failures in a row; it is tried again within a second")]
    Open,
}
