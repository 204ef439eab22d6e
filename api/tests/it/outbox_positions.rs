//! Positions of the log: dense, given once, ascending with the versions of an order, whatever becomes of relays and brokers.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::outbox::{Relay, RelaySettings, RelayStep, Wake, backlog};
use shared::{broker::EventSink, platform::shutdown::Shutdown};
use sqlx::Connection as _;
use testbed::eventually;
use tokio::task::JoinSet;

use crate::{
    outbox_order::{create_heads, write_versions},
    outbox_support::{Broker, Log, append, publish_all, unreachable},
};

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
struct Positioned {
    position: i64,
    id: i64,
    order_id: i64,
    version: i64,
}

impl Log {
    /// All events with a position, in order.
    async fn positions(&self) -> Vec<Positioned> {
        sqlx::query_as("SELECT position, id, order_id, version FROM log_events(0, 1000000)")
            .fetch_all(&self.db)
            .await
            .expect("the log")
    }

    /// The orders in the order of the positions.
    async fn orders(&self) -> Vec<i64> {
        self.positions().await.into_iter().map(|event| event.order_id).collect()
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.expect(sql)
    }

    /// What the program of the version before does with the lease: publishes everything, and moves its cursor.
    async fn relay_as_before(&self) {
        self.run(
            "UPDATE relay SET owner = gen_random_uuid(), epoch = epoch + 1, published = pg_current_snapshot(),
                              window_end = NULL, window_last = NULL",
        )
        .await;
        self.run("UPDATE relay SET owner = NULL, expires_at = '-infinity'").await;
    }
}

/// Positions are 1, 2, 3…, each event of the table has one, and those of an order ascend with its versions.
async fn assert_exact(log: &Log) {
    let events = log.positions().await;
    let mut versions = BTreeMap::<i64, i64>::new();
    for (event, expected) in events.iter().zip(1..) {
        assert_eq!(event.position, expected, "dense: {event:?}");
        let last = versions.insert(event.order_id, event.version).unwrap_or(0);
        assert!(event.version > last, "{event:?} after version {last}");
    }
    let mut ids: Vec<_> = events.iter().map(|event| event.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), events.len(), "each event has one position");
    let committed = log.number("SELECT count(*) FROM outbox").await;
    assert_eq!(i64::try_from(events.len()).expect("a count"), committed, "each event has a position");
    assert_eq!(log.number("SELECT head FROM relay").await, committed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn positions_are_dense_and_in_the_order_of_versions_under_killed_and_paused_relays() {
    let log = Log::new().await;
    create_heads(&log).await;
    let enough = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..8 {
        writers.spawn(write_versions(log.connection().await, Arc::clone(&enough)));
    }
    // None of them is told that it has lost its lease: they sequence under old epochs, at the same time.
    let broker = Broker::new();
    let settings = RelaySettings { batch: 7, lease: Duration::from_millis(100), ..RelaySettings::default() };
    let relays: Vec<_> = (0..3).map(|_| Arc::new(log.relay_with(&broker, settings))).collect();
    let mut running = JoinSet::new();
    for relay in relays {
        let enough = Arc::clone(&enough);
        running.spawn(async move {
            while !enough.load(Ordering::Relaxed) {
                let _outcome = tokio::join!(relay.relay_once(), relay.sequence_once());
                if rand::random_bool(0.05) {
                    tokio::time::sleep(Duration::from_millis(150)).await;
                }
            }
        });
    }
    eventually("enough changes of owner", async || log.number("SELECT epoch FROM relay").await > 15).await;
    enough.store(true, Ordering::Relaxed);
    while let Some(ended) = writers.join_next().await {
        ended.expect("a writer ends well");
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("a relay ends well");
    }

    log.run("UPDATE relay SET owner = NULL, expires_at = '-infinity'").await;
    publish_all(&log.relay(&broker)).await;
    assert_exact(&log).await;
    let published: std::collections::HashSet<_> =
        broker.take_events().iter().map(|event| (event.key, event.sequence)).collect();
    assert_eq!(published.len(), log.positions().await.len(), "every event was published");
}

#[tokio::test]
async fn an_owner_that_has_lost_its_lease_gives_no_positions() {
    let log = Log::new().await;
    let paused = log.relay(&Broker::new());
    publish_all(&paused).await;
    log.run("UPDATE relay SET owner = gen_random_uuid(), epoch = epoch + 1").await;
    log.append_many(1..=3).await;
    paused.sequence_once().await.expect_err("the lease is lost");
    assert_eq!(log.positions().await, []);
    assert_eq!(paused.lease().held_epoch(), None);
}

#[tokio::test]
async fn an_event_is_published_with_its_position_also_when_it_is_published_again() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay_with(
        &broker,
        RelaySettings { batch: 2, lease: Duration::from_hours(1), ..RelaySettings::default() },
    );
    log.append_many(1..=5).await;
    broker.answers(|_| unreachable());
    relay.relay_once().await.expect("a step");
    broker.confirms();
    publish_all(&relay).await;
    let positions: Vec<_> = broker.take_events().iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=5).map(Some).collect::<Vec<_>>());

    let settings = api::outbox::ReconcilerSettings { after: Duration::ZERO, ..Default::default() };
    let repaired = api::outbox::Reconciler::new(&relay, settings).reconcile_once().await.expect("a round");
    assert_eq!(repaired.repaired, 5);
    let positions: Vec<_> = broker.take_events().iter().map(|event| event.position).collect();
    assert_eq!(positions, (1..=5).map(Some).collect::<Vec<_>>());
}

