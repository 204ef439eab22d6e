//! Keeps the order cache up to date.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use async_trait::async_trait;
use shared::{
    cache::{Cache, CacheWrite},
    domain::{
        event::{Event, EventType},
        order::OrderKey,
        tenant::TenantId,
    },
    platform::db::{DbError, DbPool},
};

use super::{EventHandler, HandlerError, HandlerEvent};
use crate::{
    errors::chain,
    store::{cache_debts, tenants},
};

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
        let mut newest: HashMap<OrderKey, (&Event, bool)> = HashMap::with_capacity(batch.len());
        for item in batch {
            let event = item.event.as_ref();
            let fresh = item.attempt <= 1 && item.age() <= self.late;
            newest
                .entry(event.order_key())
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

    /// Leaves out the orders of tenants that were removed: an event that comes late brings none of them back.
    async fn retain_existing_tenants(&self, writes: &mut Vec<CacheWrite>) -> Result<(), DbError> {
        let named: HashSet<TenantId> = writes.iter().map(|write| write.order.tenant).collect();
        // The default tenant cannot be removed.
        let named: Vec<TenantId> = named.into_iter().filter(|tenant| !tenant.is_default()).collect();
        if named.is_empty() {
            return Ok(());
        }
        let named = &named;
        let existing =
            self.db.run_once(|mut db| async move { tenants::load_existing(&mut db, named).await }).await?;
        writes.retain(|write| {
            let tenant = write.order.tenant;
            tenant.is_default() || existing.contains(&tenant)
        });
        Ok(())
    }
}

fn cache_write(event: &Event, may_create: bool) -> CacheWrite {
    let data = &event.data;
    let content = match event.event_type {
        EventType::OrderDeleted => None,
        EventType::OrderCreated | EventType::OrderUpdated => Some((data.customer_id, data.order.to_bytes())),
    };
    CacheWrite { order: event.order_key(), version: data.version, content, may_create }
}

#[async_trait]
impl EventHandler for CacheHandler {
    fn name(&self) -> &'static str {
        "cache"
    }

    async fn handle(&self, batch: &[HandlerEvent]) -> Result<(), HandlerError> {
        let mut writes = self.newest_writes(batch);
        self.retain_existing_tenants(&mut writes).await?;
        let Err(error) = self.cache.put(&writes).await else { return Ok(()) };
        tracing::debug!(
            error = chain(&error),
            orders = writes.len(),
            "cannot write cache entries; recording debts"
        );
        let mut debts: Vec<_> = writes.iter().map(|write| (write.order, write.version)).collect();
        debts.sort_unstable_by_key(|(order, _)| order.id);
        let recorded = &debts;
        self.db.run_once(|mut db| async move { cache_debts::record_debts(&mut db, recorded).await }).await?;
        metrics::counter!("worker_cache_debts_total").increment(debts.len() as u64);
        Ok(())
    }
}
