//! The loops around the steps: they wait, count, and stop.

use std::{sync::Arc, time::Duration};

use shared::{
    broker::EventSink,
    platform::{
        db::{DbPool, PoolSettings},
        shutdown::Shutdown,
    },
};
use tokio::time::Instant;

use super::{
    PartitionSettings, Reconciler, ReconcilerSettings, Relay, RelaySettings, RelayStatus, RelayStep, Wake,
    maintain_partitions, metrics,
};

/// The shortest time between two batches that are not full: lets some events gather, so that a busy relay costs the
/// database tens of statements a second and not thousands.
const PACE: Duration = Duration::from_millis(25);
/// The longest time between two looks at an idle log, for what other replicas commit.
const IDLE: Duration = Duration::from_millis(250);
/// How often a standby asks for the lease.
const STANDBY: Duration = Duration::from_millis(250);
/// The longest pause while the broker or the database is down.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// How often partitions are looked after.
const MAINTAIN: Duration = Duration::from_mins(1);
/// How often the history is compared with the log. An event should be there after a minute; looking six times as often
/// lets what was lost be repaired within two.
const RECONCILE: Duration = Duration::from_secs(10);
/// The same while there is something to repair.
const REPAIRING: Duration = Duration::from_secs(3);
/// How long the batch in progress may take to finish at shutdown, before the lease is given back without it.
const LAST_BATCH: Duration = Duration::from_secs(4);
/// For the batch and the page ahead of it, the lease, the reconciler, and the partitions.
const CONNECTIONS: u32 = 4;

impl Relay {
    /// Relays in the background until `shutdown` begins; then finishes its batch and gives the lease back.
    ///
    /// Connects on its own, so that neither a busy API starves the relay nor the relay the API. Commits there do not
    /// wait for the disk: what a crash of the database takes back is a step of the cursor, and a batch that is
    /// published again.
    pub fn start(db: &DbPool, sink: Arc<dyn EventSink>, wake: Wake, shutdown: &Shutdown) -> RelayStatus {
        Self::start_with(RelaySettings::default(), db, sink, wake, shutdown)
    }

    /// [`Self::start`] with other settings.
    pub fn start_with(
        settings: RelaySettings,
        db: &DbPool,
        sink: Arc<dyn EventSink>,
        wake: Wake,
        shutdown: &Shutdown,
    ) -> RelayStatus {
        metrics::describe_metrics();
        let session = PoolSettings::new("relay", CONNECTIONS).with_session("SET synchronous_commit = off");
        let pool = db.sibling(session);
        let relay = Arc::new(Self::new(pool, sink, settings));
        let status = relay.status().clone();
        shutdown.spawn(supervise(relay, wake, shutdown.clone()));
        status
    }
}

/// Runs the loops; begins anew should one of them panic, because an API without its relay would look well and
/// publish nothing.
async fn supervise(relay: Arc<Relay>, wake: Wake, shutdown: Shutdown) {
    while !shutdown.has_begun() {
        let loops = tokio::spawn(run(Arc::clone(&relay), wake.clone(), shutdown.clone()));
        if let Err(error) = loops.await {
            tracing::error!(error = %error, "the relay stopped unexpectedly and begins anew");
            pause(Duration::from_secs(1), &shutdown).await;
        }
    }
    if let Err(error) = relay.release().await {
        tracing::warn!(error = %error, "the relay's lease could not be given back: it will run out");
    }
    relay.pool.close();
}

async fn run(relay: Arc<Relay>, wake: Wake, shutdown: Shutdown) {
    let last_batch = async {
        shutdown.begun().await;
        tokio::time::sleep(LAST_BATCH).await;
    };
    // The first ends at shutdown and ends the others with it.
    tokio::select! {
        () = publish(&relay, &wake, &shutdown) => {}
        () = last_batch => tracing::warn!("the relay's last batch is still unanswered: it will be published again"),
        () = renew(&relay) => {}
        () = maintain(&relay) => {}
        () = reconcile(&relay) => {}
    }
}

/// Steps, at a pace that follows what there is to do.
async fn publish(relay: &Relay, wake: &Wake, shutdown: &Shutdown) {
    let mut poll = PACE;
    let mut backoff = PACE;
    while !shutdown.has_begun() {
        let step = relay.relay_once().await;
        match step {
            Ok(RelayStep::Published { more: false, .. }) => {
                poll = PACE;
                pause(PACE, shutdown).await;
            }
            Ok(RelayStep::Idle) => {
                poll = (poll * 2).min(IDLE);
                tokio::select! {
                    () = wake.notified() => poll = PACE,
                    () = pause(jittered(poll), shutdown) => {}
                }
            }
            Ok(RelayStep::Standby) => pause(jittered(STANDBY), shutdown).await,
            Ok(RelayStep::Published { more: true, .. } | RelayStep::Unconfirmed { .. }) => {}
            Err(ref error) => tracing::warn!(error = %error, "the relay could not go on and tries again"),
        }
        if matches!(step, Ok(RelayStep::Unconfirmed { .. }) | Err(_)) {
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            pause(jittered(backoff), shutdown).await;
        } else {
            backoff = PACE;
        }
    }
}

/// Prolongs the lease, also while a batch takes long.
async fn renew(relay: &Relay) {
    loop {
        tokio::time::sleep(relay.lease().lifetime() / 4).await;
        if let Some(epoch) = relay.lease().held()
            && let Err(error) = relay.lease().renew(epoch).await
        {
            tracing::warn!(relay.epoch = epoch, error = %error, "the relay's lease could not be renewed");
        }
    }
}

/// Looks after the partitions while the lease is held.
async fn maintain(relay: &Relay) {
    loop {
        wait_for_lease(relay).await;
        if let Err(error) = maintain_partitions(&relay.pool, PartitionSettings::default()).await {
            tracing::warn!(error = %error, "the outbox's partitions could not be looked after; the next round will");
        }
        tokio::time::sleep(MAINTAIN).await;
    }
}

/// Compares the log with the history while the lease is held.
async fn reconcile(relay: &Relay) {
    let reconciler = Reconciler::new(relay, ReconcilerSettings::default());
    loop {
        wait_for_lease(relay).await;
        let started = Instant::now();
        let wait = match reconciler.reconcile_once().await {
            Ok(round) => {
                let repaired = round.repaired > 0;
                tracing::debug!(
                    round.seen,
                    round.missing,
                    round.repaired,
                    duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
                    "compared the log with the history"
                );
                if repaired { REPAIRING } else { RECONCILE }
            }
            Err(error) => {
                tracing::warn!(error = %error, "the log could not be compared with the history");
                RECONCILE
            }
        };
        tokio::time::sleep(jittered(wait)).await;
    }
}

async fn wait_for_lease(relay: &Relay) {
    while relay.lease().held().is_none() {
        tokio::time::sleep(STANDBY).await;
    }
}

async fn pause(time: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = shutdown.begun() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// About that long, so that replicas do not ask in step.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.75..1.25))
}
