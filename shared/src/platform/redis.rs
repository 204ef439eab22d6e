//! Redis: one connection that is replaced when it breaks, shared by all clones of its handle. No commands of orders.
//!
//! The cache, sessions, limits, streams and commands all use [`Redis`]:
//!
//! - Every call has a deadline, and so has connecting.
//! - After a call that times out, and every second, the server is asked whether it still answers and is still the
//!   primary. If it does not confirm that within a second, the connection is closed, and the next call opens a new one. So
//!   a peer that has silently disappeared, or a primary that has become a replica, is left within about two seconds.
//! - An I/O error and an answer such as `READONLY` close the connection at once. The command is then tried once more on
//!   a new connection, so that no request fails after a restart of an idle server.
//! - A late failure on an old connection never closes a newer one.

mod connector;
mod link;
mod writable;

use std::{sync::Arc, time::Duration};

use redis::{
    Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ScriptInvocation, ServerErrorKind,
    Value, aio::MultiplexedConnection,
};
use secrecy::SecretString;
use tokio::time::timeout;

use self::{
    connector::Connector,
    link::{Link, LiveConnection},
};
pub use self::{connector::DedicatedConnection, writable::RedisMemory};

/// How long a call may take, unless its handle or its caller says otherwise.
const DEADLINE: Duration = Duration::from_millis(500);

/// A handle on Redis. Clones share one connection, which is opened when first used.
#[derive(Clone)]
pub struct Redis {
    link: Arc<Link>,
    deadline: Duration,
}

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

/// A request.
enum Request<'a> {
    Command(&'a Cmd),
    Pipeline(&'a Pipeline),
    Script(&'a ScriptInvocation<'a>),
}

impl Request<'_> {
    async fn send<T: FromRedisValue>(&self, mut connection: MultiplexedConnection) -> RedisResult<T> {
        match self {
            Self::Command(command) => command.query_async(&mut connection).await,
            Self::Pipeline(pipeline) => pipeline.query_async(&mut connection).await,
            Self::Script(invocation) => invocation.invoke_async(&mut connection).await,
        }
    }
}

/// How often a request is sent if its connection breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attempts {
    /// For commands that must not run twice.
    One,
    /// Once more, unless the connection that broke had just been made.
    Two,
}

impl Redis {
    /// A handle that connects when first used.
    pub fn new(url: &SecretString) -> Result<Self, RedisError> {
        Self::with_reconnect_hook(url, || tracing::info!("connected to Redis again"))
    }

    /// Like [`Redis::new`]; calls `reconnected` each time a lost connection has been replaced.
    pub fn with_reconnect_hook(
        url: &SecretString,
        reconnected: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, RedisError> {
        let link = Link::new(Connector::new(url)?, Box::new(reconnected));
        Ok(Self { link: Arc::new(link), deadline: DEADLINE })
    }

    /// The same connection, with another deadline for calls.
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// Runs one command. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, Request::Command(command)).await
    }

