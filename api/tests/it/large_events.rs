//! Events of orders with as many metadata as there can be: how much of them is read or written at a time has a limit in bytes, whatever
//! their number.

use std::{sync::Arc, time::Duration};

use api::{
    db::{LogPage, LogSpan, load_log_page},
    outbox::{Reconciler, ReconcilerSettings, RelaySettings, RelayStep},
};
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::{
    orders_support::{order, path},
    outbox_support::{Broker, Log, publish_all},
    support::TestApp,
};

/// The bytes of an event.
const LARGE: usize = 150_000;
const EVENTS: i64 = 60;
const MEBIBYTE: usize = 1024 * 1024;

/// A log of large events, one of each order.
async fn log_of_large_events() -> Log {
    let log = Log::new().await;
    log.append_many(1..=EVENTS).await;
    log.run("UPDATE outbox SET payload = rpad(payload, 150000)").await;
    log
}

fn relay_settings() -> RelaySettings {
    RelaySettings { lease: Duration::from_hours(1), ..RelaySettings::default() }
}

fn orders(broker: &Arc<Broker>) -> Vec<i64> {
    broker.take().into_iter().map(|(order, _)| order).collect()
}

#[tokio::test]
async fn the_relay_publishes_about_four_mebibytes_at_a_time() {
    let log = log_of_large_events().await;
    let broker = Broker::new();
    let relay = log.relay_with(&broker, relay_settings());
    let step = relay.relay_once().await.expect("a step");
    let RelayStep::Published { confirmed, rejected: 0, more: true } = step else { panic!("{step:?}") };
    assert_eq!(confirmed, (4 * MEBIBYTE).div_ceil(LARGE) as u64);
    publish_all(&relay).await;
    assert_eq!(orders(&broker), (1..=EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn all_lost_events_are_published_again_part_by_part() {
    let log = log_of_large_events().await;
    let broker = Broker::new();
    let relay = log.relay_with(&broker, relay_settings());
    publish_all(&relay).await;
    broker.take();
    // What comes after it was lost: the history has the last event alone.
    let last = "INSERT INTO order_history (order_id, version, action, changes, customer_id, performed_by, event_id, occurred_at)
                SELECT order_id, version, 'CREATED', '{}', 1, 1, event_id, recorded_at FROM outbox ORDER BY id DESC LIMIT 1";
    log.run(last).await;
    let settings = ReconcilerSettings { after: Duration::ZERO, ..ReconcilerSettings::default() };
    let repaired = Reconciler::new(&relay, settings).reconcile_once().await.expect("a round").repaired;
    assert_eq!(repaired, 59);
    assert!(broker.largest_batch() < 4 * MEBIBYTE + LARGE, "{}", broker.largest_batch());
    assert_eq!(orders(&broker), (1..EVENTS).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_page_of_the_feed_ends_after_its_bytes_and_the_next_one_goes_on() {
    let log = log_of_large_events().await;
    publish_all(&log.relay_with(&Broker::new(), relay_settings())).await;
    let mut db = log.connection().await;
    let (mut after, mut pages, mut seen) = (0, 0, Vec::new());
    while after < EVENTS {
        let span = LogSpan { after, most: 1000, bytes: MEBIBYTE };
        let LogPage { rows, end, .. } = load_log_page(&mut db, span, None).await.expect("a page");
        let bytes: usize = rows.iter().map(|row| row.payload.len()).sum();
        assert!(bytes < MEBIBYTE + LARGE, "{bytes}");
        seen.extend(rows.iter().map(|row| row.position));
        (after, pages) = (end, pages + 1);
    }
    assert_eq!(seen, (1..=EVENTS).collect::<Vec<_>>());
    assert_eq!(pages, seen.len().div_ceil(MEBIBYTE.div_ceil(LARGE)));
}

fn large_metadata(first: char) -> Value {
    let entry =
        |number: usize| (format!("key-{number}"), json!(first.to_string() + &"\u{1f4e6}".repeat(499)));
    Value::Object((0..20).map(entry).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_writes_about_two_mebibytes_of_events_at_a_time() {
    let app = TestApp::start().await;
    let session = app.login(1).await;
    let mut large = order();
    large["metadata"] = large_metadata('a');
    let created = join_all((0..EVENTS).map(|_| session.post("/api/v1/orders", &large))).await;
    let mut orders = Vec::new();
    for answer in created {
        orders.push(answer.expect(StatusCode::CREATED).json["id"].as_i64().expect("an id"));
    }
    let change = json!({"metadata": large_metadata('b')});
    let paths: Vec<String> = orders.into_iter().map(path).collect();
    for answer in join_all(paths.iter().map(|path| session.patch(path, &change))).await {
        answer.expect(StatusCode::OK);
    }
    for event_type in ["OrderCreated", "OrderUpdated"] {
        let most: i64 = sqlx::query_scalar(
            "SELECT max(bytes) FROM (
                 SELECT sum(octet_length(payload)) AS bytes FROM outbox WHERE tenant_id = 1 AND event_type = $1 GROUP BY xid
             ) AS statements",
        )
        .bind(event_type)
        .fetch_one(&app.db)
        .await
        .expect("a sum");
        let most = usize::try_from(most).expect("not negative");
        // More than one event, and no more than the limit with the one that reaches it.
        assert!(most > LARGE && most < 2 * MEBIBYTE + LARGE, "{event_type}: {most}");
    }
}
