//! The final guarantee: events that are in the log and not in the history are published again.
//!
//! The history lacks an event either because the broker lost it, or because no worker has handled it yet. Only lost events
//! must be repaired: publishing the whole backlog of a stopped worker again every minute would only make it longer. The order
//! distinguishes the two. Consumers handle events roughly in the order in which they were published, so
//!
//! - an event that the history lacks although it has a later one was *skipped*: it is published again;
//! - if the history has no later event, the newest few of the missing events are published again as *probes*. When a probe
//!   is in the history, after its first delivery or its second, consumers have passed all events before it, and those that
//!   are still missing were skipped. While the history does not change, the interval of the probes grows.
//!
//! If another server takes the broker's place (a Redis failover), events are looked for after seconds and not after a minute.
//!
//! The interval at which one event is published again grows too, so a broker without order (SQS) costs a few duplicates at
//! most. An event that is a dead letter is not published again.
//!
//! Three scans share the work, each a bounded number of index probes. The first continues at the id below which all events
//! are verified, and normally reads each event once. The two rescans read verified events again, for transactions that
//! committed late with a low id, and for rows that were deleted from the history: one reads the most recent events, all of
//! them in some ten minutes, and the other all retained events, in about a day.

mod repairs;
mod scan;
mod settings;

use std::sync::Arc;

use shared::platform::db::DbPool;
use tokio::sync::Mutex;

pub use self::settings::ReconcilerSettings;
use self::{repairs::RepairLog, scan::Scanner};
use super::{
    Lease, OutboxError, Relay,
    log::{self, LoggedEvent},
    metrics,
    publish::Publisher,
};

/// The result of one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reconciled {
    /// How many events were read.
    pub seen: u64,
    /// How many of them the history should have and lacks.
    pub missing: u64,
    /// How many were published again.
    pub repaired: u64,
}

/// Finds the events that the history lacks and publishes them again, while this replica holds the lease.
#[derive(Debug)]
pub struct Reconciler {
    pool: DbPool,
    lease: Arc<Lease>,
    publisher: Publisher,
    settings: ReconcilerSettings,
    scanner: Scanner,
    repairs: Mutex<RepairLog>,
}

impl Reconciler {
    /// Works with the lease and the sink of `relay`.
    pub fn new(relay: &Relay, settings: ReconcilerSettings) -> Self {
        Self {
            pool: relay.pool.clone(),
            lease: Arc::clone(&relay.lease),
            publisher: relay.publisher.clone(),
            settings,
            scanner: Scanner::new(relay.pool.clone(), settings),
            repairs: Mutex::new(RepairLog::new(settings.pause)),
        }
    }

    /// One round: scans, and publishes lost events again. Does nothing without the lease.
    pub async fn reconcile_once(&self) -> Result<Reconciled, OutboxError> {
        let Some(epoch) = self.lease.held_epoch() else { return Ok(Reconciled::default()) };
        let mut repairs = self.repairs.lock().await;
        repairs.record_takeovers(self.publisher.sink.takeovers());
        let settled_after = repairs.settled_after(&self.settings);
        let Some(position) = self.scanner.load_position(settled_after).await? else {
            return Ok(Reconciled::default());
        };

        let found = self.scanner.scan(&position, repairs.recent_cursor).await?;
        repairs.recent_cursor = found.recent_cursor;
        let chosen = repairs.choose_repairs(&found, &self.settings);
        let repaired = self.republish(epoch, &chosen, &mut repairs).await?;
        self.scanner.save_position(&self.lease, epoch, &found).await?;
        repairs.forget_verified(position.verified, found.verified);
        Ok(Reconciled { seen: found.seen, missing: found.missing(), repaired })
    }

    /// Whether another server has taken the broker's place within the last minute, so that lost events are looked for.
    pub async fn is_hurried(&self) -> bool {
        let mut repairs = self.repairs.lock().await;
        repairs.record_takeovers(self.publisher.sink.takeovers());
        repairs.is_hurried()
    }

    /// Publishes events again, oldest first, until the broker does not confirm one.
    async fn republish(&self, epoch: i64, ids: &[i64], repairs: &mut RepairLog) -> Result<u64, OutboxError> {
        let mut repaired = 0;
        let mut left = ids;
        while !left.is_empty() {
            let most = self.settings.batch.clamp(1, left.len());
            let (events, unread) = log::read_by_ids(&self.pool, &left[..most]).await?;
            let ids = &left[..most - unread.len()];
            left = &left[ids.len()..];
            let names: Vec<_> = events.iter().map(EventName::from).collect();
            let result = tokio::select! {
                biased;
                () = self.lease.wait_until_lost(epoch) => return Err(OutboxError::LeaseLost),
                result = self.publisher.republish_batch(events) => result?,
            };
            for event in &names {
                if !result.unconfirmed.iter().any(|left| left.id == event.id) {
                    repairs.record_published(event.id);
                    tracing::debug!(
                        event.id = %event.event,
                        order.id = event.order,
                        version = event.version,
                        "published an event again"
                    );
                }
            }
            metrics::count_repaired(self.publisher.sink.system(), result.confirmed);
            repaired += result.confirmed;
            tracing::warn!(
                relay.epoch = epoch,
                batch.events = names.len(),
                batch.confirmed = result.confirmed,
                batch.first = ids.first(),
                batch.last = ids.last(),
                "the history lacks published events: published them again"
            );
            if !result.unconfirmed.is_empty() {
                break;
            }
        }
        Ok(repaired)
    }
}

/// How a log line names an event.
struct EventName {
    id: i64,
    event: uuid::Uuid,
    order: i64,
    version: i64,
}

impl From<&LoggedEvent> for EventName {
    fn from(event: &LoggedEvent) -> Self {
        let LoggedEvent { id, envelope, .. } = event;
        Self { id: *id, event: envelope.id, order: envelope.key, version: envelope.sequence }
    }
}
