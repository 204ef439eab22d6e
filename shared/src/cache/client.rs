//! The handle on the cache.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rand::Rng as _;
use redis::{Cmd, RedisError, Script};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    breaker::{Breaker, Call},
    entry::{self, CacheEntry, CacheWrite, KEY_PREFIX, Lookup},
    error::CacheError,
    lookups::Lookups,
};
use crate::{
    domain::order::OrderId,
    platform::redis::{Redis, RedisFailure, RedisMemory},
};

/// The share by which lifetimes vary, so that entries written together do not expire together.
const JITTER: f64 = 0.1;
/// Keys that Redis reads in one step of a scan, which bounds how long it is busy.
const SCAN_STEP: usize = 1000;
const REMOVE_IF_UNCHANGED: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
/// How long a reader that found no entry can take to fill it.
const FILL_WITHIN: Duration = Duration::from_secs(5);

/// A handle on the cache; clones share its connection and its breaker.
#[derive(Clone)]
pub struct Cache(Arc<CacheInner>);

struct CacheInner {
    redis: Redis,
    breaker: Breaker,
    lookups: Lookups,
    compare_and_set: Script,
    create: Script,
    ttl: Duration,
    deadline: Duration,
}

/// Lets its holder store what it reads from the database after this was issued, unless the entry is written in between.
#[derive(Clone, Debug)]
pub struct FillToken(String);

impl Cache {
    /// A cache that connects when first used. `deadline` bounds every call.
    pub fn new(url: &SecretString, ttl: Duration, deadline: Duration) -> Result<Self, RedisError> {
        Ok(Self(Arc::new(CacheInner {
            redis: Redis::new(url)?.with_deadline(deadline),
            breaker: Breaker::default(),
            lookups: Lookups::default(),
            compare_and_set: Script::new(include_str!("cache.lua")),
            create: Script::new(include_str!("create.lua")),
            ttl,
            deadline,
        })))
    }

    /// Looks an order up. Lookups that wait at the same time share one round trip. Must be called inside a Tokio runtime.
    pub async fn get(&self, id: OrderId) -> Result<Lookup, CacheError> {
        let (answer, must_start) = self.0.lookups.add(id);
        if must_start {
            tokio::spawn(self.clone().fetch_lookups());
        }
        answer.await.unwrap_or(Err(CacheError::Open))
    }

    /// Asks Redis for the lookups that wait until none does.
    async fn fetch_lookups(self) {
        let mut flight = self.0.lookups.start_flight();
        // Tasks that are about to add a lookup do so first.
        tokio::task::yield_now().await;
        while let Some(batch) = flight.next_batch() {
            let ids: Vec<OrderId> = batch.iter().map(|lookup| lookup.id).collect();
            match self.entries(&ids).await {
                Ok(entries) => {
                    for (lookup, entry) in batch.into_iter().zip(entries) {
                        lookup.reply(Ok(entry.as_ref().and_then(CacheEntry::lookup).unwrap_or(Lookup::Miss)));
                    }
                }
                Err(error) => {
                    // Also those that came meanwhile: they do not wait for another round trip.
                    for lookup in batch.into_iter().chain(flight.take_all()) {
                        lookup.reply(Err(error.clone()));
                    }
                }
            }
        }
    }

    /// Writes entries that are newer than those in Redis. Returns for each whether it was written. No two of them can be of
    /// one order.
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

