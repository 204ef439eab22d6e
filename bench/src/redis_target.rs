//! The Redis that a case uses: the single one of the run, or servers that replace each other.

use redis::aio::MultiplexedConnection;
use testbed::{RedisGroup, connect_redis, connect_redis_masters};

use crate::broker::STREAM;
use crate::servers::Servers;

/// The Redis of a case.
#[derive(Debug)]
pub enum RedisTarget<'a> {
    /// The one of the run.
    Single(&'a Servers),
    /// A master with sentinels, or a cluster.
    Group(&'a RedisGroup),
}

impl RedisTarget<'_> {
    /// `REDIS_URL` of the programs.
    pub fn url(&self) -> &str {
        match self {
            Self::Single(servers) => servers.redis_url(),
            Self::Group(group) => group.url(),
        }
    }

    /// Whether events create entries of the cache. On servers that replace each other only readers do.
    pub fn creates_entries(&self) -> bool {
        matches!(self, Self::Single(_))
    }

    /// A connection to the server that holds the stream.
    pub async fn connect_to_stream(&self) -> anyhow::Result<MultiplexedConnection> {
        match self {
            Self::Single(servers) => servers.redis().await,
            Self::Group(group) => connect_redis(group.master_of(STREAM).await.url()).await,
        }
    }

    /// Removes everything.
    pub async fn flush(&self) -> anyhow::Result<()> {
        match self {
            Self::Single(servers) => servers.flush().await,
            Self::Group(group) => {
                for mut master in connect_redis_masters(group.url()).await? {
                    redis::cmd("FLUSHALL").exec_async(&mut master).await?;
                }
                Ok(())
            }
        }
    }

    /// The number of keys.
    pub async fn keys(&self) -> anyhow::Result<i64> {
        let mut keys = 0;
        for mut master in connect_redis_masters(self.url()).await? {
            keys += redis::cmd("DBSIZE").query_async::<i64>(&mut master).await?;
        }
        Ok(keys)
    }
}
