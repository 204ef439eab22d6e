//! What the broker lost comes back, and what only waits is left alone.

use std::{sync::Arc, time::Duration};

use api::outbox::{HistoryLag, Reconciler, ReconcilerSettings, Relay};

use crate::outbox_support::{Broker, Log, append, publish_all};
use sqlx::Connection as _;

/// Judges events at once, and is patient enough that no test sees one event published again twice.
const SETTINGS: ReconcilerSettings = ReconcilerSettings {
    after: Duration::ZERO,
    pause: Duration::from_hours(1),
    scan: 10_000,
    rescan: 1000,
    recent: 10_000,
    repairs: 1000,
    probes: 5,
    batch: 50,
};

struct World {
    log: Log,
    broker: Arc<Broker>,
    relay: Relay,
}

impl World {
    async fn new() -> Self {
        let log = Log::new().await;
        let broker = Broker::new();
        let relay = log.relay(&broker);
        Self { log, broker, relay }
    }

    fn reconciler(&self, settings: ReconcilerSettings) -> Reconciler {
        Reconciler::new(&self.relay, settings)
    }

    /// Publishes an event of each of some orders.
    async fn publish(&self, orders: std::ops::RangeInclusive<i64>) {
        self.log.append_many(orders).await;
        publish_all(&self.relay).await;
    }

    /// A worker that takes everything the broker has.
    async fn consume(&self) {
        let orders: Vec<i64> = self.broker.take().into_iter().map(|(order, _)| order).collect();
        self.record(orders).await;
    }

    async fn record(&self, orders: impl IntoIterator<Item = i64>) {
        sqlx::query(
            "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
             SELECT o.order_id, o.version, 'CREATED', '{}', 1, 1, o.event_id, o.recorded_at
             FROM outbox o WHERE o.order_id = ANY ($1) ON CONFLICT DO NOTHING",
        )
        .bind(orders.into_iter().collect::<Vec<_>>())
        .execute(&self.log.db)
        .await
        .expect("the history is written");
    }

    /// Orders that the broker got, in order.
    fn sent(&self) -> Vec<i64> {
        self.broker.take().into_iter().map(|(order, _)| order).collect()
    }

    async fn reconciled(&self) -> i64 {
        self.log.relay_row("reconciled").await.parse().expect("an id")
    }
}

async fn repair(reconciler: &Reconciler) -> u64 {
    reconciler.reconcile_once().await.expect("a round").repaired
}

#[tokio::test]
async fn an_event_that_the_history_has_skipped_is_published_again_under_its_id() {
    let world = World::new().await;
    world.publish(1..=100).await;
    let first: Vec<_> = world.broker.take_events();
    world.record((1..=100).filter(|order| order % 10 != 3)).await;

    let reconciler = world.reconciler(SETTINGS);
    let round = reconciler.reconcile_once().await.expect("a round");
    assert_eq!((round.missing, round.repaired), (10, 10));
    let again = world.broker.take_events();
    let orders: Vec<_> = again.iter().map(|event| event.key).collect();
    assert_eq!(orders, (1..=100).filter(|order| order % 10 == 3).collect::<Vec<_>>());
    assert!(again.iter().all(|event| first.contains(event)), "the same ids and bodies");

    world.record(orders).await;
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 100, "all is verified");
}

#[tokio::test]
async fn an_event_is_left_alone_for_a_while_after_it_was_published_again() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.record([10]).await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 9);
    assert_eq!(repair(&reconciler).await, 0);

    let impatient = world.reconciler(ReconcilerSettings { pause: Duration::ZERO, ..SETTINGS });
    assert_eq!(repair(&impatient).await, 9);
    assert_eq!(repair(&impatient).await, 9);
}

#[tokio::test]
async fn a_stopped_workers_backlog_is_not_published_again() {
    let world = World::new().await;
    world.publish(1..=20).await;
    world.consume().await;
    let reconciler = world.reconciler(SETTINGS);
    repair(&reconciler).await;

    let mut again = 0;
    for burst in 1..=10 {
        world.publish(burst * 100..=burst * 100 + 99).await;
        again += repair(&reconciler).await;
    }
    assert!(again <= 5, "{again} of 1,000 waiting events");
    world.consume().await;
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 1020);
}

