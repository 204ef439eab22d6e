//! Reading one order: from the cache in one round trip, else from PostgreSQL together with all others that wait.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use metrics::Counter;
use shared::{
    cache::{Cache, CacheWrite, CachedOrder, Lookup},
    domain::order::OrderId,
    platform::{
        batching::{BatchConfig, BatchHandler, Batcher},
        db::DbPool,
        shutdown::Shutdown,
    },
};
use tokio::sync::oneshot;

use super::{StaleEntries, session, writer::overloaded};
use crate::http::{error::ApiError, orders::response::written};

/// Readers on PostgreSQL at once, however many clients miss the cache: this is what stands behind Redis when it is
/// gone. Misses of one order, and of others, that wait for a reader share a statement.
///
/// A miss never joins a statement that has begun already: that one may not see what was answered since.
const LOADS: BatchConfig = BatchConfig { workers: 3, queue_size: 2048, batch_size: 64 };

/// Reads orders.
pub(crate) struct Reader {
    cache: Cache,
    stale: Arc<StaleEntries>,
    loads: Batcher<Load>,
    hits: Counter,
    misses: Counter,
}

impl Reader {
    pub(crate) fn start(db: DbPool, cache: Cache, stale: Arc<StaleEntries>, shutdown: &Shutdown) -> Self {
        let loading =
            Loading { db, cache: cache.clone(), stale: Arc::clone(&stale), shutdown: shutdown.clone() };
        Self {
            cache,
            stale,
            loads: Batcher::start(LOADS, loading, shutdown),
            hits: metrics::counter!("cache_hits_total"),
            misses: metrics::counter!("cache_misses_total"),
        }
    }

    /// The order as it is answered, where there is one.
    pub(crate) async fn read(&self, id: OrderId) -> Result<Option<CachedOrder>, ApiError> {
        if !self.stale.contains(id) {
            match self.cache.get(id).await {
                Ok(Lookup::Found(order)) => {
                    self.hits.increment(1);
                    return Ok(Some(order));
                }
                Ok(Lookup::Deleted { .. }) => {
                    self.hits.increment(1);
                    return Ok(None);
                }
                Ok(Lookup::Miss) => self.misses.increment(1),
                Err(error) => tracing::debug!(error = %error, "the cache did not answer"),
            }
        }
        let (reply, answered) = oneshot::channel();
        self.loads.submit(Load { id, reply }).map_err(overloaded)?;
        answered.await.unwrap_or_else(|_| Err(ApiError::internal("a batch ended without an answer")))
    }
}

struct Load {
    id: OrderId,
    reply: oneshot::Sender<Result<Option<CachedOrder>, ApiError>>,
}

struct Loading {
    db: DbPool,
    cache: Cache,
    stale: Arc<StaleEntries>,
    shutdown: Shutdown,
}

impl BatchHandler<Load> for Loading {
    async fn handle(&self, batch: Vec<Load>) -> Vec<Load> {
        let ids: Vec<OrderId> =
            batch.iter().map(|load| load.id).collect::<HashSet<_>>().into_iter().collect();
        // Before the statement, so that a write in between is noticed.
        let pass = self.cache.begin_fill(&ids).await.ok();
        let loaded = session::orders(&self.db, &ids).await;
        let mut orders = HashMap::new();
        match loaded {
            Ok(loaded) => {
                for order in loaded.into_values() {
                    let (owner, body) = written(&order);
                    orders.insert(order.id, CachedOrder { version: order.version, owner, body });
                }
            }
            Err(error) => {
                for load in batch {
                    let _client_is_gone = load.reply.send(Err(ApiError::from(&error)));
                }
                return Vec::new();
            }
        }
        if let Some(pass) = pass {
            let fills: Vec<CacheWrite> = orders
                .iter()
                // What is stale is corrected by the one who does that.
                .filter(|(id, _)| !self.stale.contains(**id))
                .map(|(id, order)| CacheWrite {
                    id: *id,
                    version: order.version,
                    content: Some((order.owner, order.body.clone())),
                    may_create: true,
                })
                .collect();
            let cache = self.cache.clone();
            self.shutdown.spawn(async move {
                if let Err(error) = cache.fill(&pass, &fills).await {
                    tracing::debug!(error = %error, "what was read did not reach the cache");
                }
            });
        }
        for load in batch {
            let _client_is_gone = load.reply.send(Ok(orders.get(&load.id).cloned()));
        }
        Vec::new()
    }
}