#[tokio::test]
async fn without_a_broker_events_get_their_positions_all_the_same() {
    let log = Log::new().await;
    let broker = Broker::new();
    broker.block();
    let shutdown = Shutdown::new();
    let sink = Arc::clone(&broker) as Arc<dyn EventSink>;
    Relay::start(RelaySettings::default(), &log.pool, sink, Wake::default(), &shutdown);
    log.append(1, 1).await;
    broker.is_asked().await;
    for order in 2..=4 {
        log.append(order, 1).await;
        let count = usize::try_from(order).expect("a count");
        eventually("it has a position", async || log.positions().await.len() == count).await;
    }
    assert_eq!(broker.len(), 0);
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 4);
    broker.unblock();
    eventually("all are published", async || broker.len() >= 4).await;
    shutdown.begin();
    assert!(shutdown.drained(Duration::from_secs(10)).await, "the relay stops");
}

#[tokio::test]
async fn a_system_that_is_upgraded_keeps_its_cursor_and_its_retained_log_gets_positions() {
    let log = Log::new().await;
    let mut open = log.connection().await;
    let mut open = open.begin().await.expect("a transaction");
    append(&mut open, 1, 1).await;
    log.append_many(2..=1200).await;
    log.relay_as_before().await;
    log.append_many(1201..=1210).await;
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 10);

    let broker = Broker::new();
    let relay = log.relay(&broker);
    assert_eq!(publish_all(&relay).await, 10, "those that were not published");
    assert_eq!(
        broker.take().into_iter().map(|(order, _)| order).collect::<Vec<_>>(),
        (1201..=1210).collect::<Vec<_>>()
    );
    open.commit().await.expect("the commit");
    assert_eq!(publish_all(&relay).await, 1, "the one that was open meanwhile");
    assert_eq!(log.orders().await, (2..=1210).chain([1]).collect::<Vec<_>>());
    assert_exact(&log).await;
}

#[tokio::test]
async fn beside_the_version_before_nothing_is_lost_whoever_holds_the_lease() {
    let log = Log::new().await;
    let broker = Broker::new();
    let mut orders = 0;
    for round in 0..4 {
        // This version publishes a part, while the broker takes nothing in every other round.
        let relay = log.relay(&broker);
        let mut late = log.connection().await;
        let mut late = late.begin().await.expect("a transaction");
        orders += 1;
        append(&mut late, orders, 1).await;
        log.append_many(orders + 1..=orders + 3).await;
        orders += 3;
        if round % 2 == 0 {
            broker.answers(|_| unreachable());
            assert!(matches!(relay.relay_once().await, Ok(RelayStep::Unconfirmed { .. })));
            broker.confirms();
        } else {
            publish_all(&relay).await;
        }
        relay.release().await.expect("the lease is given back");
        late.commit().await.expect("the commit");

        // The one before publishes what its own cursor does not show.
        log.append_many(orders + 1..=orders + 2).await;
        orders += 2;
        let shown: Vec<(i64,)> = sqlx::query_as(
            "SELECT o.order_id FROM outbox o, relay r WHERE NOT pg_visible_in_snapshot(o.xid, r.published)",
        )
        .fetch_all(&log.db)
        .await
        .expect("the rest");
        assert!(shown.len() >= 3, "the late one and the new ones at least: {shown:?}");
        log.relay_as_before().await;
        assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 0);
    }
    let last = log.relay(&broker);
    publish_all(&last).await;
    assert_exact(&log).await;
    assert_eq!(log.number("SELECT published_position - head FROM relay").await, 0);
    let repeated = log.number("SELECT unpublished FROM outbox_backlog(1000)").await;
    assert_eq!(repeated, 0, "the version before repeats nothing");
}

