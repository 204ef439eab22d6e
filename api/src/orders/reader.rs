//! Reads one order: from the cache in one round trip, else from PostgreSQL together with all others that wait.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use metrics::Counter;
use shared::{
    cache::{Cache, CacheWrite, CachedOrder, Lookup},
    domain::order::OrderKey,
    platform::{
        batching::{BatchConfig, BatchHandler, Batcher},
        db::DbPool,
        shutdown::Shutdown,
    },
};
use tokio::sync::oneshot;

use super::{
    cache_entry::{encode_order, entry},
    error::{OrderError, refuse_overload},
    load::load_orders,
    write_through::StaleEntries,
};

/// Three batches are read from PostgreSQL at a time, however many clients miss the cache; this bounds the load when Redis is
/// gone. Misses that wait share a statement, whether they are of one order or of several.
///
/// A miss never joins a statement that has begun already, because that one may not see what was answered since.
const MISSES: BatchConfig = BatchConfig { workers: 3, queue_size: 2048, batch_size: 64 };

/// Reads orders.
pub(crate) struct OrderReader {
    cache: Cache,
    stale: Arc<StaleEntries>,
    misses: Batcher<CacheMiss>,
    hit_count: Counter,
    miss_count: Counter,
}

impl OrderReader {
    pub(crate) fn start(db: DbPool, cache: Cache, stale: Arc<StaleEntries>, shutdown: &Shutdown) -> Self {
        let handler =
            MissHandler { db, cache: cache.clone(), stale: Arc::clone(&stale), shutdown: shutdown.clone() };
        Self {
            cache,
            stale,
            misses: Batcher::start(MISSES, handler, shutdown),
            hit_count: metrics::counter!("cache_hits_total"),
            miss_count: metrics::counter!("cache_misses_total"),
        }
    }

    /// The order as it is answered, if there is one.
    pub(crate) async fn read_order(&self, key: OrderKey) -> Result<Option<CachedOrder>, OrderError> {
        if !self.stale.contains(key) {
            match self.cache.get(key).await {
                Ok(Lookup::Found(order)) => {
                    self.hit_count.increment(1);
                    return Ok(Some(order));
                }
                Ok(Lookup::Deleted { .. }) => {
                    self.hit_count.increment(1);
                    return Ok(None);
                }
                Ok(Lookup::Miss) => self.miss_count.increment(1),
                Err(error) => tracing::debug!(error = %error, "the cache did not answer"),
            }
        }
        let (reply, answered) = oneshot::channel();
        self.misses.submit(CacheMiss { key, reply }).map_err(refuse_overload)?;
        answered.await.unwrap_or(Err(OrderError::BatchLost))
    }
}

/// A request for an order that is not in the cache.
struct CacheMiss {
    key: OrderKey,
    reply: oneshot::Sender<Result<Option<CachedOrder>, OrderError>>,
}

/// Reads batches of orders, and brings them to the cache.
struct MissHandler {
    db: DbPool,
    cache: Cache,
    stale: Arc<StaleEntries>,
    shutdown: Shutdown,
}

impl BatchHandler<CacheMiss> for MissHandler {
    async fn handle(&self, batch: Vec<CacheMiss>) -> Vec<CacheMiss> {
        let keys: Vec<OrderKey> =
            batch.iter().map(|miss| miss.key).collect::<HashSet<_>>().into_iter().collect();
        // Before the statement, so that a write in between is noticed.
        let fill = self.cache.begin_fill(&keys).await.ok();
        let orders: HashMap<OrderKey, CachedOrder> = match load_orders(&self.db, &keys).await {
            Ok(orders) => orders.into_iter().map(|(key, order)| (key, encode_order(&order))).collect(),
            Err(error) => {
                let error = OrderError::from(error);
                for miss in batch {
                    let _client_is_gone = miss.reply.send(Err(error.clone()));
                }
                return Vec::new();
            }
        };
        if let Some(fill) = fill {
            let entries: Vec<CacheWrite> = orders
                .iter()
                // Stale entries are corrected by their repair.
                .filter(|(key, _)| !self.stale.contains(**key))
                .map(|(key, order)| entry(*key, order.clone()))
                .collect();
            let cache = self.cache.clone();
            self.shutdown.spawn(async move {
                if let Err(error) = cache.fill(&fill, &entries).await {
                    tracing::debug!(error = %error, "orders that were read could not be cached");
                }
            });
        }
        for miss in batch {
            let _client_is_gone = miss.reply.send(Ok(orders.get(&miss.key).cloned()));
        }
        Vec::new()
    }
}
