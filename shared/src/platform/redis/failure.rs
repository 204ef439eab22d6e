//! Why a call to Redis failed, and what that says about the connection.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// A command failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RedisFailure {
    /// Redis returned an error, or cannot be reached.
    #[error("Redis failed: {0}")]
    Failed(#[from] RedisError),
    /// No answer within the deadline.
    #[error("Redis did not answer within {0:?}")]
    Deadline(Duration),
}

impl RedisFailure {
    /// Whether Redis answered with one of these codes, such as `NOGROUP`, also for one command of several.
    pub fn has_code(&self, codes: &[&str]) -> bool {
        matches!(self, Self::Failed(error) if has_code(error, codes))
    }
}

/// Whether a new connection may succeed: this one is closed, or its server is not, or not yet, a usable primary.
pub(super) fn is_unusable(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || has_code(error, &["READONLY", "MASTERDOWN", "LOADING", "NOAUTH"])
}

pub(super) fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    let known = |kind| matches!(kind, ErrorKind::Server(kind) if kind != ServerErrorKind::ExecAbort);
    if let Some(code) = error.code().filter(|_| known(error.kind())) {
        return codes.contains(&code);
    }
    // An error of one of several commands, or a code that the client library has no name for.
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| codes.contains(&error.code())))
}

/// The error of a URL that is not of the right kind for its server.
pub(super) fn wrong_url(problem: impl Into<String>) -> RedisError {
    (ErrorKind::InvalidClientConfig, "the URL does not fit the server", problem.into()).into()
}

pub(super) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
