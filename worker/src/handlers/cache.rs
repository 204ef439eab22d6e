//! Keeps the order cache up to date.

use std::{collections::HashMap, time::Duration};

use async_trait::async_trait;
use shared::{
    cache::{Cache, CacheWrite},
    domain::{
        event::{Event, EventType},
        order::OrderId,
    },
    platform::db::DbPool,
};

use super::{EventHandler, HandlerError, HandlerEvent};
use crate::{errors::chain, store::cache_debts};

/// An event older than this only replaces older entries and creates none: a newer version's entry may have expired since.
const LATE: Duration = Duration::from_mins(1);

/// Compare-and-sets a batch's entries in one round trip.
///
/// While Redis is down, the batch's orders are recorded as debts in PostgreSQL, which
/// [`CacheDebts`](crate::cache_debts::CacheDebts) pays when it is back. So a lost cache stops neither the history nor the
/// broker, and no entry stays stale because its event was acknowledged.
#[derive(Clone)]
pub struct CacheHandler {
    cache: Cache,
    db: DbPool,
    late: Duration,
}

impl CacheHandler {
    /// Writes to `cache`, whose entries live for `ttl`, and records debts in `db`.
    pub fn new(cache: Cache, db: impl Into<DbPool>, ttl: Duration) -> Self {
        // With a short lifetime, a newer entry could expire within a minute. Half of it is well below the jitter.
        Self { cache, db: db.into(), late: LATE.min(ttl / 2) }
    }

    /// The writes of a batch: the newest version of each order.
    fn newest_writes(&self, batch: &[HandlerEvent]) -> Vec<CacheWrite> {
        let mut newest: HashMap<OrderId, (&Event, bool)> = HashMap::with_capacity(batch.len());
        for item in batch {
            let event = item.event.as_ref();
            let fresh = item.attempt <= 1 && item.age() <= self.late;
            newest
                .entry(event.data.order_id)
                .and_modify(|(held, may_create)| {
                    if held.data.version < event.data.version {
                        *held = event;
                    }
                    // As if each were written alone: a fresh one creates the entry, the newest replaces it.
                    *may_create |= fresh;
                })
                .or_insert((event, fresh));
        }
        newest.into_values().map(|(event, may_create)| cache_write(event, may_create)).collect()
    }
}

fn cache_write(event: &Event, may_create: bool) -> CacheWrite {
    let data = &event.data;
    let content = match event.event_type {
        EventType::OrderDeleted => None,
        EventType::OrderCreated | EventType::OrderUpdated => Some((data.customer_id, data.order.to_bytes())),
    };
    CacheWrite { id: data.order_id, version: data.version, content, may_create }
}

#[async_trait]
impl EventHandler for CacheHandler {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let writes = self.newest_writes(batch);
        let Err(error) = self.cache.put(&writes).await else { return Ok(()) };
        tracing::debug!(
            error = chain(&error),
            orders = writes.len(),
            "cannot write cache entries; recording debts"
        );
        let mut debts: Vec<_> = writes.iter().map(|write| (write.id, write.version)).collect();
        debts.sort_unstable();
        let recorded = &debts;
        self.db.run_once(|mut db| async move { cache_debts::record_debts(&mut db, recorded).await }).await?;
        metrics::counter!("worker_cache_debts_total").increment(debts.len() as u64);
        Ok(())
    }
}
