//! Redis for sessions and limits: one pipelined connection, a deadline on every call.

use std::time::Duration;

use redis::{
    Cmd, FromRedisValue, RedisError, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::{ExposeSecret, SecretString};

/// How long connecting may take, and a call without a shorter deadline of its own.
const DEADLINE: Duration = Duration::from_millis(500);

/// A handle on Redis; clones share one connection, which is made when first used and again after a failure.
#[derive(Clone)]
pub struct Redis(ConnectionManager);

/// Redis did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum RedisFailure {
    /// It said no, or cannot be reached.
    #[error("Redis failed: {0}")]
    Failed(#[from] RedisError),
    /// No answer within the deadline.
    #[error("Redis did not answer within {0:?}")]
    Deadline(Duration),
}

impl Redis {
    /// A handle that connects when first used.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE))
            .set_number_of_retries(0);
        let client = redis::Client::open(url.expose_secret())?;
        Ok(Self(client.get_connection_manager_lazy(config)?))
    }

    /// Runs one command.
    pub async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        let mut connection = self.0.clone();
        within(DEADLINE, command.query_async(&mut connection)).await
    }

    /// Runs a pipeline.
    pub async fn run_all<T: FromRedisValue>(&self, pipeline: &redis::Pipeline) -> Result<T, RedisFailure> {
        let mut connection = self.0.clone();
        within(DEADLINE, pipeline.query_async(&mut connection)).await
    }

    /// Runs a script, at most for `deadline`.
    pub async fn invoke<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Duration,
    ) -> Result<T, RedisFailure> {
        let mut connection = self.0.clone();
        within(deadline, script.invoke_async(&mut connection)).await
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), RedisFailure> {
        self.run(&redis::cmd("PING")).await
    }
}

async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<T, RedisError>>,
) -> Result<T, RedisFailure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(RedisFailure::Deadline(deadline)),
    }
}

impl From<RedisFailure> for crate::error::ApiError {
    fn from(failure: RedisFailure) -> Self {
        Self::unavailable(failure)
    }
}
