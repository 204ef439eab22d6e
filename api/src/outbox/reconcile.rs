//! The real guarantee: what the log holds and the history lacks is published again.
//!
//! The history lacks an event either because the broker lost it, or because no worker has come to it yet. Only the
//! first is to be mended: publishing a stopped worker's whole backlog again every minute would only lengthen it. What
//! tells them apart is order. Consumers take events roughly as they were published, so
//!
//! - an event that the history lacks while it has a later one was *overtaken*: it is published again;
//! - where the history has nothing later, the newest few of the missing events are published again as *probes*. When a
//!   probe reaches the history, by its first delivery or its second, consumers have come past all that went before
//!   it, and what is still missing then was overtaken. Probes are sent again ever more rarely while nothing moves.
//!
//! One event is published again at growing intervals, so a broker without order (SQS) costs a few duplicates at worst,
//! and an event that consumers cannot handle is left alone once it is a dead letter.
//!
//! Three passes share the work, each a bounded number of index probes. The first goes on from the id below which all
//! is verified, and sees each event once in normal running. The others look a second time at what that one has passed,
//! for transactions that committed late with a low id, and for rows that somebody removed from the history: one
//! at the most recent events, round in some ten minutes, and one at everything retained, round in about a day.

mod memory;
mod passes;

use std::{sync::Arc, time::Duration};

use shared::platform::db::DbPool;
use tokio::sync::Mutex;

use self::memory::Memory;
use super::{
    LARGE_WORK, Lease, OutboxError, Relay,
    cursor::{self, Logged},
    metrics,
    publish::Publisher,
};

/// How much the reconciler looks at, and how patient it is.
#[derive(Clone, Copy, Debug)]
pub struct ReconcilerSettings {
    /// From what age on an event should be in the history.
    pub after: Duration,
    /// How long one event, or the probes, are left alone after they were published again; doubled each time.
    pub patience: Duration,
    /// How many events beyond the verified ones a round looks at.
    pub scan: i64,
    /// How many events each of the second looks takes in a round.
    pub sweep: i64,
    /// How many of the newest verified events count as recent.
    pub recent: i64,
    /// How many events a round publishes again.
    pub repairs: usize,
    /// How many of those are probes at most.
    pub probes: usize,
    /// How many go out at a time.
    pub batch: usize,
}

impl Default for ReconcilerSettings {
    fn default() -> Self {
        Self {
            after: Duration::from_mins(1),
            patience: Duration::from_mins(1),
            scan: 100_000,
            sweep: 10_000,
            recent: 500_000,
            repairs: 50_000,
            probes: 100,
            batch: 500,
        }
    }
}

/// What one round came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// Events looked at.
    pub seen: u64,
    /// Of those the history should have and lacks.
    pub missing: u64,
    /// Published again.
    pub repaired: u64,
}

/// Finds what the history lacks and publishes it again, while this replica holds the lease.
#[derive(Debug)]
pub struct Reconciler {
    pool: DbPool,
    lease: Arc<Lease>,
    publisher: Publisher,
    settings: ReconcilerSettings,
    memory: Mutex<Memory>,
}

impl Reconciler {
    /// Works with the lease and the sink of `relay`.
    pub fn new(relay: &Relay, settings: ReconcilerSettings) -> Self {
        Self {
            pool: relay.pool.clone(),
            lease: Arc::clone(&relay.lease),
            publisher: relay.publisher.clone(),
            settings,
            memory: Mutex::new(Memory::new(settings.patience)),
        }
    }

    /// One round: looks, and publishes again what was lost. Does nothing without the lease.
    pub async fn reconcile_once(&self) -> Result<Reconciled, OutboxError> {
        let Some(epoch) = self.lease.held() else { return Ok(Reconciled::default()) };
        let mut memory = self.memory.lock().await;
        let Some(place) = self.place().await? else { return Ok(Reconciled::default()) };

        let found = self.look(&place, &mut memory).await?;
        let again = memory.choose(&found, &self.settings);
        let repaired = self.publish(epoch, &again, &mut memory).await?;
        self.save(epoch, found.verified, found.swept).await?;
        memory.forget(place.verified, found.verified);
        Ok(Reconciled { seen: found.seen, missing: found.missing(), repaired })
    }

    /// Publishes events again, oldest first, until the broker does not confirm one.
    async fn publish(&self, epoch: i64, ids: &[i64], memory: &mut Memory) -> Result<u64, OutboxError> {
        let mut repaired = 0;
        for ids in ids.chunks(self.settings.batch.max(1)) {
            let events = cursor::by_ids(&self.pool, ids).await?;
            let named: Vec<_> = events.iter().map(Named::from).collect();
            let sent = tokio::select! {
                biased;
                () = self.lease.lost(epoch) => return Err(OutboxError::LeaseLost),
                sent = self.publisher.send_again(events) => sent?,
            };
            for event in &named {
                if !sent.unconfirmed.iter().any(|left| left.id == event.id) {
                    memory.published(event.id);
                    tracing::debug!(
                        event.id = %event.event,
                        order.id = event.order,
                        version = event.version,
                        "published again"
                    );
                }
            }
            metrics::count_repaired(self.publisher.sink.system(), sent.confirmed);
            repaired += sent.confirmed;
            tracing::warn!(
                relay.epoch = epoch,
                batch.events = named.len(),
                batch.confirmed = sent.confirmed,
                batch.first = ids.first(),
                batch.last = ids.last(),
                "the history lacks published events: published them again"
            );
            if !sent.unconfirmed.is_empty() {
                break;
            }
        }
        Ok(repaired)
    }
}

/// What the log line of a repair names.
struct Named {
    id: i64,
    event: uuid::Uuid,
    order: i64,
    version: i64,
}

impl From<&Logged> for Named {
    fn from(event: &Logged) -> Self {
        let Logged { id, envelope, .. } = event;
        Self { id: *id, event: envelope.id, order: envelope.key, version: envelope.sequence }
    }
}
