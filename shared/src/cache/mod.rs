//! The order cache in Redis: the body exactly as it is answered, beside its version and owner.
//!
//! Writes are a compare-and-set on version in one Lua script (`cache.lua`), so they commute: whatever the order in
//! which the API and the workers write, the newest version stands. A deletion leaves a tombstone with its version.

mod breaker;
mod entry;
mod lookups;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::Rng as _;
use redis::{Cmd, RedisError, Script};
use secrecy::SecretString;
use uuid::Uuid;

use self::{
    breaker::{Breaker, Call},
    lookups::Lookups,
};
use crate::{
    domain::order::{CustomerId, OrderId},
    platform::redis::{Redis, RedisFailure, RedisMemory},
};

/// Lifetimes are spread by this share, so that entries written together do not expire together.
const JITTER: f64 = 0.1;
/// Keys that Redis looks at in one step of a walk, which bounds how long it is busy.
const SCAN_STEP: usize = 1000;
const REMOVE_EXACTLY: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
/// How long a reader that found nothing may take to bring the entry.
const FILL_WITHIN: Duration = Duration::from_secs(5);

/// A handle on the cache; clones share its connection and its breaker.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    redis: Redis,
    breaker: Breaker,
    lookups: Lookups,
    compare_and_set: Script,
    create: Script,
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
        entry::decode(&self.0)
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
#[derive(Clone, Debug, thiserror::Error)]
pub enum CacheError {
    /// Redis said no, cannot be reached, or did not answer in time.
    #[error(transparent)]
    Redis(#[from] RedisFailure),
    /// It failed often in a row; it is asked again in a moment.
    #[error("the cache is left alone after several failures")]
    Open,
}

/// Leave to store what was read from the database after this was given, unless somebody writes in between.
#[derive(Clone, Debug)]
pub struct FillPass(String);

impl Cache {
    /// A cache that connects when first used. `deadline` bounds every call.
    pub fn new(url: &SecretString, ttl: Duration, deadline: Duration) -> Result<Self, RedisError> {
        Ok(Self(Arc::new(Inner {
            redis: Redis::new(url)?.with_deadline(deadline),
            breaker: Breaker::default(),
            lookups: Lookups::default(),
            compare_and_set: Script::new(include_str!("cache.lua")),
            create: Script::new(include_str!("create.lua")),
            ttl,
            deadline,
        })))
    }

    /// Looks an order up: one round trip, shared with whoever else looks one up at the time. Must be called inside a
    /// runtime.
    pub async fn get(&self, id: OrderId) -> Result<Lookup, CacheError> {
        let (answer, nobody_asks) = self.0.lookups.ask(id);
        if nobody_asks {
            tokio::spawn(self.clone().look_up());
        }
        answer.await.unwrap_or(Err(CacheError::Open))
    }

