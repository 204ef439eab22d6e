//! The background loops around the steps: they wait, count and stop.

use std::{sync::Arc, time::Duration};

use shared::{
    broker::EventSink,
    domain::clock::Clock,
    platform::{
        db::{DbPool, PoolSettings},
        shutdown::Shutdown,
    },
};
use tokio::time::Instant;

use super::{
    Reconciler, ReconcilerSettings, Relay, RelaySettings, RelayStatus, RelayStep, Wake, maintain_partitions,
    metrics,
};

/// The shortest time between two batches that are not full: events gather meanwhile, so that a busy relay costs the
/// database tens of statements per second and not thousands.
const PACE: Duration = Duration::from_millis(25);
/// The longest time between two polls of an idle log, for events that other replicas commit.
const IDLE: Duration = Duration::from_millis(250);
/// While steps take longer than this, because the broker does not answer or the backoff is long, events get their positions
/// without them.
const SEQUENCED_WITHIN: Duration = Duration::from_millis(300);
/// How often a standby requests the lease.
const STANDBY: Duration = Duration::from_millis(250);
/// The longest pause while the broker or the database is down.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// A holder of the lease whose broker has not confirmed everything for this long releases it: the connection of another
/// replica may work.
const YIELD_AFTER: Duration = Duration::from_secs(3);
/// How long it does not request the lease then. Every standby requests it several times meanwhile.
const YIELDED: Duration = Duration::from_secs(1);
/// How often partitions are maintained.
const MAINTAIN: Duration = Duration::from_mins(1);
/// How often the history is compared with the log. An event should be in it after a minute; comparing six times as often
/// repairs a lost event within two.
const RECONCILE: Duration = Duration::from_secs(10);
/// How often they are compared while events are being repaired, or may have been lost by a failover of the broker.
const REPAIRING: Duration = Duration::from_secs(3);
/// How soon a failover of the broker is noticed.
const LOOK: Duration = Duration::from_millis(500);
/// How long shutdown waits for the batch in progress before it releases the lease.
const LAST_BATCH: Duration = Duration::from_secs(4);
/// For the batch and the page after it, the positions, the lease, the reconciler, and the partitions.
const CONNECTIONS: u32 = 5;

impl Relay {
    /// Relays in the background until `shutdown` begins; then finishes its batch and releases the lease.
    ///
    /// It has its own connections, so that neither a busy API starves the relay nor the relay the API. Its commits do not
    /// wait for the disk, except those that give positions: a crash of the database can only take back a step of the published
    /// position, and the batch is published again.
    pub fn start(
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

/// Runs the loops, and restarts them after a panic, because an API without its relay would look healthy and publish nothing.
async fn supervise(relay: Arc<Relay>, wake: Wake, shutdown: Shutdown) {
    let loops = |shutdown| run_loops(Arc::clone(&relay), wake.clone(), shutdown);
    shutdown.restart_on_panic("relay", loops).await;
    release_lease(&relay).await;
    relay.pool.close();
}

async fn run_loops(relay: Arc<Relay>, wake: Wake, shutdown: Shutdown) {
    let last_batch = async {
        shutdown.begun().await;
        tokio::time::sleep(LAST_BATCH).await;
    };
    // The first ends at shutdown, which ends the others.
    tokio::select! {
        () = publish_loop(&relay, &wake, &shutdown) => {}
        () = last_batch => tracing::warn!("the relay's last batch is still unanswered: it will be published again"),
        () = sequence_loop(&relay) => {}
        () = renew_lease_loop(&relay) => {}
        () = maintain_partitions_loop(&relay) => {}
        () = reconcile_loop(&relay) => {}
    }
}

/// Publishes, at a pace that depends on how many events there are.
async fn publish_loop(relay: &Relay, wake: &Wake, shutdown: &Shutdown) {
    let mut poll = PACE;
    let mut backoff = PACE;
    let mut unconfirmed_since: Option<Instant> = None;
    while !shutdown.has_begun() {
        let started = Instant::now();
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
            Ok(RelayStep::Unconfirmed { .. }) => {
                let since = *unconfirmed_since.get_or_insert(started);
                if since.elapsed() >= YIELD_AFTER {
                    unconfirmed_since = None;
                    yield_lease(relay, shutdown).await;
                    // If no other replica has the lease by now, new events need this one: without it they get no position.
                    continue;
                }
            }
            // If the broker is full, no other replica could publish more.
            Ok(RelayStep::Published { more: true, .. } | RelayStep::BrokerFull { .. }) => {}
            Err(ref error) => tracing::warn!(error = %error, "a step of the relay failed; it is tried again"),
        }
        if matches!(step, Ok(RelayStep::Unconfirmed { .. } | RelayStep::BrokerFull { .. }) | Err(_)) {
            backoff = (backoff * 2).min(LONGEST_BACKOFF);
            pause(jittered(backoff), shutdown).await;
        } else {
            backoff = PACE;
            unconfirmed_since = None;
        }
    }
}

async fn release_lease(relay: &Relay) {
    if let Err(error) = relay.release().await {
        tracing::warn!(error = %error, "the relay's lease could not be released: it expires");
    }
}

/// Lets another replica relay. If none does, this one goes on.
async fn yield_lease(relay: &Relay, shutdown: &Shutdown) {
    tracing::warn!("the broker confirms no events of this replica: another one may relay");
    release_lease(relay).await;
    pause(YIELDED, shutdown).await;
}

/// Gives positions to new events while the steps do not come to it, so that readers of the log need no broker.
async fn sequence_loop(relay: &Relay) {
    loop {
        tokio::time::sleep_until(relay.status().last_sequenced() + SEQUENCED_WITHIN).await;
        wait_for_lease(relay).await;
        if relay.status().last_sequenced().elapsed() >= SEQUENCED_WITHIN
            && let Err(error) = relay.sequence_once().await
        {
            tracing::warn!(error = %error, "new events of the log got no position; it is tried again");
            tokio::time::sleep(SEQUENCED_WITHIN).await;
        }
    }
}

/// Renews the lease, also while a batch takes long.
async fn renew_lease_loop(relay: &Relay) {
    loop {
        tokio::time::sleep(relay.lease().lifetime() / 4).await;
        if let Some(epoch) = relay.lease().held_epoch()
            && let Err(error) = relay.lease().renew(epoch).await
        {
            tracing::warn!(relay.epoch = epoch, error = %error, "the relay's lease could not be renewed");
        }
    }
}

/// Maintains the partitions while the lease is held.
async fn maintain_partitions_loop(relay: &Relay) {
    loop {
        wait_for_lease(relay).await;
        if let Err(error) =
            maintain_partitions(&relay.pool, relay.partitions, Clock::System.now().date()).await
        {
            tracing::warn!(error = %error, "the outbox's partitions could not be maintained; the next round tries again");
        }
        tokio::time::sleep(MAINTAIN).await;
    }
}

/// Compares the log with the history while the lease is held.
async fn reconcile_loop(relay: &Relay) {
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
        let due = started + jittered(wait);
        while Instant::now() < due && !(reconciler.is_hurried().await && started.elapsed() >= REPAIRING) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

async fn wait_for_lease(relay: &Relay) {
    while relay.lease().held_epoch().is_none() {
        tokio::time::sleep(STANDBY).await;
    }
}

async fn pause(time: Duration, shutdown: &Shutdown) {
    tokio::select! {
        () = shutdown.begun() => {}
        () = tokio::time::sleep(time) => {}
    }
}

/// Varies a time by a quarter, so that replicas do not poll at the same moments.
fn jittered(time: Duration) -> Duration {
    time.mul_f64(rand::random_range(0.75..1.25))
}
