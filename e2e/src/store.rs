//! The Redis of a system: a database on the shared server, or servers of its own that replace each other.

use redis::aio::MultiplexedConnection;
use testbed::{RedisDb, RedisGroup, connect_redis};

/// The key of the stream.
pub(crate) const STREAM: &str = "events:orders";

/// The cache, the sessions, and the stream of [`crate::Broker::RedisStreams`].
#[derive(Debug)]
pub enum RedisStore {
    /// A logical database on the shared server.
    Database(RedisDb),
    /// A master with sentinels, or a cluster.
    Group(RedisGroup),
}

impl RedisStore {
    /// For `REDIS_URL`.
    pub fn url(&self) -> &str {
        match self {
            Self::Database(database) => database.url(),
            Self::Group(group) => group.url(),
        }
    }

    /// A connection to the server that holds the stream: the only one, if it is no cluster.
    ///
    /// # Panics
    ///
    /// If it does not answer.
    pub async fn connect(&self) -> MultiplexedConnection {
        let url = match self {
            Self::Database(database) => database.url(),
            Self::Group(group) => group.master_of(STREAM).await.url(),
        };
        connect_redis(url)
            .await
            .unwrap_or_else(|error| panic!("the system's Redis does not answer: {error:#}"))
    }

    /// The servers that replace each other.
    ///
    /// # Panics
    ///
    /// If there is only one.
    pub fn group(&self) -> &RedisGroup {
        match self {
            Self::Group(group) => group,
            Self::Database(_) => panic!("a single Redis replaces nothing"),
        }
    }
}
