//! Opening a connection to the primary.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value, aio::MultiplexedConnection,
};
use tokio::time::timeout;

use super::{
    failure::{timed_out, wrong_url},
    info_field,
    sentinel::Sentinels,
    socket::tcp_settings,
};

/// How long connecting may take, including TLS, the password and the check that the server is the primary.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// What is wrong with the URL of a cluster that leads to a single server.
pub(super) const NO_CLUSTER: &str =
    "this server is no node of a cluster: write redis:// instead of redis+cluster://";

/// How much of `master_replid` names an era.
const ERA_DIGITS: usize = 8;

/// Opens connections to the primary of a URL, or to one node of a cluster.
pub(super) enum Connector {
    /// A server that does not fail over, or behind an address that follows the primary.
    Server(Client),
    /// The server that the sentinels name, asked anew for each connection.
    Sentinels(Sentinels),
    /// A node of a cluster, as long as it is a primary.
    Node(Client),
}

/// A connection that was just opened.
pub(super) struct NewConnection {
    pub(super) connection: MultiplexedConnection,
    /// For further connections to the same server.
    pub(super) client: Client,
    pub(super) greeting: Greeting,
    /// When sentinels were asked, if they confirmed that this is the primary.
    pub(super) confirmed: Option<Instant>,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Greeting {
    /// The id of the connection, if the server reports it.
    pub(super) client_id: Option<u64>,
    /// The first digits of `master_replid`, which changes with each promotion and each start. `None` if this server needs none, or
    /// its user is not allowed to use `INFO`.
    pub(super) era: Option<String>,
}

/// What kind of server is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    Plain,
    /// One that can be replaced by a promoted replica, so that its era must be known.
    Replicated,
    ClusterNode,
}

impl Connector {
    pub(super) fn server(info: ConnectionInfo) -> RedisResult<Self> {
        Ok(Self::Server(open_client(info)?))
    }

    pub(super) fn node(info: ConnectionInfo) -> RedisResult<Self> {
        Ok(Self::Node(open_client(info)?))
    }

    pub(super) fn kind(&self) -> ServerKind {
        match self {
            Self::Server(_) => ServerKind::Plain,
            Self::Sentinels(_) => ServerKind::Replicated,
            Self::Node(_) => ServerKind::ClusterNode,
        }
    }

    /// Opens a connection to a server that confirms to be the primary.
    pub(super) async fn connect(&self) -> RedisResult<NewConnection> {
        let (client, confirmed) = match self {
            Self::Server(client) | Self::Node(client) => (client.clone(), None),
            Self::Sentinels(sentinels) => {
                let survey = sentinels.find_primary().await?;
                (open_client(sentinels.connection_info(&survey.primary))?, survey.confirmed)
            }
        };
        let (connection, greeting) = connect_to(&client, self.kind()).await?;
        Ok(NewConnection { connection, client, greeting, confirmed })
    }
}

/// Opens a connection to this server, which must be a primary of this kind.
pub(super) async fn connect_to(
    client: &Client,
    kind: ServerKind,
) -> RedisResult<(MultiplexedConnection, Greeting)> {
    // Each call has its own deadline, and that of a blocking read is long.
    let config =
        AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT_TIMEOUT)).set_response_timeout(None);
    let connecting = async {
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        let greeting = greet(&mut connection, kind).await?;
        Ok((connection, greeting))
    };
    timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or_else(|_| Err(timed_out()))
}

fn open_client(info: ConnectionInfo) -> RedisResult<Client> {
    Client::open(info.set_tcp_settings(tcp_settings()))
}

/// Checks that the server answers, is the primary, and of this kind.
///
/// `HELLO` answers as `PING` does and reports the role as `ROLE` does, but is not among the commands that access lists
/// usually forbid.
pub(super) async fn greet(connection: &mut MultiplexedConnection, kind: ServerKind) -> RedisResult<Greeting> {
    let mut commands = Pipeline::new();
    commands.ignore_errors();
    commands.cmd("HELLO");
    if kind != ServerKind::Plain {
        commands.cmd("INFO").arg("replication");
    }
    let answers: Vec<Value> = commands.query_async(connection).await?;
    let mut answers = answers.into_iter();
    // Where it is forbidden to this user, or unknown to a proxy before the server, the server answers at least, and is used.
    let hello: HashMap<String, Value> = unless_refused(answers.next())?.unwrap_or_default();
    let info: String = unless_refused(answers.next())?.unwrap_or_default();
    let text = |name| hello.get(name).and_then(|value| redis::from_redis_value::<String>(value.clone()).ok());
    if let Some(mode) = text("mode") {
        check_mode(&mode, kind)?;
    }
    let role = text("role").or_else(|| info_field(&info, "role").map(str::to_owned));
    if role.is_some_and(|role| role != "master") {
        let kind = ErrorKind::Server(ServerErrorKind::ReadOnly);
        return Err(RedisError::from((kind, "the server is a replica")));
    }
    Ok(Greeting {
        client_id: hello.get("id").and_then(|id| redis::from_redis_value(id.clone()).ok()),
        era: info_field(&info, "master_replid").and_then(|id| id.get(..ERA_DIGITS)).map(str::to_owned),
    })
}

/// The answer, or `None` if the command is not allowed or not known.
fn unless_refused<T: redis::FromRedisValue>(answer: Option<Value>) -> RedisResult<Option<T>> {
    match answer {
        None => Ok(None),
        Some(Value::ServerError(error)) => {
            let error = RedisError::from(error);
            let refused = ServerErrorKind::NoPerm;
            if matches!(error.kind(), ErrorKind::Server(kind) if kind == refused || kind == ServerErrorKind::ResponseError)
            {
                return Ok(None);
            }
            Err(error)
        }
        Some(answer) => Ok(Some(redis::from_redis_value(answer)?)),
    }
}

/// Checks that the URL is of the right kind for a server in this mode.
fn check_mode(mode: &str, kind: ServerKind) -> RedisResult<()> {
    let problem = match (mode, kind) {
        ("cluster", ServerKind::Plain) => {
            "this server is a node of a cluster: write redis+cluster:// instead of redis://, as in \
             redis+cluster://user:password@host:6379, and name several nodes (for TLS, rediss+cluster://)"
        }
        ("cluster", ServerKind::Replicated) => {
            "the sentinels name a node of a cluster: write redis+cluster:// and the nodes instead"
        }
        ("sentinel", _) => {
            "this server is a sentinel: write redis+sentinel://user:password@host1:26379,host2,host3/NAME with the name of \
             the primary (for TLS, rediss+sentinel://)"
        }
        ("standalone", ServerKind::ClusterNode) => NO_CLUSTER,
        _ => return Ok(()),
    };
    Err(wrong_url(problem))
}