#[tokio::test]
async fn a_restored_log_keeps_its_positions_and_goes_on_in_a_new_era() {
    let log = Log::new().await;
    let broker = Broker::new();
    let relay = log.relay(&broker);
    log.append_many(1..=600).await;
    publish_all(&relay).await;
    let before = log.positions().await;
    relay.release().await.expect("the lease is given back");

    // As a dump that was restored into another cluster; one event had no position yet.
    log.append(601, 1).await;
    log.run("UPDATE relay SET system_identifier = 1").await;
    log.run("UPDATE log_eras SET system_identifier = 1").await;
    log.run("UPDATE outbox SET xid = (xid::text::bigint + 1000000000)::text::xid8").await;
    let relay = log.relay(&broker);
    broker.take();
    assert_eq!(publish_all(&relay).await, 601, "nobody knows what was published");
    log.append(602, 1).await;
    assert_eq!(publish_all(&relay).await, 1);

    assert_eq!(log.positions().await[..600], before);
    assert_exact(&log).await;
    let eras: Vec<(i32, i64)> = sqlx::query_as("SELECT number, after FROM log_eras ORDER BY number")
        .fetch_all(&log.db)
        .await
        .expect("eras");
    assert_eq!(eras, [(1, 0), (2, 600)]);
}

#[tokio::test]
async fn a_day_is_dropped_together_with_its_pages_and_later_positions_stay() {
    let log = Log::new().await;
    log.run("SELECT outbox_create_partition((now() AT TIME ZONE 'UTC')::date - 20)").await;
    log.run(
        "INSERT INTO outbox (day, event_id, event_type, order_id, version, payload)
         SELECT (now() AT TIME ZONE 'UTC')::date - 20, gen_random_uuid(), 'OrderCreated', o, 1, '{}'
         FROM generate_series(1, 700) o",
    )
    .await;
    let relay = log.relay(&Broker::new());
    publish_all(&relay).await;
    log.append_many(701..=710).await;
    publish_all(&relay).await;
    log.run("UPDATE relay SET reconciled = (SELECT max(id) FROM outbox)").await;
    let report = {
        let today = shared::domain::clock::Clock::System.now().date();
        api::outbox::maintain_partitions(&log.pool, api::outbox::PartitionSettings::default(), today).await
    };
    assert_eq!(report.expect("a round").dropped.len(), 1);
    let left = log.positions().await;
    assert_eq!(left.iter().map(|event| event.position).collect::<Vec<_>>(), (701..=710).collect::<Vec<_>>());
    assert_eq!(log.number("SELECT min(first) FROM log_pages").await, 701);
}

#[tokio::test]
async fn a_page_of_the_log_costs_the_same_however_long_the_log_is() {
    let log = Log::new().await;
    let relay = log.relay(&Broker::new());
    let read = async |after: i64| -> i64 {
        let mut db = log.connection().await;
        let plan: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) SELECT * FROM log_events({after}, 100)"
        )))
        .fetch_all(&mut db)
        .await
        .expect("a plan");
        let buffers = plan.iter().find(|line| line.contains("Buffers:")).expect("buffers");
        let number = |name: &str| {
            let (_, rest) = buffers.split_once(name).unwrap_or(("", "0"));
            rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|n| n.parse().ok()).unwrap_or(0)
        };
        number("hit=") + number("read=")
    };
    log.append_many(1..=1000).await;
    publish_all(&relay).await;
    let short = read(500).await;
    log.append_many(1001..=60_000).await;
    publish_all(&relay).await;
    for statistics in ["none", "fresh"] {
        for after in [0, 500, 30_123, 59_900] {
            let pages = read(after).await;
            assert!(
                pages <= short * 4 + 50,
                "{statistics}: {pages} buffers after {after}, {short} in a short log"
            );
        }
        log.run("ANALYZE").await;
    }
}
