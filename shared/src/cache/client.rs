//! The handle on the cache.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use rand::Rng as _;
use redis::{RedisError, Script};
use secrecy::SecretString;
use uuid::Uuid;

use super::{
    breaker::{Breaker, Call},
    entry::{self, CacheEntry, CacheWrite, KEY_PREFIX, Lookup},
    error::CacheError,
    lookups::Lookups,
};
use crate::{
    domain::order::OrderKey,
    platform::redis::{Era, Redis, RedisFailure, RedisMemory},
};

/// The share by which lifetimes vary, so that entries written together do not expire together.
const JITTER: f64 = 0.1;
const REMOVE_IF_UNCHANGED: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
/// How long a reader that found no entry can take to fill it.
const FILL_WITHIN: Duration = Duration::from_secs(5);

/// How long after a promotion was noticed readers fill no entries. Until each replica of the API has reached the new
/// server, one can have changed an order without being able to write it there, and another one would fill in what it read just before.
const REACHED_BY_ALL: Duration = Duration::from_secs(10);

/// A handle on the cache; clones share its connection and its breaker.
#[derive(Clone)]
pub struct Cache(Arc<CacheInner>);

struct CacheInner {
    /// Guarded: no entry is read from a server that may have been replaced.
    redis: Redis,
    breaker: Breaker,
    lookups: Lookups,
    compare_and_set: Script,
    create: Script,
    ttl: Duration,
}

/// Lets its holder store what it reads from the database after this was issued, unless the entry is written in between.
#[derive(Clone, Debug)]
pub struct FillToken(String);

impl Cache {
    /// A cache that connects when first used. `deadline` bounds every call.
    pub fn new(url: &SecretString, ttl: Duration, deadline: Duration) -> Result<Self, RedisError> {
        Ok(Self(Arc::new(CacheInner {
            redis: Redis::new(url)?.with_deadline(deadline).guarded(),
            breaker: Breaker::default(),
            lookups: Lookups::default(),
            compare_and_set: Script::new(include_str!("cache.lua")),
            create: Script::new(include_str!("create.lua")),
            ttl,
        })))
    }

