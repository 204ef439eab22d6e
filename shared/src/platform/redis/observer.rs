//! A server that is asked about others: a sentinel about the primary, or a node about its cluster.

use std::time::Duration;

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, FromRedisValue, Pipeline, RedisError, RedisResult,
    aio::MultiplexedConnection,
};
use tokio::{sync::Mutex, time::timeout};

use super::{failure::timed_out, socket::tcp_settings};

/// How long an answer may take, including the connection. With the pause between two questions it is shorter than
/// [`LEASE`](super::lease::LEASE), so that a server that is slow once does not end one.
const ASK_TIMEOUT: Duration = Duration::from_millis(800);

/// How long the others are waited for once more than half have answered: the one that knows of a newer primary may be the last.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// Keeps a connection, which an unanswered question closes.
pub(super) struct Observer {
    client: Client,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl Observer {
    pub(super) fn new(info: ConnectionInfo) -> RedisResult<Self> {
        let client = Client::open(info.set_tcp_settings(tcp_settings()))?;
        Ok(Self { client, connection: Mutex::new(None) })
    }

    /// The answers to several commands.
    pub(super) async fn ask<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let answer = timeout(ASK_TIMEOUT, async {
            let mut connection = self.connect().await?;
            commands.query_async(&mut connection).await
        });
        let answer = answer.await.unwrap_or_else(|_| Err(timed_out()));
        if answer.is_err() {
            *self.connection.lock().await = None;
        }
        answer
    }

    async fn connect(&self) -> RedisResult<MultiplexedConnection> {
        let mut kept = self.connection.lock().await;
        if let Some(connection) = &*kept {
            return Ok(connection.clone());
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(ASK_TIMEOUT))
            .set_response_timeout(Some(ASK_TIMEOUT));
        let connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        Ok(kept.insert(connection).clone())
    }
}

/// Waits for the answers of several observers; also returns an error, if there was one.
pub(super) async fn collect_answers<T>(
    asking: impl IntoIterator<Item = impl Future<Output = RedisResult<T>>>,
) -> (Vec<T>, Option<RedisError>) {
    let mut asking: FuturesUnordered<_> = asking.into_iter().collect();
    let most = asking.len() / 2 + 1;
    let (mut answers, mut last_error) = (Vec::with_capacity(asking.len()), None);
    loop {
        let next = if answers.len() < most {
            asking.next().await
        } else {
            timeout(STRAGGLERS, asking.next()).await.unwrap_or_default()
        };
        match next {
            Some(Ok(answer)) => answers.push(answer),
            Some(Err(error)) => last_error = Some(error),
            None => return (answers, last_error),
        }
    }
}
