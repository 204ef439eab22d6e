//! Hashing passwords: slow on purpose, hence off the async threads and only a few at a time.

use std::sync::Arc;

use argon2::{
    Argon2,
    password_hash::{PasswordHasher as _, PasswordVerifier as _},
};
use tokio::sync::Semaphore;

use crate::error::ApiError;

/// Compared with where there is no account, so that the answer takes the same time. Its parameters are those of
/// every hash made here; no password has it.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Characters of a password. There is no other rule (NIST SP 800-63B, section 3.1.1.2).
pub(super) const LENGTH: std::ops::RangeInclusive<usize> = 8..=128;

/// Hashes and verifies passwords with Argon2id (19 MiB, two passes: what OWASP recommends).
pub(super) struct Passwords {
    /// Each hash takes a core and 19 MiB for a while.
    permits: Arc<Semaphore>,
}

/// A password could not be hashed or compared.
#[derive(Debug, thiserror::Error)]
enum HashError {
    #[error("hashing a password failed: {0}")]
    Hash(argon2::password_hash::Error),
    #[error("hashing a password panicked")]
    Panicked(#[from] tokio::task::JoinError),
    #[error("hashing has been stopped")]
    Stopped(#[from] tokio::sync::AcquireError),
}

impl Passwords {
    /// As many at a time as there are cores.
    pub(super) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self { permits: Arc::new(Semaphore::new(cores)) }
    }

    /// The hash to store.
    pub(super) async fn hash(&self, password: String) -> Result<String, ApiError> {
        let hashed = self.off_thread(move || {
            Argon2::default().hash_password(password.as_bytes()).map(|hash| hash.to_string())
        });
        hashed.await.and_then(|hash| hash.map_err(HashError::Hash)).map_err(ApiError::internal)
    }

    /// Whether a password is the one that was hashed. Without a hash the answer is no, after the same time.
    pub(super) async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, ApiError> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| NOBODY.to_owned());
        let verified =
            self.off_thread(move || Argon2::default().verify_password(password.as_bytes(), hash.as_str()));
        match verified.await.map_err(ApiError::internal)? {
            Ok(()) => Ok(known),
            Err(argon2::password_hash::Error::PasswordInvalid) => Ok(false),
            Err(error) => Err(ApiError::internal(HashError::Hash(error))),
        }
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await?;
        let work = move || {
            // Held by the work itself: a caller that goes away does not make room for another hash meanwhile.
            let _permit = permit;
            work()
        };
        Ok(tokio::task::spawn_blocking(work).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_is_compared_with_at_the_cost_of_everybody() {
        let passwords = Passwords::new();
        let hash = passwords.hash("correct horse".to_owned()).await.unwrap();
        let parameters = |hash: &str| hash.rsplitn(3, '$').last().map(str::to_owned);
        assert_eq!(parameters(NOBODY), parameters(&hash));
        assert!(passwords.verify("correct horse".to_owned(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("wrong horse".to_owned(), Some(hash)).await.unwrap());
        assert!(!passwords.verify("correct horse".to_owned(), None).await.unwrap());
    }
}