    /// Looks an order up. Lookups that wait at the same time share one round trip. Must be called inside a Tokio runtime.
    pub async fn get(&self, order: OrderKey) -> Result<Lookup, CacheError> {
        let (answer, must_start) = self.0.lookups.add(order);
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
            let orders: Vec<OrderKey> = batch.iter().map(|lookup| lookup.order).collect();
            let entries = self.entries_of_each_server(&orders).await;
            if let Some(Err(error)) = entries.iter().find(|_| entries.iter().all(Result::is_err)) {
                // Also those that came meanwhile: they do not wait for another round trip.
                for lookup in flight.take_all() {
                    lookup.reply(Err(error.clone()));
                }
            }
            for (lookup, entry) in batch.into_iter().zip(entries) {
                let found = |entry: Option<CacheEntry>| entry.as_ref().and_then(CacheEntry::lookup);
                lookup.reply(entry.map(|entry| found(entry).unwrap_or(Lookup::Miss)));
            }
        }
    }

    /// Writes entries that are newer than those in Redis. Returns for each whether it was written. No two of them can be of
    /// one order.
    pub async fn put(&self, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        let groups = self.0.redis.group_by_slot(writes, |write| entry::slot_key(write.order));
        let put = groups.iter().map(|(redis, places)| self.put_group(redis, pick(writes, places)));
        Ok(merge(&groups, try_join_all(put).await?))
    }

    /// Writes entries of one slot.
    async fn put_group(&self, redis: &Redis, writes: Vec<&CacheWrite>) -> Result<Vec<bool>, CacheError> {
        let (firsts, mut others): (Vec<usize>, Vec<usize>) =
            (0..writes.len()).partition(|place| is_new_first_version(writes[*place]));
        let pick = |places: &[usize]| places.iter().map(|place| writes[*place]).collect::<Vec<_>>();
        let mut written = vec![false; writes.len()];
        if !firsts.is_empty() {
            let (created, creation_is_allowed) = self.create_first_versions(redis, &pick(&firsts)).await?;
            for (place, created) in firsts.into_iter().zip(created) {
                written[place] = created;
                if !created && creation_is_allowed {
                    others.push(place);
                }
            }
        }
        let create = |era: Option<&Era>, write: &CacheWrite| {
            if write.may_create && era_allows_creation(era) { "1" } else { "0" }
        };
        let set = self.compare_and_set(redis, &pick(&others), create).await?;
        for (place, set) in others.into_iter().zip(set) {
            written[place] = set;
        }
        Ok(written)
    }

    /// Writes first versions that have no entry yet. Nothing is older than a first version, so there is nothing to
    /// compare, and no reader can be about to fill in an older one. It costs Redis half of what the other script does. Also returns
    /// whether entries can be created there; if not, a first version has nothing to replace either.
    async fn create_first_versions(
        &self,
        redis: &Redis,
        writes: &[&CacheWrite],
    ) -> Result<(Vec<bool>, bool), CacheError> {
        let is_allowed = AtomicBool::new(true);
        let script = |era: Option<&Era>| {
            is_allowed.store(era_allows_creation(era), Ordering::Relaxed);
            let mut invocation = self.0.create.prepare_invoke();
            invocation.arg(if era_allows_creation(era) { "1" } else { "0" });
            for write in writes {
                invocation.key(entry::entry_key(era, write.order));
                invocation.arg(entry::encode_entry(write)).arg(self.jittered_ttl());
            }
            invocation
        };
        let created = self.call(Call::Write, redis.run_script_in_era::<Vec<bool>>(script)).await?;
        Ok((created, is_allowed.into_inner()))
    }

    /// Announces that these orders, which [`Cache::get`] missed, are about to be read from the database.
    pub async fn begin_fill(&self, orders: &[OrderKey]) -> Result<FillToken, CacheError> {
        let token = FillToken(Uuid::now_v7().to_string());
        let within = u64::try_from(FILL_WITHIN.as_millis()).unwrap_or(u64::MAX);
        let groups = self.0.redis.group_by_slot(orders, |order| entry::slot_key(*order));
        let marks = groups.iter().map(|(redis, places)| {
            let marks = |era: Option<&Era>| {
                let mut pipeline = redis::pipe();
                for order in pick(orders, places) {
                    let mark = entry::mark_key(era, *order);
                    pipeline.cmd("SET").arg(mark).arg(&token.0).arg("PX").arg(within).ignore();
                }
                pipeline
            };
            self.call(Call::Write, redis.run_pipeline_in_era::<()>(marks))
        });
        try_join_all(marks).await?;
        Ok(token)
    }

    /// Stores what was read after [`Cache::begin_fill`]. An entry that was written meanwhile is left alone, even if Redis has
    /// already evicted it: what was read may be older.
    pub async fn fill(&self, token: &FillToken, writes: &[CacheWrite]) -> Result<Vec<bool>, CacheError> {
        let groups = self.0.redis.group_by_slot(writes, |write| entry::slot_key(write.order));
        let fill = groups.iter().map(|(redis, places)| async {
            let create =
                |era: Option<&Era>, _: &CacheWrite| if can_fill(era) { token.0.as_str() } else { "0" };
            self.compare_and_set(redis, &pick(writes, places), create).await
        });
        Ok(merge(&groups, try_join_all(fill).await?))
    }

    /// Removes an entry, whatever its version.
    pub async fn remove(&self, order: OrderKey) -> Result<(), CacheError> {
        let remove = |era: Option<&Era>| {
            let mut remove = redis::cmd("DEL");
            remove.arg(entry::entry_key(era, order)).arg(entry::mark_key(era, order));
            remove
        };
        self.call(Call::Write, self.at_order(order).run_command_in_era(remove)).await
    }

    /// Removes an entry if it still is exactly `seen`. Returns whether it was.
    pub async fn remove_if_unchanged(&self, order: OrderKey, seen: &CacheEntry) -> Result<bool, CacheError> {
        let script = Script::new(REMOVE_IF_UNCHANGED);
        let remove = |era: Option<&Era>| {
            let mut invocation = script.prepare_invoke();
            invocation.key(entry::entry_key(era, order)).arg(seen.as_bytes());
            invocation
        };
        self.call(Call::Write, self.at_order(order).run_script_in_era(remove)).await
    }

    /// Checks that entries can be corrected: Redis answers and takes the removal of a key.
    pub async fn ping(&self) -> Result<(), CacheError> {
        self.call(Call::Write, self.write_cheaply()).await
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
        redis: &Redis,
        writes: &[&CacheWrite],
        create: impl Fn(Option<&Era>, &CacheWrite) -> &'a str + Sync,
    ) -> Result<Vec<bool>, CacheError> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let script = |era: Option<&Era>| {
            let mut invocation = self.0.compare_and_set.prepare_invoke();
            for write in writes {
                invocation.key(entry::entry_key(era, write.order)).key(entry::mark_key(era, write.order));
                invocation.arg(entry::encode_entry(write)).arg(self.jittered_ttl()).arg(create(era, write));
            }
            invocation
        };
        self.call(Call::Write, redis.run_script_in_era(script)).await
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.0.redis
    }

    pub(super) fn at_order(&self, order: OrderKey) -> Redis {
        self.0.redis.at_key(&entry::slot_key(order))
    }

    /// Makes one call, unless the breaker is open, and records its outcome there.
    pub(super) async fn call<T>(
        &self,
        kind: Call,
        call: impl Future<Output = Result<T, RedisFailure>>,
    ) -> Result<T, CacheError> {
        let permit = self.0.breaker.acquire_permit(kind, Instant::now()).ok_or(CacheError::Open)?;
        let answer = async {
            if permit.must_write_first() {
                self.write_cheaply().await?;
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

    /// A write to each primary that is cheap and that a full Redis takes, too: the removal of a key that does not exist.
    async fn write_cheaply(&self) -> Result<(), RedisFailure> {
        let primaries = self.0.redis.each_primary().await?;
        let write = async |(primary, tag): &(Redis, String)| {
            primary.run_command::<()>(redis::cmd("DEL").arg(format!("{KEY_PREFIX}none{tag}"))).await
        };
        try_join_all(primaries.iter().map(write)).await.map(|_| ())
    }

    fn jittered_ttl(&self) -> u64 {
        let spread = rand::rng().random_range(1.0 - JITTER..1.0 + JITTER);
        u64::try_from(self.0.ttl.mul_f64(spread).as_millis()).unwrap_or(u64::MAX).max(1)
    }
}

/// Whether this write can create an entry without comparing.
fn is_new_first_version(write: &CacheWrite) -> bool {
    write.version == 1 && write.may_create && write.content.is_some()
}

/// Whether readers fill entries on a server in this era.
fn can_fill(era: Option<&Era>) -> bool {
    era.is_none_or(|era| !era.met_in_use || era.met.elapsed() >= REACHED_BY_ALL)
}

/// Whether others than readers create entries. On servers that replace each other they do not: that an entry is missing does not say
/// that no newer version was answered, since that one may have been written to the server before. (A wait after each promotion is
/// no remedy if each process counts it for itself: one that has just started would change an order without leaving an entry, and
/// another one would create the version before.)
fn era_allows_creation(era: Option<&Era>) -> bool {
    era.is_none()
}

/// The items at these places.
pub(super) fn pick<'a, T>(items: &'a [T], places: &[usize]) -> Vec<&'a T> {
    places.iter().map(|place| &items[*place]).collect()
}

/// The answers for all items, in their order, from those for each group.
pub(super) fn merge<T>(groups: &[(Redis, Vec<usize>)], answers: Vec<Vec<T>>) -> Vec<T> {
    let places = groups.iter().flat_map(|(_, places)| places.iter().copied());
    let mut all: Vec<(usize, T)> = places.zip(answers.into_iter().flatten()).collect();
    all.sort_unstable_by_key(|(place, _)| *place);
    all.into_iter().map(|(_, answer)| answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_long_an_era_is_known_only_readers_create_entries() {
        let now = tokio::time::Instant::now();
        let met = now.checked_sub(Duration::from_mins(10)).unwrap_or(now);
        let era = Era { id: "0123abcd".to_owned(), met, met_in_use: false };
        assert!(can_fill(Some(&era)) && !era_allows_creation(Some(&era)));
        assert!(can_fill(None) && era_allows_creation(None));
    }
}
