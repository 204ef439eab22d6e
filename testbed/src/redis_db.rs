//! A logical Redis database for each test.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

/// In database 0: counts the databases handed out, where the server has so many that none is needed twice at once.
const COUNTER: &str = "testbed:next";
/// In database 0: the databases that tests have written to, and may therefore empty.
const USED: &str = "testbed:used";
/// A server of `cargo xtask` has 4096 databases, others mostly have 16.
const PLENTY: u32 = 1024;
/// After this time a lock is that of a test process that was killed.
const LOCK_SECONDS: u64 = 600;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const RESPONSE_TIMEOUT: Duration = Duration::from_mins(1);

/// A logical database that only this test uses, empty at first.
///
/// Publish and subscribe, `FLUSHALL` and scripts know no databases: a test of these takes [`crate::private_redis`].
#[derive(Debug)]
pub struct RedisDb {
    url: String,
    admin_url: String,
    lock: Option<String>,
}

/// An empty logical database on the server at `REDIS_URL`.
///
/// # Panics
///
/// When `REDIS_URL` is not set, or its server cannot be used.
pub async fn redis() -> RedisDb {
    let url = crate::required("REDIS_URL");
    take(&url).await.unwrap_or_else(|error| panic!("no Redis database for this test: {error:#}"))
}

impl RedisDb {
    /// For `REDIS_URL` of a program under test.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A connection to it.
    ///
    /// # Panics
    ///
    /// When the server refuses it.
    pub async fn connect(&self) -> MultiplexedConnection {
        connect_redis(&self.url)
            .await
            .unwrap_or_else(|error| panic!("the test's own Redis does not answer: {error:#}"))
    }
}

impl Drop for RedisDb {
    fn drop(&mut self) {
        let Some(lock) = self.lock.take() else { return };
        let url = self.admin_url.clone();
        crate::clean_up(async move {
            let mut admin = connect_redis(&url).await?;
            redis::cmd("DEL").arg(lock).exec_async(&mut admin).await?;
            Ok(())
        });
    }
}

async fn take(url: &str) -> anyhow::Result<RedisDb> {
    let admin_url = with_database(url, 0);
    let mut admin = connect_redis(&admin_url).await?;
    let (_, databases): (String, u32) =
        redis::cmd("CONFIG").arg("GET").arg("databases").query_async(&mut admin).await?;
    if databases >= PLENTY {
        let count: u32 = redis::cmd("INCR").arg(COUNTER).query_async(&mut admin).await?;
        let db = RedisDb { url: with_database(url, 1 + count % (databases - 1)), admin_url, lock: None };
        flush(&db.url).await?;
        return Ok(db);
    }

    let start = Instant::now();
    loop {
        for index in 1..databases {
            if let Some(lock) = lock(&mut admin, url, index).await? {
                let db = RedisDb { url: with_database(url, index), admin_url, lock: Some(lock) };
                flush(&db.url).await?;
                return Ok(db);
            }
        }
        if start.elapsed() > Duration::from_mins(1) {
            bail!(
                "all {databases} databases of the Redis server at REDIS_URL are in use; `cargo xtask test` starts one with more"
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Locks a database for this test, unless another test has it or something else lives in it.
async fn lock(admin: &mut MultiplexedConnection, url: &str, index: u32) -> anyhow::Result<Option<String>> {
    let lock = format!("testbed:lock:{index}");
    let taken: Option<String> =
        redis::cmd("SET").arg(&lock).arg(1).arg("NX").arg("EX").arg(LOCK_SECONDS).query_async(admin).await?;
    if taken.is_none() {
        return Ok(None);
    }
    let ours: bool = redis::cmd("SISMEMBER").arg(USED).arg(index).query_async(admin).await?;
    if !ours {
        let mut inside = connect_redis(&with_database(url, index)).await?;
        let keys: u64 = redis::cmd("DBSIZE").query_async(&mut inside).await?;
        if keys > 0 {
            // Somebody's own data: never emptied. The lock is kept, so that the next test does not look again.
            return Ok(None);
        }
        redis::cmd("SADD").arg(USED).arg(index).exec_async(admin).await?;
    }
    Ok(Some(lock))
}

async fn flush(url: &str) -> anyhow::Result<()> {
    let mut inside = connect_redis(url).await?;
    redis::cmd("FLUSHDB").exec_async(&mut inside).await?;
    let keys: u64 = redis::cmd("DBSIZE").query_async(&mut inside).await?;
    ensure!(keys == 0, "another program writes to {url}");
    Ok(())
}

/// A connection for tests, tools and the bench. It waits up to a minute for an answer, while the client's default is half a
/// second: to remove a stream of a million entries takes Redis longer, and everything does on a busy machine.
pub async fn connect_redis(url: &str) -> anyhow::Result<MultiplexedConnection> {
    let client = redis::Client::open(url).context("REDIS_URL is not a Redis address")?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let connection = client.get_multiplexed_async_connection_with_config(&config).await;
    connection.context("the Redis server at REDIS_URL does not answer")
}

/// The same server and user, with another database.
fn with_database(url: &str, index: u32) -> String {
    let authority = url.find("://").map_or(0, |at| at + 3);
    let server = url[authority..].find('/').map_or(url, |slash| &url[..authority + slash]);
    format!("{server}/{index}")
}
