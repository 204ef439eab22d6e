//! One connection, made when it is needed and made anew when it breaks.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value, aio::MultiplexedConnection,
};
use secrecy::ExposeSecret as _;
use tokio::sync::Mutex;

use super::{RedisStreamsOptions, SYSTEM};
use crate::broker::{BrokerError, metered};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// For everything but blocking reads, which bound themselves. Covers a `WAITAOF` and a slow disk.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to the server, and what the server can do.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    /// `WAITAOF` is known (Redis 7.2) and the append-only file is on.
    pub(super) waits_for_disk: bool,
}

/// A connection that heals. Commands of concurrent callers share it.
pub(super) struct Link {
    client: Client,
    side: &'static str,
    slot: Mutex<Option<Connected>>,
    had_one: AtomicBool,
}

impl Link {
    /// `side` names it in the metrics. Connects to nothing yet.
    pub(super) fn new(options: &RedisStreamsOptions, side: &'static str) -> Result<Self, BrokerError> {
        let client = Client::open(options.url.expose_secret()).map_err(|error| {
            // The text of the error may repeat the URL, which may hold a password.
            BrokerError::misconfigured(SYSTEM, format!("the address cannot be used ({})", error.category()))
        })?;
        Ok(Self { client, side, slot: Mutex::new(None), had_one: AtomicBool::new(false) })
    }

    /// The connection there is, or a new one.
    pub(super) async fn get(&self) -> RedisResult<Connected> {
        let mut slot = self.slot.lock().await;
        if let Some(connected) = &*slot {
            return Ok(connected.clone());
        }
        let connected = self.connect().await?;
        if self.had_one.swap(true, Ordering::Relaxed) {
            metered::reconnected(SYSTEM, self.side);
        }
        *slot = Some(connected.clone());
        Ok(connected)
    }

    /// A connection of one's own, on which a command may block for as long as it likes.
    pub(super) async fn dedicated(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// Runs a command that may safely run twice: a connection that broke since its last use is made anew once.
    pub(super) async fn run<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        match self.run_once(command).await {
            Err(error) if is_broken(&error) => self.run_once(command).await,
            done => done,
        }
    }

    /// Like [`Link::run`], for many commands in one round trip. Each has its own answer.
    pub(super) async fn run_all(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        match self.run_all_once(commands).await {
            Err(error) if is_broken(&error) => self.run_all_once(commands).await,
            done => done,
        }
    }

    async fn run_once<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let mut connected = self.get().await?;
        let answer = command.query_async(&mut connected.connection).await;
        self.forget_if_broken(&answer).await;
        answer
    }

    async fn run_all_once(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let mut connected = self.get().await?;
        let answer = commands.query_async(&mut connected.connection).await;
        self.forget_if_broken(&answer).await;
        answer
    }

    /// Has the next command connect anew where this answer shows that the connection is of no more use.
    pub(super) async fn forget_if_broken<T>(&self, answer: &RedisResult<T>) {
        if answer.as_ref().is_err_and(is_broken) {
            self.forget().await;
        }
    }

    /// Has the next command connect anew.
    pub(super) async fn forget(&self) {
        self.slot.lock().await.take();
    }

    async fn connect(&self) -> RedisResult<Connected> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        let info: RedisResult<String> = redis::cmd("INFO").query_async(&mut connection).await;
        let waits_for_disk = match info {
            Ok(info) => can_wait_for_disk(&info),
            // A user that may not ask for INFO may still publish.
            Err(error) if !is_broken(&error) => false,
            Err(error) => return Err(error),
        };
        Ok(Connected { connection, waits_for_disk })
    }
}

/// Whether a new connection may do better: it is gone, hangs, or leads to a server that is no longer the primary.
pub(super) fn is_broken(error: &RedisError) -> bool {
    error.is_timeout()
        || error.is_unrecoverable_error()
        || matches!(
            error.kind(),
            ErrorKind::Io | ErrorKind::Server(ServerErrorKind::ReadOnly | ServerErrorKind::MasterDown)
        )
}

fn can_wait_for_disk(info: &str) -> bool {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let version = field("redis_version").and_then(|version| {
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        Some((parts.next()?, parts.next()?))
    });
    version.is_some_and(|version| version >= (7, 2))
        && field("aof_enabled").is_some_and(|on| on.trim() == "1")
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("side", &self.side).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::can_wait_for_disk;

    #[test]
    fn waits_for_the_disk_only_where_the_server_can_and_has_the_file_on() {
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