    /// Asks for whatever waits, until nothing does.
    async fn look_up(self) {
        let mut duty = self.0.lookups.duty();
        // Those that are about to ask do so first.
        tokio::task::yield_now().await;
        while let Some(asked) = duty.next() {
            let ids: Vec<OrderId> = asked.iter().map(|asked| asked.id).collect();
            match self.entries(&ids).await {
                Ok(entries) => {
                    for (asked, entry) in asked.into_iter().zip(entries) {
                        asked.answer(Ok(entry.as_ref().and_then(Entry::lookup).unwrap_or(Lookup::Miss)));
                    }
                }
                Err(error) => {
                    for asked in asked.into_iter().chain(duty.all()) {
                        asked.answer(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes entries that are newer than what is held, and says which were. No two of them may be of one order.
    pub async fn put(&self, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        let mut written = self.create(writes).await?;
        let (places, others): (Vec<_>, Vec<_>) =
            writes.iter().enumerate().filter(|(place, _)| !written[*place]).unzip();
        let set = self.compare_and_set(&others, |write| if write.may_create { "1" } else { "0" }).await?;
        for (place, set) in places.into_iter().zip(set) {
            written[place] = set;
        }
        Ok(written)
    }

    /// Writes those that are first versions where nothing is there. Nothing is older than these, so there is nothing to
    /// compare, and what a reader is about to bring cannot be wrong for them. It costs Redis half of what the other script does.
    async fn create(&self, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        let mut written = vec![false; writes.len()];
        let mut invocation = self.0.create.prepare_invoke();
        let mut places = Vec::with_capacity(writes.len());
        for (place, write) in writes.iter().enumerate() {
            if write.version == 1 && write.may_create && write.content.is_some() {
                invocation.key(entry::key(write.id)).arg(entry::encode(write)).arg(self.jittered_ttl());
                places.push(place);
            }
        }
        if places.is_empty() {
            return Ok(written);
        }
        let invoke = self.0.redis.run_script::<Vec<bool>>(&invocation, self.0.deadline);
        let set = self.call(Call::Write, invoke).await?;
        for (place, set) in places.into_iter().zip(set) {
            written[place] = set;
        }
        Ok(written)
    }

    /// Announces that these orders, which [`Cache::get`] missed, are now read from the database.
    pub async fn begin_fill(&self, ids: &[OrderId]) -> Result<FillPass, CacheError> {
        let pass = FillPass(Uuid::now_v7().to_string());
        let mut pipeline = redis::pipe();
        for id in ids {
            let within = u64::try_from(FILL_WITHIN.as_millis()).unwrap_or(u64::MAX);
            pipeline.cmd("SET").arg(entry::mark(*id)).arg(&pass.0).arg("PX").arg(within).ignore();
        }
        self.call(Call::Write, self.0.redis.run_pipeline::<()>(&pipeline)).await?;
        Ok(pass)
    }

    /// Stores what was read after [`Cache::begin_fill`]. What somebody wrote meanwhile is left alone, even where it
    /// has been evicted already, because then what was read may be older than what was answered elsewhere.
    pub async fn fill(&self, pass: &FillPass, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        self.compare_and_set(&writes.iter().collect::<Vec<_>>(), |_| &pass.0).await
    }

    /// Removes an entry, whatever its version.
    pub async fn remove(&self, id: OrderId) -> Result<(), CacheError> {
        let mut remove = redis::cmd("DEL");
        remove.arg(entry::key(id)).arg(entry::mark(id));
        self.call(Call::Write, self.0.redis.run_command(&remove)).await
    }

    /// Removes an entry where it still is exactly `seen`, and says whether it was.
    pub async fn remove_exactly(&self, id: OrderId, seen: &Entry) -> Result<bool, CacheError> {
        let script = Script::new(REMOVE_EXACTLY);
        let mut invocation = script.prepare_invoke();
        invocation.key(entry::key(id)).arg(seen.as_bytes());
        self.call(Call::Write, self.0.redis.run_script(&invocation, self.0.deadline)).await
    }

    /// One step of a walk over all entries: the orders found, and the cursor to go on with; 0 begins and ends it.
    /// An entry that stands throughout the walk is found at least once.
    pub async fn scan(&self, cursor: u64) -> Result<(u64, Vec<OrderId>), CacheError> {
        let (next, keys) = self.scan_keys(cursor).await?;
        Ok((next, keys.iter().filter_map(|key| entry::id(key)).collect()))
    }

    async fn scan_keys(&self, cursor: u64) -> Result<(u64, Vec<String>), CacheError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{KEY_PREFIX}*")).arg("COUNT").arg(SCAN_STEP);
        self.call(Call::Read, self.0.redis.run_command(&command)).await
    }

    /// The entries of several orders as they stand, in the order asked for, in one round trip.
    pub async fn entries(&self, ids: &[OrderId]) -> Result<Vec<Option<Entry>>, CacheError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Cmd::with_capacity(1 + ids.len(), 32 * (1 + ids.len()));
        command.arg("MGET");
        for id in ids {
            command.arg(entry::key(*id));
        }
        let raw: Vec<Option<Bytes>> = self.call(Call::Read, self.0.redis.run_command(&command)).await?;
        Ok(raw.into_iter().map(|raw| raw.map(Entry)).collect())
    }

    /// Removes every entry that stands throughout the walk, and what readers are about to bring; gives the number of
    /// keys removed.
    pub async fn purge(&self) -> Result<usize, CacheError> {
        let (mut cursor, mut removed) = (0, 0);
        loop {
            let (next, keys) = self.scan_keys(cursor).await?;
            if !keys.is_empty() {
                let mut unlink = redis::cmd("UNLINK");
                unlink.arg(&keys);
                removed += self.call(Call::Write, self.0.redis.run_command::<usize>(&unlink)).await?;
            }
            cursor = next;
            if cursor == 0 {
                return Ok(removed);
            }
        }
    }

    /// Whether entries can be corrected: whether Redis answers, and takes the removal of a key.
    pub async fn ping(&self) -> Result<(), CacheError> {
        self.call(Call::Write, self.0.redis.run_command(&cheap_write())).await
    }

    /// Whether Redis takes entries, and how its memory stands: see [`Redis::check_writable`].
    pub async fn check_writable(&self) -> Result<RedisMemory, CacheError> {
        self.call(Call::Write, self.0.redis.check_writable()).await
    }

    /// Whether calls are refused at the moment, after several failures in a row.
    pub fn is_open(&self) -> bool {
        self.0.breaker.is_open()
    }

    async fn compare_and_set<'a>(
        &'a self,
        writes: &[&CacheWrite],
        create: impl Fn(&CacheWrite) -> &'a str,
    ) -> Result<Vec<bool>, CacheError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut invocation = self.0.compare_and_set.prepare_invoke();
        for write in writes {
            invocation.key(entry::key(write.id));
            invocation.arg(entry::encode(write)).arg(self.jittered_ttl()).arg(create(write));
        }
        self.call(Call::Write, self.0.redis.run_script(&invocation, self.0.deadline)).await
    }

    /// Makes one call, unless the breaker is open, and reports to it how the call went.
    async fn call<T>(
        &self,
        kind: Call,
        call: impl Future<Output = Result<T, RedisFailure>>,
    ) -> Result<T, CacheError> {
        let Inner { redis, breaker, .. } = &*self.0;
        let pass = breaker.enter(kind, Instant::now()).ok_or(CacheError::Open)?;
        let answer = async {
            if pass.must_write_first() {
                redis.run_command::<()>(&cheap_write()).await?;
            }
            call.await
        };
        let failure = match answer.await {
            Ok(answer) => {
                pass.succeeded();
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        metrics::counter!("cache_errors_total").increment(1);
        if failure.has_code(&["OOM"]) {
            // A full Redis takes no new entry, but it still removes and replaces what has become old.
            pass.succeeded();
        } else {
            pass.failed(Instant::now());
        }
        Err(CacheError::Redis(failure))
    }

    fn jittered_ttl(&self) -> u64 {
        let spread = rand::rng().random_range(1.0 - JITTER..1.0 + JITTER);
        u64::try_from(self.0.ttl.mul_f64(spread).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Every key of the cache begins with this.
pub const KEY_PREFIX: &str = "cache:order:";

/// A write that costs nothing and that a full Redis takes, too: the removal of a key that is not there.
fn cheap_write() -> Cmd {
    let mut command = redis::cmd("DEL");
    command.arg(format!("{KEY_PREFIX}none"));
    command
}
