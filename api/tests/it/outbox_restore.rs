//! A database that was restored elsewhere, or to an earlier time: transaction ids mean nothing there.

use std::time::Duration;

use api::outbox::{RelaySettings, RelayStep, backlog};

use crate::outbox_support::{Broker, Log, publish_all};

fn orders(broker: &Broker) -> Vec<i64> {
    broker.take().into_iter().map(|(order, _)| order).collect()
}

#[tokio::test]
async fn on_another_cluster_all_retained_events_are_published_again_and_then_new_ones() {
    let log = Log::new().await;
    let broker = Broker::new();
    let settings = RelaySettings { batch: 10, lease: Duration::from_hours(1), ..RelaySettings::default() };
    let before = log.relay_with(&broker, settings);
    log.append_many(1..=25).await;
    assert_eq!(publish_all(&before).await, 25);
    before.release().await.expect("the lease is given back");
    broker.take();

    // As a dump that was restored into another cluster, whose transaction ids are far behind.
    log.append_many(26..=35).await;
    log.run("UPDATE relay SET system_identifier = 1").await;
    log.run("UPDATE outbox SET xid = (xid::text::bigint + 1000000000)::text::xid8").await;
    let after = log.relay_with(&broker, settings);
    assert!(matches!(after.relay_once().await.expect("a step"), RelayStep::Published { more: true, .. }));
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 25);

    // Another relay goes on where the first was interrupted.
    after.release().await.expect("the lease is given back");
    let after = log.relay_with(&broker, settings);
    assert_eq!(publish_all(&after).await, 25);
    assert_eq!(orders(&broker), (1..=35).collect::<Vec<_>>());
    assert_eq!(backlog(&log.pool).await.expect("the backlog").unpublished, 0);

    log.append_many(36..=40).await;
    assert_eq!(publish_all(&after).await, 5);
    assert_eq!(orders(&broker), (36..=40).collect::<Vec<_>>());
    assert_ne!(log.relay_row("system_identifier").await, "1", "noted, so that it happens once");
}

#[tokio::test]
async fn transaction_ids_of_another_cluster_are_not_mistaken_when_this_cluster_reaches_them() {
    let log = Log::new().await;
    let broker = Broker::new();
    log.append_many(1..=10).await;
    log.run("UPDATE relay SET system_identifier = 1").await;
    // In a moment this cluster will have used these ids itself.
    log.run(
        "UPDATE outbox SET xid = (pg_snapshot_xmax(pg_current_snapshot())::text::bigint + 5 + id)::text::xid8",
    )
    .await;
    let relay = log.relay(&broker);
    assert_eq!(publish_all(&relay).await, 10);
    broker.take();

    for order in 11..=40 {
        log.append_many(order..=order).await;
        publish_all(&relay).await;
    }
    assert_eq!(orders(&broker), (11..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_position_from_the_future_of_this_cluster_means_a_restore_too() {
    let log = Log::new().await;
    let broker = Broker::new();
    log.append_many(1..=10).await;
    log.run("UPDATE relay SET published = '9000000000000:9000000000000:'").await;
    let relay = log.relay(&broker);
    assert_eq!(publish_all(&relay).await, 10);
    log.append_many(11..=12).await;
    assert_eq!(publish_all(&relay).await, 2);
    assert_eq!(orders(&broker), (1..=12).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_restored_log_without_events_is_no_problem() {
    let log = Log::new().await;
    let broker = Broker::new();
    log.run("UPDATE relay SET system_identifier = 1").await;
    let relay = log.relay(&broker);
    assert_eq!(publish_all(&relay).await, 0);
    log.append_many(1..=2).await;
    assert_eq!(publish_all(&relay).await, 2);
}