    /// Runs a pipeline. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_pipeline<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, RedisFailure> {
        self.call(self.deadline, Attempts::Two, Request::Pipeline(pipeline)).await
    }

    /// Runs a pipeline that ignores errors, and returns the answer to each command.
    pub async fn run_pipeline_each(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFailure> {
        self.call_each(Attempts::Two, pipeline).await
    }

    /// Like [`Redis::run_pipeline_each`], for commands that must not run twice.
    pub async fn run_pipeline_each_once(&self, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFailure> {
        self.call_each(Attempts::One, pipeline).await
    }

    /// Runs a script, at most for `deadline`. It is sent again, once, if its connection turns out to be broken.
    pub async fn run_script<T: FromRedisValue>(
        &self,
        script: &ScriptInvocation<'_>,
        deadline: Duration,
    ) -> Result<T, RedisFailure> {
        self.call(deadline, Attempts::Two, Request::Script(script)).await
    }

    /// Whether Redis answers. [`Redis::check_writable`] says whether it also takes writes.
    pub async fn ping(&self) -> Result<(), RedisFailure> {
        self.run_command(&redis::cmd("PING")).await
    }

    /// Opens a connection for one caller.
    pub async fn connect_dedicated(&self) -> Result<DedicatedConnection, RedisFailure> {
        Ok(self.link.connector.connect().await?)
    }

    /// Whether a confirmed write can be waited for until it is on disk: `WAITAOF` is known (Redis 7.2) and the
    /// append-only file is on.
    pub(crate) async fn waits_for_disk(&self) -> Result<bool, RedisFailure> {
        let ask = async {
            let (open, _) = self.link.open().await?;
            if let Some(known) = open.waits_for_disk.get() {
                return Ok(*known);
            }
            match self.run_command::<String>(&redis::cmd("INFO")).await {
                Ok(info) => Ok(*open.waits_for_disk.get_or_init(|| can_wait_for_disk(&info))),
                // A user without the right to use INFO can still publish.
                Err(failure) if failure.has_code(&["NOPERM"]) => Ok(false),
                Err(failure) => Err(failure),
            }
        };
        timeout(self.deadline, ask).await.unwrap_or(Err(RedisFailure::Deadline(self.deadline)))
    }

    /// Closes the connection. A later call makes a new one.
    pub fn disconnect(&self) {
        self.link.disconnect();
    }

    async fn call_each(&self, attempts: Attempts, pipeline: &Pipeline) -> Result<Vec<Value>, RedisFailure> {
        let request = Request::Pipeline(pipeline);
        let (answers, open) = self.call_on::<Vec<Value>>(self.deadline, attempts, request).await?;
        let error = answers.iter().find_map(|answer| match answer {
            Value::ServerError(error) => Some(RedisError::from(error.clone())).filter(is_unusable),
            _ => None,
        });
        if let Some(error) = error {
            self.link.close(&open, &error);
        }
        Ok(answers)
    }

    async fn call<T: FromRedisValue>(
        &self,
        deadline: Duration,
        attempts: Attempts,
        request: Request<'_>,
    ) -> Result<T, RedisFailure> {
        self.call_on(deadline, attempts, request).await.map(|(answer, _)| answer)
    }

    /// The answer, and the connection on which it came.
    async fn call_on<T: FromRedisValue>(
        &self,
        deadline: Duration,
        mut attempts: Attempts,
        request: Request<'_>,
    ) -> Result<(T, Arc<LiveConnection>), RedisFailure> {
        let mut used = None;
        let answer = timeout(deadline, async {
            loop {
                let (open, is_new) = self.link.open().await?;
                used = Some(Arc::clone(&open));
                let error = match open.while_open(request.send(open.connection.clone())).await {
                    Ok(answer) => return Ok((answer, open)),
                    Err(error) => error,
                };
                if is_unusable(&error) {
                    self.link.close(&open, &error);
                    if !is_new && attempts == Attempts::Two {
                        attempts = Attempts::One;
                        continue;
                    }
                }
                return Err(RedisFailure::Failed(error));
            }
        });
        answer.await.unwrap_or_else(|_| {
            if let Some(open) = used {
                open.check_now();
            }
            Err(RedisFailure::Deadline(deadline))
        })
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redis").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// Whether a new connection may succeed: this one is closed, or its server is not, or not yet, a usable primary.
fn is_unusable(error: &RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || has_code(error, &["READONLY", "MASTERDOWN", "LOADING", "NOAUTH"])
}

fn has_code(error: &RedisError, codes: &[&str]) -> bool {
    let known = |kind| matches!(kind, ErrorKind::Server(kind) if kind != ServerErrorKind::ExecAbort);
    if let Some(code) = error.code().filter(|_| known(error.kind())) {
        return codes.contains(&code);
    }
    // An error of one of several commands, or a code that the client library has no name for.
    let errors = error.clone().into_server_errors();
    errors.is_some_and(|errors| errors.iter().any(|(_, error)| codes.contains(&error.code())))
}

fn can_wait_for_disk(info: &str) -> bool {
    let version = info_field(info, "redis_version").and_then(|version| {
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        Some((parts.next()?, parts.next()?))
    });
    version.is_some_and(|version| version >= (7, 2)) && info_field(info, "aof_enabled") == Some("1")
}

/// One field of what `INFO` answers.
fn info_field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::can_wait_for_disk;

    #[test]
    fn waits_for_the_disk_only_if_the_server_can_and_has_the_file_on() {
        let info = |version, aof| {
            format!("# Server\r\nredis_version:{version}\r\n# Persistence\r\naof_enabled:{aof}\r\n")
        };
        assert!(can_wait_for_disk(&info("7.2.0", 1)));
        assert!(can_wait_for_disk(&info("8.0.1", 1)));
        assert!(!can_wait_for_disk(&info("7.0.15", 1)));
        assert!(!can_wait_for_disk(&info("7.4.1", 0)));
        assert!(!can_wait_for_disk(""));
    }
}
