//! What creations and changes share, and how requests are answered after a commit.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use shared::{
    cache::CacheWrite,
    domain::{
        clock::Clock,
        order::{Order, OrderKey},
    },
    platform::{
        db::{DbError, DbPool},
        shutdown::Shutdown,
    },
};
use tokio::sync::Semaphore;

use super::{
    super::{
        cache_entry::{encode_order, entry, tombstone},
        error::OrderError,
        response::OrderResponse,
        write_through::StaleEntries,
    },
    job::{Reply, WriteJob, fail_jobs, send_reply},
};
use crate::{db, outbox::Wake};

/// Changes that can wait for a lock at once, each on a connection of its own.
pub(super) const MAX_LOCK_WAITS: usize = 4;

/// What creations and changes use.
pub(super) struct WriterContext {
    pub(super) db: DbPool,
    pub(super) clock: Clock,
    pub(super) wake: Wake,
    pub(super) shutdown: Shutdown,
    pub(super) lock_waits: Semaphore,
    stale: Arc<StaleEntries>,
}

/// A change that has been committed.
pub(super) struct CommittedChange {
    pub(super) cache: CacheWrite,
    pub(super) reply: Reply,
    pub(super) response: OrderResponse,
}

impl WriterContext {
    pub(super) fn new(
        db: DbPool,
        clock: Clock,
        wake: Wake,
        stale: Arc<StaleEntries>,
        shutdown: Shutdown,
    ) -> Self {
        Self { db, clock, wake, shutdown, lock_waits: Semaphore::new(MAX_LOCK_WAITS), stale }
    }

    /// Wakes the relay after a commit, writes the cache entries, and answers.
    pub(super) fn publish_changes(&self, committed: Vec<CommittedChange>) {
        if committed.is_empty() {
            return;
        }
        self.wake.notify();
        let mut entries = Vec::with_capacity(committed.len());
        let mut responses = Vec::with_capacity(committed.len());
        for CommittedChange { cache, reply, response } in committed {
            entries.push(cache);
            responses.push((reply, Ok(response)));
        }
        self.respond_after_cache(entries, responses);
    }

    /// Sends responses once the cache has the entries, so that every later read shows what the response shows. This is a task
    /// of its own, so that the next batch is written meanwhile. What does not reach the cache is served from PostgreSQL.
    fn respond_after_cache(
        &self,
        entries: Vec<CacheWrite>,
        responses: Vec<(Reply, Result<OrderResponse, OrderError>)>,
    ) {
        let stale = Arc::clone(&self.stale);
        self.shutdown.spawn(async move {
            stale.write_through(entries).await;
            for (reply, response) in responses {
                send_reply(reply, response);
            }
        });
    }

    /// Answers requests that wrote nothing themselves, once the cache is as new as what the responses show: `current`, the orders
    /// as PostgreSQL has them. The replica that committed the newest version may have died before it wrote the entry.
    pub(super) async fn respond_as_stored<J: WriteJob>(
        &self,
        responses: Vec<(J, Result<OrderResponse, OrderError>)>,
        current: &HashMap<OrderKey, Order>,
    ) {
        if responses.is_empty() {
            return;
        }
        let shown: HashSet<OrderKey> = responses.iter().filter_map(|(job, _)| job.changed_order()).collect();
        match self.load_entries(&shown, current).await {
            Ok(entries) => {
                let responses =
                    responses.into_iter().map(|(job, response)| (job.into_reply(), response)).collect();
                self.respond_after_cache(entries, responses);
            }
            Err(error) => fail_jobs(responses.into_iter().map(|(job, _)| job), error),
        }
    }

    /// The entries of these orders as PostgreSQL has them: a tombstone if an order was deleted.
    async fn load_entries(
        &self,
        orders: &HashSet<OrderKey>,
        current: &HashMap<OrderKey, Order>,
    ) -> Result<Vec<CacheWrite>, DbError> {
        let mut entries: Vec<CacheWrite> = orders
            .iter()
            .filter_map(|order| current.get(order))
            .map(|order| entry(order.key(), encode_order(order)))
            .collect();
        let gone: Vec<OrderKey> =
            orders.iter().copied().filter(|order| !current.contains_key(order)).collect();
        if !gone.is_empty() {
            let gone = &gone;
            let deletions =
                self.db.read_with_retry(|mut db| async move { db::load_deletions(&mut db, gone).await });
            entries
                .extend(deletions.await?.iter().map(|deletion| tombstone(deletion.order, deletion.version)));
        }
        Ok(entries)
    }
}
