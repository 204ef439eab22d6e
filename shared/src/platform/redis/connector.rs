//! Opening a connection to the primary.

use std::{collections::HashMap, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo as _, RedisError, RedisResult,
    ServerErrorKind, Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::time::timeout;

/// How long connecting may take, including TLS, the password and the check that the server is the primary.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// After this time without acknowledgement the kernel closes the connection. The checks are usually faster.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// How often the kernel probes an idle connection, so that a firewall in between does not forget it.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// A connection for one caller, on which a command can block.
pub struct DedicatedConnection {
    /// What commands are sent on. It has no deadline: the caller bounds each command.
    pub connection: MultiplexedConnection,
    /// The id for `CLIENT UNBLOCK`, if the server reports it.
    pub client_id: Option<u64>,
}

/// Opens connections to the primary of one address.
pub(super) struct Connector {
    client: Client,
}

impl Connector {
    pub(super) fn new(url: &SecretString) -> RedisResult<Self> {
        let info = url.expose_secret().into_connection_info()?.set_tcp_settings(tcp_settings());
        Ok(Self { client: Client::open(info)? })
    }

    /// Opens a connection to a server that confirms to be the primary.
    pub(super) async fn connect(&self) -> RedisResult<DedicatedConnection> {
        // Each call has its own deadline, and that of a blocking read is long.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(None);
        let connecting = async {
            let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
            let client_id = confirm_primary(&mut connection).await?;
            Ok(DedicatedConnection { connection, client_id })
        };
        timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(timed_out()))
    }
}

fn tcp_settings() -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    // A command is small and its caller waits for the answer: the kernel must not delay it to join it with the next.
    let settings = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(UNACKNOWLEDGED);
    settings
}

/// Checks that the server answers and is the primary; returns the id of the connection if the server reports it.
///
/// `HELLO` answers as `PING` does and reports the role as `ROLE` does, but is not among the commands that access lists
/// usually forbid.
pub(super) async fn confirm_primary(connection: &mut MultiplexedConnection) -> RedisResult<Option<u64>> {
    let hello: RedisResult<HashMap<String, Value>> = redis::cmd("HELLO").query_async(connection).await;
    let hello = match hello {
        Ok(hello) => hello,
        // Forbidden to this user, or unknown to a proxy before the server. It answers, so it is used.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Server(ServerErrorKind::NoPerm | ServerErrorKind::ResponseError)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let role = hello.get("role").and_then(|role| redis::from_redis_value::<String>(role.clone()).ok());
    if role.is_some_and(|role| role != "master") {
        let kind = ErrorKind::Server(ServerErrorKind::ReadOnly);
        return Err(RedisError::from((kind, "the server is a replica")));
    }
    Ok(hello.get("id").and_then(|id| redis::from_redis_value(id.clone()).ok()))
}

pub(super) fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
