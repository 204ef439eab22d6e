//! Writes through to the cache, and corrects what could not be written.
//!
//! A write whose entry did not reach Redis leaves an entry there that is older than what its client was answered. Until
//! it is corrected, this replica serves that order from PostgreSQL and reports itself as degraded.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use shared::{
    cache::{Cache, CacheWrite},
    domain::order::OrderKey,
    platform::{db::DbPool, shutdown::Shutdown},
};
use tokio::sync::Notify;

use super::{
    cache_entry::{encode_order, entry, tombstone},
    load::load_orders,
};

/// Orders remembered at most; beyond it every entry of the cache is dropped as soon as Redis is back.
const MAX_REMEMBERED: usize = 10_000;
/// Entries corrected in one round trip.
const BATCH: usize = 64;
/// The pause between two attempts while Redis is away.
const PAUSE: Duration = Duration::from_millis(100);

/// The orders whose entry may be older than what was answered.
pub(crate) struct StaleEntries {
    cache: Cache,
    /// How many are remembered one by one at most.
    capacity: usize,
    state: Mutex<StaleOrders>,
    /// Whether there are any; read without the lock.
    any: AtomicBool,
    added: Notify,
}

#[derive(Default)]
struct StaleOrders {
    /// The version that the cache has missed, by order.
    orders: HashMap<OrderKey, i64>,
    /// More are stale than can be remembered: any entry may be stale.
    all: bool,
}

impl StaleEntries {
    pub(crate) fn new(cache: Cache) -> Self {
        Self::with_capacity(cache, MAX_REMEMBERED)
    }

    fn with_capacity(cache: Cache, capacity: usize) -> Self {
        Self { cache, capacity, state: Mutex::default(), any: AtomicBool::new(false), added: Notify::new() }
    }

    /// Stores entries after their commit and before it is answered. Those that do not reach Redis are remembered.
    pub(crate) async fn write_through(&self, writes: Vec<CacheWrite>) {
        let Err(error) = self.cache.put(&writes).await else { return };
        tracing::debug!(error = %error, entries = writes.len(), "cache entries could not be written");
        let mut state = self.lock();
        for write in writes {
            let version = state.orders.entry(write.order).or_default();
            *version = write.version.max(*version);
        }
        if state.orders.len() > self.capacity {
            state.orders = HashMap::new();
            state.all = true;
        }
        self.publish(&state);
        drop(state);
        self.added.notify_one();
    }

    /// Whether the order's entry must not be served.
    pub(crate) fn contains(&self, order: OrderKey) -> bool {
        if !self.any.load(Ordering::Acquire) {
            return false;
        }
        let state = self.lock();
        state.all || state.orders.contains_key(&order)
    }

    /// Whether any entry must not be served.
    pub(crate) fn is_degraded(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Corrects entries for as long as there are stale ones, whenever Redis answers.
    pub(crate) async fn keep_repairing(self: Arc<Self>, db: DbPool, shutdown: Shutdown) {
        loop {
            if !self.is_degraded() {
                tokio::select! {
                    () = self.added.notified() => {}
                    () = shutdown.begun() => return,
                }
            }
            if !self.repair_once(&db).await {
                // One attempt is made before the process ends; later events correct what is left.
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = shutdown.begun() => return,
                }
            }
        }
    }

    /// Corrects some entries, and returns whether that succeeded.
    pub(crate) async fn repair_once(&self, db: &DbPool) -> bool {
        let (batch, all) = {
            let state = self.lock();
            let some: Vec<(OrderKey, i64)> =
                state.orders.iter().take(BATCH).map(|(order, version)| (*order, *version)).collect();
            (some, state.all)
        };
        if all {
            return self.drop_all().await;
        }
        if batch.is_empty() {
            return true;
        }
        if self.cache.ping().await.is_err() {
            return false;
        }
        let keys: Vec<OrderKey> = batch.iter().map(|(order, _)| *order).collect();
        let Ok(current) = load_orders(db, &keys).await else { return false };
        let writes: Vec<CacheWrite> = batch
            .iter()
            .map(|(key, version)| match current.get(key) {
                Some(order) => entry(*key, encode_order(order)),
                None => tombstone(*key, *version),
            })
            .collect();
        if self.cache.put(&writes).await.is_err() {
            return false;
        }
        let mut state = self.lock();
        for (key, version) in batch {
            // A later write can have failed meanwhile; it is remembered with its own version.
            if state.orders.get(&key) == Some(&version) {
                state.orders.remove(&key);
            }
        }
        self.publish(&state);
        true
    }

    async fn drop_all(&self) -> bool {
        // Entries that cannot be written from here on are remembered anew.
        let before = std::mem::take(&mut self.lock().orders);
        match self.cache.purge().await {
            Ok(removed) => {
                tracing::warn!(
                    removed,
                    "the cache was emptied, because more entries were stale than could be remembered"
                );
                let mut state = self.lock();
                state.all = false;
                self.publish(&state);
                true
            }
            Err(error) => {
                tracing::debug!(error = %error, "the cache cannot be emptied yet");
                self.lock().orders.extend(before);
                false
            }
        }
    }

    fn publish(&self, state: &StaleOrders) {
        let any = state.all || !state.orders.is_empty();
        self.any.store(any, Ordering::Release);
        #[expect(clippy::cast_precision_loss, reason = "there are at most ten thousand")]
        metrics::gauge!("cache_stale_orders").set(state.orders.len() as f64);
    }

    fn lock(&self) -> MutexGuard<'_, StaleOrders> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;
    use shared::{cache::Lookup, domain::tenant::TenantId};
    use testbed::{Proxy, eventually};

    use super::*;

    fn key(order: i64) -> OrderKey {
        OrderKey { tenant: TenantId::DEFAULT, id: order.try_into().unwrap() }
    }

    fn write(order: i64, version: i64) -> CacheWrite {
        let content = Some((1.try_into().unwrap(), format!("version {version}").into()));
        CacheWrite { order: key(order), version, content, may_create: true }
    }

    #[tokio::test]
    async fn when_more_is_stale_than_can_be_remembered_every_entry_is_dropped() {
        let (redis, database) = (testbed::redis().await, testbed::postgres().await);
        let db = DbPool::from(database.connect().await);
        let (address, index) = redis.url().strip_prefix("redis://").unwrap().split_once('/').unwrap();
        let proxy = Proxy::start(address).await;
        let url = SecretString::from(format!("redis://{}/{index}", proxy.addr()));
        let cache = Cache::new(&url, Duration::from_mins(1), Duration::from_millis(500)).unwrap();
        let stale = StaleEntries::with_capacity(cache.clone(), 2);
        for order in 1..=5 {
            eventually("it is cached", async || cache.put(&[write(order, 1)]).await).await;
        }

        proxy.freeze();
        for order in 1..=2 {
            stale.write_through(vec![write(order, 2)]).await;
        }
        assert!(stale.contains(key(2)) && !stale.contains(key(3)));
        stale.write_through(vec![write(3, 2)]).await;
        assert!(stale.contains(key(5)), "any entry may be stale now");
        assert!(!stale.repair_once(&db).await);
        assert!(stale.is_degraded());

        proxy.thaw();
        eventually("it is repaired", async || stale.repair_once(&db).await).await;
        assert!(!stale.is_degraded());
        for order in 1..=5 {
            let found = eventually("the cache answers", async || cache.get(key(order)).await).await;
            assert_eq!(found, Lookup::Miss);
        }
    }
}
