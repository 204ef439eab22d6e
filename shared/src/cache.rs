//! The order cache in Redis: the body exactly as it is answered, beside its version and owner.
//!
//! Writes are a compare-and-set on version in one Lua script (`cache.lua`), so they commute: whatever the order in
//! which the API and the workers write, the newest version stands. A deletion leaves a tombstone with its version.

use std::time::Duration;

use bytes::Bytes;
use rand::Rng as _;
use redis::{
    RedisError, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::{ExposeSecret, SecretString};

use crate::order::{CustomerId, OrderId};

/// Characters of the version, zero-padded, in front of an entry; the owner takes as many again.
const NUMBER: usize = 20;
/// Lifetimes are spread by this share, so that entries written together do not expire together.
const JITTER: f64 = 0.1;
/// Keys that Redis looks at in one step of a walk, which bounds how long it is busy.
const SCAN_STEP: usize = 1000;
const REMOVE_EXACTLY: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// A handle on the cache; clones share one pipelined connection.
#[derive(Clone)]
pub struct Cache {
    connection: ConnectionManager,
    script: Script,
    ttl: Duration,
    deadline: Duration,
}

/// What the cache holds of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing: ask PostgreSQL.
    Miss,
    /// The order was deleted by this version.
    Deleted {
        /// The version of the deletion.
        version: i64,
    },
    /// The order.
    Found(CachedOrder),
}

/// An order as cached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedOrder {
    /// Its version.
    pub version: i64,
    /// Who may see it.
    pub owner: CustomerId,
    /// The JSON body as it is answered.
    pub body: Bytes,
}

/// An entry as it stands in Redis, readable or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry(Bytes);

impl Entry {
    /// What it says, or `None` where it is nothing that this cache writes.
    pub fn lookup(&self) -> Option<Lookup> {
        decode(&self.0)
    }

    /// The entry as Redis holds it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One entry to write.
#[derive(Clone, Debug)]
pub struct CacheWrite {
    /// Which order.
    pub id: OrderId,
    /// The version that this content is.
    pub version: i64,
    /// The owner and the body, or `None` for a tombstone.
    pub content: Option<(CustomerId, Bytes)>,
    /// Whether an absent entry may be created. A late event may raise an entry but never bring back an expired one.
    pub may_create: bool,
}

/// The cache did not answer; PostgreSQL does.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Redis said no, or cannot be reached.
    #[error("the cache failed: {0}")]
    Redis(#[from] RedisError),
    /// No answer within the deadline.
    #[error("the cache did not answer within {0:?}")]
    Deadline(Duration),
}

impl Cache {
    /// A cache that connects when first used. `deadline` bounds every call.
    pub fn new(url: &SecretString, ttl: Duration, deadline: Duration) -> Result<Self, RedisError> {
        let client = redis::Client::open(url.expose_secret())?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(deadline.max(Duration::from_millis(500))))
            .set_response_timeout(Some(deadline))
            .set_number_of_retries(0);
        Ok(Self {
            connection: client.get_connection_manager_lazy(config)?,
            script: Script::new(include_str!("cache.lua")),
            ttl,
            deadline,
        })
    }

    /// Looks an order up: one round trip.
    pub async fn get(&self, id: OrderId) -> Result<Lookup, CacheError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("GET");
        command.arg(key(id));
        let entry: Option<Bytes> = self.within(command.query_async(&mut connection)).await?;
        Ok(entry.as_ref().and_then(decode).unwrap_or(Lookup::Miss))
    }

    /// Writes entries that are newer than what is held, in one round trip, and says which were.
    pub async fn put(&self, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let mut invocation = self.script.prepare_invoke();
        for write in writes {
            invocation.key(key(write.id));
            invocation.arg(encode(write)).arg(self.jittered_ttl()).arg(u8::from(write.may_create));
        }
        self.within(invocation.invoke_async(&mut connection)).await
    }

    /// Removes an entry, whatever its version.
    pub async fn remove(&self, id: OrderId) -> Result<(), CacheError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("DEL");
        command.arg(key(id));
        self.within(command.query_async(&mut connection)).await
    }

    /// One step of a walk over all entries: the orders found, and the cursor to go on with; 0 begins and ends it.
    /// An entry that stands throughout the walk is found at least once.
    pub async fn scan(&self, cursor: u64) -> Result<(u64, Vec<OrderId>), CacheError> {
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{KEY_PREFIX}*")).arg("COUNT").arg(SCAN_STEP);
        let (next, keys): (u64, Vec<String>) = self.within(command.query_async(&mut connection)).await?;
        let id = |key: String| OrderId::try_from(key.strip_prefix(KEY_PREFIX)?.parse::<i64>().ok()?).ok();
        Ok((next, keys.into_iter().filter_map(id).collect()))
    }

    /// The entries of several orders as they stand, in the order asked for, in one round trip.
    pub async fn entries(&self, ids: &[OrderId]) -> Result<Vec<Option<Entry>>, CacheError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut connection = self.connection.clone();
        let mut command = redis::cmd("MGET");
        for id in ids {
            command.arg(key(*id));
        }
        let raw: Vec<Option<Bytes>> = self.within(command.query_async(&mut connection)).await?;
        Ok(raw.into_iter().map(|raw| raw.map(Entry)).collect())
    }

    /// Removes an entry where it still is exactly `seen`, and says whether it was.
    pub async fn remove_exactly(&self, id: OrderId, seen: &Entry) -> Result<bool, CacheError> {
        let mut connection = self.connection.clone();
        let script = Script::new(REMOVE_EXACTLY);
        let mut invocation = script.prepare_invoke();
        invocation.key(key(id)).arg(seen.0.as_ref());
        self.within(invocation.invoke_async(&mut connection)).await
    }

    /// Whether Redis answers.
    pub async fn ping(&self) -> Result<(), CacheError> {
        let mut connection = self.connection.clone();
        self.within(redis::cmd("PING").query_async(&mut connection)).await
    }

    async fn within<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, CacheError> {
        match tokio::time::timeout(self.deadline, call).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(CacheError::Deadline(self.deadline)),
        }
    }

    fn jittered_ttl(&self) -> u64 {
        let spread = rand::rng().random_range(1.0 - JITTER..1.0 + JITTER);
        u64::try_from(self.ttl.mul_f64(spread).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// The key of an order's entry. `clear-cache` removes everything with this prefix.
pub const KEY_PREFIX: &str = "cache:order:";

fn key(id: OrderId) -> String {
    format!("{KEY_PREFIX}{id}")
}

fn encode(write: &CacheWrite) -> Vec<u8> {
    let (owner, body) = match &write.content {
        Some((owner, body)) => (owner.get(), body.as_ref()),
        None => (0, [].as_slice()),
    };
    let mut entry = format!("{:0NUMBER$}{owner:0NUMBER$}", write.version).into_bytes();
    entry.extend_from_slice(body);
    entry
}

/// `None` for what is not an entry of ours: treated as absent.
fn decode(entry: &Bytes) -> Option<Lookup> {
    let number = |range| std::str::from_utf8(entry.get(range)?).ok()?.parse::<i64>().ok();
    let version = number(0..NUMBER)?;
    let owner = number(NUMBER..2 * NUMBER)?;
    let body = entry.slice(2 * NUMBER..);
    if body.is_empty() {
        return Some(Lookup::Deleted { version });
    }
    let owner = CustomerId::try_from(owner).ok()?;
    Some(Lookup::Found(CachedOrder { version, owner, body }))
}