    /// Writes those that are first versions and have no entry yet. Nothing is older than a first version, so there is nothing to
    /// compare, and no reader can be about to fill in an older one. It costs Redis half of what the other script does.
    async fn create(&self, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        let mut written = vec![false; writes.len()];
        let mut invocation = self.0.create.prepare_invoke();
        let mut places = Vec::with_capacity(writes.len());
        for (place, write) in writes.iter().enumerate() {
            if write.version == 1 && write.may_create && write.content.is_some() {
                invocation
                    .key(entry::entry_key(write.id))
                    .arg(entry::encode_entry(write))
                    .arg(self.jittered_ttl());
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

    /// Announces that these orders, which [`Cache::get`] missed, are about to be read from the database.
    pub async fn begin_fill(&self, ids: &[OrderId]) -> Result<FillToken, CacheError> {
        let token = FillToken(Uuid::now_v7().to_string());
        let mut pipeline = redis::pipe();
        for id in ids {
            let within = u64::try_from(FILL_WITHIN.as_millis()).unwrap_or(u64::MAX);
            pipeline.cmd("SET").arg(entry::mark_key(*id)).arg(&token.0).arg("PX").arg(within).ignore();
        }
        self.call(Call::Write, self.0.redis.run_pipeline::<()>(&pipeline)).await?;
        Ok(token)
    }

    /// Stores what was read after [`Cache::begin_fill`]. An entry that was written meanwhile is left alone, even if Redis has
    /// already evicted it: what was read may be older.
    pub async fn fill(&self, token: &FillToken, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        self.compare_and_set(&writes.iter().collect::<Vec<_>>(), |_| &token.0).await
    }

    /// Removes an entry, whatever its version.
    pub async fn remove(&self, id: OrderId) -> Result<(), CacheError> {
        let mut remove = redis::cmd("DEL");
        remove.arg(entry::entry_key(id)).arg(entry::mark_key(id));
        self.call(Call::Write, self.0.redis.run_command(&remove)).await
    }

    /// Removes an entry if it still is exactly `seen`. Returns whether it was.
    pub async fn remove_if_unchanged(&self, id: OrderId, seen: &CacheEntry) -> Result<bool, CacheError> {
        let script = Script::new(REMOVE_IF_UNCHANGED);
        let mut invocation = script.prepare_invoke();
        invocation.key(entry::entry_key(id)).arg(seen.as_bytes());
        self.call(Call::Write, self.0.redis.run_script(&invocation, self.0.deadline)).await
    }

    /// One step of a scan over all entries: the next cursor and the orders found. Cursor 0 begins and ends the scan.
    /// An entry that exists throughout the scan is found at least once.
    pub async fn scan(&self, cursor: u64) -> Result<(u64, Vec<OrderId>), CacheError> {
        let (next, keys) = self.scan_keys(cursor).await?;
        Ok((next, keys.iter().filter_map(|key| entry::parse_key(key)).collect()))
    }

    async fn scan_keys(&self, cursor: u64) -> Result<(u64, Vec<String>), CacheError> {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(format!("{KEY_PREFIX}*")).arg("COUNT").arg(SCAN_STEP);
        self.call(Call::Read, self.0.redis.run_command(&command)).await
    }

    /// The entries of several orders in the order of `ids`, in one round trip.
    pub async fn entries(&self, ids: &[OrderId]) -> Result<Vec<Option<CacheEntry>>, CacheError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = Cmd::with_capacity(1 + ids.len(), 32 * (1 + ids.len()));
        command.arg("MGET");
        for id in ids {
            command.arg(entry::entry_key(*id));
        }
        let raw: Vec<Option<Bytes>> = self.call(Call::Read, self.0.redis.run_command(&command)).await?;
        Ok(raw.into_iter().map(|raw| raw.map(CacheEntry)).collect())
    }

    /// Removes every entry that exists throughout the scan, and the marks of readers that are about to fill one. Returns the
    /// number of keys removed.
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

    /// Checks that entries can be corrected: Redis answers and takes the removal of a key.
    pub async fn ping(&self) -> Result<(), CacheError> {
        self.call(Call::Write, self.0.redis.run_command(&cheap_write())).await
    }

    /// Checks that Redis takes entries, and returns the state of its memory: see [`Redis::check_writable`].
    pub async fn check_writable(&self) -> Result<RedisMemory, CacheError> {
        self.call(Call::Write, self.0.redis.check_writable()).await
    }

    /// Reports whether calls are refused at the moment, after several failures in a row.
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
            invocation.key(entry::entry_key(write.id));
            invocation.arg(entry::encode_entry(write)).arg(self.jittered_ttl()).arg(create(write));
        }
        self.call(Call::Write, self.0.redis.run_script(&invocation, self.0.deadline)).await
    }

    /// Makes one call, unless the breaker is open, and records its outcome there.
    async fn call<T>(
        &self,
        kind: Call,
        call: impl Future<Output = Result<T, RedisFailure>>,
    ) -> Result<T, CacheError> {
        let CacheInner { redis, breaker, .. } = &*self.0;
        let permit = breaker.acquire_permit(kind, Instant::now()).ok_or(CacheError::Open)?;
        let answer = async {
            if permit.must_write_first() {
                redis.run_command::<()>(&cheap_write()).await?;
            }
            call.await
        };
        let failure = match answer.await {
            Ok(answer) => {
                permit.record_success();
                return Ok(answer);
            }
            Err(failure) => failure,
        };
        metrics::counter!("cache_errors_total").increment(1);
        if failure.has_code(&["OOM"]) {
            // A full Redis takes no new entry, but it still replaces and removes old ones.
            permit.record_success();
        } else {
            permit.record_failure(Instant::now());
        }
        Err(CacheError::Redis(failure))
    }

    fn jittered_ttl(&self) -> u64 {
        let spread = rand::rng().random_range(1.0 - JITTER..1.0 + JITTER);
        u64::try_from(self.0.ttl.mul_f64(spread).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// A write that is cheap and that a full Redis takes, too: the removal of a key that does not exist.
fn cheap_write() -> Cmd {
    let mut command = redis::cmd("DEL");
    command.arg(format!("{KEY_PREFIX}none"));
    command
}