#[tokio::test]
async fn a_slow_workers_backlog_is_not_published_again() {
    let world = World::new().await;
    let reconciler = world.reconciler(SETTINGS);
    let mut again = 0;
    for burst in 0..10 {
        world.publish(burst * 100 + 1..=burst * 100 + 100).await;
        world.record(burst * 50 + 1..=burst * 50 + 50).await;
        again += repair(&reconciler).await;
    }
    assert_eq!(again, 0);
}

#[tokio::test]
async fn a_broker_that_lost_all_events_is_filled_again_by_probes() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.consume().await;
    world.publish(11..=300).await;
    // FLUSHALL, and no new event comes to show that consumers are past the lost ones.
    world.broker.take();

    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 0, "consumers were at work a moment ago");
    assert_eq!(repair(&reconciler).await, 5);
    assert_eq!(repair(&reconciler).await, 0, "one set of probes is enough");
    assert_eq!(world.broker.take(), (296..=300).map(|order| (order, 1)).collect::<Vec<_>>(), "the newest");
    world.record(296..=300).await;
    assert_eq!(repair(&reconciler).await, 285);
    world.consume().await;
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 300);
}

#[tokio::test]
async fn under_load_lost_events_are_found_without_probes() {
    let world = World::new().await;
    // More is lost than one round looks at.
    let reconciler = world.reconciler(ReconcilerSettings { scan: 50, ..SETTINGS });
    world.publish(1..=100).await;
    world.broker.take();
    world.publish(101..=110).await;
    world.consume().await;
    for _ in 0..2 {
        assert_eq!(repair(&reconciler).await, 50);
        world.consume().await;
        assert_eq!(repair(&reconciler).await, 0, "the window of the round moves on");
    }
    repair(&reconciler).await;
    assert_eq!(world.reconciled().await, 110);
}

#[tokio::test]
async fn events_that_are_young_or_not_published_are_left_alone() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.record([10]).await;
    let strict = world.reconciler(ReconcilerSettings { after: Duration::from_mins(1), ..SETTINGS });
    let round = strict.reconcile_once().await.expect("a round");
    assert_eq!((round.missing, round.repaired), (0, 0), "too young");
    assert_eq!(world.reconciled().await, 0);

    world.log.append_many(11..=20).await;
    world.record([20]).await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 9, "none of those that the relay has yet to publish");
}

#[tokio::test]
async fn after_a_takeover_of_the_brokers_server_lost_events_are_published_again_within_seconds() {
    let world = World::new().await;
    let reconciler = world.reconciler(ReconcilerSettings { after: Duration::from_mins(1), ..SETTINGS });
    world.publish(1..=10).await;
    world.record([10]).await;
    world.log.run("UPDATE outbox SET recorded_at = recorded_at - interval '10 s'").await;
    assert_eq!(repair(&reconciler).await, 0, "too young");
    world.broker.take_over();
    assert!(reconciler.is_hurried().await);
    assert_eq!(repair(&reconciler).await, 9);
    assert_eq!(repair(&reconciler).await, 0, "left alone for a while");

    // The next one may lack these, too.
    world.broker.take_over();
    assert_eq!(repair(&reconciler).await, 9);
    world.publish(11..=20).await;
    world.record([20]).await;
    // Young, however long a busy machine takes for this test. What is over a minute ahead counts as old.
    world.log.run("UPDATE outbox SET recorded_at = recorded_at + interval '50 s' WHERE order_id > 10").await;
    assert_eq!(repair(&reconciler).await, 0, "those may be on their way");
}

#[tokio::test]
async fn a_dead_letter_is_left_to_its_operator() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.record((1..=10).filter(|order| *order != 4)).await;
    world
        .log
        .run(
            "INSERT INTO dead_letters (event_id, event_type, order_id, version, body, source, reason, attempts, broker)
             SELECT event_id, event_type, order_id, version, '', 'history', 'refused', 5, 'local'
             FROM outbox WHERE order_id = 4",
        )
        .await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 10, "accounted for");

    // Once sent again, it is to be found like any other.
    world.log.run("UPDATE dead_letters SET redriven_at = now()").await;
    assert_eq!(repair(&reconciler).await, 1);
}

#[tokio::test]
async fn an_event_of_a_tenant_that_is_gone_holds_up_no_repair() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.broker.take();
    world.log.run("UPDATE outbox SET tenant_id = 99 WHERE order_id = 3").await;
    world.record((1..=10).filter(|order| ![3, 7].contains(order))).await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 1);
    assert_eq!(world.sent(), [7]);
    world.record([7]).await;
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 10, "all is accounted for");
    let lag = HistoryLag::new(world.log.db.clone()).measure().await.expect("PostgreSQL answers");
    assert_eq!(lag.events, 0);
}

#[tokio::test]
async fn events_from_before_the_clock_was_set_back_hold_up_no_repair() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.broker.take();
    world.log.run("UPDATE outbox SET recorded_at = now() + interval '1 hour' WHERE order_id <= 5").await;
    world.record((1..=10).filter(|order| *order != 7)).await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 1);
    assert_eq!(world.sent(), [7]);
    world.record([7]).await;
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 10, "all is verified");
}

#[tokio::test]
async fn a_late_commit_with_a_low_id_is_found_by_the_rescan() {
    let world = World::new().await;
    let mut connection = world.log.connection().await;
    let mut late = connection.begin().await.expect("a transaction");
    append(&mut late, 1, 1).await;
    world.publish(2..=10).await;
    world.consume().await;
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 0);
    assert_eq!(world.reconciled().await, 10, "past the one that is not there yet");

    late.commit().await.expect("the commit");
    publish_all(&world.relay).await;
    world.broker.take();
    assert_eq!(repair(&reconciler).await, 1);
    assert_eq!(world.sent(), [1]);
}

#[tokio::test]
async fn all_retained_events_are_rescanned_in_time_by_the_relay_that_holds_the_lease() {
    let world = World::new().await;
    world.publish(1..=100).await;
    world.consume().await;
    let settings = ReconcilerSettings { rescan: 10, recent: 0, ..SETTINGS };
    repair(&world.reconciler(settings)).await;
    world.log.run("DELETE FROM order_history WHERE order_id IN (5, 55, 95)").await;

    for _ in 0..12 {
        // A new one each time: what it has looked at is kept beside the cursor.
        repair(&world.reconciler(settings)).await;
    }
    let mut sent = world.sent();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(sent, [5, 55, 95]);
}

#[tokio::test]
async fn a_round_publishes_no_more_than_its_limit() {
    let world = World::new().await;
    world.publish(1..=500).await;
    world.broker.take();
    world.record([500]).await;
    let reconciler = world.reconciler(ReconcilerSettings { repairs: 120, ..SETTINGS });
    for expected in [120, 120, 120, 120, 19, 0] {
        assert_eq!(repair(&reconciler).await, expected);
    }
    assert_eq!(world.sent(), (1..=499).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_the_lease_nothing_is_published_again() {
    let world = World::new().await;
    world.publish(1..=10).await;
    world.broker.take();
    world.record([10]).await;
    world.relay.release().await.expect("the lease is given back");
    assert_eq!(repair(&world.reconciler(SETTINGS)).await, 0);
}

#[tokio::test]
async fn a_round_ends_if_the_broker_does_not_confirm() {
    let world = World::new().await;
    world.publish(1..=200).await;
    world.broker.take();
    world.record([200]).await;
    world.broker.answers(|event| {
        if event.key > 60 {
            crate::outbox_support::unreachable()
        } else {
            shared::broker::PublishOutcome::Confirmed
        }
    });
    let reconciler = world.reconciler(SETTINGS);
    assert_eq!(repair(&reconciler).await, 60);
    world.broker.confirms();
    assert_eq!(repair(&reconciler).await, 139);
}

#[tokio::test]
async fn scanning_a_week_of_events_stays_cheap() {
    let world = World::new().await;
    world.publish(1..=60_000).await;
    world.consume().await;
    let reconciler = world.reconciler(ReconcilerSettings { scan: 100_000, ..SETTINGS });
    let round = reconciler.reconcile_once().await.expect("a round");
    assert!(round.seen >= 60_000);
    let round = reconciler.reconcile_once().await.expect("a round");
    assert!(round.seen <= 2 * 1000, "only the second looks: {}", round.seen);
}
